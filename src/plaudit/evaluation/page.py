"""The types of a report: what a page is made of, and what a kind of run has to say for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup

from plaudit.evaluation.words import THIN
from plaudit.runs.files import Row
from plaudit.runs.reading import Run

Tone = Literal["good", "flat", "bad"]
ENOUGH_PAIRS = 100
"""Below so many held-out pairs the 95 % interval of an accuracy is about 20 points wide or wider."""
INTERVAL = f"95{THIN}% interval"


def environment() -> jinja2.Environment:
    """The templates of all pages."""
    # What models write may be hostile: everything is escaped, save the charts, which are Markup made here.
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline, its tone, and one paragraph of evidence."""

    tone: Tone
    headline: str
    evidence: str


NOT_EVALUATED = Verdict("flat", "Not evaluated.", "No held-out rows were scored: there are none, or it ended before.")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that matters, with what it is compared with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title, what it went from and to, and what it means."""

    title: str
    svg: Markup
    change: str = ""
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(CSS class, words) of each colour; empty where there is only one."""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure in a table, with what belongs to it in small print."""

    value: str
    note: str = ""
    tone: Tone = "flat"

    def __str__(self) -> str:
        return f"{self.value} ({self.note})" if self.note else self.value


@dataclass(frozen=True, slots=True)
class TableLine:
    """A row of a table."""

    name: str
    cells: tuple[str | Cell, ...]
    quiet: bool = False
    """A part of the line above."""
    note: str = ""
    """Of the name, in small print."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures below each other."""

    title: str
    head: tuple[str, ...]
    """Of the name and of each cell."""
    lines: list[TableLine]
    caption: str = ""

    def as_text(self) -> str:
        """For the console: columns under each other, small print in brackets, without the caption."""
        named = ((f"{'  ' * line.quiet}{Cell(line.name, line.note)}", *map(str, line.cells)) for line in self.lines)
        lines = [self.head, *named]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join([self.title, *(f"  {row}".rstrip() for row in rows)])


@dataclass(frozen=True, slots=True)
class Side:
    """One response, with its rewards and whether it was cut off."""

    response: str
    notes: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the first and the last response to it."""

    prompt: str
    before: Side | None
    after: Side


@dataclass(frozen=True, slots=True)
class Chapter:
    """One section of the page."""

    anchor: str
    step: str
    """Its name in the pipeline at the top."""
    verdict: Verdict
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] | None = None
    """None: not a place for warnings; []: looked, and found nothing in what was looked at."""
    unchecked: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)
    samples: list[Pair] = field(default_factory=list)
    examples: list[tuple[str, list[Row]]] = field(default_factory=list)
    brief: str = ""
    """What the pipeline at the top says of it."""


def _no_warnings(run: Run) -> list[str]:
    return []


def _all_checked(run: Run) -> list[str]:
    return []


def _no_panels(run: Run) -> list[Chart]:
    return []


def _no_tables(run: Run) -> list[Table]:
    return []


@dataclass(frozen=True)
class Kind:
    """How one kind of run is evaluated and shown. There is one file for each kind in `plaudit.evaluation.kinds`."""

    name: str
    """As in the table of commands (`plaudit.jobs.registry`)."""
    title: str
    card: Callable[[Path], Row]
    """Computes the figures of a run directory, writes them to summary.json and returns them."""
    verdict: Callable[[Run], Verdict]
    figures: Callable[[Run], list[Figure]]
    """The few figures at the top of the chapter."""
    brief: Callable[[Run], str]
    """What the pipeline at the top of the page says of the run."""
    warnings: Callable[[Run], list[str]] = _no_warnings
    """Signs that the figures are too good or that something went wrong, most serious first."""
    unchecked: Callable[[Run], list[str]] = _all_checked
    """Which of these could not be looked for, and why: where there are some, no page says that all is well."""
    panels: Callable[[Run], list[Chart]] = _no_panels
    """Charts of its own, before the curves."""
    tables: Callable[[Run], list[Table]] = _no_tables
    """Tables of its own, below its charts."""
    training: Callable[[Run], Verdict] | None = None
    """Where the page of several runs has two chapters for it, training and outcome: the verdict on the training."""
    rows: str = ""
    """The file that the figures are computed from; "": training writes them itself."""
    computed: str = ""
    """A figure that summary.json holds once the figures were computed."""
    curves: tuple[str, ...] = ()
    """The metrics that are shown first, in this order."""
    headline: tuple[str, ...] = ()
    """The figures that the console prints of this run at the end of a pipeline."""
    unit: str = "step"
    """What a step is called."""
    step: str = ""
    """Its name in the pipeline; "": the command in capitals."""
