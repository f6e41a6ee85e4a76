"""algorithms.md 3.5 on tiny GPT-2, Llama, Qwen2 and RoBERTa: what tests/models has for one of them only.

The tokenizer's padding token, alignment, fresh adapters, saving in between, and splitting a step.
"""

import math

import pytest
import torch
from safetensors.torch import load_file
from tests.models.conftest import WORDS, make_batch, make_rows

from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.reward_model import RewardModel as RewardAlgorithm
from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, LoraSection, OptimizerSection
from plaudit.experience import Pairs
from plaudit.models.exact_kl import ExactKL
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm, tiny_tokenizer

DECODERS = ("gpt2", "llama", "qwen2")
EVERY = (*DECODERS, "roberta")
SCALE = 0.2


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)


def lm_of(kind, tokenizer):
    return tiny_lm(kind, tokenizer, hidden=32, layers=2, scale=SCALE)


def scorer_of(kind, tokenizer):
    return RewardModel(tiny_classifier(kind, tokenizer, scale=SCALE))


def relative(found, wanted):
    """Largest difference over the largest value wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


# 2. pad = end


@pytest.mark.parametrize("kind", EVERY)
@torch.no_grad()
def test_padding_with_the_end_token_changes_no_score(kind, tokenizer):
    model, texts = scorer_of(kind, tokenizer), make_rows()
    apart, same = make_batch(texts), make_batch(texts, pad=tokenizer.eos_token_id)
    assert not torch.equal(apart.tokens, same.tokens) and torch.equal(apart.response_mask, same.response_mask)
    found, wanted = (model(b).scores for b in (same, apart))
    assert wanted.std() > 0.01 and torch.allclose(found, wanted, atol=1e-5)


# 4. alignment with a deterministic next-token table


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_a_model_that_counts_gives_the_next_number_probability_one(kind, tokenizer):
    policy = Policy(counting(tiny_lm(kind, tokenizer, hidden=64, layers=1), len(tokenizer)))
    assert policy(make_batch([list(range(8, 20))])).logprobs.abs().max() < 1e-5
    misses = policy(make_batch([[8, 9, 10, 11, 13, 14, 15]])).logprobs[0] < -10
    assert misses.tolist() == [False, False, False, False, True, False, False]


def counting(lm, size):
    """A language model whose logits after token t are large at t + 1: one-hot embeddings, and nothing in between."""
    for name, parameter in lm.named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "c_proj", "wpe")):
            parameter.zero_()  # both residual branches off: the final state is the normed embedding
    embeddings = lm.get_input_embeddings().weight
    embeddings.zero_()
    lm.config.tie_word_embeddings = False
    lm.lm_head.weight = torch.nn.Parameter(torch.zeros(size, 64))
    for token in range(size - 1):
        embeddings[token, token] = 1.0
        lm.lm_head.weight[token + 1, token] = 100.0
    return lm


# 6. fresh adapters


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_fresh_adapters_have_no_kl_and_a_dpo_loss_of_ln_2(kind, tokenizer):
    policy = Policy(add_lora(lm_of(kind, tokenizer), LoraSection(rank=4), task="causal"))
    reference = ReferencePolicy(policy)
    batch = make_batch(make_rows(lengths=(11, 5, 8, 9)))
    assert ExactKL(policy, reference)(batch).full_kl.abs().max() < 1e-6
    pairs = Pairs(batch.tokens, batch.attention_mask, batch.response_mask, torch.zeros(2), torch.ones(2))
    pairs = DPO().weights(pairs.replace(ref_logprobs=reference(pairs).logprobs))
    assert DPO().loss(pairs, policy(pairs)).value.item() == pytest.approx(math.log(2), abs=1e-6)


# 8. and 9.: one step for a policy, or for a reward model


def task(kind, tokenizer):
    """A module, what it learns, and from which batch."""
    rows = make_batch(make_rows(lengths=(11, 5, 8, 9, 7, 12)))
    if kind == "roberta":
        pairs = Pairs(rows.tokens, rows.attention_mask, rows.response_mask, torch.zeros(3), torch.ones(3))
        algorithm = RewardAlgorithm(centering=0.1)
        return scorer_of(kind, tokenizer), algorithm, algorithm.weights(pairs)
    policy, algorithm = Policy(lm_of(kind, tokenizer)), GRPO(aggregation="sequence_mean_token_mean")
    with torch.no_grad():
        logprobs = policy(rows).logprobs
    draw = torch.Generator().manual_seed(0)
    near = (logprobs + 0.3 * torch.randn(logprobs.shape, generator=draw)) * rows.response_mask
    advantages = torch.randn(6, 1, generator=draw) * rows.response_mask
    rows = rows.replace(old_logprobs=near, ref_logprobs=0.9 * near, advantages=advantages)
    return policy, algorithm, algorithm.weights(rows)


def learner(module, budget=8192):
    section, compute = OptimizerSection(lr=1e-3), ComputeSection(device="cpu", tokens_per_microbatch=budget)
    return LocalLearner(module, section, compute, total_steps=10)


def written(learner, directory):
    """What a learner keeps of itself."""
    directory.mkdir()
    learner.save(directory)
    return load_file(directory / f"{learner.name}.safetensors")


@pytest.mark.parametrize("kind", EVERY)
def test_two_steps_are_one_then_saved_and_loaded_and_another_one(kind, tokenizer, tmp_path):
    module, algorithm, batch = task(kind, tokenizer)
    whole = learner(module)
    whole.update(batch, algorithm.loss)
    once = written(whole, tmp_path / "once")
    whole.update(batch, algorithm.loss)
    resumed = learner(task(kind, tokenizer)[0])
    resumed.restore(tmp_path / "once")
    resumed.update(batch, algorithm.loss)
    again, twice = written(resumed, tmp_path / "again"), written(whole, tmp_path / "twice")
    assert all(torch.equal(again[name], tensor) for name, tensor in twice.items())
    assert any(not torch.equal(tensor, once[name]) for name, tensor in twice.items())


@pytest.mark.parametrize("kind", EVERY)
def test_microbatches_add_up_to_the_gradient_of_the_step(kind, tokenizer):
    def gradient(budget):
        module, algorithm, batch = task(kind, tokenizer)
        its = learner(module if kind == "roberta" else module.double(), budget)
        parts = list(its._parts(batch, budget))
        for _, part in parts:
            its._backward(part, algorithm.loss)
        return len(parts), {n: p.grad for n, p in its.parameters.items() if p.grad is not None}

    (one, whole), (several, split) = gradient(8192), gradient(24)
    assert one == 1 and several >= 3 and whole.keys() == split.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, wanted in whole.items():
        if wanted.abs().max() > 1e-4 * largest:  # others are rounding, such as those of a key's bias
            assert relative(split[name], wanted) < 1e-5, name
    flat = lambda grads: torch.cat([grads[n].flatten() for n in sorted(grads)])  # noqa: E731
    tolerance = (
        3e-6 if kind == "roberta" else 1e-6
    )  # its head is fp32, hence all of it here; the others are fp64
    assert (flat(split) - flat(whole)).norm() < tolerance * flat(whole).norm()
