"""RL over several turns: what a run records, that trainer and sampler agree over gaps, and resume."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import plaudit
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import CheckpointSection, SamplingSection
from plaudit.errors import ConfigError
from plaudit.records import RewardResult
from plaudit.rollouts.turns import load_environment
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.again import Beside, evaluate_again
from plaudit.stages.online.rl import run_rl

SOURCE = """
class Echo:
    \"""Says " big" as often as the policy has spoken; two replies at most.\"""

    max_turns, stop = 3, (" good", " bad", " warm", " cold")

    def reply(self, rollout):
        import plaudit
        spoken = len(rollout.policy_turns)
        return plaudit.Done(reward=0.5) if spoken == 3 else " big" * spoken
"""
SAMPLING = SamplingSection(max_new_tokens=12)


class Stop(Exception):
    """Ends a run from within."""


def likes_good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def metrics(run):
    clock = ("time", "throughput", "memory")
    return [
        {name: value for name, value in row.items() if not name.startswith(clock)}
        for row in read_lines(run / "metrics.jsonl")
    ]


@pytest.fixture
def job(world, tmp_path):
    (tmp_path / "echo.py").write_text(SOURCE)
    spec = f"{tmp_path / 'echo.py'}:Echo"

    def make(name, **changes):
        return world.rl(tmp_path / name, environment=spec, sampling=SAMPLING, **changes)

    return make


@pytest.mark.parametrize("changes", [{"missing_eos": "bootstrap"}, {"critic": "trunk"}])
def test_trainer_and_sampler_agree_over_the_turns(job, changes):
    algorithm = PPO(epochs=1, critic_warmup=0, **changes)
    run = run_rl(job("run", iterations=1, algorithm=algorithm), reward=likes_good)
    (first,) = metrics(run)
    assert first["response/turns_mean"] > 1.2 and first["response/environment_tokens_mean"] > 0.2
    assert first["rollout/logprob_diff_max"] < 1e-5 and first["policy/ratio_max"] == pytest.approx(1, abs=1e-5)
    assert first["response/length_mean"] <= SAMPLING.max_new_tokens


def test_an_evaluation_after_the_run_has_its_environment_or_says_that_it_has_not(job, world, tmp_path):
    beside = Beside(heldout="none", red_team="none")
    settings = {"reward": ("rule:length:4",), "iterations": 1}
    anew = evaluate_again(run_rl(job("named", **settings)), samples=2, beside=beside)
    assert any("turns" in row for row in read_lines(anew / "evaluation.jsonl"))
    plain = world.rl(tmp_path / "given", sampling=SAMPLING, **settings)
    given = run_rl(plain, environment=load_environment(job("x").environment))
    anew = evaluate_again(given, samples=1, beside=beside)
    assert not any("turns" in row for row in read_lines(anew / "evaluation.jsonl"))
    assert any("given in Python" in note for note in read_json(anew / "summary.json")["notes"])


def test_evaluation_goes_through_the_same_environment_and_shows_the_turns(job):
    run = run_rl(job("run", iterations=1), reward=likes_good)
    rows = read_lines(run / "evaluation.jsonl")
    several = [row for row in rows if "turns" in row]
    assert several and {row["step"] for row in rows} == {0, 1}
    for row in several:
        spoken = [turn["text"] for turn in row["turns"] if turn["author"] == "policy"]
        assert row["response"] == "".join(spoken)

        replies = [turn["text"] for turn in row["turns"] if turn["author"] == "environment"]
        assert replies == [" big", " big big"][: len(replies)]
    whole = [row for row in several if len(row["turns"]) == 5 and row["finish_reason"] == "stop"]
    assert all(row["reward_parts"]["environment"] == 0.5 for row in whole if "reward_parts" in row)
    assert 'environment = "' in (run / "config.toml").read_text()


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(job):
    settings = {"algorithm": PPO(critic_warmup=0, group_size=2), "checkpoint": CheckpointSection(every=1)}
    whole = run_rl(job("whole", **settings), reward=likes_good)
    calls = 0

    def dies(rollouts):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Stop
        return likes_good(rollouts)

    with pytest.raises(Stop):
        run_rl(job("cut", **settings), reward=dies)
    settings["checkpoint"] = CheckpointSection(every=1, resume=True)
    cut = run_rl(job("cut", **settings), reward=likes_good)
    assert metrics(cut) == metrics(whole)
    for name, weights in load_file(whole / "model" / "model.safetensors").items():
        assert torch.equal(load_file(cut / "model" / "model.safetensors")[name], weights), name


def test_an_environment_from_python_and_what_is_refused(world, tmp_path):
    class Silent:
        max_turns, stop = 2, ()

        def reply(self, rollout):
            return plaudit.Done()

    settings = {
        "policy": world.lm, "prompts": world.prompts, "iterations": 2, "max_new_tokens": 4, "eval_fraction": 0.25,
        "reward": lambda response: float("good" in response), "prompts_per_iteration": 4, "tensorboard": False,
    }  # fmt: skip
    algorithm = plaudit.GRPO(group_size=2)
    plain = plaudit.train(algorithm, out=str(tmp_path / "plain"), **settings)
    silent = plaudit.train(algorithm, environment=Silent(), out=str(tmp_path / "silent"), **settings)
    assert metrics(silent.path) == metrics(plain.path), "an environment that never replies changes nothing"
    with pytest.raises(ConfigError, match="lacks max_turns, stop, reply"):
        plaudit.train(algorithm, environment=object(), out=str(tmp_path / "none"), **settings)
    with pytest.raises(ConfigError, match="no use for environment"):
        plaudit.train(plaudit.SFT(), environment=Silent(), out=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no file"):
        plaudit.train(algorithm, environment="nowhere.py:Gone", out=str(tmp_path / "none"), **settings)
    assert not (tmp_path / "none").exists()
