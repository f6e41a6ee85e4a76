"""Public data sets that rate or rank several responses to one prompt."""

from __future__ import annotations

from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number
from plaudit.data.reading.exports.shapes import ranked, turn


def ultrafeedback(item: Item) -> list[OwnRow]:
    """`instruction` and `completions`, each with scores and with ratings of named axes."""
    completions = item.items("completions")
    name = item.label("id") or item.identity
    prompt = [turn("user", item.content("instruction"))]
    # All responses to a prompt are compared by the same number: the first that every one of them has.
    measured = [(_fine(each), as_number(each.peek("overall_score"))) for each in completions]
    which = next((i for i in (0, 1) if all(numbers[i] is not None for numbers in measured)), None)
    if which is None:
        item.log.leave_out("prompts whose completions have no score in common, left out")
        return []
    label = ("the fine-grained score (the mean of the axes)", "overall_score")[which]
    item.log.count(f"completions whose reward is {label}", len(completions))
    pairs = zip(completions, measured, strict=True)
    return [_completion(each, name, prompt, numbers[which]) for each, numbers in pairs]


def _completion(each: Item, name: str, prompt: Any, reward: float | None) -> OwnRow:
    axes = {}
    for axis in each.item("annotations").values:
        about = each.item("annotations").item(axis)
        if (number := as_number(about.peek("Rating"))) is not None:
            about.take("Rating")
            axes[axis] = number
    for other in ("fine-grained_score", "overall_score"):
        if (number := each.number(other)) is not None:
            axes[other.replace("-", "_")] = number
    model = each.label("model")
    identity = f"{name}/{model}" if model else name
    return {"id": identity, "prompt": prompt, "response": each.content("response"), "reward": reward, "axes": axes}


def _fine(each: Item) -> float | None:
    """The fine-grained score; where it is missing, the mean of the axes, which it is."""
    given = as_number(each.peek("fine-grained_score"))
    if given is not None or not isinstance(each.peek("annotations"), dict):
        return given
    about = each.peek("annotations").values()
    ratings = [as_number(axis.get("Rating")) if isinstance(axis, dict) else None for axis in about]
    numbers = [number for number in ratings if number is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(ratings) else None


def nectar(item: Item) -> list[OwnRow]:
    """`prompt` (a transcript) and `answers` with their `rank`, 1 = best."""
    answers = item.items("answers")
    row = {"id": item.label("id") or item.identity, "prompt": item.content("prompt")}
    ranks = [answer.number("rank") for answer in answers]
    kept = [(answer.content("answer"), rank) for answer, rank in zip(answers, ranks, strict=True) if rank is not None]
    item.log.leave_out("answers without a rank, left out", len(answers) - len(kept))
    return ranked(row, [text for text, _ in kept], [rank for _, rank in kept], item)


def helpsteer_disagreements(item: Item) -> list[OwnRow]:
    """`prompt`, `response`, and for each axis the ratings of all annotators, which are averaged."""
    row: OwnRow = {"prompt": item.content("prompt"), "response": item.content("response"), "axes": {}}
    for axis in HELPSTEER_AXES:
        ratings = [number for value in item.chat(axis) if (number := as_number(value)) is not None]
        row["axes"][axis] = sum(ratings) / len(ratings) if ratings else None
    item.log.note("ratings of several annotators are averaged")
    return [row]


HELPSTEER_AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
