"""Rules that need no model."""

from __future__ import annotations

import pytest

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import RuleTable
from plaudit.jobs.reward_texts import parse
from plaudit.records import Prompt, Rollout
from plaudit.rewards.rules import rule_reward


def score(spec: str, response: str, answer: str | None = None) -> float | None:
    rollout = Rollout.single(Prompt("p", "Q", answer), 0, (1,), (3,), (-0.5,), response, "stop")
    table = parse(f"rule:{spec}")
    assert isinstance(table, RuleTable)
    return rule_reward(table)([rollout])[0].value


@pytest.mark.parametrize(
    ("spec", "response", "value"),
    [
        ("contains:please", "Yes, PLEASE.", 1.0),
        ("contains:please", "Yes.", 0.0),
        ("length:4", "one two three four", 1.0),
        ("length:4", "one two three", 0.75),
        ("length:4", "one two three four five six", 0.5),
        ("length:4", "", 0.0),
        ("length:2", "a b c d e f", 0.0),
        ("json", '{"a": [1, null]}', 1.0),
        ("json", '```json\n{"a": 1}\n```', 1.0),
        ("json", "{'a': 1}", 0.0),
        ("json", "NaN", 0.0),
        ("json", "[" * 100_000, 0.0),
        ("json", 'Sure! {"a": 1}', 0.0),
    ],
)
def test_values(spec: str, response: str, value: float) -> None:
    assert score(spec, response) == pytest.approx(value)


@pytest.mark.parametrize(
    ("response", "answer", "value"),
    [
        ("3 + 4 = 7, so 7.", "7", 1.0),
        ("First 7, then 8", "7", 0.0),
        ("The total is $1,000.50", "#### 1000.5", 1.0),
        ("It is 42.0%", "so 6 * 7\n#### 42", 1.0),
        ("It is -3", "3", 0.0),
        ("It is 5-3", "3", 1.0),
        ("I do not know", "3", 0.0),
    ],
)
def test_last_number(response: str, answer: str, value: float) -> None:
    assert score("last_number", response, answer) == value


def test_exact_answer_forgives_case_blanks_and_a_full_stop() -> None:
    assert score("exact_answer", "  new   York.\n", "New York") == 1.0
    assert score("exact_answer", "York", "New York") == 0.0


@pytest.mark.parametrize("spec", ["exact_answer", "last_number"])
def test_a_prompt_without_an_answer_is_an_error_and_not_zero(spec: str) -> None:
    assert score(spec, "7") is None


@pytest.mark.parametrize(
    ("spec", "cure"),
    [
        ("lenght:10", "length:WORDS"),
        ("length", "length:WORDS"),
        ("length:0", "length:WORDS"),
        ("contains", "contains:TEXT"),
        ("json:1", "json"),
        ("quality", "last_number"),
    ],
)
def test_an_unknown_rule_is_refused_with_the_nearest(spec: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        parse(f"rule:{spec}")
