"""Data out: answers of a project as training data, for the pages, the API and the command line alike."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from plaudit.errors import DataError
from plaudit.preferences.aggregate import Method, Rule
from plaudit.preferences.annotation import Annotation, Item
from plaudit.preferences.exporting import EVERYTHING, Exported, What, export
from plaudit.preferences.store import content, history
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project

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


def make_export(
    store: Store, project: Project, what: str, rule: Rule = EVERYTHING, at: int = 0
) -> tuple[Exported, dict[str, Any]]:
    """An export and its manifest, which names the revision.

    Args:
        store: the database.
        project: whose answers.
        what: one of ``EXPORTS``.
        rule: how votes become preferences.
        at: the revision; 0 is the newest.

    Raises:
        DataError: there is no such export.
    """
    kind = next((name for name in EXPORTS if name == what), None)
    if kind is None:
        raise DataError(
            f"there is no export {what[:40]!r}", where="what", cure=f"one of {', '.join(EXPORTS)}"
        )
    revision, annotations, items = read_answers(store, project, at)
    made = export(kind, annotations, items, rule)
    return made, made.manifest(revision=revision, rule=rule, project=project.slug, task=project.task)


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
