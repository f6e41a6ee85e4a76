"""TensorBoard files, written with the package `tensorboard` alone: neither torch nor TensorFlow is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class TensorBoardSink:
    """Scalars under their metric names, events as text."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def expect(self, total: int, unit: str) -> None:
        """TensorBoard has no use for it."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Every finite figure as a scalar."""
        scalars = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        summary = self._summary(value=scalars)
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Events are in events.jsonl; here they only make sure that what was written is on disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def tensorboard_sink(folder: Path) -> TensorBoardSink | None:
    """A sink writing to ``folder``, or ``None`` where the package is not installed."""
    if find_spec("tensorboard") is None:
        return None
    return TensorBoardSink(folder)
