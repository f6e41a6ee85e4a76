"""One reward from tables: what a backend adds, and what is the same on each."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import ClassifierTable, ModelTable
from plaudit.jobs.reward_texts import table_of, tables_of
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.rewards.build import GivenReward, build
from plaudit.runtime import Reward

ROLLOUT = Rollout.single(Prompt("p", "say", None, {"level": 3}), 0, (1,), (2,), (0.0,), "red", "stop")


class Elsewhere:
    """The models of a backend that has none: each scores with the length of its name."""

    def reward_model(self, table: ModelTable) -> Reward:
        return Fixed(table.members[0])

    def classifier(self, table: ClassifierTable) -> Reward:
        return Fixed(str(table.label))


class Fixed:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, rollouts):
        return [RewardResult(float(len(self.name)), {self.name: float(len(self.name))}) for _ in rollouts]


def test_a_backend_adds_models_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(response, level):\n    return float(len(response) * level)\n")
    texts = ["runs/a", "owner/name#GOOD", f"{file}:f", "rule:contains:red"]
    reward = build(tables_of(texts), Elsewhere(), where="reward", columns={"level"})
    assert reward([ROLLOUT]) == [RewardResult(20.0, {"runs/a": 6.0, "GOOD": 4.0, "f": 9.0, "contains": 1.0})]


def test_weights_and_names() -> None:
    tables = [
        table_of({"kind": "rule", "rule": "contains", "text": "red", "weight": 2.0, "name": "mentions"})
    ]
    alone = build(tables, Elsewhere(), where="reward")
    assert alone([ROLLOUT]) == [RewardResult(2.0, {"mentions": 1.0})]
    plain = build(tables_of("rule:contains:red"), Elsewhere(), where="reward")
    assert plain.name == "contains", "one reward of weight 1 is itself and no sum"


def test_columns_are_checked_before_the_run() -> None:
    def judge(response: str, level: int) -> float:
        return float(level)

    with pytest.raises(ConfigError, match="asks for level") as caught:
        build([GivenReward(judge)], Elsewhere(), where="gold", columns={"source"})
    assert caught.value.where == "gold" and "columns of the data: source" in caught.value.cure


def test_a_class_given_as_a_value_is_made() -> None:
    class Judge:
        def __call__(self, response: str) -> float:
            return float(len(response))

    assert build([GivenReward(Judge, weight=0.5)], Elsewhere(), where="reward")([ROLLOUT])[0].value == 1.5
    with pytest.raises(ConfigError, match="no reward was given"):
        build([], Elsewhere(), where="reward")
