"""The names under which people write the fields, and which column of a row each field is read from."""

# A column is recognised by its name, whatever its case and spaces ("Chosen Response", "chosenResponse"), and by what it
# holds: a list is no margin. What cannot be told is not guessed: two columns for one field are a fault of the row.

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from plaudit.data.reading.rows import Row

Form = Literal["text", "structure as text", "list", "object", "number", "empty", "missing"]
"""What a value is, as far as it matters for what it may mean."""

Shape = tuple[tuple[str, Form], ...]

AXES = (
    "helpfulness",
    "harmlessness",
    "honesty",
    "truthfulness",
    "correctness",
    "accuracy",
    "coherence",
    "complexity",
    "verbosity",
    "safety",
    "quality",
    "instruction_following",
    "overall",
)
"""Columns that are read as axes of a rating where no field is called axes."""

_TEXT: tuple[Form, ...] = ("text", "structure as text")
_CHAT: tuple[Form, ...] = (*_TEXT, "list", "object")
_LISTED: tuple[Form, ...] = ("list", "structure as text")
_ANY: tuple[Form, ...] = (*_CHAT, "number")


@dataclass(frozen=True, slots=True)
class Names:
    """How a field is called."""

    own: tuple[str, ...]
    """Our names; of several the first is read."""
    usual: tuple[str, ...] = ()
    """Names that others use; two of them in one row are a fault."""
    last: tuple[str, ...] = ()
    """Names that mean something else where one of those above is there; the first is read."""
    late: tuple[str, ...] = ()
    """Names that are usual in some layouts only."""
    holds: tuple[Form, ...] = _ANY
    """What a column of a usual name must hold."""


NAMES: dict[str, Names] = {
    "prompt": Names(
        ("prompt",),
        ("question", "query", "instruction", "problem", "context", "input", "inputs", "user_input", "user_prompt",
         "user_query", "user_question", "user_message", "input_text", "input_prompt", "prompt_text", "question_text",
         "query_text", "instructions", "request", "utterance", "human_prompt", "context_messages", "questions",
         "prompts", "problem_statement"),
        ("user", "human", "history"),
        ("text", "messages", "conversations", "conversation", "dialog", "dialogue"),
        (*_TEXT, "list"),
    ),
    "response": Names(
        ("response", "completion"),
        ("output", "outputs", "target", "assistant", "reply", "generation", "generated_text", "generated_response",
         "model_output", "model_response", "model_answer", "assistant_response", "assistant_message", "bot",
         "chatbot", "gpt", "output_text", "response_text", "completion_text", "target_text", "responses",
         "completions", "demonstration"),
        late=("solution", "answer", "answers"),
        holds=_CHAT,
    ),
    "chosen": Names(
        ("chosen",),
        ("preferred", "accepted", "better", "win", "winner", "winning", "positive", "chosen_response",
         "response_chosen", "chosen_answer", "answer_chosen", "chosen_completion", "completion_chosen",
         "chosen_output", "output_chosen", "chosen_text", "text_chosen", "chosen_messages", "preferred_response",
         "response_preferred", "preferred_output", "preferred_completion", "preferred_answer", "accepted_response",
         "accepted_completion", "better_response", "response_better", "winning_response", "winner_response",
         "response_win", "response_w", "y_w", "yw"),
        holds=_CHAT,
    ),
    "rejected": Names(
        ("rejected",),
        ("dispreferred", "non_preferred", "not_preferred", "unpreferred", "worse", "lose", "loser", "losing",
         "negative", "rejected_response", "response_rejected", "rejected_answer", "answer_rejected",
         "rejected_completion", "completion_rejected", "rejected_output", "output_rejected", "rejected_text",
         "text_rejected", "rejected_messages", "dispreferred_response", "response_dispreferred",
         "dispreferred_output", "non_preferred_output", "non_preferred_response", "dispreferred_completion",
         "dispreferred_answer", "worse_response", "response_worse", "losing_response", "loser_response",
         "response_lose", "response_l", "y_l", "yl"),
        holds=_CHAT,
    ),
    "messages": Names(
        ("messages", "conversations"), ("conversation", "chat", "dialog", "dialogue", "turns"), holds=_LISTED
    ),
    "text": Names(("text",)),
    "sentence": Names(("text",), ("sentence", "review", "document", "content", "comment", "passage"), holds=_TEXT),
    "system": Names(
        ("system",), ("system_prompt", "system_message", "system_instruction", "system_text", "sys_prompt"), holds=_TEXT
    ),
    "history": Names(
        ("history",),
        ("chat_history", "conversation_history", "dialog_history", "dialogue_history", "message_history",
         "previous_messages", "previous_turns"),
    ),
    "tools": Names(("tools",), ("functions", "available_tools", "tool_definitions", "function_definitions")),
    "answer": Names(
        ("answer",),
        ("ground_truth", "reference_answer", "gold_answer", "final_answer", "expected_answer", "correct_answer"),
        holds=(*_TEXT, "number"),
    ),
    "margin": Names(("margin", "strength"), ("score_margin", "reward_margin"), holds=(*_TEXT, "number")),
    "agreement": Names(("agreement",)),
    "annotator": Names(
        ("annotator",),
        ("annotator_id", "rater", "rater_id", "labeler", "labeler_id", "labeller", "worker", "worker_id", "judge"),
        holds=(*_TEXT, "number"),
    ),
    "reward": Names(
        ("reward", "rating", "score"), ("grade", "stars", "human_rating", "human_score"), holds=(*_TEXT, "number")
    ),
    "label": Names(("label",), ("labels", "kto_label", "thumbs"), holds=(*_TEXT, "number")),
    "axes": Names(("axes",)),
    "responses": Names(
        ("responses",), ("completions", "candidates", "generations", "outputs", "answers", "replies"), holds=_LISTED
    ),
    "ranks": Names(("ranks",), ("rank", "ranking", "rankings"), holds=_LISTED),
    "models": Names(("models",), ("model_names",), holds=_LISTED),
    "provenance": Names(("provenance",)),
    "category": Names((), ("category",), ("subset", "source", "topic", "domain"), holds=("text", "number")),
    "strength": Names(("strength",)),
    "verdict": Names(
        ("label",),
        ("winner", "preference", "verdict", "choice", "preferred", "judgement", "judgment",
         "human_preference"),
        holds=(*_TEXT, "number"),
    ),
    "labels": Names(("labels",)),
    **{
        f"response_{side}": Names(
            (f"response_{side}",),
            tuple(f"{word}_{mark}" for mark in (side, number)
                  for word in ("response", "answer", "completion", "output", "candidate", "generation", "option"))[1:],
            holds=_CHAT,
        )
        for side, number in (("a", "1"), ("b", "2"))
    },
    **{f"model_{side}": Names((f"model_{side}",), (f"model_{n}", f"model_name_{side}", f"model_name_{n}"))
       for side, n in (("a", "1"), ("b", "2"))},
    **{axis: Names((axis,)) for axis in AXES},
    "id": Names(("id",)),
}  # fmt: skip
"""Field -> its names, each as `plain` writes it."""

COMMON = ("system", "history", "tools")
"""What a prompt or a chat may have in columns of their own."""
_INSTRUCTION = ("instruction", "instructions")
_COMPLETES = ("input", "context")
"""Columns that complete an instruction."""
_SAID = {
    "verdict": "label",
    "sentence": "text",
    "chosen": "chosen response",
    "rejected": "rejected response",
    "history": "earlier turns",
    "system": "system text",
}
_SAME = {"verdict": "label", "sentence": "text", "margin": "strength"}
"""Field -> another of which a user may say where it is, and mean this one."""
_ASKS = re.compile(
    r"prompt|question|quer(?:y|ies)|instruct|problem|context|user|input|request|ask|task|message|dialog|conversation"
)


@cache
def plain(name: str) -> str:
    """A name without case, spaces and marks.

    >>> plain("Chosen Response"), plain("chosenResponse"), plain("response1"), plain("PROMPT")
    ('chosen_response', 'chosen_response', 'response_1', 'prompt')
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])", "_", name)
    return re.sub(r"[\W_]+", "_", apart.casefold()).strip("_")


def form_of(value: Any, cells: bool = False) -> Form:
    """What a value is; an empty CSV cell is a missing value, an empty text, list or object is one without words."""
    if value is None or (cells and value == ""):
        return "missing"
    if isinstance(value, (str, list, tuple, dict)) and not value:
        return "empty"
    if isinstance(value, str):
        return "structure as text" if value.lstrip()[:1] in ("[", "{") or value.startswith("array(") else "text"
    if isinstance(value, (list, tuple)):
        return "list"
    return "object" if isinstance(value, dict) else "number"


@dataclass(slots=True)
class Assigned:
    """Which columns of a row each field is read from."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    doubts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Fields that several columns could be."""
    sayings: tuple[str, ...] = ()
    """What a reader should know: a sentence for each column of a usual name."""
    fits: bool = True
    """All fields that are needed are there."""
    is_instruction: bool = False
    """The prompt is an instruction, so it is a user's turn."""

    @property
    def taken(self) -> set[str]:
        """All columns that are read as something."""
        return {column for columns in self.columns.values() for column in columns}


class Columns:
    """Finds the columns of each field.

    Args:
        given: field -> column, as the user says; "a+b" joins two, "" says that there is none.
        known: columns of which some row of the source has a value.
    """

    def __init__(self, given: Mapping[str, str], known: Iterable[str]) -> None:
        self.known = frozenset(known)
        self.given = {f: given[same] for f, same in _SAME.items() if same in given} | dict(given)
        # Whole chats are called messages; somebody who says that they are the prompt means the same.
        if not {"response", "chosen"} & set(given) and plain(given.get("prompt", "")) in NAMES["messages"].own:
            self.given.setdefault("messages", given["prompt"])
        self.named = {part for text in given.values() for part in _parts(text, self.known)} - {""}
        """Columns that the user names."""
        self._cache: dict[Any, Assigned] = {}

    def shape(self, row: Row) -> Shape:
        """The columns of a row, and what each holds: rows of one shape are read alike."""
        values = row.values.items()
        return tuple((name, form_of(value, row.cells)) for name, value in values if name in self.known)

    def assign(
        self, needs: tuple[tuple[str, ...], ...], may: tuple[str, ...], shape: Shape, late: tuple[str, ...]
    ) -> Assigned:
        """The columns of rows of a shape for these fields.

        Args:
            needs: each a list of fields of which one must be there.
            may: fields that are read where they are there.
            late: fields that may have one of their late names.
        """
        key = (needs, may, late, shape)
        if key not in self._cache:
            self._cache[key] = self._assign(needs, may, dict(shape), late)
        return self._cache[key]

    def _assign(
        self, needs: tuple[tuple[str, ...], ...], may: tuple[str, ...], shape: Mapping[str, Form], late: tuple[str, ...]
    ) -> Assigned:
        found = Assigned()
        for fields in needs:
            # All of the alternatives, not the first alone: a judgement may have a label and a strength.
            found.fits &= bool([name for name in fields if self._take(name, shape, found, late)])
        for name in may:
            if name not in found.columns:
                self._take(name, shape, found, late)
        return found

    def _take(self, name: str, shape: Mapping[str, Form], found: Assigned, late: tuple[str, ...]) -> bool:
        free = {column: form for column, form in shape.items() if column not in found.taken}
        if name in self.given:
            parts = _parts(self.given[name], self.known)
            columns = tuple(parts) if any(part in free for part in parts) else ()
        else:
            free = {column: form for column, form in free.items() if column not in self.named}
            columns = self._called(name, free, found, late)
        if columns:
            found.columns[name] = columns
            found.is_instruction |= name == "prompt" and plain(columns[0]) in _INSTRUCTION
        return bool(columns)

    def _called(self, name: str, free: Mapping[str, Form], found: Assigned, late: tuple[str, ...]) -> tuple[str, ...]:
        """The column whose name says it; one without a value only where no other is there."""
        names = NAMES[name]
        filled = [c for c, form in free.items() if form in names.holds]
        own = [column for wanted in names.own for column in _exact_first(wanted, free)]
        for least in (("empty", "missing"), ("missing",)):
            if there := [column for column in own if free[column] not in least]:
                return (there[0],)
        usual = [c for c in filled if plain(c) in names.usual]
        if name == "prompt" and any(plain(c) in _INSTRUCTION for c in usual):
            return self._instruction(usual, found)
        last = names.last + (names.late if name in late else ())
        usual = usual or [c for wanted in last for c in filled if plain(c) == wanted][:1]
        if len(usual) > 1:
            found.doubts[name] = tuple(usual)
        blank = own or [c for c in free if plain(c) in names.usual and free[c] in ("empty", "missing")]
        if usual:
            self._say(found, usual[0], name)
        return tuple(usual[:1] or blank[:1])

    def _instruction(self, usual: Sequence[str], found: Assigned) -> tuple[str, ...]:
        """An instruction, and the further column that completes it, if there is one."""
        first, *others = sorted(usual, key=lambda c: plain(c) not in _INSTRUCTION)
        more = [c for c in others if plain(c) in _COMPLETES]
        if len(others) > len(more) or len(more) > 1:
            found.doubts["prompt"] = (first, *others)
        self._say(found, first, "prompt")
        if more:
            found.sayings += (f"`{more[0]}` completes the prompt, below `{first}`",)
        return (first, *more[:1])

    def _say(self, found: Assigned, column: str, name: str) -> None:
        said = _SAID.get(name, name.replace("_", " "))
        if plain(column) != plain(said):
            found.sayings += (f"`{column}` is read as the {said}",)


def _parts(text: str, known: Iterable[str]) -> list[str]:
    """The columns that a user names: one, or several with "+" between."""
    return [text] if text in known or "+" not in text else [part.strip() for part in text.split("+")]


def _exact_first(wanted: str, columns: Iterable[str]) -> list[str]:
    return sorted((c for c in columns if plain(c) == wanted), key=lambda c: c != wanted)


def field_of(name: str) -> str:
    """The field that a user means, by any of its names; "" if there is none of that name.

    >>> field_of("Completion"), field_of("question"), field_of("colour")
    ('response', 'prompt', '')
    """
    wanted = plain(name)
    fields = [f for f, names in NAMES.items() if f == wanted]
    fields += [f for f, names in NAMES.items() if wanted in names.own]
    fields += [f for f, names in NAMES.items() if wanted in (*names.usual, *names.last)]
    return fields[0] if fields else ""


def asks(name: str, values: Sequence[Any]) -> bool:
    """Whether a column may be the prompt: it holds texts or chats, and its name or these say so."""
    filled = [value for value in values if form_of(value) not in ("empty", "missing")]
    if not filled or all(form_of(value) in ("number", "object") for value in filled):
        return False
    called = plain(name)
    if called.endswith("id"):
        return False
    if _ASKS.search(called) or difflib.SequenceMatcher(None, called, "prompt").ratio() > 0.75:
        return True
    speaks = sum(isinstance(v, list) or (isinstance(v, str) and len(v.split()) > 2) for v in filled)
    return 2 * speaks > len(filled) and 2 * len({str(v) for v in filled}) > len(filled)
