"""The frame of a stage: what a caller is told of each step, what is on disk when it raises, and how a run goes on."""

import signal

import pytest
import torch
from safetensors.torch import load_file

import plaudit
from plaudit.config.sections import CheckpointSection
from plaudit.errors import ConfigError, Stopped, TrainingError
from plaudit.jobs.registry import command_of
from plaudit.runs.files import read_json, read_lines
from plaudit.runs.lock import only_writer
from plaudit.stages.session import open_session
from plaudit.stages.sft import run_sft

TIMES = ("time", "time/update", "throughput/tokens_per_second")


def test_the_caller_is_told_of_each_step_as_it_is_recorded(world, tmp_path):
    told = []
    run = run_sft(
        world.sft(tmp_path / "run", epochs=2),
        on_iteration=lambda step, metrics, rollouts: told.append((step, dict(metrics), list(rollouts))),
    )
    rows = read_lines(run / "metrics.jsonl")
    assert [step for step, _, _ in told] == [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    for (_, metrics, rollouts), row in zip(told, rows, strict=True):
        assert metrics == {name: value for name, value in row.items() if name not in ("step", "time")}
        assert rollouts == []


def test_what_the_caller_raises_ends_the_run_before_a_checkpoint_of_that_step(world, tmp_path):
    def enough(step, metrics, rollouts):
        if step == 2:
            raise TrainingError("enough")

    job = world.sft(tmp_path / "run", epochs=2, checkpoint=CheckpointSection(every=1))
    with pytest.raises(TrainingError, match="enough"):
        run_sft(job, on_iteration=enough)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000001"]
    last = read_lines(tmp_path / "run" / "events.jsonl")[-1]
    assert last["event"] == "stopped" and "enough" in last["reason"]
    assert read_json(tmp_path / "run" / "manifest.json")["finished"] is False
    whole = run_sft(job.model_copy(update={"out": str(tmp_path / "whole")}))
    again = run_sft(job.model_copy(update={"checkpoint": CheckpointSection(every=1, resume=True)}))
    one, two = (load_file(r / "model" / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_lines(r / "metrics.jsonl")]
        for r in (whole, again)
    )
    assert one == two


def test_a_signal_while_the_caller_works_stops_after_the_step(world, tmp_path):
    def interrupt(step, metrics, rollouts):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="after step 1"):
        run_sft(world.sft(tmp_path / "run", epochs=2), on_iteration=interrupt)
    assert (tmp_path / "run" / "checkpoints" / "step-000001").is_dir()


def test_python_passes_the_caller_through(world, tmp_path):
    told = []
    run = plaudit.train(
        plaudit.DPO(), preferences=world.preferences, model=world.lm, out=str(tmp_path / "run"), max_new_tokens=4,
        progress=False, tensorboard=False, on_iteration=lambda step, metrics, rollouts: told.append(step),
    )  # fmt: skip
    assert told == [row["step"] for row in read_lines(run.path / "metrics.jsonl") if row["step"]]


def test_an_open_session_holds_the_lock_and_says_how_it_ended(world, tmp_path):
    job = world.sft(tmp_path / "run")
    with (
        open_session(job, total=3) as session,
        pytest.raises(ConfigError, match="another process writes"),
        only_writer(session.run),
    ):
        pass
    assert read_json(session.run / "summary.json")["command"] == command_of(type(job)).name
    assert read_lines(session.run / "events.jsonl")[-1]["reason"] == "finished"
    assert read_json(session.run / "manifest.json")["finished"] is True
    with only_writer(session.run):
        pass
