"""What a run may be resumed with, what happens to a finished one, and that only one process writes to it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import QUIET

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.learner import LocalLearner
from plaudit.config.fields import settings
from plaudit.config.sections import (
    CheckpointSection,
    ComputeSection,
    DataSection,
    LogSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.data.write import write_records
from plaudit.errors import ConfigError, TrainingError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.registry import COMMANDS
from plaudit.records import Demonstration, Prompt, RewardResult
from plaudit.runs import resume
from plaudit.runs.directory import open_run
from plaudit.runs.files import merge_json, read_json, read_lines
from plaudit.runs.resume import fingerprint, hash_of
from plaudit.stages.best_of_n.answer import run_best_of_n
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

AGAIN = CheckpointSection(every=1, resume=True)
KEPT = CheckpointSection(every=1)


@pytest.fixture
def cut(world, tmp_path, monkeypatch):
    """An SFT run that died in its third step."""
    original, calls = LocalLearner.update, []

    def dies(self, batch, loss):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, batch, loss)

    with monkeypatch.context() as patched:
        patched.setattr(LocalLearner, "update", dies)
        with pytest.raises(KeyboardInterrupt):
            run_sft(world.sft(tmp_path / "run", epochs=2, checkpoint=KEPT))
    return tmp_path / "run"


def again(world, run, **changes):
    return run_sft(world.sft(run, **({"epochs": 2, "checkpoint": AGAIN} | changes)))


def steps(run):
    return [row["step"] for row in read_lines(run / "metrics.jsonl")]


@pytest.mark.parametrize(
    ("changes", "says", "cure"),
    [
        ({"batch_size": 4}, "batch_size = 8, now 4", "--batch-size 8"),
        ({"seed": 3}, "seed = 0, now 3", "--seed 0"),
        ({"lora": LoraSection(rank=4)}, "lora.rank = 0, now 4", "--rank 0"),
        (
            {"data": DataSection(eval_fraction=0.5)},
            "data.eval_fraction = 0.1, now 0.5",
            "--eval-fraction 0.1",
        ),
    ],
)
def test_what_must_stay_is_refused_with_both_values(world, cut, changes, says, cure):
    before = (cut / "config.toml").read_text()
    with pytest.raises(ConfigError) as caught:
        again(world, cut, **changes)
    assert says in caught.value.what and cure in caught.value.cure
    assert caught.value.where.endswith("manifest.json")
    assert (cut / "config.toml").read_text() == before, "nothing was written"
    assert again(world, cut) == cut, "as it was started it goes on"


def test_a_setting_that_an_earlier_version_did_not_know_was_at_its_default(world, cut):
    manifest = read_json(cut / "manifest.json")
    for key in ("sampling.min_p", "data.chat_template", "lora.rank"):
        del manifest["settings"][key]
    (cut / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"min_p = 0\.0, now 0\.1"):
        again(world, cut, sampling=SamplingSection(max_new_tokens=4, min_p=0.1))
    assert again(world, cut) == cut


def test_other_rows_are_refused_wherever_they_lie(world, cut, tmp_path):
    rows = [json.loads(line) for line in Path(world.demonstrations).read_text().splitlines()]
    changed = tmp_path / "demonstrations.jsonl"
    rows[5]["response"] += " red"
    changed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="the data are not those") as caught:
        again(world, cut, dataset=str(changed))
    assert str(changed) in caught.value.what
    changed.write_text(Path(world.demonstrations).read_text())
    assert steps(again(world, cut, dataset=str(changed))) == [1, 2, 3, 4, 5, 6], "the same rows elsewhere"


def test_another_model_of_the_same_shape_is_refused(world, cut, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    other.mkdir()
    for file in Path(world.lm).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert hash_of(str(other)) == hash_of(world.lm), "a copy is the same model"
    weights = load_file(other / "model.safetensors")
    save_file({name: w + 0.01 for name, w in weights.items()}, other / "model.safetensors")
    with pytest.raises(ConfigError, match="the model is not the one the run was started with"):
        again(world, cut, model=str(other))


def test_what_steers_may_change_and_is_said(world, cut, capsys):
    again(world, cut, optimizer=OptimizerSection(lr=7e-5), log=LogSection(progress=False, samples=1))
    assert "optimizer.lr auto -> 7e-05" in capsys.readouterr().out
    [change] = read_json(cut / "manifest.json")["changed"]
    assert change["settings"] == ["optimizer.lr auto -> 7e-05"]


def test_a_damaged_checkpoint_is_an_alarm_and_the_one_before_is_used(world, cut):
    (cut / "checkpoints" / "step-000002" / "trainer.json").write_text("{}")
    assert steps(again(world, cut)) == [1, 2, 3, 4, 5, 6]
    events = read_lines(cut / "events.jsonl")
    [alarm] = [event for event in events if event["event"] == "alarm"]
    assert (alarm["step"], alarm["kind"]) == (2, "checkpoint")
    assert "step-000002 is not used" in alarm["message"]
    assert [event["step"] for event in events if event["event"] == "resumed"] == [1]


def test_another_topology_is_said(world, cut, capsys):
    again(world, cut, compute=ComputeSection(precision="fp32", threads=1, tokens_per_microbatch=64))
    assert "results differ by rounding" in capsys.readouterr().out


def test_a_finished_run_is_not_trained_again(world, tmp_path, capsys, monkeypatch):
    run = run_sft(world.sft(tmp_path / "run", epochs=1, checkpoint=KEPT))
    files = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr(LocalLearner, "update", lambda *_: pytest.fail("trained again"))
        assert again(world, run, epochs=1) == run
        assert "ended after 1 epochs; there is nothing to resume" in capsys.readouterr().out
        with pytest.raises(ConfigError, match="batch_size = 8, now 4"):
            again(world, run, epochs=1, batch_size=4)
    assert files == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert steps(again(world, run, epochs=2)) == [1, 2, 3, 4, 5, 6], "more epochs go on"
    again(world, run, epochs=2)
    assert "ended after 2 epochs" in capsys.readouterr().out


def good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def test_reinforcement_learning_notices_too(world, tmp_path, capsys):
    def stop(*_):
        raise TrainingError("enough")

    with pytest.raises(TrainingError, match="enough"):
        run_rl(world.rl(tmp_path / "run"), reward=good, on_iteration=stop)
    others = [Prompt(f"q{i}", f"say red {i}") for i in range(12)]
    with pytest.raises(ConfigError, match="the data are not those"):
        run_rl(world.rl(tmp_path / "run", checkpoint=AGAIN), reward=good, prompts=others)
    with pytest.raises(ConfigError, match="prompts_per_iteration = 4, now 2"):
        run_rl(world.rl(tmp_path / "run", checkpoint=AGAIN, prompts_per_iteration=2), reward=good)
    with pytest.raises(ConfigError, match="algorithm.minibatches"):
        algorithm = PPO(critic_warmup=0, minibatches=2)
        run_rl(world.rl(tmp_path / "run", checkpoint=AGAIN, algorithm=algorithm), reward=good)
    softer = world.rl(tmp_path / "run", checkpoint=AGAIN, algorithm=PPO(critic_warmup=0, kl_coef=0.5))
    run_rl(softer, reward=good)
    assert "algorithm.kl_coef 0.05 -> 0.5" in capsys.readouterr().out
    run_rl(softer, reward=good)
    assert "ended after 4 iterations; there is nothing to resume" in capsys.readouterr().out
    assert steps(run_rl(softer.model_copy(update={"iterations": 5}), reward=good)) == [1, 2, 3, 4, 5]


def test_an_ensemble_compares_and_grows(world, tmp_path, capsys):
    run = run_reward(world.reward(tmp_path / "run", members=2))
    times = [(run / f"member-{i}" / "model" / "probe.json").stat().st_mtime_ns for i in (0, 1)]
    with pytest.raises(ConfigError, match="batch_size = 8, now 4"):
        run_reward(world.reward(run, members=2, batch_size=4, checkpoint=AGAIN))
    with pytest.raises(ConfigError, match="members = 2, now 1"):
        run_reward(world.reward(run, checkpoint=AGAIN))
    run_reward(world.reward(run, members=2, checkpoint=AGAIN))
    assert "2 members; there is nothing to resume" in capsys.readouterr().out
    run_reward(world.reward(run, members=3, checkpoint=AGAIN))
    assert times == [(run / f"member-{i}" / "model" / "probe.json").stat().st_mtime_ns for i in (0, 1)]
    assert (run / "member-2" / "model" / "probe.json").is_file()
    assert read_json(run / "summary.json")["members"] == 3


def test_answering_prompts_goes_on_with_more_prompts(world, tmp_path):
    prompts = [Prompt(f"p{i}", f"say red {i}") for i in range(6)]
    job = BestOfNJob(
        policy=world.lm, out=str(tmp_path / "run"), algorithm=BestOfN(group_size=2),
        log=LogSection(progress=False, tensorboard=False), data=DataSection(max_length=32),
        sampling=world.rl("").sampling,
    )  # fmt: skip
    run_best_of_n(job, reward=good, prompts=prompts[:4])
    resumed = job.model_copy(update={"checkpoint": AGAIN})
    run = run_best_of_n(resumed, reward=good, prompts=prompts)
    assert [row["prompt_id"] for row in read_lines(run / "best.jsonl")] == [p.id for p in prompts]
    with pytest.raises(ConfigError, match=r"algorithm.group_size = 2, now 3"):
        run_best_of_n(
            resumed.model_copy(update={"algorithm": BestOfN(group_size=3)}), reward=good, prompts=prompts
        )
    with pytest.raises(ConfigError, match="rounds = 0, now 2"):
        run_best_of_n(resumed.model_copy(update={"rounds": 2}), reward=good, prompts=prompts)


def test_every_named_setting_exists():
    """So that a setting with a new name cannot slip into the wrong class."""
    jobs = [row.job for row in COMMANDS.values()]
    keys = {s.key for job in jobs for s in settings(job)}
    known = keys | {s.section for job in jobs for s in settings(job)}
    named = {*resume.LONGER, *resume.FREE, *resume.COMPARED_BY_CONTENT, *resume.STEERING, *resume.FIXED}
    assert named - known == set()


def test_the_fingerprint_depends_on_rows_and_order_alone(tmp_path):
    rows = [Demonstration("a", "one", "two"), Demonstration("b", "three", "four")]
    write_records(rows, tmp_path / "rows.jsonl")
    assert fingerprint(rows) == fingerprint(iter(list(rows))) != fingerprint(rows[::-1])
    assert fingerprint(rows) != fingerprint(rows[:1])
    assert fingerprint([Demonstration("a", "one", "twothree")]) != fingerprint(
        [Demonstration("a", "onetwo", "three")]
    )


def test_a_run_without_a_record_of_its_settings_can_be_resumed(world, cut):
    manifest = read_json(cut / "manifest.json")
    (cut / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "settings"}))
    assert steps(again(world, cut)) == [1, 2, 3, 4, 5, 6]


def test_the_hash_of_a_run_is_that_of_its_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"1")
    before = hash_of(str(tmp_path / "run"))
    merge_json(tmp_path / "run" / "summary.json", {"accuracy": 1})
    assert hash_of(str(tmp_path / "run")) == before == hash_of(str(tmp_path / "run" / "model"))
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"2")
    assert hash_of(str(tmp_path / "run")) != before
    assert hash_of("HuggingFaceTB/SmolLM2-135M") == ""


def test_nobody_else_writes_to_a_run(world, tmp_path):
    run = tmp_path / "run"
    with open_run(world.sft(run)):
        for more in ({"checkpoint": AGAIN}, {"overwrite": True}):
            with pytest.raises(
                ConfigError, match=f"another process writes to .* process {os.getpid()} on "
            ) as caught:
                run_sft(world.sft(run, **more))
            assert caught.value.where == str(run) and "--out" in caught.value.cure
        assert (run / "config.toml").is_file(), "not overwritten"
    assert run_sft(world.sft(run, overwrite=True)) == run


HOLDER = textwrap.dedent("""
    import sys, time
    from plaudit.runs.directory import open_run
    from plaudit.jobs.sft import SFTJob
    with open_run(SFTJob(out=sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
""")


def test_the_lock_ends_with_the_process_that_held_it(world, tmp_path):
    run = tmp_path / "run"
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | path) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {process.pid} on "):
            run_sft(world.sft(run, overwrite=True))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_sft(world.sft(run, overwrite=True)) == run


def dpo_job(world, out, **changes):
    settings = {"model": world.lm, "dataset": world.preferences, "out": str(out), "batch_size": 8, "epochs": 2}
    return DPOJob(**(QUIET | settings | changes))


def reward_job(world, out, **changes):
    return world.reward(out, epochs=2, **changes)


RUNS = {"dpo": (run_dpo, dpo_job), "reward": (run_reward, reward_job)}
KILLED = textwrap.dedent("""
    import json, os, signal, sys
    from plaudit.jobs.registry import COMMANDS
    from plaudit.stages.preference.dpo import run_dpo
    from plaudit.stages.reward.train import run_reward

    def die(step, metrics, rollouts):
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    for command, run in (("dpo", run_dpo), ("reward", run_reward)):
        job = COMMANDS[command].job(**json.loads(sys.argv[1])[command])
        child = os.fork()  # because the imports take longer than the runs
        if not child:
            run(job, on_iteration=die)
            os._exit(0)
        print(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")


def test_dpo_and_reward_killed_and_resumed_equal_uninterrupted_bit_for_bit(world, tmp_path):
    """kill -9 in step 4, when the checkpoint of step 2 is the newest."""
    kept = {
        command: make(world, tmp_path / command / "cut", checkpoint=CheckpointSection(every=2))
        for command, (_, make) in RUNS.items()
    }
    given = json.dumps({name: job.model_dump(exclude_unset=True, mode="json") for name, job in kept.items()})
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, given],
        env=os.environ | path, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert [int(line) for line in process.stdout.splitlines() if line.isdecimal()] == [signal.SIGKILL] * 2
    for command, (run, make) in RUNS.items():
        whole = run(make(world, tmp_path / command / "whole"))
        cut = tmp_path / command / "cut"
        assert steps(cut)[-1] == 4 and not (cut / "model").exists(), command
        run(make(world, cut, checkpoint=CheckpointSection(every=2, resume=True)))
        events = read_lines(cut / "events.jsonl")
        assert [event["step"] for event in events if event["event"] == "resumed"] == [2], command
        assert steps(cut) == steps(whole) and steps(whole)[-1] > 4, command
        first, second = (load_file(r / "model" / "model.safetensors") for r in (whole, cut))
        assert first.keys() == second.keys(), command
        assert all(torch.equal(first[name], second[name]) for name in first), command
        assert read_json(cut / "model" / "config.json") == read_json(whole / "model" / "config.json")


def test_overwriting_leaves_nothing_of_the_old_run(world, tmp_path):
    run = run_sft(world.sft(tmp_path / "run", checkpoint=KEPT))
    (run / "evaluations").mkdir()
    run_sft(world.sft(run, overwrite=True))
    assert not (run / "evaluations").exists() and not (run / "checkpoints").exists()
    assert (
        "changed" not in read_json(run / "manifest.json") or read_json(run / "manifest.json")["changed"] == []
    )


def test_a_foreign_directory_gets_no_lock(world, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for more in ({}, {"overwrite": True}, {"checkpoint": AGAIN}):
        with pytest.raises(ConfigError, match="not a run of Plaudit"):
            run_sft(world.sft(tmp_path, **more))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_algorithm_is_compared(world, tmp_path):
    job = world.rl(tmp_path / "run", iterations=1)
    run_rl(job, reward=good)
    from plaudit.jobs.online import GRPOJob

    values = {name: getattr(job, name) for name in type(job).model_fields if name != "algorithm"}
    other = GRPOJob(**values | {"checkpoint": AGAIN, "algorithm": GRPO(group_size=2)})
    with pytest.raises(ConfigError, match='algorithm.type = "ppo", now "grpo"'):
        run_rl(other, reward=good)


def test_preferences_notice_too(world, tmp_path):
    job = DPOJob(
        model=world.lm, dataset=world.preferences, out=str(tmp_path / "run"), batch_size=8,
        log=LogSection(progress=False, tensorboard=False), sampling=world.rl("").sampling,
    )  # fmt: skip
    run_dpo(job)
    resumed = job.model_copy(update={"checkpoint": AGAIN, "epochs": 2})
    with pytest.raises(ConfigError, match="batch_size = 8, now 4"):
        run_dpo(resumed.model_copy(update={"batch_size": 4}))
    assert run_dpo(resumed) == tmp_path / "run"
