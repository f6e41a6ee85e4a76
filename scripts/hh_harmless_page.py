"""docs/why/hh-harmless.md and its picture, from the figures that scripts/hh_harmless.py saved beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from plaudit.evaluation.words import number, percent, signed, span

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "hh-harmless.png"
PAGE = """\
# A guarded PPO run on real comparisons

<!-- Written by `python scripts/hh_harmless.py --page` from hh-harmless.json. Do not edit. -->

`make hh-harmless` (scripts/hh_harmless.py): SmolLM2-135M-Instruct on Anthropic's HH-RLHF, harmless, whose rows are not
in the repository. The prompts are divided in two. One half trains the SFT model, on what people chose, and the reward
model that PPO maximises (the proxy). The other half trains a second reward model from the published weights: it is the
gold reward, which PPO never sees and by which the guard decides (`--on-alarm back`). A fifth of the prompts is held out
of every stage. {machine}

**{headline}** {evidence}

![Held-out rewards, KL, and reward over distance]({picture})

## The two judges

| | proxy (trained on) | gold (only watches) |
|---|---|---|
{judges}

Both are small models of few comparisons. What neither can tell apart, this run cannot teach or measure: nobody has
read its responses.

## What the guard saw and did

{guard}

## Warnings of the page of the run

{warnings}

{unchecked}

## Responses

The first {shown} held-out prompts of those kept for the end, by their id in the data. The prompts are not shown,
because many ask for things that hurt people; the responses are, as they came, without their line breaks.

| prompt | before (proxy, gold) | after (proxy, gold) |
|---|---|---|
{samples}

## What it took

| stage | rows or iterations | ended | minutes | of the processor | memory, all stages so far |
|---|---|---|---|---|---|
{costs}

Settings: {settings}
"""
MACHINE = "Processor: AMD EPYC with AVX2 and without AVX-512, a share of two cores beside other work."


def write_page(saved: Path) -> None:
    """The page beside the figures, and the picture."""
    found = json.loads(saved.read_text(encoding="utf-8"))
    _draw(found["curve"])
    sft, ppo = (found["summaries"][name] for name in ("sft", "ppo"))
    stages = {
        "SFT": ("sft", found["rows"]["sft"]), "proxy": ("proxy", found["rows"]["proxy"]),
        "gold": ("gold", found["rows"]["gold"]), "PPO": ("ppo", found["settings"]["iterations"]),
    }  # fmt: skip
    text = PAGE.format(
        machine=found.get("machine", MACHINE), headline=found["verdict"]["headline"],
        evidence=found["verdict"]["evidence"], picture=f"../images/{PICTURE.name}",
        judges="\n".join(_judges(found["summaries"])), guard=_guard(found["events"], ppo),
        warnings="\n".join(f"- {words}" for words in found["warnings"]) or "None.",
        unchecked=f"Not checked: {'; '.join(found['unchecked'])}." if found["unchecked"] else "",
        shown=len(found["samples"]), samples="\n".join(map(_sample, found["samples"])),
        costs="\n".join(_cost(title, n, found["costs"][name]) for title, (name, n) in stages.items()),
        settings=_settings(found["settings"], sft),
    )  # fmt: skip
    saved.with_suffix(".md").write_text(text, encoding="utf-8")


def _judges(cards: Mapping[str, Any]) -> list[str]:
    both = [cards[name] for name in ("proxy", "gold")]

    def row(title: str, cell: Any) -> str:
        return f"| {title} | " + " | ".join(cell(card) for card in both) + " |"

    def share(card: Mapping[str, Any], name: str) -> str:
        return f"{percent(card.get(name), 1)} ({span(card.get(f'{name}_ci'), 'percent')})" if card.get(name) else "–"

    return [
        row("pairs to train on", lambda card: str(card.get("train_rows"))),
        row("held-out pairs", lambda card: str(card.get("heldout_pairs"))),
        row("ranks them as people did", lambda card: share(card, "accuracy")),
        row("a bag of words", lambda card: share(card, "words_baseline_accuracy")),
        row("the longer one", lambda card: share(card, "length_baseline_accuracy")),
    ]


def _guard(events: Sequence[Mapping[str, Any]], card: Mapping[str, Any]) -> str:
    told = []
    for event in events:
        if event["event"] == "alarm":
            early = ", before anything was lost" if event.get("early") else ""
            told.append(f"- Iteration {event.get('step')}, `{event.get('kind')}`{early}: {event.get('message')}.")
        elif event["event"] == "gone back":
            told.append(f"- Iteration {event.get('step')}: it went back to the best weights, on {event.get('why')}.")
        elif event["event"] == "rolled back":
            told.append(f"- At the end, weights of iteration {event.get('to')} were handed out: {event.get('why')}.")
        else:
            told.append(f"- It ended: {event.get('reason')}.")
    kept = card.get("model_step")
    return "\n".join(told) + f"\n\nThe weights that were handed out are those of iteration {kept}."


def _sample(one: Mapping[str, Any]) -> str:
    def side(row: Mapping[str, Any]) -> str:
        text = " ".join(str(row["response"]).split()).replace("|", "\\|").replace("<", "&lt;") or "(empty)"
        return f"{text} ({signed(row['reward'])}, {signed(row['gold'])})"

    return f"| {one['id']} | {side(one['before'])} | {side(one['after'])} |"


def _cost(title: str, rows: int, cost: Mapping[str, Any]) -> str:
    figures = f"{number(cost['minutes'], 1)} | {number(cost['cpu_minutes'], 1)} | {number(cost['peak_gb'], 1)} GB"
    return f"| {title} | {rows} | {cost['ended']} | {figures} |"


def _settings(settings: Mapping[str, Any], sft: Mapping[str, Any]) -> str:
    parts = []
    for name in ("sft", "reward", "ppo"):
        parts.append(f"{name}: " + ", ".join(f"`{key} = {value}`" for key, value in settings[name].items()))
    before, after = number(sft.get("heldout_loss_before")), number(sft.get("heldout_loss"))
    return "; ".join(parts) + f". The held-out loss of SFT went from {before} to {after} nats a token."


def _draw(curve: Sequence[Mapping[str, Any]]) -> None:
    """Held-out rewards and the KL by iteration, and the rewards over the root of the KL."""
    steps, kl = [point["step"] for point in curve], [point.get("eval/kl") or 0.0 for point in curve]
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.9), constrained_layout=True)
    for name, colour, label in (("reward", "#c4571b", "proxy"), ("gold", "#3465a4", "gold")):
        values = [point.get(f"eval/{name}_mean") for point in curve]
        for axis, x in ((axes[0], steps), (axes[2], [max(k, 0.0) ** 0.5 for k in kl])):
            axis.plot(x, values, "o-", color=colour, markersize=3, linewidth=1.4, label=label)
    axes[1].plot(steps, kl, "o-", color="#555555", markersize=3, linewidth=1.4)
    titles = ("held-out rewards", "KL to the SFT model, nats", "held-out rewards over distance")
    for axis, title, label in zip(axes, titles, ("iteration", "iteration", "root of the KL"), strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel(label, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110)
