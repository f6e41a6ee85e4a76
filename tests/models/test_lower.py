"""States of frozen lower layers are computed once, and nothing else changes."""

import pytest
import torch
from tests.models.conftest import make_batch, make_rows

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, LoraSection, OptimizerSection
from plaudit.experience import Loss
from plaudit.models.critic import Critic
from plaudit.models.forward.lower import LowerStates, frozen_depth
from plaudit.models.forward.trunk import body
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.tiny import tiny_lm

TOP = LoraSection(rank=4, last_layers=1)


def build(decoder, tokenizer, gigabytes):
    lm = tiny_lm(decoder, tokenizer, layers=3, seed=1)
    return Policy(add_lora(lm, TOP, task="causal", seed=2), lower_states_gb=gigabytes)


class Counter:
    """Counts the tokens that a layer has seen."""

    def __init__(self, layer):
        self.tokens = 0
        layer.register_forward_hook(lambda _, args, out: self.count(out))

    def count(self, out):
        self.tokens += (out[0] if isinstance(out, tuple) else out).shape[1]


def layers(policy):
    return next(child for child in body(policy.lm).children() if isinstance(child, torch.nn.ModuleList))


def train(policy, batch):
    learner = LocalLearner(
        policy, OptimizerSection(lr=0.05, warmup_fraction=0), ComputeSection(), total_steps=9
    )
    weighted = batch.replace(loss_weights=batch.response_mask.float() / 20)
    norms = [
        learner.update(weighted, lambda b, out: Loss(-b.weighted_sum(out.logprobs)))["grad_norm"]
        for _ in range(3)
    ]
    with torch.no_grad():
        return norms, policy(batch).logprobs


def test_scores_gradients_and_training_are_those_without_it(decoder, tokenizer):
    batch = make_batch(make_rows())
    with_norms, with_logprobs = train(build(decoder, tokenizer, 1.0), batch)
    norms, logprobs = train(build(decoder, tokenizer, 0.0), batch)
    assert with_norms == pytest.approx(norms, rel=1e-4)
    assert torch.allclose(with_logprobs, logprobs, atol=1e-4)


def test_policy_reference_and_critic_compute_the_lower_layers_once(decoder, tokenizer):
    policy = build(decoder, tokenizer, 1.0)
    assert policy.lower is not None and policy.lower.depth == 2
    critic, reference = Critic.from_policy(policy.lm, TOP), ReferencePolicy(policy)
    critic.lower = policy.lower
    bottom, top = Counter(layers(policy)[0]), Counter(layers(policy)[2])
    batch = make_batch(make_rows())
    with torch.no_grad():
        first = policy(batch).logprobs
        seen = bottom.tokens
        assert seen > 0
        assert torch.equal(policy(batch).logprobs, first)
        assert torch.allclose(reference(batch).logprobs, first, atol=1e-6)
        values = critic(batch).values
    assert bottom.tokens == seen and top.tokens == 3 * seen
    alone = Critic(critic.trunk, critic.head)
    assert torch.allclose(alone(batch).values, values, atol=1e-6)


def test_only_rows_that_are_new_are_computed(decoder, tokenizer):
    policy = build(decoder, tokenizer, 1.0)
    bottom = Counter(layers(policy)[0])
    rows = make_rows()
    with torch.no_grad():
        policy(make_batch(rows[:2]))
        known = bottom.tokens
        policy(make_batch(rows))
    assert bottom.tokens - known == len(rows[2])


def test_memory_is_bounded_by_forgetting_the_rows_used_longest_ago(decoder, tokenizer):
    policy = build(decoder, tokenizer, 1.0)
    rows = make_rows(lengths=(8,) * 6)
    with torch.no_grad():
        policy(make_batch(rows[:1]))
    one = policy.lower.size
    policy.lower.limit = 3 * one
    with torch.no_grad():
        for row in rows:
            policy(make_batch([row]))
            assert policy.lower.size <= 3 * one
        bottom = Counter(layers(policy)[0])
        policy(make_batch(rows[-1:]))
        assert bottom.tokens == 0
        policy(make_batch(rows[:1]))
        assert bottom.tokens == 8


def test_a_batch_larger_than_the_memory_is_still_exact(decoder, tokenizer):
    policy, plain = build(decoder, tokenizer, 1.0), build(decoder, tokenizer, 0.0)
    policy.lower.limit = 1
    batch = make_batch(make_rows())
    with torch.no_grad():
        assert torch.allclose(policy(batch).logprobs, plain(batch).logprobs, atol=1e-5)
    assert policy.lower.size == 0


def test_nothing_is_kept_where_every_layer_is_trained_or_the_trunk_cannot_be_cut(decoder, tokenizer):
    lm = tiny_lm(decoder, tokenizer, layers=3)
    assert frozen_depth(lm.base_model) == 0 and LowerStates.of(lm.base_model, 1.0) is None
    everywhere = add_lora(lm, LoraSection(rank=4), task="causal")
    assert frozen_depth(body(everywhere)) == 0


def test_a_trunk_whose_layers_differ_in_type_is_not_cut(tokenizer):
    policy = build("llama", tokenizer, 1.0)
    body(policy.lm).config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    assert LowerStates.of(body(policy.lm), 1.0) is None
