"""The frame of a stage: what a caller is told of each step, what is on disk when it raises, and how a run goes on."""

import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import QUIET

import plaudit
from plaudit.config.sections import CheckpointSection, OptimizerSection
from plaudit.errors import ConfigError, Ended, Stopped, TrainingError
from plaudit.evaluation import kinds
from plaudit.evaluation.report import write_report
from plaudit.experience import Experience
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.registry import command_of
from plaudit.runs.bad_batches import keep_batch
from plaudit.runs.files import read_json, read_lines
from plaudit.runs.lock import only_writer
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.respond.samples import Sampler
from plaudit.stages.reward.train import run_reward
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


def dpo_of(world):
    def make(out, **changes):
        settings = {"model": world.lm, "dataset": world.preferences, "out": str(out), "batch_size": 4}
        return DPOJob(**(QUIET | settings | changes))

    return make


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_a_stage_that_is_stopped_hands_out_its_model_and_goes_on_as_if_it_had_not(world, tmp_path, stage):
    run, make = {
        "sft": (run_sft, world.sft), "dpo": (run_dpo, dpo_of(world)), "reward": (run_reward, world.reward),
    }[stage]  # fmt: skip

    def interrupt(step, metrics, rollouts):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        run(make(tmp_path / "run", epochs=2), on_iteration=interrupt)
    path = tmp_path / "run"
    assert caught.value.run == path and read_json(path / "summary.json")["ended"] == "interrupted"
    assert (path / "model" / "model.safetensors").is_file()
    kinds.card(path)  # there are figures, or it says that there are none
    assert write_report(path).is_file()
    whole = run(make(tmp_path / "whole", epochs=2))
    again = run(make(path, epochs=2, checkpoint=CheckpointSection(resume=True)))
    assert read_json(again / "summary.json")["ended"] == "finished"
    one, two = (load_file(r / "model" / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stop_while_the_end_is_measured_does_not_lose_the_model(world, tmp_path, monkeypatch):
    shown = Sampler.show

    def interrupted(self, step):
        if step:
            signal.raise_signal(signal.SIGINT)
        shown(self, step)

    monkeypatch.setattr(Sampler, "show", interrupted)
    run = run_sft(world.sft(tmp_path / "run"))  # it takes a moment: it is measured to the end
    assert read_json(run / "summary.json")["ended"] == "finished"
    assert (run / "model" / "model.safetensors").is_file() and (run / "heldout.jsonl").is_file()


def poisoned(monkeypatch, *steps):
    """What `on_iteration` does to make the gradients of the steps after these ones not finite."""
    norm = torch.nn.utils.get_total_norm

    def poison(step, metrics, rollouts):
        bad = step in steps
        found = (lambda *args: norm(*args) * float("nan")) if bad else norm
        monkeypatch.setattr(torch.nn.utils, "get_total_norm", found)

    return poison


def test_gradients_that_are_not_finite_end_a_run_with_its_model(world, tmp_path, monkeypatch):
    job = world.sft(tmp_path / "run", epochs=4, optimizer=OptimizerSection(lr=1e-3))
    with pytest.raises(Ended, match="not finite in 3 different batches in a row, the last one in step 5") as caught:
        run_sft(job, on_iteration=poisoned(monkeypatch, *range(2, 99)))
    run = tmp_path / "run"
    assert caught.value.exit_code == 3 and caught.value.run == run
    assert read_json(run / "summary.json")["ended"] == "alarm"
    assert (run / "model" / "model.safetensors").is_file()
    alarms = [row for row in read_lines(run / "events.jsonl") if row["event"] == "alarm"]
    assert [(row["kind"], row["step"]) for row in alarms] == [("non_finite", n) for n in (3, 4, 5, 5)]
    kept = read_json(run / "bad_batches" / "step-000003.json")
    columns = load_file(run / "bad_batches" / "step-000003.safetensors")
    assert kept["step"] == 3 and kept["not_finite"] == [] and kept["metrics"]["steps_skipped"] == 1
    assert len(kept["units"]) == len(columns["tokens"]) and columns["response_mask"].dtype == torch.bool


def test_a_batch_that_is_left_out_is_said_and_the_run_goes_on(world, tmp_path, monkeypatch):
    job = world.sft(tmp_path / "run", epochs=4, optimizer=OptimizerSection(lr=1e-3))
    run = run_sft(job, on_iteration=poisoned(monkeypatch, 1, 2, 4, 5))  # never three in a row
    assert read_json(run / "summary.json")["ended"] == "finished"
    rows = read_lines(run / "metrics.jsonl")
    skipped = [row["step"] for row in rows if row["steps_skipped"]]
    assert skipped == [2, 3, 5, 6]
    rates = {row["step"]: row["lr"] for row in rows}
    assert rates[3] == rates[2] and rates[4] == rates[2], "the schedule has waited"
    assert any("left out" in warning for warning in kinds.warnings(kinds.load_run(run)))


def test_no_more_than_ten_bad_batches_are_kept(tmp_path):
    batch = Experience(*(torch.ones(2, 3) for _ in range(3)), rewards=torch.tensor([1.0, float("inf")]))
    said = [keep_batch(tmp_path, step, batch, (0, 1), {"grad_norm": float("nan")}) for step in range(12)]
    assert said[0].endswith("step-000000.safetensors, in which rewards are not finite")
    assert "no more are kept" in said[10] and len(list((tmp_path / "bad_batches").iterdir())) == 20
    (tmp_path / "file").write_text("")
    assert "not be kept" in keep_batch(tmp_path / "file", 1, batch, (), {}), "a disk that refuses ends no run"


def test_what_a_reward_does_not_read_is_said_once_in_the_run_and_its_report(world, tmp_path, capsys):
    job = world.sft(tmp_path / "run")
    with open_session(job, total=3) as session:
        for step, share in ((1, 0.0), (2, 0.25), (3, 0.5)):
            session.record(step, {"loss": 1.0, "reward/judge_cut": share, "reward/other_cut": 0.0})
    told = [row["message"] for row in read_lines(tmp_path / "run" / "events.jsonl") if row["event"] == "caution"]
    assert len(told) == 1 and told[0].startswith("the reward judge reads less") and "25% of those of step 2" in told[0]
    assert kinds.load_run(tmp_path / "run").said == told
