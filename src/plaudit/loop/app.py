"""The annotation app as annotators: a project is filled with the comparisons of a round, and people answer it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from plaudit.jobs.loop import AnnotatorsSection, LoopJob
from plaudit.loop.annotators import Answer, Waiting
from plaudit.preferences.annotation import Annotation, Item
from plaudit.preferences.exporting import export
from plaudit.preferences.importing import items_of
from plaudit.preferences.store import content, history, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.transaction import NotFound
from plaudit.records import Comparison, Judgement
from plaudit.runs.directory import announce

POLL_SECONDS = 2.0
GUIDELINES = """\
Which response would you rather have received?

- Read the **whole** prompt and both responses before you answer.
- Judge what is written, not how long it is or how sure it sounds.
- If you cannot tell, say so: an honest *cannot judge* is worth more than a guess.
"""


class App:
    """A project of the annotation app, named after the loop's directory; all rounds are in it.

    Args:
        section: the database, how many people answer each comparison, and when it is enough.
        job: whose directory gives the project its name.
    """

    def __init__(self, section: AnnotatorsSection, job: LoopJob) -> None:
        self.section = section
        self.title = Path(job.out).resolve().name
        self.slug = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:64].strip("-") or "loop"

    def answer(self, asked: Sequence[Comparison], number: int) -> list[Answer]:
        """See `Annotators.answer`. Comparisons that are in the project already are not added again."""
        items, _ = items_of(asked, "pairwise")
        store = Store.open(self.section.source)
        try:
            project = self._filled(store, items)
            told = -1
            while (done := self._done(store, project, items)) < self.section.enough * len(items):
                words = (
                    f"waits for answers: {done} of {len(items)} comparisons of round {number} are answered in the "
                    f"project {self.slug}, and {self.section.enough:.0%} are wanted"
                )
                cure = f"answer them: plaudit annotate serve --db {self.section.source}"
                if not self.section.wait:
                    raise Waiting(f"the loop {words}", where=self.section.source, cure=f"{cure}; then run this again")
                if done != told:
                    announce({"waits": f"{words.removeprefix('waits for answers: ')}; {cure}"})
                told = done
                time.sleep(POLL_SECONDS)
            return self._answers(store, project, items)
        finally:
            store.close()

    def _filled(self, store: Store, items: Sequence[Item]) -> Project:
        """The project with the items of a round in it; made where there is none."""
        with store.write() as conn:
            try:
                project = projects.get_project(conn, self.slug)
            except NotFound:
                settings = projects.new_settings({"annotators_per_item": self.section.per_comparison})
                project = projects.create_project(conn, self.slug, self.title, "pairwise", settings, GUIDELINES)
            content.add_items(conn, project, items)
        return project

    def _done(self, store: Store, project: Project, items: Sequence[Item]) -> int:
        """How many comparisons have been answered, or left out with a reason, by as many people as are wanted."""
        with store.read() as conn:
            annotations = history.read_annotations(conn, project)
        people: dict[str, set[str]] = {item.key: set() for item in items}
        for one in annotations:
            if one.item in people and not one.round and not one.adjudicated:
                people[one.item].add(one.annotator)
        return sum(len(each) >= self.section.per_comparison for each in people.values())

    def _answers(self, store: Store, project: Project, items: Sequence[Item]) -> list[Answer]:
        by_key = {item.key: item for item in items}
        with store.read() as conn:
            annotations = [one for one in history.read_annotations(conn, project) if one.item in by_key]
        made = export("judgements", _usable(annotations), by_key)
        pairs = zip(made.records, made.rows, strict=True)
        return [
            Answer(record, {"project": self.slug, **row["provenance"]})
            for record, row in pairs
            if isinstance(record, Judgement)
        ]


def _usable(annotations: Sequence[Annotation]) -> list[Annotation]:
    """The votes, without repeats, which would give one person two; a reviewer's verdict in place of all of an item."""
    decided = {one.item: replace(one, adjudicated=False) for one in annotations if one.adjudicated}
    votes = [one for one in annotations if not one.round and one.item not in decided]
    return [*votes, *decided.values()]
