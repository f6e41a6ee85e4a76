"""PPO's options in the whole stage: presets, exact KL, values past the end, texts to keep, the critic's warm-up."""

import math
from dataclasses import replace

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.ppo_presets import PPO_MAX_CODE, PPO_MAX_PAPER
from plaudit.config.load import load_job
from plaudit.config.sections import OptimizerSection, SamplingSection
from plaudit.data.write import write_records
from plaudit.jobs.online import RLJob
from plaudit.records import Demonstration, RewardResult
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl


def likes_good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def run(world, out, algorithm, **changes):
    return read_lines(
        run_rl(world.rl(out, algorithm=algorithm, **changes), reward=likes_good) / "metrics.jsonl"
    )


@pytest.mark.parametrize(
    "algorithm",
    [
        replace(PPO_MAX_PAPER, critic_warmup=1),
        PPO_MAX_CODE,
        PPO(critic_warmup=0, kl_estimator="full", missing_eos="bootstrap", gae_lambda=(0.95, 1.0)),
        PPO(
            critic_warmup=0,
            kl_in="loss",
            kl_estimator="k3",
            kl_target=6.0,
            entropy_coef=0.01,
            entropy_target=2.0,
        ),
        PPO(
            critic_warmup=0,
            old_policy="ref",
            clip=0.0,
            whiten_advantages="minibatch",
            minibatches=2,
            missing_eos="mask",
        ),
        PPO(
            critic_warmup=0,
            reward_scaling="whiten",
            gae_lambda="length",
            dual_clip=3.0,
            missing_eos="fixed",
            gamma=0.99,
        ),
    ],
)
def test_every_option_trains_with_finite_numbers(world, tmp_path, algorithm):
    rows = run(world, tmp_path / "run", algorithm, iterations=2)
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    assert rows[-1]["policy/steps"] >= 1
    assert ("objective/kl_full" in rows[0]) == (algorithm.kl_estimator == "full")
    assert ("policy/kl_loss" in rows[0]) == (algorithm.kl_in == "loss")


def test_exact_kl_agrees_with_the_sampled_one_on_average(world, tmp_path):
    algorithm = PPO(critic_warmup=0, kl_estimator="full", kl_coef=0.01, target_kl=0.0)
    rows = run(world, tmp_path / "run", algorithm, iterations=6, prompts_per_iteration=48)
    assert rows[0]["objective/kl_full"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["objective/kl_full"] > 0.05
    sampled = sum(row["objective/kl"] for row in rows[2:])
    assert sampled == pytest.approx(sum(row["objective/kl_full"] for row in rows[2:]), rel=0.25)


def test_presets_are_types_of_the_command(tmp_path):
    (tmp_path / "paper.toml").write_text('[algorithm]\ntype = "ppo_max_paper"\ngae_lambda = 0.9\n')
    job = load_job(RLJob, [tmp_path / "paper.toml"]).job
    assert job.algorithm == replace(PPO_MAX_PAPER, gae_lambda=0.9)


@pytest.fixture
def texts(tmp_path):
    rows = [Demonstration(f"t{i}", "", " warm warm cold big") for i in range(5)]
    write_records(rows, tmp_path / "texts.jsonl")
    return str(tmp_path / "texts.jsonl")


def test_texts_are_not_forgotten(world, tmp_path, texts):
    plain = PPO(critic_warmup=0, target_kl=0.0, epochs=2)
    kept = replace(plain, ptx_coef=1.0, ptx_dataset=texts)
    fast = {"iterations": 8, "optimizer": OptimizerSection(lr=1e-2, schedule="constant", warmup_fraction=0.0)}
    rows = run(world, tmp_path / "kept", kept, **fast)
    assert rows[-1]["policy/ptx_loss"] < rows[0]["policy/ptx_loss"] - 0.5
    assert "policy/ptx_loss" not in run(world, tmp_path / "plain", plain, iterations=1)[0]


def test_plain_texts_are_learned_from_their_first_token_on(world, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text('{"text": "warm warm cold big"}\n{"text": "cold cold warm"}\n')
    rows = run(
        world, tmp_path / "run", PPO(critic_warmup=0, ptx_coef=0.5, ptx_dataset=str(path)), iterations=1
    )
    assert rows[0]["policy/ptx_loss"] > 0


def test_cautions_are_said(world, tmp_path):
    sampling = SamplingSection(max_new_tokens=5, top_p=0.9, min_p=0.05)
    run(world, tmp_path / "run", PPO(critic_warmup=0, reward_scaling="none"), iterations=1, sampling=sampling)
    notes = [row["what"] for row in read_lines(tmp_path / "run" / "events.jsonl") if row["event"] == "note"]
    assert any("value_clip" in note for note in notes)
    assert any(note.startswith("top_p 0.9, min_p 0.05: ") for note in notes), notes
    assert SamplingSection().cautions == ()


def test_a_good_critic_ends_its_warmup_early(world, tmp_path):
    def by_prompt(rollouts):  # a critic can know it before the first token
        return [RewardResult(float("good" in r.prompt.content)) for r in rollouts]

    fast = OptimizerSection(lr=1e-3, schedule="linear", warmup_fraction=0.0)
    algorithm = PPO(critic_warmup=8, critic_lr=1e-2, kl_coef=0.0, missing_eos_penalty=0.0, epochs=8)
    job = world.rl(
        tmp_path / "run", iterations=24, algorithm=algorithm, optimizer=fast, prompts_per_iteration=24
    )
    rows = read_lines(run_rl(job, reward=by_prompt) / "metrics.jsonl")
    alone = [row["policy/steps"] == 0 for row in rows]
    ended = alone.index(False)
    assert 1 <= ended < 8 and not any(alone[ended:])
    assert rows[ended - 1]["critic/explained_variance"] > 0.5
    assert all(row["critic/explained_variance"] <= 0.5 for row in rows[: ended - 1])
    learning = [row["lr"] for row in rows[ended:]]
    assert learning[0] == pytest.approx(1e-3, rel=0.1) and learning[-1] < 1e-4, (
        "the schedule fits what is left"
    )
    assert torch.tensor(learning).diff().max() < 0
