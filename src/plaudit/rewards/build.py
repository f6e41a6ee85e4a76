"""From tables, and functions given as values, to one reward. What needs a model, a backend builds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import (
    TIMEOUT,
    ClassifierTable,
    FunctionTable,
    HttpTable,
    JudgeTable,
    ModelTable,
    RewardTable,
    RuleTable,
)
from plaudit.machine import can_interrupt
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.function import FunctionReward, name_of, with_options
from plaudit.rewards.isolation import IsolatedReward
from plaudit.rewards.remote.chat import notes_on
from plaudit.rewards.remote.http import HttpReward
from plaudit.rewards.remote.judge import JudgeReward
from plaudit.rewards.rules import rule_reward
from plaudit.runtime import Reward


@dataclass(frozen=True, slots=True)
class GivenReward:
    """A function, class or reward that the Python API was given as a value; it runs in this process."""

    value: Callable[..., Any]
    weight: float = 1.0
    timeout: float = TIMEOUT
    """Seconds, as of a table."""


def isolated(fn: Callable[..., Any], *, env: Sequence[str] = (), timeout: float = TIMEOUT) -> FunctionTable:
    """A function or class as a reward in a process of its own, which imports it by itself.

    It then cannot stop or crash the run, whatever it does, and shares no variables with this process. See
    docs/howto/rewards.md.

    Args:
        fn: at the top level of a module that can be imported, not of the script that is run or of a notebook.
        env: environment variables that it is given, such as the key of a service.
        timeout: seconds that a call may take (a function of a batch: as much for each response); 0: no limit.

    Raises:
        ConfigError: another process could not import it.
    """
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if module in (None, "__main__") or found is not fn:
        where = "the script that is run" if module == "__main__" else "no module under its own name"
        raise ConfigError(
            f"{name_of(fn)} cannot be run in a process of its own: {where} has it, so it cannot be imported there",
            where="isolated(...)",
            cure="put it at the top level of a file, and give file.py:function as the reward",
        )
    return FunctionTable(path=f"{module}:{name}", env=tuple(env), timeout=timeout)


RewardSource = RewardTable | GivenReward
Given = Reward | Sequence[RewardSource] | None
"""A reward that somebody gives as a value: a reward itself, or several sources; None: what the job names."""


class ModelRewards(Protocol):
    """Builds the rewards that need a model. This is all that a backend adds: the other kinds are the same on each."""

    def reward_model(self, table: ModelTable) -> Reward:
        """The reward of a reward model, or of an ensemble of them."""
        ...

    def classifier(self, table: ClassifierTable) -> Reward:
        """The reward of a classifier."""
        ...


def build(
    sources: Sequence[RewardSource], models: ModelRewards, *, where: str, columns: Collection[str] = ()
) -> Reward:
    """One reward; several are added up by weight.

    Args:
        sources: tables, or functions given as values.
        models: of the backend.
        where: the config key, for errors.
        columns: further columns of the data, which functions may ask for.

    Raises:
        ConfigError: no reward, or one that cannot be built.
    """
    if not sources:
        cure = f"set --{where} to a reward model or file.py:function"
        raise ConfigError("no reward was given", where=where, cure=cure)
    # By the type of the table, in this one place: a new kind is a table, a builder and a line here.
    builders: dict[type, Callable[[Any], Reward]] = {
        ModelTable: models.reward_model,
        ClassifierTable: models.classifier,
        FunctionTable: lambda table: IsolatedReward(table, columns=columns, where=where),
        RuleTable: rule_reward,
        HttpTable: HttpReward,
        JudgeTable: lambda table: JudgeReward.checked(table, columns, where),
        GivenReward: lambda source: _in_this_process(source, columns, where),
    }
    rewards = [(builders[type(source)](source), source.weight) for source in sources]
    return rewards[0][0] if len(rewards) == 1 and rewards[0][1] == 1 else WeightedReward(rewards)


def notes_of(sources: Reward | Sequence[RewardSource]) -> tuple[str, ...]:
    """What tables promise and this system cannot keep, and what to know of a judge, in words for the user."""
    tables = () if callable(sources) else sources
    notes = []
    if not can_interrupt() and any(isinstance(t, GivenReward) and t.timeout for t in tables):
        notes.append(
            "this system cannot interrupt a function given in Python, so its time limit is not kept; one that is named "
            "as file.py:function runs in a process of its own and has its limit"
        )
    if sys.platform != "linux" and any(isinstance(t, FunctionTable) for t in tables):
        notes.append("on this system nothing limits the memory of a reward function's process")
    judges = [note for table in tables if isinstance(table, JudgeTable) for note in notes_on(table)]
    return (*notes, *dict.fromkeys(judges))


def _in_this_process(source: GivenReward, columns: Collection[str], where: str) -> Reward:
    fn = with_options(source.value, {}, where)
    return FunctionReward(fn, timeout=source.timeout, columns=columns, where=where)
