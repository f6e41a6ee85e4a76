"""Data out: answers of a project as training data, for the pages, the API and the command line alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Annotated, Any, BinaryIO, get_args

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from plaudit.errors import DataError
from plaudit.preferences.aggregate import Method, Rule, Survey
from plaudit.preferences.annotation import Annotation, Item
from plaudit.preferences.exporting import AGGREGATED, EVERYTHING, Exported, What, export_part
from plaudit.preferences.store import content, history
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project
from plaudit.records import to_json

EXPORTS: tuple[What, ...] = get_args(What)


class ExportQuery(BaseModel):
    """Which answers are exported, and how votes become preferences, as the query of an address."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    at: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
    """The revision; 0 is the newest."""
    method: Method = "majority"
    """Whether votes count the same, or by the annotator's estimated accuracy."""
    min_votes: Annotated[int, Query(ge=1, le=100)] = 1
    """Leave out what fewer people answered."""
    min_agreement: Annotated[float, Query(ge=0, le=1)] = 0.0
    """Leave out what people agree on less."""
    without_flagged: bool = False
    """Leave out items that somebody flagged."""

    def rule(self) -> Rule:
        """All but the revision."""
        return Rule(self.method, self.min_votes, self.min_agreement, self.without_flagged)


ROWS_AT_ONCE = 500
"""Answers, or items, of one part: few enough that the texts of a part take little memory."""


def kind_of(what: str) -> What:
    """The export of this name.

    Raises:
        DataError: there is none.
    """
    kind = next((name for name in EXPORTS if name == what), None)
    if kind is None:
        raise DataError(
            f"there is no export {what[:40]!r}", where="what", cure=f"one of {', '.join(EXPORTS)}"
        )
    return kind


@dataclass(frozen=True, slots=True)
class Wanted:
    """An export that is asked for."""

    project: Project
    what: What
    rule: Rule = EVERYTHING
    at: int = 0
    """The revision; 0 is the newest."""


def write_export(
    store: Store, wanted: Wanted, out: BinaryIO, progress: Callable[[float], None] = lambda share: None
) -> dict[str, Any]:
    """Write the rows of an export, a part at a time.

    Args:
        store: the database.
        wanted: what is asked for.
        out: where the rows go, as JSON lines.
        progress: is told the share that is done, after each part.

    Returns:
        The manifest, to keep beside the file, so that a run can name exactly what it was trained on.
    """
    project, digest, rows = wanted.project, sha256(), 0
    with store.read() as conn:
        revision = wanted.at or history.revision(conn, project)
        flagged = history.flagged_keys(conn, project, revision) if wanted.rule.without_flagged else frozenset()
    survey = Survey(wanted.rule, flagged)
    dropped: Counter[str] = Counter()
    for share, part in export_parts(store, replace(wanted, at=revision), survey):
        data = part.to_jsonl()
        out.write(data)
        digest.update(data)
        rows += len(part.rows)
        dropped.update(part.dropped)
        progress(share)
    return {
        "project": project.slug,
        "task": project.task,
        "what": wanted.what,
        "revision": revision,
        "rule": to_json(wanted.rule),
        "rows": rows,
        "left_out": dict(survey.left_out + dropped),
        "sha256": digest.hexdigest(),
    }


def export_parts(store: Store, wanted: Wanted, survey: Survey) -> Iterator[tuple[float, Exported]]:
    """The parts of an export of a revision, each with the share that is done; ``survey`` is filled on the way.

    What the parts hold together is what `plaudit.preferences.exporting.export` makes of all answers.
    """
    # Every part is read in a transaction of its own. Rows of the history never change, so parts of one revision fit
    # together whenever they are read.
    project, aggregated = wanted.project, wanted.what in AGGREGATED
    with store.read() as conn:
        gold = content.gold_keys(conn, project)
    for answers in _in_parts(store, wanted):
        if wanted.what != "annotations":
            survey.add(answers, gold)
        share = answers[-1].revision / wanted.at
        if aggregated:
            yield share / 2, Exported(wanted.what, ())
        else:
            keys = list(dict.fromkeys(a.item for a in answers))
            with store.read() as conn:
                items = content.read_items(conn, project, list(content.numbers_of(conn, project, keys).values()))
            yield share, export_part(wanted.what, answers, {item.key: item for item in items.values()}, survey)
    keys = list(survey.items) if aggregated else []
    for start in range(0, len(keys), ROWS_AT_ONCE):
        with store.read() as conn:
            numbers = content.numbers_of(conn, project, keys[start : start + ROWS_AT_ONCE])
            items = content.read_items(conn, project, list(numbers.values()))
            answers = history.read_annotations(conn, project, wanted.at, items=list(items))
        made = export_part(wanted.what, answers, {item.key: item for item in items.values()}, survey)
        yield (1 + start / len(keys)) / 2, made


def _in_parts(store: Store, wanted: Wanted) -> Iterator[list[Annotation]]:
    """The answers that counted at the revision, in the order of their rows."""
    last = 0
    while True:
        with store.read() as conn:
            part = history.read_annotations(conn, wanted.project, wanted.at, since=last, limit=ROWS_AT_ONCE)
        if not part:
            return
        yield part
        last = part[-1].revision


def read_answers(
    store: Store, project: Project, at: int = 0
) -> tuple[int, list[Annotation], dict[str, Item]]:
    """The revision (``at``, or the newest), the answers as they stood then, and the items by key."""
    # One transaction for the three, so that they show one state. The revision is looked up first: on PostgreSQL, where
    # each statement may see newer rows, answers that come in between are then not read.
    with store.read() as conn:
        revision = at or history.revision(conn, project)
        annotations = history.read_annotations(conn, project, revision)
        items = {item.key: item for item in content.read_items(conn, project).values()}
    return revision, annotations, items
