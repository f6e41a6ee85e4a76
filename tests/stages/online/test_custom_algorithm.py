"""An algorithm that is not ours: without a critic, from Python and by name; and what the warm-up must not eat."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import plaudit
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.protocol import ActorCritic, OnlineAlgorithm
from plaudit.cli.main import main
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import CheckpointSection
from plaudit.jobs.online import RLJob
from plaudit.records import RewardResult
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def reinforce(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("custom_algorithm").Reinforce


def likes_good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def job_of(world, out, algorithm, **changes):
    values = {name: value for name, value in world.rl(out, **changes) if name != "algorithm"}
    return with_algorithm(RLJob, type(algorithm))(algorithm=algorithm, **values)


def test_it_is_an_online_algorithm_without_a_critic(reinforce):
    assert isinstance(reinforce(), OnlineAlgorithm) and not isinstance(reinforce(), ActorCritic)
    assert isinstance(PPO(), ActorCritic)


def test_the_policy_learns_and_nothing_is_said_of_a_critic(world, tmp_path, reinforce):
    job = job_of(world, tmp_path / "run", reinforce(), iterations=2, checkpoint=CheckpointSection(every=1))
    calls = []

    def rises(rollouts):  # so that the end is never worse than the start, and nothing is put back
        calls.append(1)
        return [RewardResult(len(set(r.response_ids)) + 10.0 * len(calls)) for r in rollouts]

    run = run_rl(job, reward=rises)
    rows = read_lines(run / "metrics.jsonl")
    assert not [name for row in rows for name in row if name.startswith("critic/")]
    assert {"policy/loss", "objective/kl", "reward/mean"} <= set(rows[0])
    saved = {path.name for path in (run / "checkpoints" / "step-000001").iterdir()}
    assert not [name for name in saved if "critic" in name]
    before, after = load_file(f"{world.lm}/model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert all(not torch.equal(before[name], after[name]) for name in after)


def test_by_name_from_the_command_line(world, tmp_path, reinforce):
    config = tmp_path / "my.toml"
    config.write_text('[algorithm]\ntype = "custom_algorithm:Reinforce"\nkl_coef = 0.2\n')
    words = [
        "--policy",
        world.lm,
        "--dataset",
        world.prompts,
        "--reward",
        "rule:contains:good",
        "--iterations",
        "1",
    ]
    small = "--max-new-tokens 5 --batch-size 4 --no-progress --no-tensorboard --eval-fraction 0.25".split()
    assert main(["ppo", str(config), *words, *small, "--out", str(tmp_path / "run"), "--debug"]) == 0
    written = (tmp_path / "run" / "config.toml").read_text()
    assert 'type = "custom_algorithm:Reinforce"' in written and "kl_coef = 0.2" in written
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(("iterations", "alone"), [(1, 0), (3, 1)])
def test_a_run_that_would_only_warm_up_warms_up_less(world, tmp_path, capsys, iterations, alone):
    job = world.rl(tmp_path / "run", iterations=iterations, algorithm=PPO(critic_warmup=3))
    run = run_rl(job, reward=likes_good)
    said = f"critic_warmup 3 would take all {iterations} iterations: shortened to {alone}"
    assert said in capsys.readouterr().out
    assert said in [row["what"] for row in read_lines(run / "events.jsonl") if row["event"] == "note"]
    assert f"critic_warmup = {alone} " in (run / "config.toml").read_text()
    resting = ["policy/loss" not in row for row in read_lines(run / "metrics.jsonl")]
    assert resting == [True] * alone + [False] * (iterations - alone)


def test_a_critic_that_cannot_start_from_a_reward_model_is_said_to(world, tmp_path):
    run = run_rl(world.rl(tmp_path / "run", iterations=1), reward=likes_good)
    notes = [row["what"] for row in read_lines(run / "events.jsonl") if row["event"] == "note"]
    assert any("the critic starts from the policy" in note for note in notes)


def test_one_iteration_more_than_the_warm_up_trains(world, tmp_path):
    run = plaudit.train(
        PPO(critic_warmup=1), policy=world.lm, prompts=world.prompts, reward=lambda prompt, response: len(response),
        out=str(tmp_path / "run"), iterations=2, batch_size=4, max_new_tokens=5, lr=1e-3, eval_fraction=0.25,
        progress=False, tensorboard=False,
    )  # fmt: skip
    rows = read_lines(run.path / "metrics.jsonl")
    assert "policy/loss" not in rows[0] and "policy/loss" in rows[1]
