"""Policy, reference, critic and reward model of one run on one frozen base: the same run in less memory."""

import json

import pytest
import torch
from safetensors.torch import load_file

from plaudit.algorithms.ppo import PPO
from plaudit.backends.local import backbone
from plaudit.config.sections import CheckpointSection, LoraSection
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.train import run_reward

LORA = LoraSection(rank=2)


@pytest.fixture(scope="module")
def reward(world, tmp_path_factory):
    job = world.reward(tmp_path_factory.mktemp("runs") / "reward", lora=LORA)
    return str(run_reward(job) / "model")


def job(world, out, reward, **changes):
    settings = {"reward": (reward,), "lora": LORA, "algorithm": PPO(critic_warmup=1), "iterations": 3}
    return world.rl(out, **(settings | changes))


def metrics(run):
    rows = read_lines(run / "metrics.jsonl")
    return [
        {k: v for k, v in row.items() if not k.startswith(("time", "throughput", "memory"))} for row in rows
    ]


def memory(run):
    (found,) = [row for row in read_lines(run / "events.jsonl") if row["event"] == "memory"]
    return {name: value for name, value in found.items() if name.startswith("memory/")}


def notes(run):
    return [row["what"] for row in read_lines(run / "events.jsonl") if row["event"] == "note"]


def test_a_run_on_one_base_learns_as_with_a_whole_reward_model(world, tmp_path, reward, monkeypatch):
    shared = run_rl(job(world, tmp_path / "shared", reward))
    assert [n for n in notes(shared) if "on the policy's frozen base" in n]
    with monkeypatch.context() as patched:
        patched.setattr(backbone, "fingerprint", lambda trunk: "another base")
        whole = run_rl(job(world, tmp_path / "whole", reward))
    assert [n for n in notes(whole) if "another base" in n]
    # Up to the critic's first step both are the same functions; after it their critics train other parameters.
    for name in ("reward/mean", "critic/value_mean", "objective/kl", "policy/entropy"):
        assert metrics(shared)[0][name] == pytest.approx(metrics(whole)[0][name], abs=1e-4), name
    mine, theirs = memory(shared), memory(whole)
    assert mine["memory/reference"] == theirs["memory/reference"] == 0
    assert mine["memory/policy"] == theirs["memory/policy"]
    assert mine["memory/reward"] < 0.5 * theirs["memory/reward"]
    assert mine["memory/critic"] < theirs["memory/critic"]
    assert json.loads((shared / "summary.json").read_text())["memory/reward"] == mine["memory/reward"]
    assert all(0 < row["memory/peak"] < 1000 for row in read_lines(shared / "metrics.jsonl"))


def test_resumed_equals_uninterrupted_bit_for_bit(world, tmp_path, reward):
    whole = run_rl(job(world, tmp_path / "whole", reward))

    def stop_in_the_second(iteration, metrics_, rollouts_):
        if iteration == 2:
            raise KeyboardInterrupt

    every = CheckpointSection(every=1)
    with pytest.raises(KeyboardInterrupt):
        run_rl(job(world, tmp_path / "cut", reward, checkpoint=every), on_iteration=stop_in_the_second)
    resumed = every.model_copy(update={"resume": True})
    cut = run_rl(job(world, tmp_path / "cut", reward, checkpoint=resumed))
    assert metrics(cut) == metrics(whole)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_adapters_each_role_is_counted_whole(world, tmp_path, reward):
    found = memory(run_rl(job(world, tmp_path / "run", reward, lora=LoraSection(), iterations=1)))
    bytes_ = sum(t.nbytes for t in load_file(f"{world.lm}/model.safetensors").values())
    assert found["memory/policy"] * 1e9 == pytest.approx(4 * bytes_, rel=0.01), (
        "weights, gradient, two moments"
    )
    assert found["memory/reference"] * 1e9 == pytest.approx(bytes_, rel=0.01)
    assert found["memory/reward"] * 1e9 == pytest.approx(bytes_, rel=0.02), "frozen: weights and a head"
    assert found["memory/critic"] == pytest.approx(found["memory/policy"], rel=0.02)
