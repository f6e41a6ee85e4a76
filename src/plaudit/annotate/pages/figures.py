"""The figures and plots of the reviewer's pages, computed from annotations by ``plaudit.preferences``."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from plaudit.annotate.pages.charts import Dot, bars, dots
from plaudit.preferences.agreement import Agreement, Level, agreement
from plaudit.preferences.annotation import Annotation, Asked, Choice, Skip, Task, written_in
from plaudit.preferences.compare import Standings
from plaudit.preferences.quality import (
    FAST,
    FASTEST_READER,
    AnnotatorCard,
    PositionBias,
    annotator_cards,
    position_bias,
)
from plaudit.preferences.votes import labels

LEVEL: dict[Task, Level] = {
    "pairwise": "ordinal", "ranking": "nominal", "rating": "interval", "thumbs": "nominal", "demonstration": "nominal",
}  # fmt: skip
DRAWS = 400
"""Bootstrap draws: fewer than in reports, for a person waits for the page."""
SUSPICIOUS = 0.05
DAYS = 14
"""Days in the plot of answers."""
COLUMNS = (
    ("Answers", "First answers of this person; items left out and items asked again are not counted."),
    ("Skipped", "Items left out, with a reason."),
    ("Cannot judge", "Answers that say so."),
    ("Gold", "Credit on items with a known answer: 100% when all of them were found."),
    (
        "Again the same",
        "Items asked twice: how far the second answer agrees with this person's own first one.",
    ),
    ("With the others", "Share of votes on the side of the majority of the others."),
    (
        "First wins",
        "How often the response shown first won. The order is random, so about half is fair.",
    ),
    (
        "Median time",
        "Half of the answers took longer. Skips and answers with an edit are not timed.",
    ),
    (
        "Faster than reading",
        "Share of answers that came sooner than anybody reads prompt and responses: more than "
        f"{FASTEST_READER:g} characters a second. It looks at this person alone.",
    ),
    (
        "Faster than others",
        "Share of answers far quicker than what all annotators together usually take for items of that length "
        f"(an outlier: {-FAST:g} robust standard deviations). Who is quick in a team that is always quick has 0%.",
    ),
)
"""Of the table of annotators: name, and what it means."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One state of a project in figures and plots."""

    revision: int
    answers: int
    skipped: int
    flagged: int
    edits: int
    """Answers in which the annotator wrote or edited a text."""
    agreement: Agreement | None
    position: PositionBias
    cards: tuple[AnnotatorCard, ...]
    plots: dict[str, Markup]
    hints: dict[str, tuple[str, ...]]
    """What should be looked at, by annotator."""


def figures(
    task: Task, annotations: Sequence[Annotation], items: Mapping[str, Asked], revision: int
) -> Figures:
    """Everything that the dashboard shows."""
    votes = labels(annotations)
    shared = Counter(vote.unit for vote in votes)
    mirrored = task in ("pairwise", "ranking")
    several = any(n > 1 for n in shared.values())
    measured = agreement(votes, LEVEL[task], mirrored=mirrored, draws=DRAWS) if several else None
    cards = tuple(annotator_cards(annotations, items))
    return Figures(
        revision=revision,
        answers=sum(not isinstance(a.answer, Skip) and not a.adjudicated for a in annotations),
        skipped=sum(isinstance(a.answer, Skip) for a in annotations),
        flagged=sum(bool(a.flags) for a in annotations),
        edits=sum(written_in(a.answer) is not None for a in annotations),
        agreement=measured,
        position=position_bias(annotations),
        cards=cards,
        plots=_plots(annotations, cards, measured),
        hints={card.annotator: _hints(card) for card in cards},
    )


def _plots(
    annotations: Sequence[Annotation], cards: Sequence[AnnotatorCard], measured: Agreement | None
) -> dict[str, Markup]:
    gold = [Dot(c.annotator, c.gold.value, c.gold.low, c.gold.high, _share(c.gold.value)) for c in cards]
    peers = [Dot(c.annotator, c.peers.value, c.peers.low, c.peers.high, _share(c.peers.value)) for c in cards]
    first = [
        Dot(
            c.annotator,
            p.first.value,
            p.first.low,
            p.first.high,
            _share(p.first.value),
            p.p_value < SUSPICIOUS,
        )
        for c in cards
        for p in (c.position,)
    ]
    slowest = max((c.pace.median_seconds for c in cards if math.isfinite(c.pace.median_seconds)), default=1.0)
    pace = [
        Dot(c.annotator, c.pace.median_seconds, note=f"{c.pace.median_seconds:.0f} s", bad=_is_fast(c))
        for c in cards
    ]
    pairs = measured.pairs if measured else ()
    kappa = [Dot(f"{p.first} \u2013 {p.second}", p.kappa.value, p.kappa.low, p.kappa.high) for p in pairs]
    return {
        "gold": dots(gold, "Credit on items with a known answer, with 95 % intervals"),
        "peers": dots(peers, "Share of votes on the side of the majority of the others"),
        "position": dots(first, "How often the response shown first won", line=0.5),
        "pace": dots(pace, "Median seconds for an answer", high=max(1.0, slowest)),
        "kappa": dots(
            kappa, "Cohen's kappa of pairs of annotators", low=min([0.0, *(k.value for k in kappa)])
        ),
        "choices": _choices(annotations),
        "days": _days(annotations),
    }


def _choices(annotations: Sequence[Annotation]) -> Markup:
    """How often each answer was given, in the order shown: the first response on the left."""
    seen: Counter[str] = Counter()
    for a in annotations:
        if isinstance(a.answer, Choice) and not a.adjudicated:
            turned = a.answer.strength if a.order[0] == 0 else -a.answer.strength
            seen[a.answer.verdict or str(turned)] += 1
    names = {"-2": "1st much", "-1": "1st", "0": "same", "1": "2nd", "2": "2nd much"}
    names |= {"both_bad": "both bad", "cannot_judge": "cannot judge"}
    return bars([(name, seen[key]) for key, name in names.items()], "How often each answer was given")


def _days(annotations: Sequence[Annotation]) -> Markup:
    times = [a.created_at for a in annotations if not isinstance(a.answer, Skip) and not a.adjudicated]
    stamps = [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in times]
    days = Counter(stamp.strftime("%d %b") for stamp in sorted(stamps))
    return bars(list(days.items())[-DAYS:], "Answers per day")


def _is_fast(card: AnnotatorCard) -> bool:
    # Neither a few answers nor a share that chance explains marks a person: at least five, and the lower end of the
    # interval above the threshold. The same holds for all hints below.
    return any(share.n >= 5 and share.low > SUSPICIOUS for share in (card.pace.unread, card.pace.fast))


def model_plots(standings: Standings) -> dict[str, Markup]:
    """Plots of the strengths of models, and of the win rates of every two."""
    strengths = [Dot(s.model, s.strength.value, s.strength.low, s.strength.high) for s in standings.models]
    ends = [end for dot in strengths for end in (dot.value, dot.low, dot.high) if math.isfinite(end)]
    far = max([1.0, *map(abs, ends)])
    rates = [
        Dot(
            f"{v.model} \u2013 {v.other}",
            v.win_rate.value,
            v.win_rate.low,
            v.win_rate.high,
            _share(v.win_rate.value),
        )
        for v in standings.versus
    ]
    return {
        "strengths": dots(strengths, "Bradley-Terry strengths", line=0.0, low=-far, high=far),
        "rates": dots(rates, "Win rates", line=0.5),
    }


def _hints(card: AnnotatorCard) -> tuple[str, ...]:
    """Reasons to look at an annotator's answers, in words."""
    hints = []
    if card.gold.n >= 5 and card.gold.high < 0.7:
        hints.append(f"finds {card.gold.value:.0%} of the known answers of gold items")
    if card.position.p_value < SUSPICIOUS / 5 and card.position.first.n >= 20:
        side = "first" if card.position.first.value > 0.5 else "last"
        hints.append(f"prefers what is shown {side}")
    if card.pace.unread.n >= 5 and card.pace.unread.low > SUSPICIOUS:
        hints.append(f"{card.pace.unread.value:.0%} of the answers faster than reading")
    if card.pace.fast.n >= 5 and card.pace.fast.low > SUSPICIOUS:
        hints.append(f"{card.pace.fast.value:.0%} of the answers faster than others")
    if card.repeats.n >= 5 and card.repeats.high < 0.8:
        hints.append("answers differently the second time")
    return tuple(hints)


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else ""
