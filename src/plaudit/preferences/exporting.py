"""Annotations as training data, each row with its provenance.

The functions are pure: the annotations as they stood at a revision give an export with the same bytes every time.
"""

# Each kind of export is a function (annotations, items, rule, dropped) -> records with provenance. It counts what
# it leaves out in ``dropped``, by reason, because a row that is silently missing looks like an answer that was
# never given.

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from plaudit.errors import DataError
from plaudit.preferences.aggregate import Outcome, Rule, Survey, gold_among, keep, outcomes, ranks_of, usable
from plaudit.preferences.annotation import (
    Annotation,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Task,
    Thumbs,
    answer_to_json,
    written_in,
)
from plaudit.preferences.disputes import nearness
from plaudit.preferences.votes import PairVote, is_vote, pair_votes
from plaudit.records import Demonstration, Judgement, Preference, Ranking, Rating, Record, to_json
from plaudit.statistics.intervals import counted

EVERYTHING = Rule()
"""The rule that keeps every majority, however small."""
What = Literal["preferences", "rankings", "ratings", "kto", "demonstrations", "judgements", "annotations"]
WHAT_OF: dict[Task, What] = {
    "pairwise": "preferences",
    "ranking": "rankings",
    "rating": "ratings",
    "thumbs": "kto",
    "demonstration": "demonstrations",
}
"""What the answers to a task are exported as where the person names nothing."""


AGGREGATED: tuple[What, ...] = ("preferences", "rankings", "ratings", "kto")
"""Kinds of which a row is made of all answers to an item; a row of the others is made of one answer."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    what: What
    rows: tuple[dict[str, Any], ...]
    """JSON-ready: the fields of the record, and ``provenance``."""
    records: tuple[Record, ...] = ()
    """The records that reading the rows gives; none for raw annotations."""
    dropped: dict[str, int] = field(default_factory=dict)
    """What is left out, counted by reason."""

    def to_jsonl(self) -> bytes:
        """The rows as a file: the same bytes for the same annotations."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows).encode()



def export(
    what: What, annotations: Iterable[Annotation], items: Mapping[str, Item], rule: Rule = EVERYTHING
) -> Exported:
    """Annotations as training data.

    Args:
        what: preferences (of pairwise answers and rankings), rankings, ratings, kto (thumbs: reward 1 or 0),
            demonstrations (texts written, edits of the best response too), judgements (single verdicts on two
            responses, of rankings too; ``response_a`` is the one shown first), or annotations: every answer.
        annotations: the answers that count at one revision.
        items: by key.
        rule: for preferences, rankings, ratings and kto; the default keeps every majority. Whether flagged items are
            left out holds for all but the raw annotations.

    Returns:
        Rows in the order in which their items were first answered, and the counts of what is left out.

    Raises:
        DataError: there is no such export, or an annotation's item is not among the items.
    """
    if what not in _EXPORTS:
        raise DataError(f"there is no export {what!r}", cure=f"choose one of {', '.join(_EXPORTS)}")
    answers = sorted(annotations, key=lambda a: a.revision)
    missing = next((a.item for a in answers if a.item not in items), None)
    if missing is not None:
        raise DataError(
            f"item {missing!r} is annotated but not there", cure="export items and answers together"
        )
    survey = Survey(rule)
    if what != "annotations":
        survey.add(answers, gold_among(items))
    made = export_part(what, answers, items, survey)
    return replace(made, dropped=dict(survey.left_out + Counter(made.dropped)))


def export_part(
    what: What, answers: Sequence[Annotation], items: Mapping[str, Item], survey: Survey
) -> Exported:
    """A part of an export: for kinds that are `AGGREGATED`, of all answers to some items; for others, of any answers.

    Args:
        what: the kind.
        answers: in the order of their rows.
        items: by key.
        survey: of all answers, of which these are a part; it has counted those that are not usable.
    """
    dropped: Counter[str] = Counter()
    if what != "annotations":
        answers, _ = usable(answers, gold_among(items), survey.rule, survey.flagged)
    made = _EXPORTS[what](answers, items, survey, dropped)
    if what == "annotations":
        return Exported(what, tuple(origin for _, origin in made))
    rows = tuple(
        {**to_json(record), "provenance": origin} if record is not None else origin for record, origin in made
    )
    # The unary plus of a Counter leaves out the reasons that were counted zero times.
    return Exported(what, rows, tuple(r for r, _ in made if r is not None), dict(+dropped))


Made = list[tuple[Record | None, dict[str, Any]]]
"""Records, each with its provenance."""


# Aggregated: several answers to a row


def _preferences(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    rule = survey.rule
    kept, left_out = keep(outcomes(pair_votes(annotations), rule.method, survey.weighed), rule)
    dropped.update(left_out)
    voted = _by_item(annotations)
    made: Made = []
    for outcome in kept:
        item = items[outcome.item]
        assert outcome.winner is not None and outcome.loser is not None, "kept"
        chosen, rejected = item.responses[outcome.winner], item.responses[outcome.loser]
        if chosen.content == rejected.content:
            dropped["pairs of identical responses"] += 1
            continue
        only = outcome.annotators[0] if len(outcome.annotators) == 1 else None
        key = item.key if len(item.responses) == 2 else f"{item.key}/{outcome.winner}>{outcome.loser}"
        preference = Preference(
            id=key,
            prompt=item.prompt,
            chosen=chosen.content,
            rejected=rejected.content,
            margin=outcome.margin if survey.graded else None,
            agreement=outcome.agreement,
            annotator=only,
        )
        made.append((preference, _origin_of_pair(outcome, voted[item.key], (chosen, rejected), rule)))
    return made


def _origin_of_pair(
    outcome: Outcome, answers: Sequence[Annotation], pair: tuple[ItemResponse, ItemResponse], rule: Rule
) -> dict[str, Any]:
    won = outcome.for_first if outcome.winner == outcome.first else outcome.for_second
    return {
        **_origin(answers),
        "votes": {"chosen": won, "rejected": outcome.votes - won - outcome.ties, "tie": outcome.ties},
        "method": rule.method,
        "adjudicated": outcome.adjudicated,
        "chosen": _source(pair[0]),
        "rejected": _source(pair[1]),
    }


def _rankings(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    """The reviewer's ranking, or one made of all annotators' pairs; agreement is the mean over the pairs."""
    rule = survey.rule
    ranked = _by_item([a for a in annotations if isinstance(a.answer, (Ranks, Choice))])
    by_item: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes(pair_votes(annotations), rule.method, survey.weighed):
        by_item[outcome.item].append(outcome)
    every = [outcome for own in by_item.values() for outcome in own]
    ranks = ranks_of(every, {key: len(items[key].responses) for key in ranked})
    made: Made = []
    for key, answers in ranked.items():
        agreement = fmean(o.agreement for o in by_item[key])
        adjudicated = any(a.adjudicated for a in answers)
        if len(answers) < rule.min_votes and not adjudicated:
            dropped[f"rankings with fewer than {rule.min_votes} votes"] += 1
        elif agreement < rule.min_agreement:
            dropped[f"rankings with an agreement below {rule.min_agreement:g}"] += 1
        else:
            item = items[key]
            record = Ranking(key, item.prompt, tuple(r.content for r in item.responses), ranks[key])
            sources = [_source(r) for r in item.responses]
            origin = {"agreement": agreement, "adjudicated": adjudicated, "responses": sources}
            made.append((record, {**_origin(answers), **origin}))
    return made


def _ratings(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    """The mean score of each response: on each axis, and over the axes as its reward."""
    made: Made = []
    for key, answers in _by_item([a for a in annotations if isinstance(a.answer, Scores)]).items():
        deciding, rule = _deciding(answers), survey.rule
        if len(deciding) < rule.min_votes and not deciding[0].adjudicated:
            dropped[f"items with fewer than {rule.min_votes} ratings"] += 1
            continue
        scores = [a.answer.scores for a in deciding if isinstance(a.answer, Scores)]
        for i, response in enumerate(items[key].responses):
            values = {axis: [row[i][axis] for row in scores] for axis in scores[0][i]}
            if min(map(nearness, values.values())) < rule.min_agreement:
                dropped[f"responses with an agreement below {rule.min_agreement:g}"] += 1
                continue
            axes = {axis: fmean(each) for axis, each in values.items()}
            record = Rating(f"{key}/{i}", items[key].prompt, response.content, fmean(axes.values()), axes)
            made.append((record, {**_origin(deciding), "response": _source(response)}))
    return made


def _kto(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    """1 or 0 for each response, by the majority of thumbs."""
    made: Made = []
    for key, answers in _by_item([a for a in annotations if isinstance(a.answer, Thumbs)]).items():
        deciding, rule = _deciding(answers), survey.rule
        thumbs = [a.answer.up for a in deciding if isinstance(a.answer, Thumbs)]
        for i, response in enumerate(items[key].responses):
            up = sum(each[i] for each in thumbs)
            agreement = max(up, len(thumbs) - up) / len(thumbs)
            if len(thumbs) < rule.min_votes and not deciding[0].adjudicated:
                dropped[f"responses with fewer than {rule.min_votes} thumbs"] += 1
            elif 2 * up == len(thumbs):
                dropped["responses with as many thumbs up as down"] += 1
            elif agreement < rule.min_agreement:
                dropped[f"responses with an agreement below {rule.min_agreement:g}"] += 1
            else:
                record = Rating(
                    f"{key}/{i}", items[key].prompt, response.content, float(2 * up > len(thumbs))
                )
                low, high = counted(up, len(thumbs)).interval
                more = {"up": up, "votes": len(thumbs), "agreement": agreement, "interval": [low, high]}
                made.append((record, {**_origin(deciding), **more, "response": _source(response)}))
    return made


def _deciding(answers: Sequence[Annotation]) -> list[Annotation]:
    """The reviewer's verdict alone, if there is one; else all answers."""
    verdicts = [a for a in answers if a.adjudicated]
    return verdicts[-1:] or list(answers)


# One answer to a row


def _demonstrations(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    made: Made = []
    for a in annotations:
        written = written_in(a.answer)
        if written is None:
            dropped["answers that wrote nothing"] += 1
            continue
        item, base = items[a.item], written.base
        key = f"{a.item}/{a.annotator}{'/decided' if a.adjudicated else ''}"
        record = Demonstration(key, item.prompt, written.text)
        edited = {} if base is None else {"edited_from": {"response": base, **_source(item.responses[base])}}
        made.append((record, {**_origin_of_one(a), **edited}))
    return made


def _judgements(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    made: Made = []
    for a in annotations:
        if not isinstance(a.answer, (Choice, Ranks)) or a.adjudicated:
            dropped["answers that are no verdict of one person on two responses"] += 1
            continue
        made += [_judgement(a, items[a.item], vote) for vote in pair_votes([a])]
    return made


def _judgement(a: Annotation, item: Item, vote: PairVote) -> tuple[Record, dict[str, Any]]:
    """One person's verdict on two responses, in the order in which they were shown."""
    turned = bool(a.order) and a.order.index(vote.first) > a.order.index(vote.second)
    one, other = item.responses[vote.first], item.responses[vote.second]
    first, second = (other, one) if turned else (one, other)
    pair = "" if isinstance(a.answer, Choice) else f"{vote.first}-{vote.second}/"
    record = Judgement(
        id=f"{a.item}/{pair}{a.annotator}",
        prompt=item.prompt,
        response_a=first.content,
        response_b=second.content,
        strength=int(-vote.strength if turned else vote.strength),
        model_a=first.model,
        model_b=second.model,
        annotator=a.annotator,
    )
    verdict = a.answer.verdict if isinstance(a.answer, Choice) else ""
    return record, {**_origin_of_one(a), "verdict": verdict, "a": _source(first), "b": _source(second)}


def _annotations(
    annotations: Sequence[Annotation], items: Mapping[str, Item], survey: Survey, dropped: Counter[str]
) -> Made:
    made: Made = []
    for a in annotations:
        item = items[a.item]
        row = {
            **to_json(a),
            "answer": answer_to_json(a.answer),
            "prompt": to_json(item.prompt),
            "responses": [{"content": to_json(r.content), **_source(r)} for r in item.responses],
            "gold": item.gold is not None,
        }
        made.append((None, row))
    return made


_EXPORTS: dict[What, Callable[[Sequence[Annotation], Mapping[str, Item], Survey, Counter[str]], Made]] = {
    "preferences": _preferences,
    "rankings": _rankings,
    "ratings": _ratings,
    "kto": _kto,
    "demonstrations": _demonstrations,
    "judgements": _judgements,
    "annotations": _annotations,
}


# Provenance


def _origin(answers: Sequence[Annotation]) -> dict[str, Any]:
    """Who answered, when, with which guidelines, and in which rows of the history."""
    return {
        "annotators": sorted({a.annotator for a in answers if is_vote(a)}),
        "reviewers": sorted({a.annotator for a in answers if a.adjudicated}),
        "revisions": [a.revision for a in answers],
        "guideline_versions": sorted({a.guideline_version for a in answers}),
        "flags": sorted({flag for a in answers for flag in a.flags}),
        "from": min(a.created_at for a in answers),
        "until": max(a.created_at for a in answers),
    }


def _origin_of_one(a: Annotation) -> dict[str, Any]:
    return {
        "annotator": a.annotator,
        "revision": a.revision,
        "guideline_version": a.guideline_version,
        "at": a.created_at,
        "seconds": a.seconds,
        "flags": list(a.flags),
        "comment": a.comment,
    }


def _source(response: ItemResponse) -> dict[str, Any]:
    """Which policy wrote a response, and how it was sampled."""
    return {"model": response.model, **({"from": response.provenance} if response.provenance else {})}


def _by_item(answers: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    grouped: dict[str, list[Annotation]] = defaultdict(list)
    for a in answers:
        grouped[a.item].append(a)
    return grouped
