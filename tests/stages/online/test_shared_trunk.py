"""PPO with the critic on the policy's trunk: a whole run, its warm-up, its checkpoints, and what it leaves behind."""

import pytest
import torch
from safetensors.torch import load_file

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import CheckpointSection, ComputeSection, LoraSection, MismatchSection
from plaudit.errors import ConfigError
from plaudit.models.forward.trunk import body
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.training import signals

TRUNK = PPO(critic="trunk", critic_warmup=1, critic_lr=1e-2)
NOT_THE_SAME = ("time", "throughput", "memory")


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    file = tmp_path_factory.mktemp("reward") / "good.py"
    file.write_text("def score(prompt, response):\n    return float(response.count('good'))\n")
    return f"{file}:score"


@pytest.fixture(params=[0, 2], ids=["full", "lora"])
def lora(request):
    return LoraSection(rank=request.param)


def job(world, out, reward, **changes):
    return world.rl(out, **({"reward": (reward,), "algorithm": TRUNK, "iterations": 4} | changes))


def metrics(run):
    rows = read_lines(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(NOT_THE_SAME)} for row in rows]


def events(run, kind):
    return [row for row in read_lines(run / "events.jsonl") if row["event"] == kind]


def weights(run):
    tensors = load_file(run / "model" / "model.safetensors")
    return tensors | load_file(run / "critic" / "value_head.safetensors")


def test_resumed_equals_uninterrupted_bit_for_bit(world, tmp_path, reward, lora):
    whole = run_rl(job(world, tmp_path / "whole", reward, lora=lora))

    def stop_in_the_second(iteration, metrics_, rollouts_):
        if iteration == 2:
            raise KeyboardInterrupt

    every = CheckpointSection(every=1)
    with pytest.raises(KeyboardInterrupt):
        run_rl(
            job(world, tmp_path / "cut", reward, lora=lora, checkpoint=every), on_iteration=stop_in_the_second
        )
    resumed = every.model_copy(update={"resume": True})
    cut = run_rl(job(world, tmp_path / "cut", reward, lora=lora, checkpoint=resumed))
    assert metrics(cut) == metrics(whole)
    first, second = weights(whole), weights(cut)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert first["weight"].any(), "the head has learned"


def test_the_metrics_are_those_of_separate_models(world, tmp_path, reward):
    trunk = metrics(run_rl(job(world, tmp_path / "trunk", reward)))
    apart = metrics(
        run_rl(job(world, tmp_path / "apart", reward, algorithm=PPO(critic_warmup=1, critic="sft")))
    )
    for ours, theirs in zip(trunk, apart, strict=True):
        assert ours.keys() == theirs.keys()
    assert trunk[0]["policy/steps"] == 0 and "policy/loss" not in trunk[0], "the warm-up"
    assert trunk[1]["policy/steps"] > 0 and trunk[1]["policy/loss"] != 0
    for name in ("reward/mean", "objective/kl", "critic/returns_mean"):
        assert trunk[0][name] == pytest.approx(apart[0][name], abs=1e-5), name


def test_the_warm_up_trains_the_head_only(world, tmp_path, reward):
    every = CheckpointSection(every=1, keep=9)
    run = run_rl(job(world, tmp_path / "run", reward, checkpoint=every, iterations=3))
    start = load_file(f"{world.lm}/model.safetensors")
    steps = [load_file(run / "checkpoints" / f"step-{n:06d}" / "policy.safetensors") for n in (1, 2)]
    head = load_file(run / "checkpoints" / "step-000001" / "critic.safetensors")
    assert not any(name.startswith("exp_avg") for name in steps[0]), "the policy's optimizer has made no step"
    found = {n.removeprefix("weight/policy.lm."): t for n, t in steps[0].items() if n.startswith("weight/")}
    assert set(found) <= set(start) and all(torch.equal(t, start[name]) for name, t in found.items())
    assert head["weight/head.weight"].any() and len([n for n in head if n.startswith("weight/")]) == 2
    assert any(not torch.equal(steps[1][name], steps[0][name]) for name in steps[0])


def test_the_critic_costs_a_head(world, tmp_path, reward, lora):
    run = run_rl(job(world, tmp_path / "run", reward, lora=lora, iterations=2))
    (found,) = events(run, "memory")
    assert found["memory/critic"] * 1e9 == 4 * 4 * (16 + 1), (
        "weights, gradient and two moments of 16 weights and a bias"
    )
    assert not [row for row in events(run, "note") if "critic" in row["what"]]
    assert (run / "critic" / "value_head.safetensors").is_file()


def test_a_critic_apart_leaves_no_head_behind(world, tmp_path, reward):
    run = run_rl(job(world, tmp_path / "run", reward, algorithm=PPO(critic_warmup=0), iterations=1))
    assert not (run / "critic").exists()


@pytest.mark.parametrize(
    ("reuse_below", "bootstrap", "passes"), [(1.0, False, 2), (0.0, False, 1), (0.0, True, 2)]
)
def test_old_logprobs_and_values_cost_one_pass_where_both_are_scored(
    world, tmp_path, reward, monkeypatch, reuse_below, bootstrap, passes
):
    """Taken from the sampler, log-probs of one row in eight are scored for the comparison, and values of all."""
    seen = []

    def counted(batch, needs, runtime, below, **once):
        calls = []
        trunk = body(runtime.policy.module.policy.lm)
        handle = trunk.register_forward_hook(lambda *_: calls.append(1))
        filled = signals.fill_signals(batch, needs - {"ref_logprobs"}, runtime, below, **once)
        handle.remove()
        seen.append(len(calls))
        [alone] = runtime.critic.read(batch, "values")
        assert torch.allclose(filled[0].values, alone, atol=1e-6)
        return filled[0].replace(ref_logprobs=filled[0].old_logprobs), filled[1]

    monkeypatch.setattr("plaudit.training.online.fill_signals", counted)
    run_rl(
        job(
            world, tmp_path / "run", reward, mismatch=MismatchSection(reuse_below=reuse_below), iterations=2,
            algorithm=PPO(
                critic="trunk", critic_warmup=0, critic_lr=1e-2, missing_eos="bootstrap" if bootstrap else "subtract"
            ),
        )
    )  # fmt: skip
    assert seen == [passes, passes]


def test_plain_padded_rows_learn_the_same(world, tmp_path, reward):
    packed, padded = (
        metrics(
            run_rl(
                job(
                    world, tmp_path / str(packing), reward, iterations=2,
                    compute=ComputeSection(precision="fp32", threads=1, packing=packing),
                )
            )
        )
        for packing in (True, False)
    )  # fmt: skip
    for name in ("policy/loss", "critic/loss", "grad_norm", "critic/grad_norm"):
        assert packed[1][name] == pytest.approx(padded[1][name], rel=1e-3, abs=1e-5), name


def test_a_critic_that_would_learn_nothing_is_refused():
    with pytest.raises(ConfigError, match="learn nothing"):
        PPO(critic="trunk", value_coef=0.0)
    assert PPO(value_coef=0.0).critic == "reward"
