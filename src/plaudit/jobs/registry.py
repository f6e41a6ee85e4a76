"""The commands that train: one row each. Command line, Python API, report and resume read this table.

A new command is a job class, a row here, a stage in `plaudit.stages`, and a kind in `plaudit.evaluation` if its run is
judged by figures that no other kind has.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from plaudit.config.sections import Job

Kind = Literal["sft", "reward", "preference", "best_of_n", "policy"]
"""What a run is judged by: the name of a module in `plaudit.evaluation.kinds`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command that trains."""

    name: str
    job_name: str
    """``module:Class`` of its job, below ``plaudit.jobs``."""
    kind: Kind
    required: tuple[str, ...]
    """Settings that the command line must have. The Python API may give some of them as values instead."""
    values: tuple[str, ...]
    """What `plaudit.train` takes for it besides settings: by name, or as values."""
    help: str
    """One line for `plaudit --help`."""
    elsewhere: tuple[str, ...] = ()
    """What other tools call it; answered with its name."""

    # A name and not the class: a job holds its algorithm, and algorithms load torch. `plaudit --help` reads this
    # table and must answer at once, so the class is imported when somebody asks for it.
    @property
    def job(self) -> type[Job]:
        """The settings of the command; loads torch."""
        module, _, name = self.job_name.partition(":")
        job_class: type[Job] = getattr(importlib.import_module(f"plaudit.jobs.{module}"), name)
        return job_class


_DATA, _ONLINE = ("model", "dataset"), ("policy", "reward", "dataset")
_GIVEN = ("prompts", "reward", "gold")
_REPLIED = (*_GIVEN, "environment")
COMMANDS: dict[str, Command] = {
    row.name: row
    for row in (
        Command(
            "sft",
            "sft:SFTJob",
            "sft",
            _DATA,
            (),
            "fine-tune a language model on demonstrations",
            ("finetune", "fine-tune", "train-sft"),
        ),
        Command(
            "reward",
            "reward:RewardJob",
            "reward",
            _DATA,
            ("preferences",),
            "train a reward model on preferences, rankings or labels",
            ("rm", "reward-model", "train-rm", "train-reward-model"),
        ),
        Command(
            "ppo",
            "online:RLJob",
            "policy",
            _ONLINE,
            _REPLIED,
            "optimise a policy against a reward, near its reference, with a critic",
            ("rlhf", "train-ppo"),
        ),
        Command(
            "grpo",
            "online:GRPOJob",
            "policy",
            _ONLINE,
            _REPLIED,
            "the same by comparing responses to a prompt: GRPO, Dr. GRPO, DAPO, GSPO, CISPO",
            ("dapo", "gspo"),
        ),
        Command(
            "rloo", "online:RLOOJob", "policy", _ONLINE, _REPLIED, "the same with a leave-one-out baseline"
        ),
        Command(
            "reinforce",
            "online:ReinforceJob",
            "policy",
            _ONLINE,
            _REPLIED,
            "the same with the plain policy gradient and a baseline, or REINFORCE++",
            ("remax",),
        ),
        Command(
            "best-of-n",
            "best_of_n:BestOfNJob",
            "best_of_n",
            _ONLINE,
            _GIVEN,
            "the best of n responses to each prompt, or fine-tuning on them in rounds",
            ("bon",),
        ),
        Command(
            "online-dpo",
            "online:OnlineDPOJob",
            "policy",
            _ONLINE,
            _REPLIED,
            "DPO on pairs of the policy's own responses, ranked by a reward",
        ),
        Command(
            "dpo",
            "preference:DPOJob",
            "preference",
            _DATA,
            ("preferences",),
            "learn from preferences or thumbs without a reward model: DPO, IPO, KTO, ORPO, SimPO",
            ("kto", "orpo", "simpo", "ipo", "train-dpo", "train-kto"),
        ),
    )
}
"""Name -> row, in the order of `plaudit --help`."""


def command_of(job_class: type[Job]) -> Command:
    """The command whose settings a job class holds.

    A job with another algorithm is a class made from the command's own (see `with_algorithm`), so bases are tried too.

    Raises:
        KeyError: no command has such a job.
    """
    rows = (row for name in names_of(job_class) for row in COMMANDS.values() if row.job_name == name)
    row = next(rows, None)
    if row is None:
        raise KeyError(f"no command has the job {job_class.__qualname__}; add a row to jobs/registry.py")
    return row


def names_of(job_class: type[Job]) -> list[str]:
    """A job class and what it is derived from, nearest first, as the tables name them: ``module:Class``."""
    bases = job_class.__mro__
    return [f"{base.__module__.removeprefix('plaudit.jobs.')}:{base.__qualname__}" for base in bases]


def command_for(algorithm: object) -> Command | None:
    """The command that trains with an algorithm of this class, also as a relative; None if there is none."""
    return next((row for row in COMMANDS.values() if type(algorithm) in _algorithms(row.job)), None)


def _algorithms(job_class: type[Job]) -> Iterable[object]:
    field = job_class.model_fields["algorithm"]
    return (field.annotation, *map(type, job_class.relatives.values()))
