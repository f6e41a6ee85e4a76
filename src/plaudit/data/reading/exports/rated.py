"""Public data sets with numbers: ratings, ranks, and preferences from -3 to 3."""

from __future__ import annotations

from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number
from plaudit.data.reading.exports.shapes import graded, judged, ranked, turn
from plaudit.data.reading.rows import shorten


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


def helpsteer(item: Item) -> list[OwnRow]:
    """`prompt`, `response`, and a rating for each axis."""
    return _helpsteer(item, {axis: item.number(axis) for axis in HELPSTEER_AXES})


def helpsteer_disagreements(item: Item) -> list[OwnRow]:
    """`prompt`, `response`, and for each axis the ratings of all annotators, which are averaged."""
    axes = {}
    for axis in HELPSTEER_AXES:
        ratings = [number for value in item.chat(axis) if (number := as_number(value)) is not None]
        axes[axis] = sum(ratings) / len(ratings) if ratings else None
    item.log.note("ratings of several annotators are averaged")
    return _helpsteer(item, axes)


def _helpsteer(item: Item, axes: dict[str, float | None]) -> list[OwnRow]:
    item.log.note("the reward is the helpfulness; the other axes are kept beside it")
    row = {"prompt": conversation(item.content("prompt")), "response": item.content("response")}
    return [row | {"reward": axes["helpfulness"], "axes": axes}]


def conversation(prompt: Any) -> Any:
    """The turns of a HelpSteer prompt: further turns begin with `<extra_id_1>Assistant` or `<extra_id_1>User`."""
    if not isinstance(prompt, str):
        return prompt
    first, *further = prompt.split("<extra_id_1>")
    turns = [turn("user", first.rstrip("\n") if further else first)]
    for each in further:
        name, _, words = each.partition("\n")
        turns.append(turn("assistant" if name.strip() == "Assistant" else "user", words.rstrip("\n")))
    if turns[-1] == turn("assistant", ""):  # the mark before the response
        turns.pop()
    return turns


def helpsteer3_preference(item: Item) -> list[OwnRow]:
    """`context`, `response1`, `response2`, `overall_preference` from -3 to 3, and each annotator's."""
    row = {"prompt": item.chat("context")}
    row |= {"response_a": item.content("response1"), "response_b": item.content("response2")}
    return _graded(item, row, "overall_preference", "individual_preference", "score")


def helpsteer2_preference(item: Item) -> list[OwnRow]:
    """`prompt`, `response_1`, `response_2`, `preference_strength` from -3 to 3, and three annotators'."""
    row = {"prompt": conversation(item.content("prompt"))}
    row |= {"response_a": item.content("response_1"), "response_b": item.content("response_2")}
    return _graded(item, row, "preference_strength", "three_most_similar_preferences", "strength")


def _graded(item: Item, row: OwnRow, overall: str, each: str, score: str) -> list[OwnRow]:
    """One judgement for each annotator, or one for all where no annotator is given."""
    row = {"id": item.label("id") or item.identity, **row}
    mean = item.number(overall)
    scores = [number for one in item.items(each) if (number := one.number(score)) is not None]
    if any(abs(number) > 3 for number in (*scores, mean or 0)):
        item.fault(overall, shorten(mean), "expected -3 (the first is much better) to 3")
    if not scores:
        return [] if mean is None else judged(row, [("", *graded(mean))])
    item.log.note("annotators are numbered within each row: 1 is not the same person in all of them")
    if mean is not None:
        votes = sum(number > 0 for number in scores) - sum(number < 0 for number in scores)
        differs = (votes > 0) - (votes < 0) != (mean > 0) - (mean < 0)
        item.log.count(f"rows whose {overall} differs from the majority of the annotators, which counts", differs)
    return judged(row, [(str(number), *graded(value)) for number, value in enumerate(scores, 1)])


HELPSTEER_AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
