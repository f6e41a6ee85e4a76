"""Exports of Argilla 1 and 2: fields and questions that a project named, and the answers of each annotator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number
from plaudit.data.reading.exports.shapes import (
    PROMPTS,
    RESPONSES,
    SYSTEMS,
    between,
    compared,
    contents_of,
    hint,
    judged,
    leave_unanswered,
    models_of,
    name_of,
    normal,
    prompt_of,
    ranked,
    rated_sides,
    sides_of,
    strength_of,
    verdict,
)
from plaudit.data.reading.rows import shorten_names

_DONE = ("", "submitted")
_UNDONE = "answers that are drafts or were discarded, left out"


@dataclass(frozen=True, slots=True)
class Answer:
    """One annotator's answer to one question. ``of`` is the object in which it stands under ``key``."""

    question: str
    annotator: str
    value: Any
    of: Item
    key: str


def records_1(item: Item) -> list[OwnRow]:
    """A `FeedbackRecord`: `fields`, and `responses`: for each annotator the values of all questions."""
    answers = []
    for response in item.items("responses"):
        values = response.item("values")
        if _done(response, response.label("status")):
            user = response.label("user_id")
            each = ((question, values.item(question)) for question in values.values)
            answers += [Answer(str(q), user, of.peek("value"), of, "value") for q, of in each]
    identity = item.label("external_id", "id") or item.identity
    return _rows(item, item.item("fields"), answers, identity)


def table_1(item: Item) -> list[OwnRow]:
    """A `FeedbackDataset` as a table: a column for each field, and for each question a list of answers."""
    questions = [str(name) for name, value in item.values.items() if _is_answers(value)]
    answers = []
    for question in questions:
        for of in item.items(question):
            if _done(of, of.label("status")):
                answers.append(Answer(question, of.label("user_id"), of.peek("value"), of, "value"))
    identity = item.label("external_id", "id") or item.identity
    beside = [name for q in questions for name in (q, f"{q}-suggestion", f"{q}-suggestion-metadata")]
    return _rows(item, item, answers, identity, (*beside, "external_id", "id", "metadata"))


def records_2(item: Item) -> list[OwnRow]:
    """A record of Argilla 2: `fields`, and `responses`: for each question a list of answers."""
    answers = []
    responses = item.item("responses")
    for question in responses.values:
        for of in responses.items(question):
            if _done(of, of.label("status")):
                answers.append(Answer(str(question), of.label("user_id"), of.peek("value"), of, "value"))
    return _rows(item, item.item("fields"), answers, item.label("id") or item.identity)


def table_2(item: Item) -> list[OwnRow]:
    """Records of Argilla 2 as a table: answers to a question under `question.responses`, who gave them beside it."""
    answers = []
    ends = (".responses", ".responses.users", ".responses.status", ".suggestion")
    names = [str(name) for name in item.values]
    for column in [name for name in names if name.endswith(".responses")]:
        values = item.chat(column) if item.has(column) else []
        users = item.chat(f"{column}.users") if item.has(f"{column}.users") else [""] * len(values)
        states = item.chat(f"{column}.status") if item.has(f"{column}.status") else [""] * len(values)
        for value, user, state in zip(values, users, states, strict=False):
            if str(state or "").lower() not in _DONE:
                item.log.leave_out(_UNDONE)
            else:
                answers.append(Answer(column.removesuffix(".responses"), str(user), value, item, column))
    beside = [name for name in names if any(end in name for end in ends)]
    return _rows(item, item, answers, item.label("id") or item.identity, (*beside, "id", "_server_id", "status"))


def _done(item: Item, status: str) -> bool:
    """Whether an answer was submitted; drafts and what was discarded are counted."""
    done = status.lower() in _DONE
    if not done:
        item.log.leave_out(_UNDONE)
        item.dismiss()
    return done


# Answers to records


def _rows(
    item: Item, fields: Item, answers: Sequence[Answer], identity: str, leave: Sequence[str] = ()
) -> list[OwnRow]:
    if not answers:
        return leave_unanswered(item)
    sides = sides_of(fields, leave)
    if sides:
        return _compared(item, fields, answers, identity, leave)
    numbers = [answer for answer in answers if as_number(answer.value) is not None]
    response = name_of(fields, "response", RESPONSES, leave)
    if numbers and response and name_of(fields, "prompt", PROMPTS, [*leave, response]):
        row = {"prompt": prompt_of(fields, [*leave, response]), "response": fields.content(response)}
        return _rated(numbers, row, identity)
    texts = [answer for answer in answers if isinstance(answer.value, str)]
    only_a_prompt = len(contents_of(fields, [*leave, *SYSTEMS])) == 1
    if texts and only_a_prompt and len({answer.question for answer in texts}) == 1 and not numbers:
        return _written(fields, texts, identity, leave)
    found = f"the fields {shorten_names(fields.values)} and the questions {shorten_names(_questions(answers))}"
    item.fault("fields", found, hint("prompt", "response_a", "response_b", "label"))
    return []


def _compared(
    item: Item, fields: Item, answers: Sequence[Answer], identity: str, leave: Sequence[str]
) -> list[OwnRow]:
    row, sides = compared(fields, identity, leave)
    asked = item.asked.get("label", "")
    candidates = [q for q in _questions(answers) if q == asked or (not asked and _tells(q, answers, sides))]
    if not candidates and (rated := _rated_sides(item, answers, sides)):
        return _by_ratings(item, row, rated)
    if len(candidates) != 1:
        found = f"the questions {shorten_names(_questions(answers))} about {' and '.join(sides)}"
        item.fault("responses", found, hint("label").replace("NAME", "QUESTION"))
        return []
    if len(sides) == 2:
        # Older records keep what is known of the models in the metadata.
        known = item.item("metadata") if isinstance(item.peek("metadata"), dict) else item
        row |= models_of(known)
    rows: list[OwnRow] = []
    for answer in (answer for answer in answers if answer.question == candidates[0]):
        _mark(answer)
        ranks = _ranks(answer.value, sides)
        if ranks is None:
            strength = verdict(answer.of, answer.key, answer.value, sides)
        else:
            strength = None if len(sides) > 2 else (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])
        if strength is not None:
            rows += judged(row, [(answer.annotator, strength, None)])
        elif ranks is not None:
            named = {**row, "id": f"{identity}/{answer.annotator}" if answer.annotator else identity}
            rows += ranked(named, row["responses"], ranks, item)
    return rows


def _rated_sides(item: Item, answers: Sequence[Answer], sides: Sequence[str]) -> dict[str, list[float]]:
    """The ratings of all sides by annotator, where each side has a question of its own; empty if it is not so."""
    numbers = [answer for answer in answers if as_number(answer.value) is not None]
    if rated_sides({answer.question: 0.0 for answer in numbers}, sides) is None:
        return {}
    by_annotator: dict[str, dict[str, float]] = {}
    for answer in numbers:
        answer.of.take(answer.key)
        by_annotator.setdefault(answer.annotator, {})[answer.question] = float(answer.value)
    found = {name: rated_sides(own, sides) for name, own in by_annotator.items()}
    whole = {name: ratings for name, ratings in found.items() if ratings is not None}
    item.log.leave_out("answers that rate some of the responses only, left out", len(found) - len(whole))
    return whole


def _by_ratings(item: Item, row: OwnRow, rated: Mapping[str, list[float]]) -> list[OwnRow]:
    """A judgement or a ranking for each annotator, from ratings of the responses, where higher is better."""
    if "responses" not in row:
        known = item.item("metadata") if isinstance(item.peek("metadata"), dict) else item
        return judged(row | models_of(known), [(name, *between(ratings)) for name, ratings in rated.items()])
    rows: list[OwnRow] = []
    for name, ratings in rated.items():
        named = {**row, "id": f"{row['id']}/{name}" if name else row["id"]}
        rows += ranked(named, row["responses"], [-rating for rating in ratings], item)
    return rows


def _mark(answer: Answer) -> None:
    """The answer counts as read."""
    if isinstance(answer.value, Mapping):
        each = [answer.of.item(answer.key)]
    elif isinstance(answer.value, list) and answer.key == "value" and all(isinstance(v, dict) for v in answer.value):
        each = answer.of.items(answer.key)
    else:
        answer.of.take(answer.key)
        return
    for one in each:
        one.take("value")
        one.take("rank")


def _tells(question: str, answers: Sequence[Answer], sides: Sequence[str]) -> bool:
    """Whether every answer to a question is a verdict on the sides, or a ranking of them."""
    values = [answer.value for answer in answers if answer.question == question]
    words = len(sides) == 2 and all(isinstance(value, str) for value in values)
    told = words and all(strength_of(value, sides) is not None for value in values)
    return told or all(_ranks(value, sides) is not None for value in values)


def _ranks(value: Any, sides: Sequence[str]) -> list[float] | None:
    """The rank of each side in the answer to a question of ranking; None if it is no such answer."""
    if isinstance(value, Mapping):
        # A table stores a list of objects as an object of lists.
        names, places = value.get("value"), value.get("rank")
        if not isinstance(names, list) or not isinstance(places, list) or len(names) != len(places):
            return None
        value = [{"value": name, "rank": rank} for name, rank in zip(names, places, strict=True)]
    if not isinstance(value, list):
        return None
    if all(isinstance(each, str) for each in value):
        value = [{"value": name, "rank": rank} for rank, name in enumerate(value, 1)]
    if not all(isinstance(each, Mapping) and as_number(each.get("rank")) is not None for each in value):
        return None
    by_name = {normal(each.get("value")): float(each["rank"]) for each in value}
    names = [normal(side) for side in sides]
    return [by_name[name] for name in names] if set(by_name) == set(names) else None


def _rated(numbers: Sequence[Answer], row: OwnRow, identity: str) -> list[OwnRow]:
    """One rating for each annotator: one question is the reward, several are axes."""
    for answer in numbers:
        answer.of.take(answer.key)
    rows = []
    for annotator in dict.fromkeys(answer.annotator for answer in numbers):
        own = {a.question: as_number(a.value) for a in numbers if a.annotator == annotator}
        name = f"{identity}/{annotator}" if annotator else identity
        rows.append({**row, "id": name} | ({"reward": next(iter(own.values()))} if len(own) == 1 else {"axes": own}))
    return rows


def _written(fields: Item, texts: Sequence[Answer], identity: str, leave: Sequence[str]) -> list[OwnRow]:
    """What annotators wrote as an answer to the prompt: demonstrations."""
    prompt = prompt_of(fields, leave)
    for answer in texts:
        answer.of.take(answer.key)
    names = [f"{identity}/{answer.annotator}" if answer.annotator else identity for answer in texts]
    return [{"id": name, "prompt": prompt, "response": a.value} for name, a in zip(names, texts, strict=True)]


def _questions(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.question for answer in answers))


# Which of these a row is


def _is_answers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"user_id", "value", "status"} <= each.keys() for each in value)
    )


def is_records_1(values: Mapping[str, Any]) -> bool:
    """Whether responses are listed by annotator."""
    responses = values.get("responses")
    listed = isinstance(responses, list) and all(isinstance(each, dict) and "values" in each for each in responses)
    return listed and isinstance(values.get("fields"), dict)


def is_records_2(values: Mapping[str, Any]) -> bool:
    """Whether responses are listed by question."""
    return isinstance(values.get("fields"), dict) and isinstance(values.get("responses"), dict)


def is_table_1(values: Mapping[str, Any]) -> bool:
    """Whether columns hold answers with their annotators, and suggestions stand beside them."""
    return any(f"{name}-suggestion" in values or _is_answers(value) for name, value in values.items())


def is_table_2(values: Mapping[str, Any]) -> bool:
    """Whether columns hold answers under `question.responses`."""
    return any(str(name).endswith(".responses") and f"{name}.users" in values for name in values)

