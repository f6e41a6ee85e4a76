"""Is a judge worth asking? Its verdicts on pairs that people have decided, beside those of the people.

A judge is a model that is asked which of two responses is better, in both orders. It is not trusted before people have
answered enough of the same questions: without their answers nobody knows what its verdicts say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from plaudit.preferences.aggregate import Pair, outcomes
from plaudit.preferences.quality import PositionBias, binomial_test
from plaudit.preferences.votes import PairVote
from plaudit.statistics.intervals import Estimate, counted

LEAST_ITEMS = 50
"""Items with a majority of people, below which nothing is said about a judge: with 50 the interval is +- 0.13."""
BIASED = 0.05
"""A test with a smaller p-value says that the place decides."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of two responses of an item.

    ``side`` is -1 for the first, 1 for the second, 0 for a tie, as in `PairVote`. ``place`` is 1 or -1 where the two
    orders named different winners, and that in the first or in the second place won both times; ``side`` is 0 then.
    """

    side: int
    place: int
    lengths: tuple[int, int]
    """Characters of the two responses."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A judge beside people. Shares are undefined where there is nothing to count."""

    items: int
    """Items that people decided and the judge answered."""
    agreement: Estimate
    """How often the judge names the winner of the people, a tie of the judge counting half; mean over items."""
    people: Estimate
    """How often a person votes with the majority of the others, on the same pairs."""
    ties: Estimate
    """Share of the pairs that the judge calls a tie, those included that the place decided."""
    flips: Estimate
    """Share of the pairs whose two orders named different winners."""
    position: PositionBias
    """Of these, how often that in the first place won."""
    longer: Estimate
    """How often the longer response wins with the judge, where it names a winner."""
    longer_people: Estimate
    """How often the longer response wins with the people, on the same pairs."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the judge is not trusted, in words; none: it is."""
        if self.items < LEAST_ITEMS:
            return (
                f"people have decided {self.items} items that the judge has answered, and {LEAST_ITEMS} are needed",
            )
        if self.agreement.low <= 0.5:
            return (f"its agreement with people, {self.agreement}, may be that of a coin",)
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of a judge that is trusted all the same."""
        notes = []
        if self.items >= LEAST_ITEMS and self.agreement.high < self.people.low:
            notes.append("people agree with each other more often than the judge agrees with them")
        if self.position.p_value < BIASED:
            place = "first" if self.position.first.value > 0.5 else "second"
            notes.append(f"it likes what stands in the {place} place; both orders are asked, so close pairs are ties")
        if self.longer.low > self.longer_people.high:
            notes.append("it chooses the longer response more often than people do")
        if self.longer.high < self.longer_people.low:
            notes.append("it chooses the longer response less often than people do")
        return tuple(notes)

    def __str__(self) -> str:
        """The figures as plain lines."""
        rows = [
            ("agreement with people", str(self.agreement)),
            ("people with each other", str(self.people)),
            ("ties", str(self.ties)),
            ("orders that disagree", str(self.flips)),
            ("then the first place wins", f"{self.position.first}, p = {self.position.p_value:.2g}"),
            ("the longer one wins", str(self.longer)),
            ("the same with people", str(self.longer_people)),
        ]
        lines = [f"{name:<26} {figure}" for name, figure in rows]
        return "\n".join([*lines, *(f"note  {note}" for note in self.notes)])


def calibrate(verdicts: Mapping[Pair, Verdict], votes: Sequence[PairVote]) -> Calibration:
    """Compare a judge with people.

    Args:
        verdicts: of the judge, by item and the indices of the two responses.
        votes: of people; those on other pairs are left out, and so are pairs without a majority.
    """
    on_same = [vote for vote in votes if (vote.item, vote.first, vote.second) in verdicts]
    winners: dict[Pair, int] = {}
    for o in outcomes(on_same):
        if o.winner is not None:
            winners[o.item, o.first, o.second] = -1 if o.winner == o.first else 1
    both = [(pair, verdicts[pair], side) for pair, side in winners.items()]
    # Several pairs of one ranking are not independent, so the item is the unit.
    by_item: dict[str, list[float]] = defaultdict(list)
    for pair, verdict, side in both:
        by_item[pair[0]].append((1 + verdict.side * side) / 2)
    places = [verdict.place for _, verdict, _ in both if verdict.place]
    first = places.count(1)
    unequal = [(v, side) for _, v, side in both if v.side and v.lengths[0] != v.lengths[1]]
    longer = [-1 if v.lengths[0] > v.lengths[1] else 1 for v, _ in unequal]
    return Calibration(
        items=len(by_item),
        agreement=counted(sum(fmean(credits) for credits in by_item.values()), len(by_item)),
        people=_with_each_other(on_same),
        ties=counted(sum(v.side == 0 for _, v, _ in both), len(both)),
        flips=counted(len(places), len(both)),
        position=PositionBias(counted(first, len(places)), binomial_test(first, len(places))),
        longer=counted(sum(v.side == long for (v, _), long in zip(unequal, longer, strict=True)), len(unequal)),
        longer_people=counted(sum(s == long for (_, s), long in zip(unequal, longer, strict=True)), len(unequal)),
    )


def _with_each_other(votes: Sequence[PairVote]) -> Estimate:
    """The share of votes on the side of the majority of the others, where these have one; ties are votes too."""
    groups: dict[Pair, list[int]] = defaultdict(list)
    for vote in votes:
        if not vote.adjudicated:
            groups[vote.item, vote.first, vote.second].append(vote.side)
    agreed = [
        (1 + side * (1 if sum(sides) > side else -1)) / 2
        for sides in groups.values()
        for side in sides
        if sum(sides) != side
    ]
    return counted(sum(agreed), len(agreed))
