"""A run is carried to its end although machines of it are lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plaudit.config.sections import Job
from plaudit.errors import Lost
from plaudit.runs.checkpoint import steps
from plaudit.runs.directory import announce
from plaudit.stages import stage_of

MOST = 3
"""Times that a run goes on from the same checkpoint. What dies once more there dies of what it does there."""


def carried_through(job: Job, sources: Mapping[str, str] | None = None, **values: Any) -> Path:
    """Run a job. Where a machine of it is lost, such as a worker that died, go on from the last checkpoint with others.

    A run that goes on is bit by bit the one that would have been (see `plaudit.runs.checkpoint`).

    Args:
        job, sources, values: see `plaudit.stages.Stage`.

    Raises:
        PlauditError: of the stage.
        Lost: again and again at the same place; or before there was a run; or its values cannot be read a second time.
    """
    place, times = "", 0
    while True:
        try:
            return stage_of(type(job))(job, sources, **values)
        except Lost as error:
            if error.run is None or any(isinstance(value, Iterator) for value in values.values()):
                raise
            kept = steps(error.run / "checkpoints")
            newest = kept[-1].name if kept else "the start"
            place, times = newest, times + 1 if newest == place else 1
            if times > MOST:
                raise
            announce({"lost": f"{error.what}; the run goes on from {newest} with others ({times})"})
            checkpoint = job.checkpoint.model_copy(update={"resume": True})
            job = job.model_copy(update={"out": str(error.run), "overwrite": False, "checkpoint": checkpoint})
