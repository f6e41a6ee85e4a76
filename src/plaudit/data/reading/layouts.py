"""The layouts a row can have, how to tell them apart by their fields, and how each becomes records."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from plaudit.data.reading import row_parsers as parsers
from plaudit.data.reading.fields import Fields
from plaudit.data.reading.messages import with_tools_of
from plaudit.data.reading.names import AXES, COMMON, NAMES, Assigned, Columns, Shape, asks, form_of, plain
from plaudit.data.reading.rows import ReadLog, Row, shorten, shorten_names
from plaudit.data.reading.structures import structure_in, turns_in
from plaudit.errors import DataError
from plaudit.records import Kind, Record


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write a kind of record: the fields it needs, and its parser."""

    name: str
    kind: Kind
    needs: tuple[tuple[str, ...], ...]
    """Fields that must be there, each one of several."""
    parse: Callable[[Fields, str], list[Record]]
    may: tuple[str, ...] = ()
    """Optional fields."""
    late: tuple[str, ...] = ("prompt",)
    """Fields that may have a name which means something else in other layouts (`Names.late`)."""

    def assign(self, columns: Columns, shape: Shape) -> Assigned:
        """Which columns of rows of a shape its fields are read from."""
        return columns.assign(self.needs, ("id", *self.may, *COMMON), shape, self.late)


# The order of the list decides where several layouts fit: those that need more, and more special, fields stand first.
# "prompt, response, reward" is a rating and also a demonstration and a prompt; the rating uses all of it.
_PROMPT = ("prompt",)
_TWO = (_PROMPT, ("response_a",), ("response_b",))
_MODELS = ("model_a", "model_b")
_PAIR = (("chosen",), ("rejected",))
_OF_A_PAIR = ("margin", "annotator", "agreement", "category")
_BOTH = ("prompt", "response")
_OF_A_RATING = ("prompt", "axes", *AXES, "category")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "judgements (labels of several annotators)",
        "judgement",
        (*_TWO, ("labels",)),
        parsers.judgements,
        (*_MODELS, "category"),
    ),
    Layout(
        "judgements",
        "judgement",
        (*_TWO, ("strength", "verdict")),
        parsers.judgements,
        (*_MODELS, "annotator", "margin", "category"),
    ),
    Layout("rankings", "ranking", (_PROMPT, ("responses",), ("ranks",)), parsers.ranking, ("category",)),
    Layout(
        "comparisons (not judged yet)",
        "comparison",
        (_PROMPT, ("responses",)),
        parsers.comparison,
        ("models", "provenance"),
    ),
    Layout("comparisons (not judged yet)", "comparison", _TWO, parsers.comparison, (*_MODELS, "provenance")),
    Layout("preferences", "preference", (_PROMPT, *_PAIR), parsers.preference, _OF_A_PAIR),
    Layout(
        "preferences with the prompt inside both texts",
        "preference",
        _PAIR,
        parsers.preference,
        ("prompt", *_OF_A_PAIR),
    ),
    Layout("ratings", "rating", (("response",), ("reward",)), parsers.rating, _OF_A_RATING, late=_BOTH),
    Layout(
        "ratings (unpaired preferences)",
        "rating",
        (_PROMPT, ("response",), ("label",)),
        parsers.rating,
        _OF_A_RATING,
        late=_BOTH,
    ),
    Layout("ratings of named axes", "rating", (_PROMPT, ("response",), ("axes",)), parsers.rating, ("category",)),
    Layout("ratings of named axes", "rating", (_PROMPT, ("response",), AXES), parsers.rating, (*AXES, "category")),
    Layout("labelled texts", "rating", (("sentence",), ("reward", "label")), parsers.rating, _OF_A_RATING),
    Layout("demonstrations", "demonstration", (("messages",),), parsers.chat),
    Layout("demonstrations", "demonstration", (_PROMPT, ("response",)), parsers.demonstration),
    Layout("prompts", "prompt", (_PROMPT,), parsers.prompt, ("answer",), late=()),
    Layout("demonstrations (answers)", "demonstration", (_PROMPT, ("response",)), parsers.demonstration, late=_BOTH),
    Layout("prompts (chats that end with the user)", "prompt", (("messages",),), parsers.prompt, ("answer",)),
    Layout("texts", "demonstration", (("text",),), parsers.text),
)
_CHATS, _PROMPTS, _ANSWERS, _OPEN = (
    next(layout for layout in LAYOUTS if layout.name == name)
    for name in (
        "demonstrations", "prompts", "demonstrations (answers)", "prompts (chats that end with the user)"
    )
)  # fmt: skip


def columns_of(rows: Sequence[Row], given: Mapping[str, str]) -> Columns:
    """What finds the columns of each field in these rows; a column counts as present if any row has a value for it."""
    return Columns(given, {name for row in rows for name, value in row.values.items() if value is not None})


def detect(rows: Sequence[Row], source: str, columns: Columns, kind: Kind | None = None) -> Layout:
    """The first layout of the list that fits at least half of the rows; else the first that fits the most rows.

    Args:
        kind: what the data are needed for; where a row can be a prompt or a demonstration, that decides.

    Raises:
        DataError: no row has any known layout.
    """
    # Half of the rows and not all: a few rows that lack a field are faults of these rows, and must not turn a file
    # of ratings into one of demonstrations without a word.
    # Rows are counted by their shape, of which there are few.
    shapes = Counter(map(columns.shape, rows))
    fits = {
        layout: sum(n for shape, n in shapes.items() if layout.assign(columns, shape).fits) for layout in LAYOUTS
    }
    enough = min(max(fits.values()), (len(rows) + 1) // 2)
    if not enough:
        raise _unknown(rows, source)
    first = next(layout for layout in LAYOUTS if fits[layout] >= enough)
    if kind == "demonstration" and first is _PROMPTS and fits[_ANSWERS] >= enough:
        return _ANSWERS
    if kind == "prompt" and first.kind in ("demonstration", "rating") and fits[_PROMPTS] >= enough:
        # Converted to prompts, demonstrations would lose the answers that are to be checked.
        answered = sum(n for shape, n in shapes.items() if "answer" in _PROMPTS.assign(columns, shape).columns)
        return _PROMPTS if answered >= enough else first
    if kind == "prompt" and first is _CHATS and _end_open(rows, columns):
        return _OPEN
    return first


def _end_open(rows: Sequence[Row], columns: Columns) -> bool:
    """Whether most chats wait for the assistant's turn; the first hundred tell."""
    ends = []
    for row in rows[:100]:
        value = row.values.get(_OPEN.assign(columns, columns.shape(row)).columns.get("messages", ("",))[0])
        last = (turns_in(structure_in(value) if isinstance(value, str) else value) or [{}])[-1]
        ends.append(last.get("role", last.get("from")) in ("user", "human"))
    return 2 * sum(ends) > len(ends)


def _unknown(rows: Sequence[Row], source: str) -> DataError:
    """The error for rows of no known layout, with the names that were probably meant."""
    counts = Counter(name for row in rows for name, value in row.values.items() if value is not None)
    names = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    known = sorted({name for layout in LAYOUTS for fields in layout.needs for field in fields
                    for name in NAMES[field].own})  # fmt: skip
    # A name that is there already is no advice.
    guesses = [f"{near} for {shorten(n)}" for n in names if plain(n) not in known and (near := _nearest(n, known))]
    cure = (
        "give prompt and response, messages, prompt with chosen and rejected, or prompt alone, "
        "or say which column is which: --field prompt=COLUMN --field response=COLUMN"
    )
    if any(row.cells for row in rows):
        cure += "; the first line of a table must name its columns"
    if guesses:
        cure = f"did you mean {', '.join(guesses[:4])}? Else {cure}"
    return DataError(f"no known kind of data: the fields are {shorten_names(names)}", where=source, cure=cure)


def parse_rows(rows: Sequence[Row], layout: Layout, columns: Columns, stem: str, log: ReadLog) -> list[Record]:
    """All records of the rows; what is wrong with them, and which fields were not used, goes to ``log``."""
    records: list[Record] = []
    unused: Counter[str] = Counter()
    promptless: list[Row] = []
    assigned = [layout.assign(columns, columns.shape(row)) for row in rows]
    as_chat = any(_is_chat(row, found) for row, found in zip(rows, assigned, strict=True))
    for row, found in zip(rows, assigned, strict=True):
        fields = Fields(row, log, found, as_chat=as_chat)
        for saying in found.sayings:
            log.note(saying)
        tools = fields.tools
        own = fields.label("id")
        parsed = layout.parse(fields, own or f"{stem}-{row.number}")
        if not own:
            log.unnamed.add(f"{stem}-{row.number}")
        if tools and not fields.faulty:
            parsed = [with_tools_of(record, tools, "tools", fields) for record in parsed]
        unused.update(
            name for name, value in row.values.items()
            if name not in fields.used and form_of(value, row.cells) not in ("missing", "empty")
        )  # fmt: skip
        promptless += [row] * fields.promptless
        if not fields.faulty:
            records += parsed
            log.places += [row.where] * len(parsed)
    there = {field for found in assigned for field in found.columns}
    _refuse_promptless(promptless, unused, columns, log)
    _report_unused(unused, rows, layout, there, log)
    return records


def _is_chat(row: Row, found: Assigned) -> bool:
    """Whether prompts are turns of a chat: there is a system text, a history or tools, or they are instructions."""
    values = [row.values.get(found.columns[name][0]) for name in COMMON if name in found.columns]
    return found.is_instruction or any(form_of(value, row.cells) not in ("missing", "empty") for value in values)


def _refuse_promptless(rows: Sequence[Row], unused: Counter[str], columns: Columns, log: ReadLog) -> None:
    """Rows that would be learned from without a prompt are refused where a column is left that may hold it."""
    if not rows or "prompt" in columns.given:
        return
    values = {name: [row.values.get(name) for row in rows[:100]] for name in unused}
    names = [name for name in unused if asks(name, values[name])]
    if names:
        found = f"a column that may hold the prompt of {len(rows)} rows without one"
        cure = f"--field prompt={shorten_names(names[:1])}; where there is no prompt: --field prompt="
        log.fault(rows[0].where, shorten(names[0], 200)[1:-1], found, cure)


def _report_unused(
    unused: Counter[str], rows: Sequence[Row], layout: Layout, there: set[str], log: ReadLog
) -> None:
    names = list(unused)
    missing = [name for name in layout.may if name not in there]
    for name in names:
        near = "" if plain(name) in there else _nearest(name, missing)
        if near == "prompt" and asks(name, [row.values.get(name) for row in rows[:100]]):
            where = next(row.where for row in rows if name in row.values)
            log.fault(where, shorten(name)[1:-1], "a field that is not known", "did you mean prompt?")
        elif near not in ("", "prompt", plain(name)):
            log.note(f"the field {shorten(name)} is not used; did you mean {near}?")
    log.unused += sorted(set(names) - set(log.unused))
    if names:
        log.note(f"fields not used: {shorten_names(sorted(names))}")
    if names and layout.kind == "prompt":
        log.note("rewards and environments can read them as columns of the prompt")


def _nearest(name: str, known: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(plain(name), known, 1, 0.75)), "")
