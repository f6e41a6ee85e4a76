"""The layouts a row can have, how to tell them apart by their fields, and how each becomes records."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.data.reading import row_parsers as parsers
from plaudit.data.reading.fields import Fields
from plaudit.data.reading.rows import ReadLog, Row, shorten, shorten_names
from plaudit.errors import DataError
from plaudit.records import Kind, Record

SIDE_FIELDS = ("id", "source", "license", "provenance")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write a kind of record: the fields it needs, each by one of its names, and its parser."""

    name: str
    kind: Kind
    needs: tuple[tuple[str, ...], ...]
    parse: Callable[[Fields, str], list[Record]]
    may: tuple[str, ...] = ()
    """Optional fields."""

    def fits(self, fields: frozenset[str]) -> bool:
        """Whether a row with these fields can be read."""
        return all(any(name in fields for name in names) for names in self.needs)


# The order of the list decides where several layouts fit: those that need more, and more special, fields stand first.
# "prompt, response, reward" is a rating and also a demonstration and a prompt; the rating uses all of it.
_PROMPT = ("prompt",)
_RESPONSE = ("response", "completion")
_REWARD = ("reward", "rating", "score")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "judgements (labels of several annotators)",
        "judgement",
        (_PROMPT, ("response_a",), ("response_b",), ("labels",)),
        parsers.judgements,
        ("model_a", "model_b"),
    ),
    Layout(
        "judgements",
        "judgement",
        (_PROMPT, ("response_a",), ("response_b",), ("strength", "label")),
        parsers.judgements,
        ("model_a", "model_b", "annotator", "label", "strength", "margin"),
    ),
    Layout("rankings", "ranking", (_PROMPT, ("responses",), ("ranks",)), parsers.ranking),
    Layout(
        "comparisons (not judged yet)",
        "comparison",
        (_PROMPT, ("responses",)),
        parsers.comparison,
        ("models", "provenance"),
    ),
    Layout(
        "comparisons (not judged yet)",
        "comparison",
        (_PROMPT, ("response_a",), ("response_b",)),
        parsers.comparison,
        ("model_a", "model_b", "provenance"),
    ),
    Layout(
        "preferences",
        "preference",
        (_PROMPT, ("chosen",), ("rejected",)),
        parsers.preference,
        ("margin", "strength", "annotator", "agreement"),
    ),
    Layout(
        "preferences with the prompt inside both texts",
        "preference",
        (("chosen",), ("rejected",)),
        parsers.preference,
        ("prompt", "margin", "strength", "annotator", "agreement"),
    ),
    Layout("ratings", "rating", (_RESPONSE, _REWARD), parsers.rating, ("prompt", "axes")),
    Layout("ratings (unpaired preferences)", "rating", (_PROMPT, _RESPONSE, ("label",)), parsers.rating),
    Layout("ratings of named axes", "rating", (_PROMPT, _RESPONSE, ("axes",)), parsers.rating),
    Layout(
        "ratings of named axes", "rating", (_PROMPT, _RESPONSE, parsers.AXES), parsers.rating, parsers.AXES
    ),
    Layout("labelled texts", "rating", (("text",), (*_REWARD, "label")), parsers.rating),
    Layout("demonstrations", "demonstration", (("messages", "conversations"),), parsers.chat),
    Layout("demonstrations", "demonstration", (_PROMPT, _RESPONSE), parsers.demonstration),
    Layout(
        "demonstrations (instruction and output)",
        "demonstration",
        (("instruction",), ("output",)),
        parsers.instruction,
        ("input",),
    ),
    Layout("prompts", "prompt", (_PROMPT,), parsers.prompt, ("answer",)),
    Layout("texts", "demonstration", (("text",),), parsers.text),
)


def detect(rows: Sequence[Row], source: str) -> Layout:
    """The first layout of the list that fits at least half of the rows; else the first that fits the most rows.

    A field counts as present if any row has a value for it.

    Raises:
        DataError: no row has any known layout.
    """
    # Half of the rows and not all: a few rows that lack a field are faults of these rows, and must not turn a file
    # of ratings into one of demonstrations without a word. Rows are counted by their set of fields, of which there
    # are few.
    used = {name for row in rows for name, value in row.values.items() if value is not None}
    shapes = Counter(frozenset(used.intersection(row.values)) for row in rows)
    fitting = [sum(times for fields, times in shapes.items() if layout.fits(fields)) for layout in LAYOUTS]
    enough = min(max(fitting), (len(rows) + 1) // 2)
    if enough:
        return next(layout for layout, fits in zip(LAYOUTS, fitting, strict=True) if fits >= enough)
    names = [name for name, _ in Counter(name for fields in shapes for name in sorted(fields)).most_common()]
    known = sorted({name for layout in LAYOUTS for names in layout.needs for name in names})
    guesses = [f"{near} for {shorten(name)}" for name in names if (near := _nearest(name, known))]
    cure = "give prompt and response, messages, prompt with chosen and rejected, or prompt alone"
    if guesses:
        cure = f"did you mean {', '.join(guesses[:4])}? Else {cure}"
    raise DataError(f"no known kind of data: the fields are {shorten_names(names)}", where=source, cure=cure)


def parse_rows(rows: Sequence[Row], layout: Layout, stem: str, log: ReadLog) -> list[Record]:
    """All records of the rows; what is wrong with them, and which fields were not used, goes to ``log``."""
    records: list[Record] = []
    unused: Counter[str] = Counter()
    for row in rows:
        fields = Fields(row, log)
        tools = fields.tools
        parsed = layout.parse(fields, fields.label("id") or f"{stem}-{row.number}")
        if tools and not fields.faulty:
            parsed = parsers.with_tools_of(fields, parsed, tools)
        unused.update(name for name in row.values if name not in fields.used)
        if not fields.faulty:
            records += parsed
            log.places += [row.where] * len(parsed)
    _report_unused(unused, rows, layout, log)
    return records


def _report_unused(unused: Counter[str], rows: Sequence[Row], layout: Layout, log: ReadLog) -> None:
    names = [name for name in unused if name not in SIDE_FIELDS]
    needed = {name for alternatives in layout.needs for name in alternatives}
    optional = [name for name in layout.may if name not in needed]
    for name in names:
        near = "" if name in optional else _nearest(name, optional)
        if near == "prompt":
            where = next(row.where for row in rows if name in row.values)
            log.fault(where, shorten(name)[1:-1], "a field that is not known", "did you mean prompt?")
        elif near:
            log.note(f"the field {shorten(name)} is not used; did you mean {near}?")
    log.unused += sorted(set(names) - set(log.unused))
    if names:
        log.note(f"fields not used: {shorten_names(sorted(names))}")
    if names and layout.kind == "prompt":
        log.note("rewards and environments can read them as columns of the prompt")


def _nearest(name: str, known: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(name.lower(), known, 1, 0.75)), "")
