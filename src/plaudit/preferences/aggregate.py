"""Votes to preferences: which answers count, which response won and how clearly, what is left out and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from plaudit.errors import ConfigError
from plaudit.preferences.annotation import Annotation, Choice, Item, Skip
from plaudit.preferences.reliability import dawid_skene
from plaudit.preferences.votes import PairVote, Vote, pair_votes
from plaudit.statistics import bradley_terry
from plaudit.statistics.majority import decide, margin

Method = Literal["majority", "dawid_skene"]
Pair = tuple[str, int, int]
"""Item, and the indices of two of its responses."""

Weighed = Mapping[Pair, Mapping[int, float]]
"""The probability of each side (-1, 0, 1) for each pair."""

CONFLICT = 0.7
"""Pairs with less agreement than this are shown to a reviewer: 2 against 1 is, 3 against 1 is not."""
EQUAL = 1e-6
"""Strengths closer than this share a rank."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How votes become preferences.

    Raises:
        ConfigError: a value out of its range.
    """

    method: Method = "majority"
    """majority: every vote counts the same; dawid_skene: votes count by the annotators' estimated accuracy."""
    min_votes: int = 1
    """What fewer people answered is left out."""
    min_agreement: float = 0.0
    """What people agree on less is left out; 0 to 1. For ratings it is how close the scores are
    (`disputes.nearness`)."""
    without_flagged: bool = False
    """Whether items that somebody flagged are left out."""

    def __post_init__(self) -> None:
        if self.method not in ("majority", "dawid_skene"):
            raise ConfigError(f"there is no method {self.method!r}", cure="choose majority or dawid_skene")
        if self.min_votes < 1 or not 0 <= self.min_agreement <= 1:
            raise ConfigError(
                f"min_votes is {self.min_votes}, min_agreement is {self.min_agreement}",
                cure="choose at least 1 vote, and an agreement from 0 to 1",
            )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the votes on two responses."""

    item: str
    first: int
    second: int
    winner: int | None
    """Index of the response that won; None: a tie, or no side has more votes than the other and the ties."""
    support: float
    """For ``first``, from 0 to 1: its share of the votes, or its probability; a tie counts half for each."""
    margin: float
    """Mean strength in the winner's favour; 0 without one, never negative."""
    for_first: int
    for_second: int
    ties: int
    annotators: tuple[str, ...]
    """Who voted, by name."""
    adjudicated: bool = False
    """Whether a reviewer decided: the votes are counted but overruled, and the winner has all support."""

    @property
    def agreement(self) -> float:
        """Support of the winner: the soft label. Without a winner, the larger support."""
        return max(self.support, 1 - self.support)

    @property
    def votes(self) -> int:
        """How many voted."""
        return self.for_first + self.for_second + self.ties

    @property
    def loser(self) -> int | None:
        """Index of the response that lost."""
        return None if self.winner is None else self.first + self.second - self.winner


def usable(
    annotations: Iterable[Annotation], gold: Container[str], rule: Rule, flagged: Container[str] | None = None
) -> tuple[list[Annotation], Counter[str]]:
    """The answers that can become training data, and how many are left out for which reason.

    Reviewers' verdicts are among them. Answers to gold items and repeats measure annotators and are left out, as are
    skips, "cannot judge" and, if the rule says so, every answer to an item that somebody flagged.

    Args:
        annotations: the answers.
        gold: the keys of the gold items.
        rule: whether flagged items are left out.
        flagged: the keys of the flagged items, where ``annotations`` are not all answers; None: those flagged in them.
    """
    answers = list(annotations)
    dropped: Counter[str] = Counter()
    if rule.without_flagged:
        flagged = {a.item for a in answers if a.flags} if flagged is None else flagged
        dropped["answers to flagged items"] += sum(a.item in flagged for a in answers)
        answers = [a for a in answers if a.item not in flagged]
    kept = []
    for a in answers:
        if a.item in gold:
            dropped["answers to gold items"] += 1
        elif a.round != 0 and not a.adjudicated:
            dropped["repeated answers"] += 1
        elif isinstance(a.answer, Skip):
            dropped["skips"] += 1
        elif isinstance(a.answer, Choice) and a.answer.verdict == "cannot_judge":
            dropped['answers "cannot judge"'] += 1
        else:
            kept.append(a)
    return kept, dropped


def gold_among(items: Mapping[str, Item]) -> frozenset[str]:
    """The keys of those that have a known answer."""
    return frozenset(key for key, item in items.items() if item.gold is not None)


class Survey:
    """What a row depends on besides the answers to its own item; gathered part by part, before the rows are made.

    Args:
        rule: how votes become preferences.
        flagged: the keys of flagged items; None: those flagged in the first part, which is all then.
    """

    def __init__(self, rule: Rule, flagged: frozenset[str] | None = None) -> None:
        self.rule, self.flagged = rule, flagged
        self.items: dict[str, None] = {}
        """The keys of items with usable answers, in the order in which they were first answered."""
        # Without a single "much better" all strengths are 1, and a margin would claim a precision that nobody gave.
        self.graded = False
        self.left_out: Counter[str] = Counter()
        """How many answers are not usable, by reason."""
        self._votes: list[PairVote] = []

    def add(self, answers: Sequence[Annotation], gold: Container[str]) -> None:
        """Take a part into account: answers in the order of their rows, and the keys of gold items."""
        if self.flagged is None:
            self.flagged = frozenset(a.item for a in answers if a.flags)
        kept, left_out = usable(answers, gold, self.rule, self.flagged)
        self.left_out += left_out  # which leaves out the reasons that were counted zero times
        votes = pair_votes(kept)
        self.items.update(dict.fromkeys(a.item for a in kept))
        self.graded = self.graded or any(abs(vote.strength) > 1 for vote in votes)
        if self.rule.method == "dawid_skene":
            self._votes += votes

    @cached_property
    def weighed(self) -> Weighed:
        """How likely each side of each pair is, by all votes."""
        return weigh(self._votes, self.rule.method)


def outcomes(
    votes: Sequence[PairVote], method: Method = "majority", weighed: Weighed | None = None
) -> list[Outcome]:
    """One outcome per pair of responses, in the order in which the pairs first come up.

    Majority: a side wins with more votes than the other and than ties. Dawid and Skene: each pair's
    probabilities of (first, tie, second) given the votes and how reliable the voters are; the likeliest wins.

    Args:
        votes: on whole pairs.
        method: how votes count.
        weighed: what `weigh` gave for all votes, where these are a part of them; None: these are all.
    """
    groups: dict[Pair, list[PairVote]] = defaultdict(list)
    for vote in votes:
        groups[vote.item, vote.first, vote.second].append(vote)
    weighed = weigh(votes, method) if weighed is None else weighed
    return [_outcome(pair, group, weighed.get(pair)) for pair, group in groups.items()]


def weigh(votes: Iterable[PairVote], method: Method) -> Weighed:
    """The probability of each side (-1, 0, 1) for each pair, by the method of Dawid and Skene; none by another one."""
    # Verdicts of reviewers are no votes: they must not raise the estimated accuracy of those who agree with them.
    votes = [v for v in votes if not v.adjudicated] if method == "dawid_skene" else []
    if not votes:
        return {}
    names = {(v.item, v.first, v.second): f"{i}" for i, v in enumerate(votes)}
    sides = [Vote(names[v.item, v.first, v.second], v.annotator, float(v.side)) for v in votes]
    # symmetric, one accuracy for each annotator: a full table of their errors would need many more votes than a project
    # usually has. Which response is "first" is chance, so errors of both directions are equally likely anyway.
    truth = dawid_skene(sides, symmetric=True)
    rows = dict(zip(truth.units, truth.posterior.tolist(), strict=True))
    return {
        pair: {int(side): p for side, p in zip(truth.labels, rows[name], strict=True)}
        for pair, name in names.items()
    }


def _outcome(pair: Pair, group: Sequence[PairVote], weighed: Mapping[int, float] | None) -> Outcome:
    votes = [v for v in group if not v.adjudicated]
    verdicts = [v for v in group if v.adjudicated]
    count = Counter(v.side for v in votes)
    share = weighed or {side: count[side] / max(1, len(votes)) for side in (-1, 0, 1)}
    left, tie, right = (share.get(side, 0.0) for side in (-1, 0, 1))
    side, support = decide(left, tie, right)
    strengths = [v.strength for v in votes]
    if verdicts:
        side, strengths = verdicts[-1].side, [verdicts[-1].strength]
        support = (1 - side) / 2
    return Outcome(
        *pair,
        winner={-1: pair[1], 0: None, 1: pair[2]}[side],
        support=support,
        margin=margin(side, strengths),
        for_first=count[-1],
        for_second=count[1],
        ties=count[0],
        annotators=tuple(sorted({v.annotator for v in votes})),
        adjudicated=bool(verdicts),
    )


def keep(every: Iterable[Outcome], rule: Rule) -> tuple[list[Outcome], dict[str, int]]:
    """The outcomes that become preferences, and how many are left out for which reason."""
    kept: list[Outcome] = []
    dropped: Counter[str] = Counter()
    for outcome in every:
        if outcome.votes < rule.min_votes and not outcome.adjudicated:
            dropped[f"pairs with fewer than {rule.min_votes} votes"] += 1
        elif outcome.winner is None:
            dropped["pairs without a winner (ties, or votes that cancel out)"] += 1
        elif outcome.agreement < rule.min_agreement:
            dropped[f"pairs with an agreement below {rule.min_agreement:g}"] += 1
        else:
            kept.append(outcome)
    return kept, dict(dropped)


def conflicts(every: Iterable[Outcome], below: float = CONFLICT) -> list[Outcome]:
    """Pairs to show to a reviewer: both sides have votes, and agreement is below ``below``.

    The most disputed come first: by agreement, then by the number of votes. Pairs that a reviewer decided are left out.
    """
    disputed = [
        o for o in every if not o.adjudicated and o.agreement < below and o.for_first and o.for_second
    ]
    return sorted(disputed, key=lambda o: (o.agreement, -o.votes))


def ranks_of(every: Iterable[Outcome], responses: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """One ranking for each item from the outcomes of its pairs.

    Args:
        every: outcomes of rankings, or of several pairs of an item.
        responses: how many responses each item has; one without any outcome shares the middle.

    Returns:
        1 is best, equal strengths share a rank, no rank is left out. The ranking of a single annotator comes back
        unchanged.
    """
    # Majorities of pairs can form a circle (A over B, B over C, C over A), which no ranking follows. Bradley-Terry
    # strengths of the pairs' support always give an order, and the likeliest one.
    wins = {item: np.zeros((n, n)) for item, n in responses.items()}
    for outcome in every:
        i, j = outcome.first, outcome.second
        wins[outcome.item][i, j] += outcome.support
        wins[outcome.item][j, i] += 1 - outcome.support
    return {item: _ranks(bradley_terry.fit(table).tolist()) for item, table in wins.items()}


def _ranks(strengths: Sequence[float]) -> tuple[int, ...]:
    """Dense ranks; a strength close to the next better one shares its rank."""
    order = sorted(range(len(strengths)), key=lambda i: -strengths[i])
    ranks = [1] * len(strengths)
    for better, worse in zip(order, order[1:], strict=False):
        ranks[worse] = ranks[better] + (strengths[better] - strengths[worse] > EQUAL)
    return tuple(ranks)
