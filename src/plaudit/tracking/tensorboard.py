"""TensorBoard files, written with the package `tensorboard` alone: neither torch nor TensorFlow is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class TensorBoardTracker:
    """Scalars under their metric names, and samples as text.

    Args:
        folder: where the event files go. A resumed run adds a file; TensorBoard reads all of them as one run.
    """

    def __init__(self, folder: Path) -> None:
        # Imported here, because the package is optional and slow to load.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._session, self._summary = Event, SessionLog, Summary
        self._metadata, self._tensor, self._string = SummaryMetadata, TensorProto, DT_STRING
        self._sampled = (-1, 0)
        self._writer = EventFileWriter(str(folder))

    def expect(self, total: int, unit: str) -> None:
        """TensorBoard draws its axis from the data."""

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Every finite figure as a scalar."""
        scalars = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if value is not None
        ]
        summary = self._summary(value=scalars)
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def start(self, values: Mapping[str, float]) -> None:
        """The curves show it."""

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """As text of the step, one block a sample, under the response's number among those of the step."""
        self._sampled = (step, self._sampled[1] + 1 if self._sampled[0] == step else 0)
        # A block of code: TensorBoard reads the text as Markdown, and a response may hold anything.
        lines = "\n".join(f"{name}: {value}" for name, value in fields.items())
        text = "    " + lines.replace("\n", "\n    ")
        value = self._summary.Value(
            tag=f"samples/{self._sampled[1]}",
            metadata=self._metadata(plugin_data=self._metadata.PluginData(plugin_name="text")),
            tensor=self._tensor(dtype=self._string, string_val=[text.encode("utf-8", "replace")]),
        )
        summary = self._summary(value=[value])
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Events are in events.jsonl; here they only make sure that what was written is on disk."""
        self._writer.flush()

    def rewind(self, step: int) -> int:
        """Tell TensorBoard to drop what it reads of later steps; the files keep it."""
        # Event files are only ever added to. The start of a session is the mark by which TensorBoard knows that a
        # run went back: of all files it drops the points from the step of the mark on. Without it the curves of a
        # resumed run would have two values for the steps that were done again.
        start = self._session(status=self._session.START)
        self._writer.add_event(self._event(step=step + 1, wall_time=time.time(), session_log=start))
        return 0

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def tensorboard_tracker(folder: Path) -> TensorBoardTracker | None:
    """A tracker writing to ``folder``, or ``None`` where the package is not installed."""
    if find_spec("tensorboard") is None:
        return None
    return TensorBoardTracker(folder)
