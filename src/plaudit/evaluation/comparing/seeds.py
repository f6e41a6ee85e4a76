"""One job with several seeds: what all of them say together, and whether they fall into two groups."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from plaudit.evaluation.comparing.trials import Trial
from plaudit.evaluation.words import number, signed
from plaudit.runs.reading import Run
from plaudit.statistics.groups import two_groups

REPEATED = {
    "gold_difference": "Change of the gold reward",
    "reward_difference": "Change of the reward",
    "kl": "KL to the start",
    "heldout_loss": "Held-out loss",
    "accuracy": "Accuracy",
}
"""Figures of summary.json whose mean and spread over seeds are shown."""


def value_of(run: Run, name: str) -> float | None:
    """A figure of a run; None where it has none."""
    value = run.summary.get(name)
    return value if isinstance(value, float) else None


def in_groups(values: Sequence[float]) -> str:
    """That the values fall into two groups, in words; empty where they do not."""
    found = two_groups(values)
    if found is None:
        return ""
    low, high = found
    return f"two groups: {len(low)} near {number(fmean(low))}, {len(high)} near {number(fmean(high))}"


def over_seeds(trials: Sequence[Trial]) -> dict[str, Any]:
    """The figures of runs that differ by seed only: each value, mean, deviation, and in how many the change is clear.

    Runs that did not end as told have no part in the figures; they are counted and named.
    """
    done = [trial for trial in trials if not trial.failed]
    figures: dict[str, Any] = {}
    for name in REPEATED:
        known = {trial.seed: value for trial in done if (value := value_of(trial.run, name)) is not None}
        if not known:
            continue
        values = list(known.values())
        clear = [trial.run.summary.get(f"{name}_ci") for trial in done] if name.endswith("_difference") else []
        intervals = [ci for ci in clear if isinstance(ci, list) and None not in ci]
        figures[name] = {
            "values": known,
            "mean": fmean(values),
            "std": stdev(values) if len(values) > 1 else None,
            "clearly_above_0": sum(low > 0 for low, _ in intervals) if intervals else None,
            "clearly_below_0": sum(high < 0 for _, high in intervals) if intervals else None,
            "groups": [list(group) for group in two_groups(values) or ()],
        }
    failed = {trial.seed: trial.failed for trial in trials if trial.failed}
    return {"seeds": len(trials), "failed": failed, "figures": figures}


def in_words(found: dict[str, Any]) -> list[str]:
    """`over_seeds` as sentences: what a single run would not have told."""
    lines = []
    for name, figure in found["figures"].items():
        values, write = list(figure["values"].values()), signed if name.endswith("_difference") else number
        line = f"{REPEATED[name]} over {len(values)} seeds: {write(figure['mean'])}"
        if figure["std"] is not None:
            line += f", deviation {number(figure['std'])}, from {write(min(values))} to {write(max(values))}"
        if figure["clearly_above_0"] is not None:
            line += f"; clearly above 0 in {figure['clearly_above_0']}, clearly below in {figure['clearly_below_0']}"
        lines.append(f"{line}.")
        if figure["groups"]:
            lines.append(f"! The seeds fall into {in_groups(values)}. Their mean is a result that none of them has.")
    lines += [f"! Seed {seed} did not end as told: {why}." for seed, why in found["failed"].items()]
    return lines
