"""The curves of a run: first those that matter most for its kind; training and held-out rows in one chart."""

from __future__ import annotations

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.page import Chart, Kind
from plaudit.evaluation.words import change, percent
from plaudit.runs.reading import Run
from plaudit.tracking.names import METRICS

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
"""Metric -> the same on held-out rows. Both are drawn into one chart: where they part, the model overfits."""

SCHEDULED = ("lr", "critic/lr", "objective/kl_coef", "objective/kl_coef_in_force")
"""Metrics that are set and not measured: they have no noise, and are drawn as they are."""


def curves(run: Run, kind: Kind) -> tuple[list[Chart], list[Chart]]:
    """The curves of ``kind.curves`` that move, and all others in the order of the table of metrics."""
    names = sorted({name for row in run.metrics for name in row} - {"step", "time"}, key=_order)
    taken = {HELD_OUT[name] for name in names if name in HELD_OUT}
    # A curve that is constant (a fixed KL coefficient, say) shows nothing, and goes to the others.
    shown = [n for n in kind.curves if n in names and n not in taken and len(set(run.series(n)[1])) > 1]
    rest = [name for name in names if name not in shown and name not in taken]
    first = [c for c in (_curve(run, kind, name) for name in shown) if c is not None]
    return first, [c for c in (_curve(run, kind, name) for name in rest) if c is not None]


def _order(name: str) -> tuple[int, str]:
    known = list(METRICS)
    return (known.index(name) if name in METRICS else len(known), name)


def _curve(run: Run, kind: Kind, name: str) -> Chart | None:
    x, y = run.series(name)
    if len(x) < 2:
        return None
    metric = METRICS.get(name)
    label = metric.label if metric else name
    share = metric is not None and metric.unit == "share"
    series = [charts.Series(x, y, exact=name in SCHEDULED)]
    legend: tuple[tuple[str, str], ...] = ()
    held_x, held_y = run.series(HELD_OUT.get(name, ""))
    if held_x:
        series.append(charts.Series(held_x, held_y, sparse=True))
        legend = (("accent", "in training"), ("second", "held out"))
    bounds = (metric.low, metric.high) if metric else (None, None)
    svg = charts.line(f"{kind.name} {label}", series, x_label=kind.unit, bounds=bounds, share=share)
    unit = f" {metric.unit.split()[0]}" if metric and metric.unit not in ("", "share") else ""
    ends = run.first(name), run.last(name)
    moved = f"{percent(ends[0])} → {percent(ends[1])}" if share else change(*ends) + unit
    return Chart(label, Markup(svg), moved, metric.meaning if metric else "", legend)
