"""Trackers of other people's services: what each is given, and that none of them can hold up or stop a run."""

import json
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest

from plaudit.config.sections import LogSection
from plaudit.runs.files import read_lines
from plaudit.runs.recorder import Recorder
from plaudit.tracking import services, tracker
from plaudit.tracking.background import InBackground
from plaudit.tracking.services import ServiceTracker
from plaudit.tracking.tracker import TRACKERS, Opening


class Kept:
    """A service that keeps what it is given, by part."""

    parts: dict = {}

    def open(self, part):
        self.part = self.parts.setdefault(
            part.name, {"settings": part.settings, "log": [], "tables": [], "alarms": []}
        )
        self.part["again"] = part.again
        return part.id

    def log(self, step, values):
        self.part["log"].append((step, dict(values)))

    def table(self, step, rows):
        self.part["tables"].append((step, list(rows)))

    def alarm(self, step, kind, message):
        self.part["alarms"].append((step, kind, message))

    def close(self, is_finished):
        self.part["finished"] = is_finished


@pytest.fixture
def kept():
    Kept.parts = {}
    return Kept.parts


def test_samples_of_a_step_are_one_table_with_the_same_columns(tmp_path, kept):
    given = ServiceTracker("kept", Kept, tmp_path / "run", {"algorithm.kl_coef": 0.1})
    (tmp_path / "run").mkdir()
    given.sample(0, {"prompt": [{"role": "user", "content": "Hi"}], "response": "Yes", "reward": 1.0})
    given.sample(0, {"prompt": "Hi", "response": "No", "finish_reason": "stop"})
    given.metrics(1, {"loss": 0.5, "bad": None})
    given.sample(1, {"response": "Well"})
    given.event("alarm", {"step": 1, "kind": "length", "message": "they grow"})
    given.event("stopped", {"reason": "finished"})
    given.close()
    run = kept["run"]
    assert run["settings"] == {"algorithm.kl_coef": 0.1} and run["finished"]
    assert run["log"] == [(1, {"loss": 0.5})] and run["alarms"] == [(1, "length", "they grow")]
    (first, rows), (second, last) = run["tables"]
    assert (first, second) == (0, 1) and last == [{"step": 1, "response": "Well"}]
    chat = '[{"role": "user", "content": "Hi"}]'
    assert rows == [
        {"step": 0, "prompt": chat, "response": "Yes", "reward": 1.0, "finish_reason": None},
        {"step": 0, "prompt": "Hi", "response": "No", "reward": None, "finish_reason": "stop"},
    ]


def test_a_run_that_goes_back_begins_a_second_part(tmp_path, kept):
    given = ServiceTracker("kept", Kept, tmp_path, {})
    for step in (1, 2, 3):
        given.metrics(step, {"loss": float(step)})
    given.rewind(1)
    given.metrics(2, {"loss": 20.0})
    given.close()
    (first, second) = kept
    assert first == tmp_path.name and second.startswith(f"{tmp_path.name}-from-2-")
    assert [step for step, _ in kept[first]["log"]] == [1, 2, 3] and not kept[first]["finished"]
    assert kept[second]["log"] == [(2, {"loss": 20.0})] and kept[second]["finished"]


def test_a_run_that_goes_on_where_it_was_stays_one_part(tmp_path, kept):
    for steps in ((1, 2), (3,)):
        given = ServiceTracker("kept", Kept, tmp_path, {})
        given.rewind(steps[0] - 1)
        for step in steps:
            given.metrics(step, {"loss": 0.0})
        given.close()
    assert list(kept) == [tmp_path.name] and kept[tmp_path.name]["again"]
    assert [step for step, _ in kept[tmp_path.name]["log"]] == [1, 2, 3]


def test_a_killed_process_does_not_make_the_service_have_a_step_twice(tmp_path, kept):
    given = ServiceTracker("kept", Kept, tmp_path, {})
    for step in (1, 2, 3):
        given.metrics(step, {"loss": 0.0})
    again = ServiceTracker("kept", Kept, tmp_path, {})  # nothing was closed
    again.rewind(2)
    again.metrics(3, {"loss": 1.0})
    assert len(kept) == 2 and [part["log"][-1][0] for part in kept.values()] == [3, 3]


HAS_COME = threading.Event()
"""The service was called."""


class Bad(Kept):
    """A service whose server is down."""

    def log(self, step, values):
        HAS_COME.set()
        raise ConnectionError("the server is down")


class Hangs(Kept):
    """A service that never answers."""

    def log(self, step, values):
        HAS_COME.set()
        threading.Event().wait()


def events(run, kind):
    return [row for row in read_lines(run / "events.jsonl") if row["event"] == kind]


def recorded(run, service, monkeypatch, patience, steps):
    HAS_COME.clear()

    def opened(opening: Opening):
        return InBackground(lambda: ServiceTracker("kept", service, opening.run_dir, {}), patience)

    monkeypatch.setitem(TRACKERS, "wandb", opened)
    with Recorder(run, command="ppo", log=LogSection(trackers=("wandb",))) as recorder:
        for step in range(1, steps + 1):
            recorder.metrics(step, {"loss": float(step)})
            if step == 1:
                HAS_COME.wait(60)
                time.sleep(2 * patience if patience < 1 else 0)
    assert len(read_lines(run / "metrics.jsonl")) == steps
    assert events(run, "stopped")[0]["reason"] == "finished"
    return [row["message"] for row in events(run, "tracker failed")]


def test_what_a_service_raises_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch, kept):
    (message,) = recorded(tmp_path, Bad, monkeypatch, 60.0, 5)
    assert "wandb failed (ConnectionError: the server is down); the run goes on without it" in message


def test_a_service_that_hangs_is_left_after_the_deadline(tmp_path, monkeypatch, kept):
    (message,) = recorded(tmp_path, Hangs, monkeypatch, 0.1, 5)
    assert "did not answer for 0.1 seconds; the files of the run have all figures" in message


def test_a_service_that_hangs_at_the_end_is_left_too(tmp_path, kept):
    class HangsAtTheEnd(Kept):
        def close(self, is_finished):
            threading.Event().wait()

    given = InBackground(lambda: ServiceTracker("kept", HangsAtTheEnd, tmp_path, {}), 0.2)
    given.metrics(1, {"loss": 1.0})
    with pytest.raises(TimeoutError, match="did not answer"):
        given.close()
    given.close()


@pytest.mark.parametrize("name", services.SERVICES)
def test_a_package_that_is_missing_is_named_with_the_extra(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tracker, "find_spec", lambda package: None)
    with Recorder(tmp_path, command="sft", log=LogSection(trackers=(name,))) as recorder:
        recorder.metrics(1, {"loss": 1.0})
    (failed,) = events(tmp_path, "tracker failed")
    assert f"pip install 'plaudit[{name}]'" in failed["message"]


def test_several_trackers_have_the_same_figures(tmp_path, monkeypatch, kept):
    for name in ("wandb", "mlflow", "trackio"):
        made = lambda opening, name=name: ServiceTracker(name, Kept, opening.run_dir / name, opening.settings)  # noqa: E731
        (tmp_path / name).mkdir()
        monkeypatch.setitem(TRACKERS, name, made)
    (tmp_path / "config.toml").write_text('lr = 0.1\n[algorithm]\ntype = "ppo"\n[[reward]]\nkind = "rule"\n')
    with Recorder(
        tmp_path, command="ppo", log=LogSection(trackers=("wandb", "mlflow", "trackio"))
    ) as recorder:
        recorder.metrics(1, {"loss": 1.0, "bad": float("nan")})
    assert list(kept) == ["wandb", "mlflow", "trackio"]
    for part in kept.values():
        assert part["log"] == [(1, {"loss": 1.0})] and part["finished"]
        assert part["settings"] == {"lr": 0.1, "algorithm.type": "ppo", "reward": [{"kind": "rule"}]}


class FakeRun:
    """What W&B's init returns, as far as it is used."""

    offline = False

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **named: self.calls.append((name, args, named))


def test_wandb_is_asked_not_to_prompt_and_gets_steps_tables_and_alerts(tmp_path, monkeypatch, kept):
    fake, run, given = ModuleType("wandb"), FakeRun(), {}
    fake.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online", project=None))
    fake.Settings = lambda **named: named
    fake.login = lambda **named: given.update(login=named) or True
    fake.init = lambda **named: given.update(named) or run
    fake.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    opened = ServiceTracker("wandb", services.WandB, tmp_path, {"lr": 0.1})
    opened.metrics(1, {"loss": 1.0})
    opened.sample(1, {"response": "yes"})
    opened.event("alarm", {"step": 1, "kind": "length", "message": "they grow"})
    opened.event("stopped", {"reason": "Stopped: as asked"})
    opened.close()
    assert given["login"] == {"prompt": False}
    assert (given["project"], given["group"], given["resume"]) == ("plaudit", tmp_path.name, "allow")
    assert run.calls == [
        ("log", ({"loss": 1.0},), {"step": 1}),
        ("alert", (), {"title": "length at step 1", "text": "they grow"}),
        ("log", ({"samples": (["step", "response"], [[1, "yes"]])},), {"step": 1}),
        ("finish", (), {"exit_code": 1}),
    ]
    assert json.loads((tmp_path / "tracker-wandb.json").read_text())["id"] == given["id"]


def test_wandb_without_a_login_says_what_to_do(tmp_path, monkeypatch):
    fake = ModuleType("wandb")
    fake.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online", project=None))
    fake.Settings = lambda **named: named
    fake.login = lambda **named: False
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    with pytest.raises(RuntimeError, match="wandb login.*WANDB_MODE=offline"):
        ServiceTracker("wandb", services.WandB, tmp_path, {}).metrics(1, {"loss": 1.0})
