"""Before training, sampler and trainer must give the same tokens the same log-probs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.stages.conftest import QUIET, World
from tiny_families import tiny

from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.agreement import EXACT, ROUNDED, SamplerCheck, in_fp32, spread_by_length
from plaudit.backends.local.learner import LocalScorer
from plaudit.config.sections import ComputeSection, SamplingSection
from plaudit.errors import ModelError
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt, RewardResult
from plaudit.runs.files import read_lines
from plaudit.runtime import TokenPrompt
from plaudit.stages.online.rl import run_rl

COMPUTE = ComputeSection(device="cpu", precision="fp32")
SAMPLING = SamplingSection(max_new_tokens=30, temperature=0.7, stop=("w3",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def word_count(rollouts):
    return [RewardResult(float(len(r.response.split()))) for r in rollouts]


class Off:
    """A generator whose log-probs are wrong by some nats in the responses to long prompts."""

    def __init__(self, generator, nats):
        self.generator, self.nats = generator, nats

    def publish(self, weights, version):
        self.generator.publish(weights, version)

    def generate(self, prompts, n, sampling, **options):
        rollouts = self.generator.generate(prompts, n, sampling, **options)
        return [self._off(r) if len(r.prompt_ids) > 8 else r for r in rollouts]

    def _off(self, rollout):
        return replace(rollout, logprobs=tuple(x - self.nats for x in rollout.logprobs))


def parts():
    tokenizer = tiny_tokenizer([" ".join(f"w{i}" for i in range(40))], 44, chat=False)
    lm = tiny_lm("llama", tokenizer, hidden=32, layers=2, scale=0.1)
    policy = Policy(lm, temperature=0.7)
    prompts = [TokenPrompt(Prompt(f"p{i}", ""), tuple(range(5, 6 + i))) for i in range(20)]
    return policy, NativeGenerator(lm, tokenizer, (3,)), prompts


def check_of(generator, policy, exact=True):
    return SamplerCheck(generator, LocalScorer(policy, COMPUTE), "llama", 0, SAMPLING, exact)


def test_the_same_model_agrees_and_nothing_is_said():
    policy, generator, prompts = parts()
    assert check_of(generator, policy)(prompts) == ()


def test_a_sampler_that_differs_for_long_prompts_stops_the_run():
    policy, generator, prompts = parts()
    with pytest.raises(
        ModelError, match=r"by 0\.02 nats a token.*where 0\.01 is allowed with weights and"
    ) as caught:
        check_of(Off(generator, 2 * EXACT), policy)(prompts)
    assert "--precision fp32" in caught.value.cure and caught.value.where == "llama"
    with pytest.raises(ModelError, match="nan nats"):
        check_of(Off(generator, float("nan")), policy)(prompts)


def test_another_model_as_sampler_stops_the_run():
    policy, _, prompts = parts()
    tokenizer = tiny_tokenizer([" ".join(f"w{i}" for i in range(40))], 44, chat=False)
    other = NativeGenerator(
        tiny_lm("llama", tokenizer, hidden=32, layers=2, scale=0.1, seed=1), tokenizer, (3,)
    )
    with pytest.raises(ModelError, match="disagree"):
        check_of(other, policy)(prompts)


def test_lower_precision_has_a_wider_tolerance_which_is_said():
    policy, generator, prompts = parts()
    (note,) = check_of(Off(generator, 2 * EXACT), policy, exact=False)(prompts)
    assert (
        f"{ROUNDED:g} is allowed with weights or products of lower precision" in note and "0.02 nats" in note
    )
    with pytest.raises(ModelError, match=r"where 0\.1 is allowed"):
        check_of(Off(generator, 2 * ROUNDED), policy, exact=False)(prompts)
    assert in_fp32(policy) and not in_fp32(policy.to(torch.bfloat16))


def test_prompts_are_taken_from_the_shortest_to_the_longest_and_none_twice():
    _, _, prompts = parts()
    assert [len(p.ids) for p in spread_by_length([*prompts, *prompts])] == [1, 7, 14, 20]
    assert spread_by_length(prompts[:1]) == prompts[:1]


def test_a_run_whose_sampler_differs_ends_before_a_file_is_written(world, tmp_path, monkeypatch):
    draw = NativeGenerator.generate

    def hotter(self, prompts, n, sampling, **options):
        return draw(self, prompts, n, sampling.model_copy(update={"temperature": 2.0}), **options)

    monkeypatch.setattr(NativeGenerator, "generate", hotter)
    with pytest.raises(ModelError, match="sampler and trainer disagree"):
        run_rl(world.rl(tmp_path / "run"), reward=word_count)
    assert not (tmp_path / "run").exists()


def test_a_run_in_bf16_says_how_far_they_differ(world, tmp_path):
    compute = QUIET["compute"].model_copy(update={"precision": "bf16"})
    job = world.rl(
        tmp_path / "run", iterations=1, compute=compute, algorithm=PPO(critic="sft", critic_warmup=0)
    )
    run = run_rl(job, reward=word_count)
    assert any(
        "sampler and trainer differ by" in row.get("what", "") for row in read_lines(run / "events.jsonl")
    )


@pytest.mark.parametrize("name", ["rwkv", "mistral"])
def test_architectures_of_their_own_are_trained_and_what_is_slower_is_said(world, tmp_path, name):
    tiny(name).save_pretrained(tmp_path / "lm")
    load_tokenizer(world.lm).save_pretrained(tmp_path / "lm")
    job = world.rl(
        tmp_path / "run", policy=str(tmp_path / "lm"), iterations=2, algorithm=PPO(critic="sft", critic_warmup=0),
        sampling=SamplingSection(max_new_tokens=12),
    )  # fmt: skip
    run = run_rl(job, reward=word_count)
    notes = [row.get("what", "") for row in read_lines(run / "events.jsonl")]
    assert any("without a cache" in note for note in notes) == (name == "rwkv")
    metrics = read_lines(run / "metrics.jsonl")
    assert max(row["rollout/logprob_diff_mean"] for row in metrics) < 1e-4
    before, after = tiny(name).state_dict(), load_causal_lm(run / "model").state_dict()
    assert any(not torch.equal(after[key], before[key]) for key in before)
