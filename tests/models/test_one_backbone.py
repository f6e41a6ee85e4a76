"""Under LoRA the critic stands on the frozen tensors of the policy or reward model, and nobody disturbs the others."""

import pytest
import torch
from tests.models.conftest import make_batch

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, LoraSection, OptimizerSection
from plaudit.experience import Loss
from plaudit.models.critic import Critic
from plaudit.models.forward.trunk import body, hidden_states
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm

LORA = LoraSection(rank=4)


def storages(module):
    return {t.data_ptr() for t in module.parameters()}


def own_bytes(module, *others):
    known = set().union(*map(storages, others)) if others else set()
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.data_ptr() not in known)


@pytest.fixture
def policy(decoder, tokenizer):
    return Policy(add_lora(tiny_lm(decoder, tokenizer), LORA, task="causal"))


def test_a_critic_adds_adapters_and_a_head_only(policy):
    critic = Critic.from_policy(policy.lm, LORA)
    trainable = sum(p.numel() * p.element_size() for p in critic.parameters() if p.requires_grad)
    assert own_bytes(critic, policy) == trainable
    frozen = [p for p in critic.parameters() if not p.requires_grad]
    assert frozen and {p.data_ptr() for p in frozen} <= storages(policy)


def test_a_critic_from_a_reward_model_shares_with_it(decoder, tokenizer):
    reward = RewardModel(tiny_classifier(decoder, tokenizer))
    critic = Critic.from_reward(reward, LORA)
    assert own_bytes(critic, reward) == sum(
        p.numel() * p.element_size() for p in critic.parameters() if p.requires_grad
    )


def test_training_the_critic_moves_no_one_else_and_the_policy_not_the_critic(policy, rows):
    batch = make_batch(rows())
    critic, reference = Critic.from_policy(policy.lm, LORA), ReferencePolicy(policy)
    ones = batch.replace(loss_weights=batch.response_mask.float())

    def learner(module):
        section = OptimizerSection(lr=0.1, warmup_fraction=0)
        return LocalLearner(module, section, ComputeSection(), total_steps=9)

    with torch.no_grad():
        before, values = policy(batch).logprobs, critic(batch).values
    for _ in range(2):  # the first step moves the head from 0 and only then do gradients reach the adapters
        learner(critic).update(ones, lambda b, out: Loss(b.weighted_sum((out.values - 1).square())))
    with torch.no_grad():
        assert torch.equal(policy(batch).logprobs, before)
        moved = critic(batch).values
        assert not torch.allclose(moved, values)
    learner(policy).update(ones, lambda b, out: Loss(-b.weighted_sum(out.logprobs)))
    with torch.no_grad():
        assert not torch.allclose(policy(batch).logprobs, before)
        assert torch.equal(critic(batch).values, moved)
        assert torch.equal(reference(batch).logprobs, before)


def test_adapters_that_have_learned_are_kept_in_the_critics_base(policy, rows):
    with torch.no_grad():
        for name, p in policy.lm.named_parameters():
            if "lora_B" in name:
                p.add_(0.05)
    critic = Critic.from_policy(policy.lm, LORA)
    assert not storages(policy) & {p.data_ptr() for n, p in critic.named_parameters() if "base_layer" in n}
    batch = make_batch(rows())
    with torch.no_grad():
        theirs = hidden_states(body(policy.lm), batch.tokens, batch.attention_mask)[batch.attention_mask]
        ours = hidden_states(body(critic.trunk), batch.tokens, batch.attention_mask)[batch.attention_mask]
    assert torch.allclose(ours, theirs, atol=1e-5)
