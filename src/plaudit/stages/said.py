"""What a run says of its inputs: what it leaves out or does not use of its data, and what it does otherwise than asked.

It is said when it is noticed, before anything is on disk; once the run is open it is recorded, so that the report and
whoever reads `events.jsonl` see the same as the console.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plaudit.data.fit import FitReport
from plaudit.data.load import Loaded
from plaudit.runs.directory import announce
from plaudit.runs.recorder import Recorder


class Said:
    """Collects what is said before a run is open; each line is shown on the console at once, or none with ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._show = (lambda lines: None) if quiet else announce
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._facts: list[tuple[str, dict[str, Any]]] = []

    @property
    def messages(self) -> tuple[str, ...]:
        """Everything that was said, in its order."""
        return tuple(str(fields.get("message") or fields["what"]) for _, fields in self._events)

    def note(self, notes: Iterable[str]) -> None:
        """Settings, the model, its template or the machine: a sentence each, and none twice."""
        for what in notes:
            if what not in self.messages:
                self._show({"note": what})
                self._events.append(("note", {"what": what}))

    def fact(self, name: str, text: str, kind: str, fields: Mapping[str, Any]) -> None:
        """What was found out before the start: a line on the console, and an event of this kind with its figures."""
        self._show({name: text})
        self._facts.append((kind, {**fields, "message": text}))

    def loaded(self, loaded: Loaded) -> None:
        """What was noticed while a source was read: fields that are not used, rows left out, texts read in some way."""
        for note in loaded.notes:
            self._show({"note": note})
        if loaded.notes:
            self._data(loaded.source, loaded.dropped, loaded.unused, "; ".join(loaded.notes))

    def fitted(self, source: str, report: FitReport) -> None:
        """Rows that were cut or left out because of their length; nothing where there are none."""
        if report.truncated or report.dropped:
            self._show({"note": f"{source}: {report}"})
            self._data(source, report.dropped, (), str(report))

    def left_out(self, source: str, message: str, dropped: int) -> None:
        """Rows that a stage leaves out for a reason of its own."""
        self._show({"note": message})
        self._data(source, dropped, (), message)

    def _data(self, source: str, dropped: int, unused: Iterable[str], message: str) -> None:
        fields = {"source": source, "dropped": dropped, "unused_fields": list(unused), "message": message}
        self._events.append(("data", fields))

    def record(self, recorder: Recorder) -> None:
        """Write everything to `events.jsonl` and `summary.json`."""
        for kind, fields in (*self._facts, *self._events):
            recorder.event(kind, **fields)
        recorder.summary({"notes": list(self.messages)})
