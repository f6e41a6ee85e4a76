"""Exports of Label Studio and Prodigy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number, unpacked
from plaudit.data.reading.exports.shapes import (
    PROMPTS,
    RESPONSES,
    between,
    compared,
    hint,
    is_chat,
    judged,
    leave_unanswered,
    models_of,
    name_of,
    prompt_of,
    ranked,
    rated_sides,
    sides_of,
    strength_of,
    verdict,
)
from plaudit.data.reading.rows import shorten, shorten_names

# Label Studio

_OWN_COLUMNS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history")


def label_studio(item: Item) -> list[OwnRow]:
    """A task of the full export: `data`, and `annotations` with the results of each annotator."""
    data = item.item("data")
    identity = item.label("id") or item.identity
    done = [each for each in item.items(item.has("annotations", "completions")) if _is_kept(each)]
    if not done:
        return leave_unanswered(item)
    if any(result.peek("type") == "ranker" for each in done for result in each.items("result")):
        return _label_studio_rankings(item, data, done, identity)
    sides = sides_of(data)
    if not sides:
        return _label_studio_ratings(item, data, done, identity)
    row, sides = compared(data, identity)
    row |= models_of(data)
    rows: list[OwnRow] = []
    for each in done:
        told = _result(each, item, sides)
        if told is not None:
            rows += judged(row, [(_annotator(each), *told)])
    return rows


def _is_kept(annotation: Item) -> bool:
    skipped = annotation.flag("was_cancelled", "skipped") is True
    if skipped:
        annotation.log.leave_out("annotations that were skipped, left out")
        annotation.dismiss()
    return not skipped


def _annotator(annotation: Item) -> str:
    """Who annotated: a number, or an object with a number and an address."""
    if isinstance(annotation.peek("completed_by"), dict):
        return annotation.item("completed_by").label("id", "email")
    return annotation.label("completed_by")


def _result(annotation: Item, item: Item, sides: list[str]) -> tuple[int, float | None] | None:
    """The verdict in the results of an annotation, or that of a rating of each side, as strength and margin.

    None, counted or at fault, if there is not one.
    """
    asked = item.asked.get("label")
    found: list[tuple[Item, str, Any, list[str]]] = []
    for result in annotation.items("result"):
        value = result.item("value")
        key = value.has("selected", "choices")
        word = value.peek(key) if key else None
        word = word[0] if isinstance(word, list) and len(word) == 1 else word
        shown = [name.strip() for name in str(result.peek("to_name")).split(",")]
        order = shown if set(shown) == set(sides) else sides
        is_meant = result.peek("from_name") == asked if asked else strength_of(word, order) is not None
        if key and is_meant:
            found.append((value, key, word, order))
    if not found and len(sides) == 2 and (ratings := rated_sides(_numbers(annotation), sides)) is not None:
        return between(ratings)
    if not found:
        annotation.log.leave_out("annotations without a verdict on the responses, left out")
        annotation.dismiss()
        return None
    if len(found) > 1:
        names = shorten_names(result.peek("from_name") for result in annotation.items("result"))
        annotation.fault("result", f"several verdicts ({names})", hint("label"))
        return None
    value, key, word, order = found[0]
    value.take(key)
    for result in annotation.items("result"):
        for name in ("to_name", "from_name", "type"):
            result.take(name)
    strength = verdict(value, key, word, order)
    # The first object that is shown is the left one.
    return None if strength is None else (strength if order == sides else -strength, None)


def _numbers(annotation: Item) -> dict[str, float]:
    """The numbers that an annotator gave, by the name of the question."""
    numbers = {}
    for result in annotation.items("result"):
        value = result.item("value")
        if (number := as_number(value.peek("rating", "number"))) is not None:
            value.take("rating", "number")
            numbers[result.label("from_name")] = number
    return numbers


def _label_studio_rankings(item: Item, data: Item, done: list[Item], identity: str) -> list[OwnRow]:
    """Items of a list in the order of each annotator."""
    rows: list[OwnRow] = []
    for each in done:
        orders = [one for one in each.items("result") if one.peek("type") == "ranker"]
        order = _order(orders[0]) if orders else []
        if not order:
            each.log.leave_out("annotations without a ranking, left out")
            each.dismiss()
            continue
        name = next((str(key) for key in data.values if set(order) <= set(_ids(data, str(key)))), "")
        if not name:
            item.fault("data", f"no list that holds {shorten_names(order)}", "expected the items that were ranked")
            return []
        by_id = dict(zip(_ids(data, name), data.items(name), strict=True))
        left = len(by_id) - len(order)
        item.log.leave_out("items that were not ranked, left out", left)
        row: OwnRow = {"id": identity, "prompt": prompt_of(data, [name])}
        # As they were shown, so that the order of the responses tells nothing.
        contents = {key: _item_text(by_id[key]) for key in by_id if key in order}
        annotator = _annotator(each)
        if len(contents) == 2:
            first, second = contents
            row |= {"response_a": contents[first], "response_b": contents[second]}
            rows += judged(row, [(annotator, -1 if order[0] == first else 1, None)])
        else:
            named = {**row, "id": f"{identity}/{annotator}" if annotator else identity}
            rows += ranked(named, list(contents.values()), [order.index(key) + 1.0 for key in contents], item)
    return rows


def _order(result: Item) -> list[str]:
    """The ids of a ranking, the best first; none, at fault, if they were sorted into buckets."""
    for name in ("to_name", "from_name", "type"):
        result.take(name)
    order = unpacked(result.item("value").take("ranker"))
    lists = list(order.values()) if isinstance(order, dict) else [order]
    if len(lists) != 1 or not isinstance(lists[0], list):
        found = f"the buckets {shorten_names(order)}" if isinstance(order, dict) else shorten(order)
        result.fault("value", found, "expected one order of the items; which bucket is better is not said in the file")
        return []
    return [str(each) for each in lists[0]]


def _ids(data: Item, name: str) -> list[str]:
    """The ids of the objects in a field; none if it is no list of such."""
    value = data.peek(name)
    are_items = isinstance(value, list) and all(isinstance(each, dict) and "id" in each for each in value)
    return [str(each["id"]) for each in value] if are_items else []


def _item_text(item: Item) -> Any:
    item.take("id")
    return item.content(item.has("body", "html", *RESPONSES, "title") or "body")


def _label_studio_ratings(item: Item, data: Item, done: list[Item], identity: str) -> list[OwnRow]:
    """Numbers that annotators gave to the only response."""
    response = name_of(data, "response", RESPONSES)
    if not response or not name_of(data, "prompt", PROMPTS, [response]):
        item.fault("data", f"the fields {shorten_names(data.values)}", hint("prompt", "response_a", "response_b"))
        return []
    row = {"prompt": prompt_of(data, [response]), "response": data.content(response)}
    rows: list[OwnRow] = []
    for each in done:
        numbers, annotator = _numbers(each), _annotator(each)
        name = f"{identity}/{annotator}" if annotator else identity
        if not numbers:
            item.log.leave_out("annotations without a number, left out")
            each.dismiss()
        elif len(numbers) == 1:
            rows.append({**row, "id": name, "reward": next(iter(numbers.values()))})
        else:
            rows.append({**row, "id": name, "axes": numbers})
    return rows


def label_studio_min(item: Item) -> list[OwnRow]:
    """A row of JSON-MIN or of the table: the task's data, the results under the names of the project's tags."""
    identity, annotator = item.label("id") or item.identity, item.label("annotator")
    results = [str(name) for name in item.values if name not in _OWN_COLUMNS and _selected(item.peek(name)) is not None]
    sides = sides_of(item, (*_OWN_COLUMNS, *results))
    asked = item.asked.get("label")
    others = [str(name) for name in item.values if name not in (*_OWN_COLUMNS, *sides)]
    others = [name for name in others if strength_of(item.peek(name), sides) is not None]
    found = [asked] if asked else results or others
    if not sides:
        item.fault("row", f"the fields {shorten_names(item.values)}", hint("prompt", "response_a", "response_b"))
        return []
    if not found or not item.has(found[0]):
        item.log.leave_out("annotations without a verdict on the responses, left out")
        return []
    if len(found) > 1:
        item.fault("row", f"several verdicts ({shorten_names(found)})", hint("label"))
        return []
    row, sides = compared(item, identity, (*_OWN_COLUMNS, found[0]))
    row |= models_of(item)
    value = item.peek(found[0])
    selected = _selected(value)
    if selected is None:
        item.take(found[0])
    else:
        one = item.items(found[0])[0] if isinstance(value, list) else item.item(found[0])
        one.take("selected")
    strength = verdict(item, found[0], value if selected is None else selected, sides)
    return [] if strength is None else judged(row, [(annotator, strength, None)])


def _selected(value: Any) -> str | None:
    """What was selected in a pairwise result: `[{"selected": "left"}]`."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    selected = one.get("selected") if isinstance(one, dict) else None
    return selected if isinstance(selected, str) else None


# Prodigy

_ANNOTATOR = ("_annotator_id", "_session_id")


def prodigy_choice(item: Item) -> list[OwnRow]:
    """A task with `options`, and in `accept` the ids of those that were chosen."""
    chosen = {str(each) for each in item.chat("accept")} if item.has("accept") else set()
    options = item.items("options")
    words = [_words(option) for option in options]
    ids = [option.label("id") or str(number) for number, option in enumerate(options)]
    ties = [i for i, word in enumerate(words) if strength_of(ids[i]) == 0 or strength_of(word) == 0]
    shown = [i for i in range(len(options)) if i not in ties]
    if not _is_answered(item):
        return []
    if not chosen:
        item.log.leave_out("tasks in which nothing was chosen, left out")
        return []
    row = {"id": _name(item), "prompt": _asked(item)}
    if unknown := chosen - set(ids):
        item.fault("accept", shorten_names(sorted(unknown)), f"expected ids of options: {shorten_names(ids)}")
        return []
    tied = any(ids[i] in chosen for i in ties)
    ranks = [1.0 if ids[i] in chosen or tied else 2.0 for i in shown]
    contents = [words[i] for i in shown]
    if len(shown) == 2:
        strength = int(ranks[0] > ranks[1]) - int(ranks[0] < ranks[1])
        row |= {"response_a": contents[0], "response_b": contents[1]}
        return judged(row, [(item.label(*_ANNOTATOR), strength, None)])
    annotator = item.label(*_ANNOTATOR)
    return ranked({**row, "id": f"{row['id']}/{annotator}" if annotator else row["id"]}, contents, ranks, item)


def prodigy_compare(item: Item) -> list[OwnRow]:
    """Outputs under `accept` and `reject`, and in `answer` which of them was chosen; `mapping` names their systems."""
    systems = item.item("mapping")
    names = [name for name in systems.values if systems.peek(name) in ("accept", "reject")]
    by_side = {str(systems.take(name)): name for name in names}
    if not _is_answered(item, both=True):
        return []
    first = "accept" if by_side.get("accept", "A") <= by_side.get("reject", "B") else "reject"
    second = "reject" if first == "accept" else "accept"
    row = {
        "id": _name(item),
        "prompt": _words(item.item("input")) if isinstance(item.peek("input"), dict) else item.content("input"),
        "response_a": _output(item, first),
        "response_b": _output(item, second),
        "model_a": by_side.get(first, ""),
        "model_b": by_side.get(second, ""),
    }
    strength = -1 if item.label("answer") == first else 1
    return judged(row, [(item.label(*_ANNOTATOR), strength, None)])


def _is_answered(item: Item, *, both: bool = False) -> bool:
    answer = item.label("answer")
    answered = answer in (("accept", "reject") if both else ("accept", ""))
    item.log.leave_out("tasks that were rejected or ignored, left out", not answered)
    return answered


def _name(item: Item) -> str:
    return item.label("id", "_task_hash") or item.identity


def _asked(item: Item) -> Any:
    others = ("options", "accept", "answer", "label")
    return prompt_of(item, [str(name) for name in item.values if name in others or str(name).startswith("_")])


def _words(item: Item) -> Any:
    """The text of a task's part: `text`, or `html`, or a chat."""
    name = name_of(item, "response", ("text", "html", *RESPONSES), ("id",))
    if not name:
        item.fault("text", shorten(item.values), "expected text")
        return ""
    return item.content(name)


def _output(item: Item, side: str) -> Any:
    return _words(item.item(side)) if isinstance(item.peek(side), dict) else item.content(side)


# Which of these a row is


def is_task(values: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Label Studio."""
    done = values.get("annotations", values.get("completions"))
    results = isinstance(done, list) and all(isinstance(each, dict) and "result" in each for each in done)
    return results and isinstance(values.get("data"), dict)


def has_options(values: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Prodigy with options."""
    options = values.get("options")
    listed = isinstance(options, list) and len(options) > 1 and all(isinstance(o, dict) and "id" in o for o in options)
    return listed and ("accept" in values or "answer" in values)


def has_two_outputs(values: Mapping[str, Any]) -> bool:
    """Whether a row is a comparison of Prodigy."""
    both = [values.get("accept"), values.get("reject"), values.get("answer")]
    return all(isinstance(each, (str, dict)) or is_chat(each) for each in both)
