"""What every tracker must do. A new tracker is a line in TRACKERS here, and must pass as it stands."""

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rich.console import Console

from plaudit.runs.files import read_lines
from plaudit.runs.recorder import Files
from plaudit.tracking.console import ConsoleTracker
from plaudit.tracking.protocol import Tracker
from plaudit.tracking.tensorboard import tensorboard_tracker
from plaudit.tracking.tracker import TRACKERS as TABLE
from plaudit.tracking.tracker import Opening


@dataclass
class Place:
    """Where a tracker keeps what it is given: how it is opened (again), and what a reader sees there."""

    open: Callable[[], Tracker]
    figures: Callable[[], dict[int, dict[str, float]]] | None
    """Step -> figures; None for a tracker that shows and does not keep."""
    text: Callable[[], str] | None = None
    """All words in it, events and samples among them."""


def files(folder):
    def figures():
        rows = read_lines(folder / "metrics.jsonl")
        assert len({row["step"] for row in rows}) == len(rows), "each step is there once"
        return {
            row.pop("step"): {k: v for k, v in row.items() if k != "time" and v is not None} for row in rows
        }

    def text():
        return "".join((folder / name).read_text("utf-8") for name in ("samples.jsonl", "events.jsonl"))

    return Place(lambda: Files(folder), figures, text)


def tensorboard(folder):
    pytest.importorskip("tensorboard", reason="pip install 'plaudit[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def figures():
        # The reader takes files in the order of their names: the second, the process, and a counter, of which "10"
        # comes before "9". A resumed run is another process and seconds later; here both are opened at once.
        for number, file in enumerate(sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)):
            file.rename(folder / f"events.out.tfevents.{number:010d}")
        reader = EventAccumulator(str(folder), purge_orphaned_data=True)
        reader.Reload()
        steps = {}
        for name in reader.Tags()["scalars"]:
            for point in reader.Scalars(name):
                assert name not in steps.setdefault(point.step, {}), "each step is there once"
                steps[point.step][name] = point.value
        return steps

    return Place(lambda: tensorboard_tracker(folder), figures)


def console(folder):
    shown = io.StringIO()
    printer = Console(file=shown, width=200, highlight=False)
    return Place(lambda: ConsoleTracker("ppo", printer), None, shown.getvalue)


pytestmark = pytest.mark.filterwarnings("ignore")  # the services' own packages warn of each other's


def in_parts(folder, steps_of):
    """Figures of a run at a service: a later part replaces the steps that an earlier one has from its start on.

    Args:
        steps_of: from part name to step -> figures.
    """

    def figures():
        parts = steps_of()
        steps = {}
        for name in sorted(
            parts, key=lambda name: int(name.split("-from-")[1].split("-")[0]) if "-from-" in name else 0
        ):
            first = min(parts[name], default=0)
            steps = {step: row for step, row in steps.items() if step < first} | parts[name]
        return steps

    return figures


def offline_records(data):
    """The records of an offline file of W&B: blocks of 32 KiB, of pieces with checksum, length and type."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def wandb(folder):
    pytest.importorskip("wandb", reason="pip install 'plaudit[wandb]'")
    from wandb.proto import wandb_internal_pb2

    def parts():
        # Its own process writes the file, to the end a moment after the run was finished here.
        steps = {}
        for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            name, records = "", []
            while not any(record.WhichOneof("record_type") == "exit" for record in records):
                records = [wandb_internal_pb2.Record.FromString(data) for data in offline_records(path.read_bytes())]
            for record in records:
                name = record.run.display_name or name
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                step = row.pop("_step", None)
                numbers = {
                    key: value for key, value in row.items() if not key.startswith("_") and key != "samples"
                }
                if step is not None and numbers:
                    part = steps.setdefault(name, {})
                    assert step not in part, "each step is there once"
                    part[step] = numbers
        return steps

    return Place(lambda: TABLE["wandb"](Opening(folder, "ppo")), in_parts(folder, parts))


def mlflow(folder):
    pytest.importorskip("mlflow", reason="pip install 'plaudit[mlflow]'")
    from mlflow import MlflowClient

    def parts():
        client, steps = MlflowClient(), {}
        experiment = client.get_experiment_by_name("plaudit")
        for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
            part = steps.setdefault(run.info.run_name, {})
            for key in run.data.metrics:
                for point in client.get_metric_history(run.info.run_id, key):
                    assert key not in part.setdefault(point.step, {}), "each step is there once"
                    part[point.step][key] = point.value
        return steps

    return Place(lambda: TABLE["mlflow"](Opening(folder, "ppo")), in_parts(folder, parts))


def trackio(folder):
    pytest.importorskip("trackio", reason="pip install 'plaudit[trackio]'")
    from trackio.sqlite_storage import SQLiteStorage

    def parts():
        steps = {}
        for name in SQLiteStorage.get_runs("plaudit"):
            if not name.startswith(folder.name):
                continue  # of another test: the folder of Trackio is one for a process
            part = steps.setdefault(name, {})
            for row in SQLiteStorage.get_logs("plaudit", name):
                numbers = {
                    key: value for key, value in row.items() if key not in ("step", "timestamp", "samples")
                }
                if numbers:
                    assert row["step"] not in part, "each step is there once"
                    part[row["step"]] = numbers
        return steps

    return Place(lambda: TABLE["trackio"](Opening(folder, "ppo")), in_parts(folder, parts))


@pytest.fixture(autouse=True)
def _at_home(tmp_path, tmp_path_factory, monkeypatch):
    """What the services keep is kept here, and nothing is sent anywhere."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.getbasetemp()}/mlflow-{tmp_path.name}.db"
    )
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts into the working directory
    os.environ.setdefault("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))  # read once, at the import


TRACKERS = {
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
    "files": files,
    "tensorboard": tensorboard,
    "console": console,
}


@pytest.fixture(params=TRACKERS.values(), ids=TRACKERS)
def place(request, tmp_path):
    return request.param(tmp_path)


def test_figures_are_there_after_closing(place):
    tracker = place.open()
    tracker.expect(2, "iteration")
    tracker.metrics(1, {"reward/mean": 0.25, "objective/kl": 1.5})
    tracker.metrics(2, {"reward/mean": 0.75})
    tracker.close()
    if place.figures is None:
        assert "reward +0.75 (was +0.25)" in place.text()
    else:
        assert place.figures() == {1: {"reward/mean": 0.25, "objective/kl": 1.5}, 2: {"reward/mean": 0.75}}


def test_a_figure_that_is_not_finite_is_left_out_and_spoils_no_other(place):
    tracker = place.open()
    tracker.metrics(1, {"loss": None, "reward/mean": 0.25})
    tracker.metrics(2, {"loss": None})
    tracker.close()
    if place.figures is None:
        assert "nan" not in place.text() and "None" not in place.text() and "+0.25" in place.text()
    else:
        seen = place.figures()
        assert seen[1] == {"reward/mean": 0.25} and seen.get(2, {}) == {}
        assert all(math.isfinite(value) for row in seen.values() for value in row.values())


def test_samples_and_events_of_every_kind_are_taken(place):
    tracker = place.open()
    tracker.expect(3, "iteration")
    tracker.start({"eval/gold_mean": 0.5})
    tracker.sample(1, {"prompt": "Grüße", "response": "[b]yes[/b]\n", "reward": 0.5})
    for kind, fields in (
        ("started", {"command": "ppo"}),
        ("saved", {"path": "model"}),
        ("resumed", {"step": 2}),
        ("alarm", {"kind": "kl_limit", "message": "the KL is [red]12[/red] nats"}),
        ("rolled back", {"step": 1, "why": "the gold reward fell"}),
        ("tracker failed", {"tracker": "x", "message": "the tracker x failed"}),
        ("a kind that nobody knows", {"some": {"thing": [1, None]}}),
        ("stopped", {"reason": "finished"}),
    ):
        tracker.event(kind, fields)
    tracker.close()
    if place.text is not None:
        for words in ("12[/red] nats", "the gold reward fell", "the tracker x failed"):
            assert words in place.text()


def test_a_resumed_run_has_each_step_once(place):
    """Steps after the checkpoint are done again: what was recorded of them the first time is gone."""
    tracker = place.open()
    for step in (1, 2, 3):
        tracker.metrics(step, {"loss": float(step)})
    tracker.close()
    tracker = place.open()
    assert tracker.rewind(1) >= 0
    tracker.event("resumed", {"step": 1})
    for step in (2, 3, 4):
        tracker.metrics(step, {"loss": 10.0 * step})
    tracker.close()
    if place.figures is None:
        assert "resumed after" in place.text()
    else:
        assert place.figures() == {1: {"loss": 1.0}, 2: {"loss": 20.0}, 3: {"loss": 30.0}, 4: {"loss": 40.0}}


def test_going_back_within_a_run_leaves_each_step_once(place):
    tracker = place.open()
    for step in (1, 2, 3):
        tracker.metrics(step, {"loss": float(step)})
    tracker.rewind(1)
    tracker.metrics(2, {"loss": 20.0})
    tracker.close()
    if place.figures is not None:
        assert place.figures() == {1: {"loss": 1.0}, 2: {"loss": 20.0}}


def test_closing_twice_is_fine(place):
    tracker = place.open()
    tracker.metrics(1, {"loss": 1.0})
    tracker.close()
    tracker.close()
