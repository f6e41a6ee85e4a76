"""Rewards that need no model: rules a program can check."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from plaudit.jobs.reward_tables import RuleName, RuleTable
from plaudit.rewards.function import FunctionReward

Rule = Callable[..., float]

# Where a policy has several turns, its answer stands in the last one, so the rules that check an answer read `final`.
# For a single response it is the response.
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n\s*```\s*\Z", re.DOTALL)


def contains(text: str) -> Rule:
    """1 if ``text`` occurs in the response (upper and lower case count as equal), else 0."""

    def rule(prompt: str, response: str) -> float:
        return float(text.casefold() in response.casefold())

    return rule


def length(words: int) -> Rule:
    """1 for a response of exactly ``words`` words, falling to 0 for an empty one and for twice as many."""

    def rule(prompt: str, response: str) -> float:
        return max(0.0, 1.0 - abs(len(response.split()) - words) / words)

    return rule


def valid_json(final: str) -> float:
    """1 if the whole response is one JSON value (RFC 8259: no NaN), alone or in a code fence; else 0."""
    fence = _FENCE.match(final)
    try:
        json.loads(fence.group(1) if fence else final, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def exact_answer(final: str, answer: str | None) -> float:
    """1 if the response is the answer; case, runs of blanks and a final full stop do not matter."""
    return float(_normal(final) == _normal(_known(answer)))


def last_number(final: str, answer: str | None) -> float:
    """1 if the last number of the response equals the answer: the usual check for GSM8K (Cobbe et al. 2021).

    The answer may be a bare number or end in ``#### number``. 1,000 = 1000 and 42.0 = 42.
    """
    truth = numbers(_known(answer).rpartition("####")[2])
    if not truth:
        raise ValueError(f"the answer {answer!r} has no number")
    written = numbers(final)
    return float(bool(written) and written[-1] == truth[-1])


def numbers(text: str) -> list[Decimal]:
    """All decimal numbers of a text; commas between groups of three digits are dropped.

    >>> [str(n) for n in numbers("From 1,000.50 to -3.")]
    ['1000.50', '-3']
    """
    values = []
    for match in _NUMBER.finditer(text):
        joined = match.start() > 0 and text[match.start() - 1].isalnum()  # "3-2" is 3 and 2, not 3 and -2
        digits = match.group().replace(",", "")
        values.append(Decimal(digits.lstrip("+-") if joined else digits))
    return values


def rule_reward(table: RuleTable) -> FunctionReward:
    """The reward that a table of kind ``rule`` describes."""
    rules: dict[RuleName, Callable[[], Rule]] = {
        "json": lambda: valid_json,
        "exact_answer": lambda: exact_answer,
        "last_number": lambda: last_number,
        "contains": lambda: contains(table.text),
        "length": lambda: length(table.words),
    }
    return FunctionReward(rules[table.rule](), table.name or table.rule)


def _known(answer: str | None) -> str:
    # An error and not a 0: without an answer nobody knows whether the response is wrong.
    if answer is None:
        raise ValueError("the prompt has no answer; give one in the data (field answer)")
    return answer


def _normal(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
