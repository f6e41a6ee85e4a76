"""Figures to Weights & Biases, MLflow and Trackio, through their own packages.

Where they send or keep what they get is said in each service's own way, by its environment variables (WANDB_MODE,
WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, TRACKIO_DIR ...). Docs: docs/howto/trackers.md.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "plaudit"
"""What runs are filed under, where the service's own variables name no project."""
STATE = "tracker-{}.json"
"""In the run directory: under which name and id a service has the run, so that a resumed run goes on there."""


@dataclass(frozen=True)
class Part:
    """A run as a service has it: a run that went back begins a second part, since figures cannot be taken back."""

    run_dir: Path
    group: str
    """The name of the whole: that of the run directory."""
    name: str
    id: str
    again: bool
    """Whether the service has it already, from a process that ended."""
    settings: Mapping[str, Any]
    """The settings of the run, by dotted name."""


class Service(Protocol):
    """What `ServiceTracker` needs of a service. Any call may raise, and any may be slow."""

    def open(self, part: Part) -> str:
        """Begin the part, or go on with it; returns the id under which it can be gone on with, empty for never."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of one step."""

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The samples of one step; every row has the same names."""

    def alarm(self, step: int, kind: str, message: str) -> None:
        """An alarm, for people."""

    def close(self, is_finished: bool) -> None:
        """The part is over; ``is_finished`` tells a run that reached its end from one that broke off."""


class ServiceTracker:
    """A tracker of one service: parts of a run that went back, and samples as one table a step.

    Args:
        key: the name of the tracker.
        made: makes the client of the service.
        run_dir: the run; its name is the name of the run at the service.
        settings: as `Part`.
    """

    def __init__(
        self, key: str, made: Callable[[], Service], run_dir: Path, settings: Mapping[str, Any]
    ) -> None:
        self._made, self._run_dir, self._settings = made, run_dir, settings
        self._service: Service | None = None
        self._samples: list[Mapping[str, Any]] = []
        self._reason = "finished"
        self._state = run_dir / STATE.format(key)
        state = json.loads(self._state.read_text(encoding="utf-8")) if self._state.exists() else {}
        self._name, self._id = state.get("name", run_dir.name), state.get("id", "")
        self._last: int = state.get("step", -1)

    def expect(self, total: int, unit: str) -> None:
        """The service draws its axis from the data."""

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Every finite figure."""
        self._send_samples(before=step)
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        if numbers:
            self._open().log(step, numbers)
        self._remember(step)

    def start(self, values: Mapping[str, float]) -> None:
        """The curves show it."""

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """Kept until the step is over, and then sent as one table."""
        self._send_samples(before=step)
        self._samples.append({"step": step, **fields})

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Alarms, and the reason of the end; all events are in events.jsonl."""
        if kind == "alarm":
            step = int(fields.get("step", self._last))
            self._open().alarm(step, str(fields.get("kind")), str(fields.get("message")))
        elif kind == "stopped":
            self._reason = str(fields.get("reason"))

    def rewind(self, step: int) -> int:
        """Begin another part, where steps that the service has are done again."""
        self._samples = [row for row in self._samples if row["step"] <= step]
        if self._last > step:
            self._reason = f"went back to {step}"
            self.close()
            self._reason = "finished"
            self._name = f"{self._run_dir.name}-from-{step + 1}-{uuid.uuid4().hex[:4]}"
            self._id, self._last = "", step
        return 0

    def close(self) -> None:
        """Send what is left, and end the part."""
        self._send_samples(before=None)
        if self._service is not None:
            self._service.close(self._reason == "finished")
            self._service = None

    def _open(self) -> Service:
        if self._service is None:
            service = self._made()
            new = not self._id
            id = uuid.uuid4().hex if new else self._id
            part = Part(self._run_dir, self._run_dir.name, self._name, id, not new, self._settings)
            self._id = service.open(part)
            self._service = service
        return self._service

    def _send_samples(self, before: int | None) -> None:
        if not self._samples or self._samples[0]["step"] == before:
            return
        step, rows = self._samples[0]["step"], _rectangular(self._samples)
        self._samples = []
        self._open().table(step, rows)
        self._remember(step)

    def _remember(self, step: int) -> None:
        # At every step, not only at the end: a run that was killed must know what the service has of it.
        self._last = max(self._last, step)
        fresh = self._state.with_suffix(".tmp")
        fresh.write_text(
            json.dumps({"name": self._name, "id": self._id, "step": self._last}), encoding="utf-8"
        )
        os.replace(fresh, self._state)


class WandB:
    """Weights & Biases: online, or as WANDB_MODE says."""

    def open(self, part: Part) -> str:
        """A run of the project; the parts of a run are a group.

        Raises:
            RuntimeError: it would be online, and nobody is logged in.
        """
        import wandb

        known = wandb.setup().settings  # its variables and files, read
        # Checked here because W&B itself would ask at the terminal, in the middle of a run that nobody watches.
        if known.mode not in ("offline", "disabled") and not wandb.login(prompt=False):
            raise RuntimeError(
                "nobody is logged in to W&B; `wandb login`, or WANDB_MODE=offline keeps the run here"
            )
        # Two files of one run that was never online cannot become one: an offline run is gone on with as another part.
        is_offline = known.mode == "offline"
        self._wandb, self._run = wandb, wandb.init(
            project=known.project or PROJECT,
            name=part.name,
            group=part.group,
            id=uuid.uuid4().hex if is_offline else part.id,
            resume=None if is_offline else "allow",
            dir=str(part.run_dir),
            config=dict(part.settings),
            settings=wandb.Settings(console="off", quiet=True),
        )  # fmt: skip
        return "" if self._run.offline else part.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As history of the step."""
        self._run.log(dict(values), step=step)

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """As a table of the step."""
        table = self._wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({"samples": table}, step=step)

    def alarm(self, step: int, kind: str, message: str) -> None:
        """As an alert, which W&B also sends by mail where that is switched on."""
        self._run.alert(title=f"{kind} at step {step}", text=message)

    def close(self, is_finished: bool) -> None:
        """Upload what is left."""
        self._run.finish(exit_code=0 if is_finished else 1)


class MLflow:
    """MLflow: where MLFLOW_TRACKING_URI says, else a database file in the working directory."""

    def open(self, part: Part) -> str:
        """A run of the experiment; the parts of a run share the tag ``group``."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

        # A client of its own, because MLflow's functions keep a run that is shared by the whole process.
        self._client, self._metric = MlflowClient(), Metric
        self._steps: list[Mapping[str, Any]] = []
        if part.again:
            self._id = part.id
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        name = MLFLOW_EXPERIMENT_NAME.get() or PROJECT
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = self._client.create_run(number, run_name=part.name, tags={"group": part.group}).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in part.settings.items()]
        for first in range(0, len(params), 100):  # its limit of one call
            self._client.log_batch(self._id, params=params[first : first + 100])
        return self._id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As metrics of the step."""
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """As a file of the step, of the form that its pages show as a table."""
        table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        self._client.log_dict(self._id, table, f"samples/step-{step:06d}.json")

    def alarm(self, step: int, kind: str, message: str) -> None:
        """As a tag: the newest of each kind."""
        self._client.set_tag(self._id, f"alarm.{kind}", f"step {step}: {message}"[:5000])

    def close(self, is_finished: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, "FINISHED" if is_finished else "FAILED")


class Trackio:
    """Trackio: in a database of this machine, or at a Space where its variables name one."""

    def open(self, part: Part) -> str:
        """A run of the project; the parts of a run are a group."""
        import trackio

        self._trackio, self._run = trackio, trackio.init(
            project=PROJECT,
            name=part.name,
            group=part.group,
            config=dict(part.settings),
            resume="allow" if part.again else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )  # fmt: skip
        return part.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As figures of the step."""
        self._run.log(dict(values), step=step)

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """As a table of the step."""
        table = self._trackio.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self._run.log({"samples": table}, step=step)

    def alarm(self, step: int, kind: str, message: str) -> None:
        """As an alert."""
        self._run.alert(title=kind, text=message, step=step)

    def close(self, is_finished: bool) -> None:
        """Write what is left."""
        self._run.finish()


SERVICES: dict[str, Callable[[], Service]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
"""Name of the tracker, and of its package -> its client."""


def _rectangular(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same names in the same order; what is no number or text (a chat, parts of a reward) is JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: _cell(row.get(name)) for name in names} for row in rows]


def _cell(value: Any) -> Any:
    is_plain = value is None or isinstance(value, (str, int, float))
    return value if is_plain else json.dumps(value, ensure_ascii=False, default=str)
