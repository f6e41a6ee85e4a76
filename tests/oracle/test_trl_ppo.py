"""PPO against TRL 1.12.0, whose trainer runs until its first backward pass; its tensors there are compared with ours.

Two differences are explained, not hidden: TRL whitens with n - 1 where we divide by n, and its policy and critic share
one optimizer, so its loss is ours of the policy plus ``vf_coef`` times ours of the critic. A third one is kept out:
after an end token TRL counts one step more, and puts the score there; so all responses run to the length limit here.
"""

import copy
import sys

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.experience import Experience, Outputs
from plaudit.functional.controllers import Carry
from plaudit.models.critic import Critic
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_classifier, tiny_lm

trl = pytest.importorskip("trl")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(trl.__version__ != "1.12.0", reason="the formulas compared are those of TRL 1.12.0"),
]
PROMPTS = [[2, 9, 10, 11], [2, 12], [2, 13, 14], [2, 9, 15, 16]]
LENGTH, KL_COEF, LAMBDA, VF_COEF = 5, 0.07, 0.9, 0.1
OURS = PPO(
    kl_coef=KL_COEF,
    gae_lambda=LAMBDA,
    reward_scaling="none",
    reward_clip=0.0,
    missing_eos_penalty=0.0,
    value_clip=0.2,
)


class Reached(Exception):
    """The first backward pass."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """TRL's local tensors at its first backward pass, the models as they were, and its gradients."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from plaudit.models.tiny import tiny_tokenizer

    words = "the cat sat on a mat and saw dogs run far away from big old trees near water"
    tokenizer = tiny_tokenizer([words, words.replace("cat", "fox")], 64)
    tokenizer.padding_side = "left"
    policy, reference = (tiny_lm("llama", tokenizer, hidden=32, layers=2, scale=0.2, seed=s) for s in (0, 1))
    reward, value = (tiny_classifier("llama", tokenizer, scale=0.2, seed=s) for s in (2, 3))
    data = Dataset.from_list([{"input_ids": ids} for ids in PROMPTS])
    config = PPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), per_device_train_batch_size=4, num_mini_batches=1,
        gradient_accumulation_steps=1, total_episodes=4, response_length=LENGTH, num_ppo_epochs=1, temperature=1.0,
        num_sample_generations=0, kl_coef=KL_COEF, lam=LAMBDA, vf_coef=VF_COEF, cliprange_value=0.2,
        report_to=[], use_cpu=True, bf16=False, seed=3, whiten_rewards=False,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=data, eval_dataset=data, data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    seen = {}

    def backward(loss):
        seen.update(sys._getframe(1).f_locals)
        loss.backward()
        raise Reached

    trainer.accelerator.backward = backward
    with pytest.raises(Reached):
        trainer.train()
    assert not seen["padding_mask"].any(), "another seed: a response has a padding token in it"
    return seen, policy, reference, value


@pytest.fixture(scope="module")
def ours(theirs):
    """Our batch of the same rows, in the order of TRL's minibatch, with signals of our own models' making."""
    seen, lm, reference, value = theirs
    tokens = []
    for row in seen["mb_query_responses"].tolist():
        tokens.append(row[row.index(2) :])  # without the padding on the left
    width = max(map(len, tokens))
    lengths = torch.tensor([len(t) for t in tokens])[:, None]
    real = torch.arange(width) < lengths
    order = seen["micro_batch_inds"]
    batch = Experience(
        torch.tensor([t + [0] * (width - len(t)) for t in tokens]), real,
        real & (torch.arange(width) >= lengths - LENGTH),
        rewards=seen["scores"][order].flatten(), truncated=torch.zeros(4, dtype=torch.bool),
    )  # fmt: skip
    policy, ref = Policy(copy.deepcopy(lm)), Policy(reference)
    head = copy.deepcopy(value.score)
    critic = Critic(copy.deepcopy(value.model), head)
    with torch.no_grad():
        signals = {
            "old_logprobs": policy(batch).logprobs,
            "ref_logprobs": ref(batch).logprobs,
            "values": critic(batch).values,
        }
    return OURS.credit(batch.replace(**signals), Carry(kl_coef=KL_COEF)).batch, policy, critic


def taken(x, batch):
    """``[B, LENGTH]``: the response tokens."""
    return x[batch.response_mask].view(len(batch), LENGTH)


@pytest.mark.parametrize(
    ("name", "local"),
    [("old_logprobs", "logprobs"), ("ref_logprobs", "ref_logprobs"), ("values", "values"), ("token_rewards", "rewards"),
     ("returns", "returns")],
)  # fmt: skip
def test_signals_rewards_and_returns(ours, theirs, name, local):
    batch, seen = ours[0], theirs[0]
    expected = seen[local][seen["micro_batch_inds"]]
    assert torch.allclose(taken(getattr(batch, name), batch), expected, atol=1e-5)
    assert expected.std() > 1e-3


def test_advantages_up_to_bessel(ours, theirs):
    """TRL divides the sum of squares by n - 1 = 19, we by n = 20."""
    batch, seen = ours[0], theirs[0]
    count = 4 * LENGTH
    expected = seen["mb_advantage"] * (count / (count - 1)) ** 0.5
    assert torch.allclose(taken(batch.advantages, batch), expected, atol=1e-4)


def losses(ours, seen):
    """Our two losses on TRL's advantages; so that Bessel's factor is out of the way."""
    batch, policy, critic = ours
    same = torch.zeros_like(batch.advantages).masked_scatter(batch.response_mask, seen["mb_advantage"])
    step = OURS.weights(batch.replace(advantages=same))
    out = policy(step)
    values = critic(step).values
    return OURS.loss(step, out), OURS.value_loss(step, Outputs(values=values))


def test_losses_and_gradients(ours, theirs):
    seen, lm, _, value = theirs
    policy_loss, critic_loss = losses(ours, seen)
    assert policy_loss.value.item() == pytest.approx(seen["pg_loss"].item(), abs=1e-5)
    assert critic_loss.value.item() == pytest.approx(seen["vf_loss"].item(), abs=1e-5)
    assert (policy_loss.value + VF_COEF * critic_loss.value).item() == pytest.approx(
        seen["loss"].item(), abs=1e-5
    )
    (policy_loss.value + VF_COEF * critic_loss.value).backward()
    compared = 0
    for mine, other in ((ours[1].lm, lm), (ours[2].trunk, value.model), (ours[2].head, value.score)):
        found = dict(mine.named_parameters())
        for name, parameter in other.named_parameters():
            assert torch.allclose(found[name].grad, parameter.grad, atol=1e-5, rtol=1e-4), name
            compared += float(parameter.grad.abs().max()) > 1e-4
    assert compared > 20


def test_away_from_the_old_policy(ours, theirs):
    """Clips of ratio and value at work: our losses on moved log-probs and values, the formulas of TRL written out."""
    batch = OURS.weights(ours[0])
    draw = torch.Generator().manual_seed(0)

    def moved(x, by):
        return (x + by * torch.randn(x.shape, generator=draw)) * batch.response_mask

    logprobs, values = moved(batch.old_logprobs, 0.4), moved(batch.values, 0.4)
    ratio, advantages = torch.exp(taken(logprobs - batch.old_logprobs, batch)), taken(batch.advantages, batch)
    expected = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2)).mean()
    loss = OURS.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros_like(logprobs)))
    assert loss.value.item() == pytest.approx(expected.item(), abs=1e-5)
    assert loss.metrics["policy/clip_fraction"] > 0.1
    old, returns, new = (taken(x, batch) for x in (batch.values, batch.returns, values))
    near = torch.clamp(new, old - 0.2, old + 0.2)
    expected = 0.5 * torch.max((new - returns) ** 2, (near - returns) ** 2).mean()
    assert OURS.value_loss(batch, Outputs(values=values)).value.item() == pytest.approx(
        expected.item(), abs=1e-5
    )
