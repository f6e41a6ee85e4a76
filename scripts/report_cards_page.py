"""docs/why/report-cards.md from the figures that scripts/report_cards.py saved beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.evaluation.reward_model.shortcuts import WAYS
from plaudit.evaluation.words import number, percent, signed, span

GROUPS = ("category", "margin", "agreement", "score_margin")
HEAD = """# How well do small reward models rank real comparisons?

By `make report-cards` (scripts/report_cards.py, figures in report-cards.json): SmolLM2-135M-Instruct with
`configs/hh_reward.toml` on real comparisons, which are not in the repository. The prompts are divided into folds; for
each fold a model is trained on the others, and so is a bag of words, on the same rows; both are judged on the fold. So
every row below was judged by models that have not seen its prompt. Intervals are 95 %, over prompts. Where fewer folds
were made than planned, the rows of the others are missing, and nothing else differs.

**What is not reached.** The aim was a held-out accuracy of 66 % on HH-RLHF that is clearly above a bag of words. On the
rows judged so far it is below that, and the interval of its gain over the bag of words contains 0. Training the last
layers adds nothing there to the linear probe it starts from: the cross-validated accuracy of the probe is no lower. The
spoiled responses say more than the accuracy: none of these models clearly reads the prompt on HH-RLHF and PandaLM.
"""


def page(saved: Mapping[str, Any]) -> str:
    """The whole page."""
    sets = list(saved.values())
    parts = [HEAD, "\n".join(_overview(sets)), "\n".join(_costs(sets))]
    for each in sets:
        parts.append(f"## {each['title']}\n\n" + "\n\n".join(_details(each)))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _overview(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| | " + " | ".join(each["title"] for each in sets) + " |", "|---|" + "---|" * len(sets)]

    def row(name: str, cell: Any) -> None:
        lines.append(f"| {name} | " + " | ".join(cell(each["card"]) for each in sets) + " |")

    row("held-out pairs (prompts)", lambda c: f"{c['heldout_pairs']} ({c['heldout_prompts']})")
    row("**accuracy**", lambda c: f"**{_share(c, 'accuracy')}**")
    row("bag of words", lambda c: _share(c, "words_baseline_accuracy"))
    row("reward model over bag of words", lambda c: _change(c, "over_words_baseline"))
    row("the longer one", lambda c: _share(c, "length_baseline_accuracy"))
    row("reward model over the rule on length", lambda c: _change(c, "over_length_baseline"))
    row("best of K (by chance)", _best)
    row("loss of pairs, nats (a coin: 0.693)", lambda c: f"{number(c['nll'], 3)} ({span(c['nll_ci'], 'number', 3)})")
    row("temperature", lambda c: number(c.get("temperature")))
    row("loss with the temperature of other rows", lambda c: number(c.get("nll_tempered"), 3))
    row("calibration error", lambda c: number(c.get("ece"), 3))
    row("score and length, given what people chose", lambda c: _change(c, "score_length_partial"))
    return lines


def _share(card: Mapping[str, Any], name: str) -> str:
    if card.get(name) is None:
        return "–"
    return f"{percent(card[name], 1)} ({span(card.get(f'{name}_ci'), 'percent')})"


def _change(card: Mapping[str, Any], name: str) -> str:
    return f"{signed(card[name])} ({span(card.get(f'{name}_ci'), 'signed')})" if card.get(name) is not None else "–"


def _best(card: Mapping[str, Any]) -> str:
    if card.get("best_of_k_hit_rate") is None:
        return "–"
    return f"{_share(card, 'best_of_k_hit_rate')}; {percent(card['best_of_k_chance'])}, {card['best_of_k_lists']} lists"


def _costs(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("set", "folds", "precision", "rows to train", "probe", "CPU minutes of training", "with judging", "memory")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for each in sets:
        costs = each["costs"]

        def of(name: str, costs: Sequence[Mapping[str, Any]] = costs, digits: int = 1) -> str:
            return ", ".join(number(cost.get(name), digits) for cost in costs)

        probes = ", ".join(percent(cost.get("probe_accuracy"), 1) for cost in costs)
        rows = ", ".join(str(cost["train_rows"]) for cost in costs)
        lines.append(
            f"| {each['title']} | {each['folds']} | {each['precision']} | {rows} | {probes} | "
            f"{of('cpu_minutes_of_training')} | {of('cpu_minutes')} | {of('peak_gb')} GB |"
        )
    return lines


def _details(each: Mapping[str, Any]) -> list[str]:
    card, blocks = each["card"], []
    changes = ", ".join(f"`{name} = {value}`" for name, value in each["changes"].items())
    if changes:
        blocks.append(f"Settings that differ from the file: {changes}.")
    groups = [(name.replace("_", " "), card.get(f"accuracy_by_{name}") or []) for name in GROUPS]
    lines = [
        f"| {title}: {g['group']} | {percent(g['accuracy'], 1)} ({span(g['accuracy_ci'], 'percent')}) | {g['n']} |"
        for title, rows in groups
        for g in rows
    ]
    if lines:
        blocks.append("\n".join(["| accuracy by | | pairs |", "|---|---|---|", *lines]))
    lines = [
        f"| {WAYS[row['how']]} | {signed(row['change'])} ({span(row['change_ci'], 'signed')}) | "
        f"{percent(row['above_itself'])} ({span(row['above_itself_ci'], 'percent')}) | "
        f"{percent(row['above_rejected'])} | {row['n']} |"
        for row in card.get("spoiled") or []
    ]
    if lines:
        names = ("the chosen response", "change of its score", "above itself", "above the worst", "n")
        head = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        blocks.append("\n".join(head + lines))
    warned = [f"- {message}" for message in each["warnings"]]
    blocks.append("Warnings of the card:\n\n" + ("\n".join(warned) or "- none in what could be checked"))
    if each["unchecked"]:
        blocks.append(f"Not checked: {'; '.join(each['unchecked'])}.")
    return blocks
