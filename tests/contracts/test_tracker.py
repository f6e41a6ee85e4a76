"""What every tracker must do. A new tracker is a line in TRACKERS here, and must pass as it stands."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rich.console import Console

from plaudit.runs.files import read_lines
from plaudit.runs.recorder import Files
from plaudit.tracking.console import ConsoleTracker
from plaudit.tracking.tensorboard import tensorboard_tracker
from plaudit.tracking.tracker import Tracker


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


TRACKERS = {"files": files, "tensorboard": tensorboard, "console": console}


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
