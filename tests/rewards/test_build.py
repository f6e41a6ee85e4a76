"""One reward from tables: what a backend adds, and what is the same on each."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_server import chat_server, saying

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import ClassifierTable, ModelTable
from plaudit.jobs.reward_texts import table_of, tables_of
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.rewards.build import GivenReward, build, notes_of
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


def test_a_judge_is_asked_once_before_the_run(tmp_path: Path) -> None:
    with chat_server() as server:
        table = {"kind": "judge", "url": server.url, "model": "mini", "cache": str(tmp_path / "a.jsonl"), "weight": 2.0}
        reward = build([table_of(table)], Elsewhere(), where="gold")
        assert len(server.asked) == 1 and reward([ROLLOUT])[0].value == 0.6
        server.answers = [saying("no idea")]
        (tmp_path / "a.jsonl").unlink()
        with pytest.raises(ConfigError, match="no JSON object") as caught:
            build([table_of(table)], Elsewhere(), where="gold")
        assert caught.value.where == "gold"


def test_the_column_to_compare_with_must_be_there() -> None:
    fields = {"kind": "judge", "model": "mini", "url": "http://127.0.0.1:1/v1", "ask": "pairs"}
    with pytest.raises(ConfigError, match="no column referense") as caught:
        build([table_of({**fields, "against": "referense"})], Elsewhere(), where="gold", columns={"reference"})
    assert caught.value.where == "gold" and "did you mean reference?" in caught.value.cure


def test_what_to_know_of_a_judge_is_noted() -> None:
    fields = {"kind": "judge", "model": "mini", "key_env": "KEY"}
    near, far = (table_of({**fields, "url": f"http://{host}/v1"}) for host in ("127.0.0.1:8000", "far"))
    compares = table_of({**fields, "url": "https://far/v1", "ask": "pairs"})
    named = table_of({**fields, "url": "http://localhost.example.com/v1"})
    assert notes_of([near]) == () and "in the clear" in notes_of([named])[0]
    assert "in the clear" in notes_of([far])[0] and "mean of 0.5" in notes_of([compares])[0]
    assert len(notes_of([far, compares])) == 2


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
