"""Simulated annotators: they see a known true score with noise, err at a known rate, and favour a position.

The difference that an annotator perceives is the difference of the true scores, plus ``position_bias`` for the response
shown first, plus logistic noise. Without further errors the choice follows Bradley and Terry: P(a over b) =
sigmoid((s_a - s_b) / temperature). With probability ``error_rate`` the verdict is then turned round.
"""

# Every random draw depends on the seed, the annotator's name and the index of the pair alone, not on the order of the
# judgements: with more pairs or more annotators, the verdicts that were there before stay the same.

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.errors import ConfigError
from plaudit.preferences.aggregate import Outcome, outcomes
from plaudit.preferences.votes import judgement_votes
from plaudit.records import Judgement, Preference

ScoreFn = Callable[[str, str], float]
"""(prompt, response) -> true score."""

TextPair = tuple[str, str, str]
"""(prompt, response a, response b)."""


@dataclass(frozen=True, slots=True)
class SimulatedAnnotator:
    """One simulated annotator.

    Args:
        name: stands in the judgements, and enters the random draws.
        error_rate: share of verdicts turned round, whatever the difference; 0 to 0.5.
        temperature: scale of the noise in units of the true score; 0: no noise.
        position_bias: units of the true score by which the response shown first seems better.
        tie_width: perceived differences of at most this size are called a tie.
        much: perceived differences of at least this size are called much better.

    Raises:
        ConfigError: a value out of its range.
    """

    name: str
    error_rate: float = 0.1
    temperature: float = 0.25
    position_bias: float = 0.0
    tie_width: float = 0.0
    much: float = 1.0

    def __post_init__(self) -> None:
        _check(self.name, "error_rate", self.error_rate, 0.0, 0.5)
        _check(self.name, "temperature", self.temperature, 0.0, math.inf)
        _check(self.name, "tie_width", self.tie_width, 0.0, math.inf)
        _check(self.name, "much", self.much, self.tie_width, math.inf)

    def judge(
        self, prompt: str, response_a: str, response_b: str, score_fn: ScoreFn, *, seed: int, index: int = 0
    ) -> Judgement:
        """The verdict on two responses, ``response_a`` being shown first."""
        draw = random.Random(f"judgement/{seed}/{self.name}/{index}")
        difference = score_fn(prompt, response_a) - score_fn(prompt, response_b) + self.position_bias
        perceived = difference + self.temperature * _logistic(draw.random())
        if draw.random() < self.error_rate:
            perceived = -perceived
        strength = 0 if abs(perceived) <= self.tie_width else 2 if abs(perceived) >= self.much else 1
        signed = -strength if perceived > 0 else strength
        identity = f"{seed}-{index}-{self.name}"
        return Judgement(identity, prompt, response_a, response_b, signed, annotator=self.name)

    def accuracy(self, difference: float) -> float:
        """Probability of preferring the better of two responses whose true scores differ by ``difference`` >= 0.

        It holds for an annotator without ties, and for responses in random order.
        """
        shown = (difference + self.position_bias, difference - self.position_bias)
        right = (
            sum(_sigmoid(d / self.temperature) if self.temperature else 0.5 + 0.5 * _sign(d) for d in shown)
            / 2
        )
        return right * (1 - self.error_rate) + (1 - right) * self.error_rate


def panel(
    n: int = 5, *, error_rate: float = 0.1, temperature: float = 0.25, position_bias: float = 0.0
) -> tuple[SimulatedAnnotator, ...]:
    """``n`` annotators who err at the same rate, independently of each other."""
    names = (f"annotator-{k + 1}" for k in range(n))
    return tuple(SimulatedAnnotator(name, error_rate, temperature, position_bias) for name in names)


def judge_pairs(
    pairs: Sequence[TextPair],
    annotators: Sequence[SimulatedAnnotator],
    score_fn: ScoreFn,
    *,
    seed: int,
    annotators_per_item: int = 1,
) -> list[Judgement]:
    """Let ``annotators_per_item`` annotators judge each pair, which each of them sees in a random order.

    Returns:
        ``len(pairs) * annotators_per_item`` judgements, pair by pair, with the responses in the order shown.

    Raises:
        ConfigError: more annotators asked for than there are, or none.
    """
    if not 1 <= annotators_per_item <= len(annotators):
        raise ConfigError(
            f"annotators_per_item is {annotators_per_item}, with {len(annotators)} annotators",
            cure=f"choose a number from 1 to {len(annotators)}"
            if annotators
            else "give at least one annotator",
        )
    judgements = []
    for index, (prompt, a, b) in enumerate(pairs):
        draw = random.Random(f"assignment/{seed}/{index}")
        start = int(draw.random() * len(annotators))
        # Neighbours in the list, from a random start: no annotator judges a pair twice.
        for k in range(annotators_per_item):
            annotator = annotators[(start + k) % len(annotators)]
            first, second = (a, b) if draw.random() < 0.5 else (b, a)
            judgements.append(annotator.judge(prompt, first, second, score_fn, seed=seed, index=index))
    return judgements


def to_preferences(judgements: Sequence[Judgement]) -> list[Preference]:
    """One preference for each pair of responses, by majority, in the order in which the pairs first appear.

    By the rule of `aggregate.outcomes`: ``agreement`` is the winner's share of the votes, a tie counting half;
    ``margin`` is the mean strength in its favour (0 to 2). A pair without a majority is left out.
    """
    votes, first = judgement_votes(judgements)
    return [_preference(o, first[o.item]) for o in outcomes(votes) if o.winner is not None]


def agreement_with(preferences: Sequence[Preference], score_fn: ScoreFn) -> float:
    """Share of preferences whose chosen response has the higher true score; equal scores count half.

    One minus this is the error rate of the labels; no reward model can be expected to agree with the labels more often.
    """
    if not preferences:
        return math.nan
    gains = [
        score_fn(str(p.prompt), str(p.chosen)) - score_fn(str(p.prompt), str(p.rejected)) for p in preferences
    ]
    return sum(0.5 + 0.5 * _sign(gain) for gain in gains) / len(gains)


def _preference(outcome: Outcome, judged: Judgement) -> Preference:
    a, b = judged.response_a, judged.response_b
    chosen, rejected = (a, b) if outcome.winner == 0 else (b, a)
    annotator = outcome.annotators[0] if len(outcome.annotators) == 1 else None
    return Preference(
        judged.id, judged.prompt, chosen, rejected, outcome.margin, outcome.agreement, annotator
    )


def _check(name: str, key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(
            f"{key} of the simulated annotator {name!r} is {value}",
            cure=f"choose a value from {low:g} to {high:g}",
        )


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _logistic(u: float) -> float:
    """The standard logistic variable at quantile ``u`` in [0, 1)."""
    u = min(max(u, 1e-12), 1 - 1e-12)
    return math.log(u / (1 - u))
