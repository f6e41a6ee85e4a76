"""The chapters of the report: what is shown of each kind of run, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.rundir import Run
from plaudit.evaluation.samples import Pair, pairs, readable
from plaudit.evaluation.verdict import Verdict, length_rule, verdict, warnings
from plaudit.evaluation.words import change, number, percent, signed, span
from plaudit.runs.files import Row, read_lines
from plaudit.tracking.names import METRICS

CURVES = {
    "sft": ("loss", "eval/loss", "policy/entropy", "lr"),
    "reward": ("loss", "reward_model/accuracy", "reward_model/margin"),
    "dpo": ("loss", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
    "best_of_n": (),
    "rl": (
        "reward/mean",
        "objective/kl",
        "policy/entropy",
        "response/length_mean",
        "response/eos_rate",
        "policy/clip_fraction",
        "critic/explained_variance",
        "objective/kl_coef",
        "reward/std",
    ),
}
HELD_OUT = {
    "reward/mean": "eval/reward_mean",
    "objective/kl": "eval/kl",
    "response/length_mean": "eval/length_mean",
    "reward_model/accuracy": "reward_model/heldout_accuracy",
    "loss": "eval/loss",
    "rewards/accuracies": "eval/accuracy",
    "rewards/margins": "eval/margin",
    "logps/chosen": "eval/logp_chosen",
    "logps/rejected": "eval/logp_rejected",
}
"""Curves that are drawn into one chart: in training, and on held-out prompts."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that matters, with what it is compared with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title, what it went from and to, and what it means."""

    title: str
    svg: Markup
    change: str = ""
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(CSS class, words) of each colour; empty where there is only one."""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """One section of the page."""

    anchor: str
    step: str
    """Its name in the pipeline at the top."""
    verdict: Verdict
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] | None = None
    """None: not a place for warnings; []: looked, and found nothing."""
    charts: list[Chart] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)
    samples: list[Pair] = field(default_factory=list)
    examples: list[tuple[str, list[Row]]] = field(default_factory=list)
    brief: str = ""
    """What the pipeline at the top says of it."""


def chapter(run: Run, *, whole: bool = True) -> Chapter:
    """A run as a chapter. ``whole=False`` leaves what came of it to ``outcome_chapter``."""
    said = verdict(run)
    if run.kind == "rl" and not whole:
        climb = f"{signed(run.start('reward/mean'))} to {signed(run.end('reward/mean'))}"
        kl = number(run.end("objective/kl"), 1)
        evidence = (
            f"In training the reward went from {climb}; the KL to its start reached {kl} nats per response."
        )
        said = Verdict("flat", "It was trained against the reward model.", evidence)
    panels = (
        {"reward": _reward_panels, "best_of_n": _best_of_n_panels, "rl": _policy_panels}.get(
            run.kind, _no_panels
        )(run)
        if whole
        else []
    )
    figures = {
        "sft": _sft_figures, "reward": _reward_figures, "dpo": _preference_figures,
        "best_of_n": _best_of_n_figures, "rl": _policy_figures,
    }[run.kind](run)  # fmt: skip
    curves, more = _curves(run)
    return Chapter(
        anchor=run.path.name if run.path.name.isidentifier() else run.kind,
        step={"sft": "Fine-tuning", "reward": "Reward model"}.get(run.kind, run.command.upper()),
        verdict=said,
        figures=figures if whole else [],
        warnings=warnings(run) if whole else None,
        charts=panels + curves,
        more=more,
        samples=pairs(run) if whole else [],
        brief=_brief(run),
    )


def outcome_chapter(run: Run) -> Chapter:
    """Did it work? The last chapter of a story that ends in reinforcement learning."""
    return Chapter(
        anchor="outcome",
        step="Did it work?",
        verdict=verdict(run),
        figures=_policy_figures(run),
        warnings=warnings(run),
        charts=_policy_panels(run),
        samples=pairs(run),
        brief=verdict(run).headline,
    )


def data_chapter(folder: Path) -> Chapter | None:
    """What everything was learned from: sizes and one example of each ``*.jsonl`` in ``folder``."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    contents = [(path.stem, read_lines(path)) for path in files]
    contents = [(name, rows) for name, rows in contents if rows]
    if not contents:
        return None
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in contents)
    said = Verdict("flat", "This is what it learned from.", f"{sizes[0].upper()}{sizes[1:]}.")
    examples = [(name, [_example(row) for row in rows[:2]]) for name, rows in contents]
    brief = max(((len(rows), name) for name, rows in contents), default=(0, ""))
    return Chapter("data", "Data", said, examples=examples, brief=f"{brief[0]} {brief[1]}")


def _example(row: Row) -> Row:
    names = ("prompt", "response", "completion", "chosen", "rejected", "messages")
    return {name: readable(row[name]) for name in names if row.get(name)}


def _brief(run: Run) -> str:
    if run.kind == "sft":
        return f"loss {number(run.start('loss'))} → {number(run.end('loss'))}"
    if run.kind == "reward":
        return f"{percent(run.summary.get('accuracy'))} ranked right"
    if run.kind == "dpo":
        return f"{percent(run.summary.get('accuracy'))} of pairs ranked right"
    if run.kind == "best_of_n":
        return f"{signed(run.summary.get('reward_gain'))} by the best of {run.summary.get('n')}"
    return f"reward {signed(run.start('reward/mean'))} → {signed(run.end('reward/mean'))}"


def _sft_figures(run: Run) -> list[Figure]:
    card = run.summary
    figures = [
        Figure("Training loss", number(run.end("loss")), f"was {number(run.start('loss'))}"),
        Figure("Held-out loss", number(card.get("heldout_loss")), f"{card.get('heldout_rows', 'no')} rows"),
        Figure("Perplexity", number(card.get("perplexity")), "held-out, per token"),
    ]
    if card.get("train_rows"):
        figures.append(Figure("Demonstrations", str(card["train_rows"]), "trained on"))
    return figures


def _reward_figures(run: Run) -> list[Figure]:
    card = run.summary
    if card.get("accuracy") is None:
        return []
    rule, baseline = length_rule(card)
    return [
        Figure("Accuracy", percent(card["accuracy"]), span(card.get("accuracy_ci"), "percent")),
        Figure("Length alone", percent(baseline), rule.lower()),
        Figure(
            "Kendall’s τ", number(card.get("kendall_tau")), f"mean of {card.get('kendall_tau_lists')} lists"
        ),
        Figure("Calibration error", number(card.get("ece")), "0 is perfect"),
    ]


def _preference_figures(run: Run) -> list[Figure]:
    card = run.summary
    if card.get("accuracy") is None:
        return []
    was = {name: f"was {number(card.get(f'{name}_before'))}" for name in ("heldout_loss", "margin_mean")}
    figures = [
        Figure("Held-out accuracy", percent(card["accuracy"]), span(card.get("accuracy_ci"), "percent")),
        Figure("Held-out loss", number(card.get("heldout_loss")), was["heldout_loss"]),
    ]
    if card.get("margin_mean") is not None:
        figures.append(Figure("Margin", number(card["margin_mean"]), was["margin_mean"]))
    for side in ("chosen", "rejected"):
        note = f"was {number(card.get(f'logp_{side}_before'), 1)}, nats per response"
        figures.append(Figure(f"Log-probability of {side}", number(card.get(f"logp_{side}"), 1), note))
    return figures


def _best_of_n_figures(run: Run) -> list[Figure]:
    card, figures = run.summary, []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        if card.get(f"{name}_gain") is not None:
            note = f"of one sample {number(card[f'{name}_mean'])}; gain {span(card.get(f'{name}_gain_ci'), 'signed')}"
            figures.append(Figure(f"{label} of the best", number(card[f"{name}_best"]), note))
    if card.get("win_rate") is not None:
        bound = f"at most {percent(card.get('win_rate_bound'))} is possible"
        figures += [
            Figure("Wins against one sample", percent(card["win_rate"]), bound),
            Figure("KL, at most", number(card.get("kl_bound")), "nats per response"),
        ]
    return figures


def _policy_figures(run: Run) -> list[Figure]:
    card = run.summary
    if "evaluated_step" not in card:
        return [
            Figure(
                "Reward",
                signed(run.end("reward/mean")),
                f"was {signed(run.start('reward/mean'))}, in training",
            )
        ]
    figures = []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        if card.get(f"{name}_mean") is None:
            continue
        moved = span(card.get(f"{name}_difference_ci"), "signed")
        note = f"was {number(card.get(f'{name}_mean_before'))}; change {moved}" if moved else ""
        figures.append(Figure(label, number(card[f"{name}_mean"]), note))
    if card.get("win_rate") is not None:
        figures.append(
            Figure("Wins against its start", percent(card["win_rate"]), span(card["win_rate_ci"], "percent"))
        )
    if card.get("kl") is not None:
        figures.append(
            Figure("KL to the start", number(card["kl"], 1), f"nats; {span(card.get('kl_ci'), digits=1)}")
        )
    return figures + _text_figures(card)


def _text_figures(card: Row) -> list[Figure]:
    """What can be said of the responses themselves."""
    figures = []
    for name, label, say in (
        ("length_mean", "Length in tokens", partial(number, digits=1)),
        ("eos_rate", "Stops by itself", percent),
        ("distinct_2", "Distinct word pairs", percent),
    ):
        if card.get(name) is not None:
            before = card.get(f"{name}_before")
            figures.append(Figure(label, say(card[name]), f"was {say(before)}" if before is not None else ""))
    if card.get("perplexity_ratio") is not None:
        figures.append(
            Figure("Perplexity ratio", number(card["perplexity_ratio"]), "by the reference; 1 is unchanged")
        )
    return figures


def _curves(run: Run) -> tuple[list[Chart], list[Chart]]:
    """The curves that tell the story, and all others."""
    names = sorted({name for row in run.metrics for name in row} - {"step", "time"}, key=_order)
    taken = {HELD_OUT[name] for name in names if name in HELD_OUT}
    shown = [n for n in CURVES[run.kind] if n in names and n not in taken and len(set(run.series(n)[1])) > 1]
    rest = [name for name in names if name not in shown and name not in taken]
    first = [c for c in (_curve(run, name) for name in shown) if c is not None]
    return first, [c for c in (_curve(run, name) for name in rest) if c is not None]


def _order(name: str) -> tuple[int, str]:
    known = list(METRICS)
    return (known.index(name) if name in METRICS else len(known), name)


def _curve(run: Run, name: str) -> Chart | None:
    x, y = run.series(name)
    if len(x) < 2:
        return None
    metric = METRICS.get(name)
    label = metric.label if metric else name
    share = metric is not None and metric.unit == "share"
    series = [charts.Series(x, y)]
    legend: tuple[tuple[str, str], ...] = ()
    held_x, held_y = run.series(HELD_OUT.get(name, ""))
    if held_x:
        series.append(charts.Series(held_x, held_y, sparse=True))
        legend = (("accent", "in training"), ("second", "held out"))
    bounds = (metric.low, metric.high) if metric else (None, None)
    svg = charts.line(f"{run.kind} {label}", series, x_label=run.unit, bounds=bounds, share=share)
    unit = f" {metric.unit.split()[0]}" if metric and metric.unit not in ("", "share") else ""
    ends = run.start(name), run.end(name)
    moved = f"{percent(ends[0])} → {percent(ends[1])}" if share else change(*ends) + unit
    return Chart(label, Markup(svg), moved, metric.meaning if metric else "", legend)


def _no_panels(run: Run) -> list[Chart]:
    return []


def _dot(label: str, card: Row, name: str, *, strong: bool = True) -> charts.Dot:
    low, high = card[f"{name}_ci"]
    return charts.Dot(label, card[name], low, high, strong)


def _reward_panels(run: Run) -> list[Chart]:
    card = run.summary
    if card.get("accuracy_ci") is None:
        return []
    dots = [_dot("Reward model", card, "accuracy")]
    if card.get("length_baseline_accuracy_ci"):
        dot = _dot("Longer wins", card, "length_baseline_accuracy", strong=False)
        if dot.mean < 0.5:
            dot = charts.Dot("Shorter wins", 1 - dot.mean, 1 - dot.high, 1 - dot.low, strong=False)
        dots.append(dot)
    caption = "Share of held-out pairs ranked right, with 95 % intervals. The dashed line is a coin."
    if card.get("accuracy_where_chosen_is_shorter") is not None:
        caption += (
            f" Where the shorter one is better: {percent(card['accuracy_where_chosen_is_shorter'])} right."
        )
    found = [
        Chart(
            "Accuracy against length alone",
            Markup(charts.intervals("Accuracy against length alone", dots, share=True, reference=0.5)),
            caption=caption,
            wide=True,
        )
    ]
    if len(card.get("reliability") or []) > 1:
        found.append(
            Chart(
                "Does it know what it knows?",
                Markup(charts.reliability("Reliability of the reward model", card["reliability"])),
                caption="A dot is a part of the pairs. On the dashed line it is as right as it is sure.",
                wide=True,
            )
        )
    return found


def _best_of_n_panels(run: Run) -> list[Chart]:
    """What n would have been worth: one curve for each judge."""
    points, found = run.summary.get("curve") or [], []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        known = [point for point in points if point.get(name) is not None]
        if len(known) > 1:
            series = [charts.Series([p["n"] for p in known], [p[name] for p in known], sparse=True)]
            svg = Markup(charts.line(f"{label} of the best of n", series, x_label="n"))
            caption = "Expected for each n, from all samples at once; chosen by the reward."
            found.append(Chart(f"{label} of the best of n", svg, caption=caption))
    return found


def _policy_panels(run: Run) -> list[Chart]:
    card, found = run.summary, []
    dots = []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        if card.get(f"{name}_difference_ci"):
            low, high = card[f"{name}_ci_before"]
            dots.append(charts.Dot(f"{label} before", card[f"{name}_mean_before"], low, high, strong=False))
            dots.append(charts.Dot("after", card[f"{name}_mean"], *card[f"{name}_ci"]))
    if dots:
        svg = Markup(charts.intervals("Before and after", dots))
        caption = "Means over held-out prompts, 95 % intervals. Their difference is paired, hence surer."
        found.append(Chart("Before and after, with intervals", svg, caption=caption, wide=True))
    points = [point for point in card.get("curve", []) if point.get("kl") is not None and "reward" in point]
    if len(points) > 2:
        gold = all("gold" in point for point in points)
        legend = (("accent", "gold reward"), ("second", "reward")) if gold else (("second", "reward"),)
        caption = (
            "Reward bought per distance from the start. Where gold turns down, training has gone too far."
        )
        svg = Markup(charts.frontier("Reward over KL", points))
        found.append(Chart("Reward over distance", svg, caption=caption, legend=legend, wide=True))
    return found
