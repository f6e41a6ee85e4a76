"""Before a policy is trained: does the report card of its reward model say that the model ranks better than chance?

Only what a card says is known: a function, a model of the hub and a run without held-out rows pass, and are named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plaudit.config.sections import Job
from plaudit.errors import DataError, Refused
from plaudit.evaluation.alarms.alarm import Alarm
from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.kinds.reward_card import figures
from plaudit.jobs.reward_tables import ModelTable
from plaudit.jobs.rewarded import RewardedJob
from plaudit.runs.files import HELDOUT, SUMMARY, read_json


def refuse_coins(job: Job, anyway: bool = False) -> None:
    """Stop before anything is loaded or written, where a reward model may be a coin and nobody said ``anyway``.

    Raises:
        Refused: the 95 % interval of a reward model's held-out accuracy contains one half, or lies below it.
    """
    if anyway or not isinstance(job, RewardedJob):
        return
    for path in _paths(job.reward):
        if found := _coin(_card(path)):
            cure = "collect more comparisons or hold out more of them; --anyway trains on it all the same"
            raise Refused(f"the reward model {found}", where=path, cure=cure)


def alarms_on_rewards(job: RewardedJob) -> list[Alarm]:
    """The alarms of a run before its first step: reward models that may be coins, and are trained on all the same."""
    found = {path: _coin(_card(path)) for path in _paths(job.reward)}
    return [
        Alarm("coin", f"the reward model {path} {words}. What a policy learns from it is luck") for path, words in
        found.items() if words
    ]  # fmt: skip


def known_of_rewards(job: RewardedJob) -> list[dict[str, Any]]:
    """How well the reward models of a job rank, for its page: those that have a card with enough pairs.

    A classifier of labelled texts ranks none: its accuracy says something else.
    """
    names = ("accuracy", "accuracy_ci", "heldout_pairs")
    cards = {path: _card(path) for path in _paths(job.reward)}
    return [
        {"path": path} | {name: known[name] for name in names}
        for path, known in cards.items()
        if known.get("accuracy_ci") and _pairs(known) >= ENOUGH and known.get("kendall_tau_from") != "labels"
    ]


def notes_on_rewards(job: RewardedJob) -> list[str]:
    """What a run says of its reward models of which nothing, or too little, is known."""
    notes = []
    for path in _paths(job.reward):
        known = _card(path)
        if not known.get("accuracy_ci"):
            notes.append(f"{path} has no report card here: nothing is known of how well it ranks")
        elif _pairs(known) < ENOUGH:
            notes.append(f"{path} was judged on {_pairs(known)} held-out pairs, too few to say how well it ranks")
    return notes


def _coin(known: Mapping[str, Any]) -> str:
    """What says that a reward model may rank no better than chance, with the figures; empty where nothing does."""
    interval = known.get("accuracy_ci")
    if not interval or interval[0] is None or interval[0] > 0.5 or _pairs(known) < ENOUGH:
        return ""
    return (
        f"ranks {known.get('accuracy', 0):.0%} of {known.get('heldout_pairs')} held-out pairs as people did, "
        f"95 % interval {interval[0]:.0%} to {interval[1]:.0%}: no better than a coin, as far as they tell"
    )


def _pairs(known: Mapping[str, Any]) -> int:
    return int(known.get("heldout_pairs") or 0)


def _paths(tables: Iterable[Any]) -> list[str]:
    """The reward models that a policy is trained on; those that are only watched are not asked."""
    return [path for table in tables if isinstance(table, ModelTable) and table.weight for path in _whole(table)]


def _whole(table: ModelTable) -> tuple[str, ...]:
    """The run of an ensemble, which has a card of its own, or the models one by one."""
    one = table.path if isinstance(table.path, str) else ""
    return (one,) if one and _card(one).get("accuracy_ci") else table.members


def _card(path: str) -> dict[str, Any]:
    """The card of the run that a reward model is, or lies in; empty without one."""
    place = Path(os.path.expanduser(path))
    for folder in (place, place.parent if place.name == "model" else place):
        if (folder / SUMMARY).is_file():
            summary = read_json(folder / SUMMARY)
            if "accuracy_ci" in summary or not (folder / HELDOUT).is_file():
                return summary
            # A run that was made from Python has no report yet, and so no figures in its summary.
            with contextlib.suppress(DataError):
                return figures(folder)
    return {}
