"""What people are asked and what they answer, as plain values: no database, no web, JSON-ready.

A *project* asks one question (its ``Task``) about many *items*; an item is a prompt and 0 to 9 responses. One answer of
one person to one item is an ``Annotation``. Answers always name responses by their index in ``Item.responses``;
``Annotation.order`` says in which order they were shown (``order[0]`` is the index of the response shown first).
"""

# Why indices and an order, instead of answers in the order shown: each person sees another order, so answers in the
# order shown could not be counted together. And why the order is kept: only with it can a bias for the first place
# be measured.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from plaudit.errors import DataError
from plaudit.records import Content, to_json

Task = Literal["pairwise", "ranking", "rating", "demonstration", "thumbs"]
TASKS: tuple[Task, ...] = get_args(Task)
Verdict = Literal["", "both_bad", "cannot_judge"]

AXES = ("helpfulness", "harmlessness", "accuracy")
LOWEST, HIGHEST = 1, 10
MOST_RESPONSES = 9
RESPONSES: dict[Task, tuple[int, int]] = {
    "pairwise": (2, 2),
    "ranking": (2, MOST_RESPONSES),
    "rating": (1, MOST_RESPONSES),
    "demonstration": (0, MOST_RESPONSES),
    "thumbs": (1, MOST_RESPONSES),
}
"""Fewest and most responses of an item."""


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to a demonstration task: a response that the person wrote, or edited from response ``base``.

    It is also part of a pairwise answer or a ranking: the edit of the best response.
    """

    text: str
    base: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to a pairwise task: ``strength`` from -2 (response 0 much better) to 2 (response 1 much better).

    0 is a tie. With a ``verdict`` the strength is 0: both are bad, or the annotator cannot tell. ``edit`` is an
    improved version of the better response; of either one where they are equal or both bad.
    """

    strength: int
    verdict: Verdict = ""
    edit: Written | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """The answer to a ranking task: ``ranks[i]`` is the rank of response i.

    1 is best, ties share a rank, no rank is left out (1, 1, 2). ``edit`` is an improved version of a response of
    rank 1.
    """

    ranks: tuple[int, ...]
    edit: Written | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer to a rating task: ``scores[i]`` holds a number from 1 to 10 on each axis, for response i."""

    scores: tuple[dict[str, int], ...]


@dataclass(frozen=True, slots=True)
class Thumbs:
    """The answer to a thumbs task: ``up[i]`` is True for a good response i, False for a bad one."""

    up: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Skip:
    """No answer, with the reason."""

    reason: str


Answer = Choice | Ranks | Scores | Written | Thumbs | Skip
ANSWER_OF: dict[Task, type[Answer]] = {
    "pairwise": Choice,
    "ranking": Ranks,
    "rating": Scores,
    "demonstration": Written,
    "thumbs": Thumbs,
}


@dataclass(frozen=True, slots=True)
class ItemResponse:
    """One response of an item. ``provenance`` is free: policy, run, checkpoint, sampling settings, seed."""

    content: Content
    model: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about. ``key`` is unique in its project: the id of the record it was imported from."""

    key: str
    prompt: Content
    responses: tuple[ItemResponse, ...] = ()
    gold: Answer | None = None
    """The known answer of a gold item, which measures the annotators and is never exported as a preference."""
    priority: float = 0.0
    """Higher is shown earlier under the strategy ``priority`` (active selection writes it)."""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Of the prompt and all responses: how much there is to read."""
        return sum(_length(content) for content in (self.prompt, *(r.content for r in self.responses)))


class Asked(Protocol):
    """What statistics need to know of an item."""

    @property
    def gold(self) -> Answer | None:
        """The known answer of a gold item."""

    @property
    def characters(self) -> int:
        """How much there is to read."""


@dataclass(frozen=True, slots=True)
class Brief:
    """An item without its texts."""

    gold: Answer | None
    characters: int


def _length(content: Content) -> int:
    return len(content) if isinstance(content, str) else sum(len(turn.text) for turn in content)


@dataclass(frozen=True, slots=True)
class Annotation:
    """The answer of one person to one item, as it stands at a revision of the history."""

    revision: int
    """Number of the row in the append-only history; grows with time."""
    item: str
    """``Item.key``."""
    annotator: str
    answer: Answer
    order: tuple[int, ...]
    """Indices of the responses in the order shown."""
    round: int = 0
    """0 for the first time, 1, 2 ... where the same item was asked again of the same person."""
    adjudicated: bool = False
    """Whether it is a reviewer's verdict on a conflict, which overrules the votes."""
    seconds: float = 0.0
    """Time from showing the item to the answer."""
    created_at: float = 0.0
    """Unix time in seconds."""
    guideline_version: int = 1
    flags: tuple[str, ...] = ()
    comment: str = ""


def written_in(answer: Answer) -> Written | None:
    """The text that a person wrote: a demonstration, or the edit of the best response; None without one."""
    if isinstance(answer, (Choice, Ranks)):
        return answer.edit
    return answer if isinstance(answer, Written) else None


def best_of(answer: Choice | Ranks) -> tuple[int, ...]:
    """The indices of the responses that an answer ranks first: those that may be edited.

    >>> best_of(Choice(2)), best_of(Choice(0, "both_bad")), best_of(Ranks((2, 1, 1)))
    ((1,), (0, 1), (1, 2))
    """
    if isinstance(answer, Ranks):
        return tuple(i for i, rank in enumerate(answer.ranks) if rank == 1)
    if answer.verdict == "cannot_judge":
        return ()
    return (0, 1) if answer.strength == 0 else (int(answer.strength > 0),)


def in_order(answer: Answer, order: Sequence[int]) -> Answer:
    """An answer about responses 0, 1, ... as one about the same responses put in another order.

    Args:
        answer: names responses by their index.
        order: the index of the response that comes first, second, ... now.

    Returns:
        The answer, unchanged where it does not fit the number of responses: `check_answer` says so.

    >>> in_order(Choice(2), (1, 0)), in_order(Ranks((1, 3, 2)), (2, 0, 1))
    (Choice(strength=-2, verdict='', edit=None), Ranks(ranks=(2, 1, 3), edit=None))
    """
    if isinstance(answer, Written):
        places = {index: place for place, index in enumerate(order)}
        return replace(answer, base=places.get(answer.base, answer.base)) if answer.base is not None else answer
    if isinstance(answer, (Choice, Ranks)) and answer.edit is not None:
        edit = in_order(answer.edit, order)
        assert isinstance(edit, Written), "the edit is a text in any order"
        answer = replace(answer, edit=edit)
    if isinstance(answer, Choice):
        return answer if tuple(order) != (1, 0) else replace(answer, strength=-answer.strength)
    if isinstance(answer, Ranks) and len(answer.ranks) == len(order):
        return replace(answer, ranks=tuple(answer.ranks[i] for i in order))
    if isinstance(answer, Scores) and len(answer.scores) == len(order):
        return Scores(tuple(answer.scores[i] for i in order))
    if isinstance(answer, Thumbs) and len(answer.up) == len(order):
        return Thumbs(tuple(answer.up[i] for i in order))
    return answer


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes another one.

    >>> inverse((2, 0, 1))
    (1, 2, 0)
    """
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def unsigned(content: Content) -> Content:
    """A response without the names of those who speak as the assistant: such a name may be that of a model."""
    if isinstance(content, str):
        return content
    return tuple(replace(turn, name=None) if turn.role == "assistant" else turn for turn in content)


def check_answer(answer: Answer, task: Task, responses: int, axes: tuple[str, ...] = AXES) -> Answer:
    """The answer, if it fits the task and the number of responses; a DataError says what does not fit."""
    if isinstance(answer, Skip):
        return answer
    if not isinstance(answer, ANSWER_OF[task]):
        raise _misfit(
            f"a {task} task is answered with {ANSWER_OF[task].__name__}, not {type(answer).__name__}"
        )
    if isinstance(answer, Choice):
        _check_choice(answer)
    elif isinstance(answer, Ranks):
        _check_ranks(answer.ranks, responses)
    elif isinstance(answer, Scores):
        _check_scores(answer.scores, responses, axes)
    elif isinstance(answer, Thumbs) and len(answer.up) != responses:
        raise _misfit(f"{len(answer.up)} thumbs for {responses} responses")
    elif isinstance(answer, Written):
        _check_written(answer, responses)
    if isinstance(answer, (Choice, Ranks)) and answer.edit is not None:
        _check_written(answer.edit, responses)
        if answer.edit.base not in best_of(answer):
            raise _misfit(f"edited from response {answer.edit.base}, which is not the best one")
    return answer


def _check_choice(answer: Choice) -> None:
    if answer.strength not in (-2, -1, 0, 1, 2) or answer.verdict not in get_args(Verdict):
        raise _misfit(f"strength {answer.strength!r} with verdict {answer.verdict!r}; strength is -2 to 2")
    if answer.verdict and answer.strength:
        raise _misfit(f"verdict {answer.verdict!r} goes with strength 0, not {answer.strength}")


def _check_ranks(ranks: tuple[int, ...], responses: int) -> None:
    if len(ranks) != responses or sorted(set(ranks)) != list(range(1, len(set(ranks)) + 1)):
        raise _misfit(
            f"ranks {list(ranks)} for {responses} responses; 1 is best, ties share a rank, none is left out"
        )


def _check_scores(scores: tuple[dict[str, int], ...], responses: int, axes: tuple[str, ...]) -> None:
    if len(scores) != responses:
        raise _misfit(f"{len(scores)} rated responses of {responses}")
    for row in scores:
        if set(row) != set(axes):
            raise _misfit(f"rated on {sorted(row)}, and the axes are {sorted(axes)}")
        if not all(LOWEST <= value <= HIGHEST for value in row.values()):
            raise _misfit(f"scores {row}; they go from {LOWEST} to {HIGHEST}")


def _check_written(answer: Written, responses: int) -> None:
    if not answer.text.strip():
        raise _misfit("the response written is empty")
    if answer.base is not None and not 0 <= answer.base < responses:
        raise _misfit(f"edited from response {answer.base} of {responses}")


def _misfit(what: str) -> DataError:
    return DataError(what, where="answer", cure="answer again")


# JSON: the format of answers and items in the database and over the API


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """``{"type": "choice", "strength": -1, "verdict": ""}`` and so on; ``edit`` only where there is one."""
    fields = to_json(answer)
    if fields.get("edit", "") is None:
        del fields["edit"]
    return {"type": type(answer).__name__.lower(), **fields}


def answer_from_json(value: Any) -> Answer:
    """The answer in a JSON value; a DataError where it is no answer."""
    # Values come from requests of anybody with a token, so every field is checked for its type here: Python's bool
    # is an int, and a list where a number is meant would be stored and fail much later, in an export.
    types = {kind.__name__.lower(): kind for kind in (*ANSWER_OF.values(), Skip)}
    name = value.get("type") if isinstance(value, dict) else None
    kind = types.get(name) if isinstance(name, str) else None
    if kind is None:
        raise _misfit(f"no type of answer; it is one of {', '.join(types)}")
    values = {key: item for key, item in value.items() if key != "type"}
    fields = {f.name: f for f in dataclasses.fields(kind)}
    missing = [n for n, f in fields.items() if n not in values and f.default is dataclasses.MISSING]
    if set(values) - set(fields) or missing:
        raise _misfit(f"fields {sorted(values)}, and a {value['type']} has {sorted(fields)}")
    for key, item in values.items():
        if not _fits(kind, key, item):
            raise _misfit(f"{key} of a {value['type']} is not {type(item).__name__} {str(item)[:40]!r}")
    arguments: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in values.items()
    }
    if isinstance(values.get("edit"), dict):
        arguments["edit"] = answer_from_json({"type": "written", **values["edit"]})
    return kind(**arguments)


def _fits(kind: type[Answer], name: str, value: Any) -> bool:
    """Whether a JSON value has the type of this field."""
    if name in ("verdict", "text", "reason"):
        return isinstance(value, str)
    if name == "strength":
        return _is_int(value)
    if name == "base":
        return value is None or _is_int(value)
    if name == "edit":
        return value is None or isinstance(value, dict) and "type" not in value
    if not isinstance(value, list):
        return False
    if name == "ranks":
        return all(_is_int(v) for v in value)
    if name == "up":
        return all(isinstance(v, bool) for v in value)
    return all(isinstance(v, dict) and all(_is_int(n) for n in v.values()) for v in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
