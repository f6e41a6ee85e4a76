"""Policy and critic on one trunk: one pass gives the gradients of the sum of two plain losses."""

import math

import pytest
import torch
from safetensors.torch import load_file
from tests.models.conftest import make_batch
from transformers import AutoModelForCausalLM

from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.microbatch import microbatches
from plaudit.config.sections import ComputeSection, LoraSection, OptimizerSection
from plaudit.models.forward.trunk import body
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.shared_trunk import SharedTrunk, TrunkCritic
from plaudit.models.tiny import tiny_lm

ALGORITHM = PPO(critic="trunk", value_coef=0.3, entropy_coef=0.01)
SECTION = OptimizerSection(lr=1e-2, warmup_fraction=0.0, schedule="constant", max_grad_norm=0.0)
PROMPT = 6
RANKS = [0, 4]


def grouped_rows():
    """Three responses to one prompt, and one to another: packing shares the beginnings."""
    draw = torch.Generator().manual_seed(3)

    def ids(count):
        return torch.randint(8, 24, (count,), generator=draw).tolist()

    first, second = [2, *ids(PROMPT - 1)], [2, *ids(PROMPT - 1)]
    return [[*first, *ids(3)], [*first, *ids(7)], [*second, *ids(5)], [*first, *ids(1)]]


def experience():
    batch = make_batch(grouped_rows(), prompt=PROMPT)
    draw = torch.Generator().manual_seed(4)
    like = [torch.randn(batch.tokens.shape, generator=draw) * batch.response_mask for _ in range(4)]
    batch = batch.replace(
        old_logprobs=like[0] - 3.0, advantages=like[1], values=0.2 * like[2], returns=like[3],
        group_ids=torch.tensor([0, 0, 1, 0]),
    )  # fmt: skip
    return ALGORITHM.weights(batch)


def policy_of(arch, tokenizer, rank, **options):
    lm = tiny_lm(arch, tokenizer, hidden=16, layers=2, scale=0.3)
    lm = add_lora(lm, LoraSection(rank=rank), task="causal")
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return Policy(lm, **options)


def shared_of(policy):
    critic = TrunkCritic(policy)
    draw = torch.Generator().manual_seed(6)
    with torch.no_grad():
        critic.head.weight.copy_(torch.randn(critic.head.weight.shape, generator=draw))
        critic.head.bias.fill_(0.1)
    return SharedTrunk(policy, critic), critic


def learners(policy, tokens_per_microbatch=8192):
    shared, head = shared_of(policy)
    compute = ComputeSection(precision="fp32", tokens_per_microbatch=tokens_per_microbatch)
    critic = LocalLearner(head, SECTION, compute, total_steps=9, name="critic")
    return LocalLearner(shared, SECTION, compute, total_steps=9, partners={"critic": critic}), critic


def gradients(policy, critic):
    """And forget them."""
    named = [*policy.named_parameters(), *((f"head.{n}", p) for n, p in critic.named_parameters())]
    found = {name: p.grad.clone() for name, p in named if p.grad is not None}
    for module in (policy, critic):
        module.zero_grad(set_to_none=True)
    return found


def explicit_sum(lm, head, batch):
    """Losses of two plain padded passes through the transformers model, written out, and added."""
    mask, attention = batch.response_mask, batch.attention_mask.long()
    logp = lm(input_ids=batch.tokens, attention_mask=attention).logits.log_softmax(-1)[:, :-1]
    new = logp.gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    states = body(lm)(input_ids=batch.tokens, attention_mask=attention).last_hidden_state[:, :-1]
    values = head(states).squeeze(-1)

    def at(x):
        return x[:, 1:][mask[:, 1:]]

    new, values = new[mask[:, 1:]], values[mask[:, 1:]]
    entropy = -(logp.exp() * logp).sum(-1)[mask[:, 1:]]
    old, advantage, before, target = map(
        at, (batch.old_logprobs, batch.advantages, batch.values, batch.returns)
    )
    ratio = (new - old).exp()
    surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
    near = before + (values - before).clamp(-0.2, 0.2)
    error = 0.5 * torch.maximum((values - target).square(), (near - target).square()).mean()
    return surrogate - 0.01 * entropy.mean() + 0.3 * error


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("packing", [True, False])
def test_one_pass_has_the_gradient_of_the_sum_of_two(decoder, tokenizer, rank, packing):
    policy, batch = policy_of(decoder, tokenizer, rank, packing=packing, entropy_grad=True), experience()
    assert policy.packing is packing
    shared, critic = shared_of(policy)
    explicit_sum(policy.lm, critic.head, batch).backward()
    wanted = gradients(policy, critic)
    ALGORITHM.joint_loss(batch, shared(batch)).value.backward()
    found = gradients(policy, critic)
    assert found.keys() == wanted.keys() and {"head.head.weight", "head.head.bias"} <= found.keys()
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=2e-5 * max(scale, 0.1)), name


def test_microbatches_add_up_to_one_step_and_each_runs_the_trunk_once(decoder, tokenizer):
    batch = experience()
    stepped = []
    for budget in (8192, 16):
        policy = policy_of(decoder, tokenizer, 0, entropy_grad=True)
        learner, critic = learners(policy, budget)
        calls = []
        handle = body(policy.lm).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        metrics = learner.update(batch, ALGORITHM.joint_loss)
        handle.remove()
        assert len(calls) == len(list(microbatches(batch, budget, packed=policy.packing)))
        assert (len(calls) == 1) == (budget == 8192)
        assert critic.step == learner.step == 1 and metrics["critic/lr"] == SECTION.lr
        stepped.append(metrics)
    whole, parts = stepped
    for name in ("critic/loss", "policy/loss", "grad_norm", "critic/grad_norm"):
        assert whole[name] != 0 and parts[name] == pytest.approx(whole[name], rel=1e-4), name


def test_alone_only_the_head_learns(decoder, tokenizer):
    policy, batch = policy_of(decoder, tokenizer, 0), experience()
    learner, critic = learners(policy)
    before = learner.weights().tensors()
    metrics = critic.update(batch, ALGORITHM.value_loss)
    after = learner.weights().tensors()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("critic/"))
    assert not torch.equal(before["critic/head.weight"], after["critic/head.weight"])
    assert all(p.grad is None for p in policy.parameters()) and metrics["grad_norm"] > 0
    assert (critic.step, learner.step) == (1, 0)
    learner.update(batch, ALGORITHM.joint_loss)
    assert any(
        not torch.equal(after[n], w) for n, w in learner.weights().tensors().items() if "critic" not in n
    )
    learner.put_back(before)  # as when the policy goes back to its best weights
    assert all(torch.equal(before[name], w) for name, w in learner.weights().tensors().items())


def test_the_value_loss_reaches_the_trunk(tokenizer):
    policy, batch = policy_of("llama", tokenizer, 0), experience()
    shared, critic = shared_of(policy)
    ALGORITHM.value_loss(batch, shared(batch)).value.backward()
    assert any("layers.0" in name and g.abs().max() > 0 for name, g in gradients(policy, critic).items())


@pytest.mark.parametrize("rank", RANKS)
def test_values_start_at_zero_and_are_those_of_the_head_alone(decoder, tokenizer, rank):
    policy, batch = policy_of(decoder, tokenizer, rank), experience()
    assert not TrunkCritic(policy)(batch).values.any()
    shared, critic = shared_of(policy)
    with torch.no_grad():
        both, plain = shared(batch), policy(batch)
    assert torch.equal(both.values, critic(batch).values)
    assert torch.equal(both.logprobs, plain.logprobs) and torch.equal(both.entropy, plain.entropy)
    assert not both.values[~batch.response_mask].any()
    assert sum(p.numel() for p in critic.parameters()) == 17, "the critic owns its head and nothing else"


def test_the_reference_is_the_policy_as_it_was(tokenizer):
    policy, batch = policy_of("llama", tokenizer, 4), experience()
    learner, _ = learners(policy)
    reference = ReferencePolicy(policy)
    before = reference(batch).logprobs
    learner.update(batch, ALGORITHM.joint_loss)
    assert torch.equal(reference(batch).logprobs, before)


@pytest.mark.parametrize("rank", RANKS)
def test_a_saved_policy_is_a_plain_model_and_the_head_fits_it(tokenizer, tmp_path, rank):
    policy, batch = policy_of("llama", tokenizer, rank), experience()
    _, critic = shared_of(policy)
    policy.save(tmp_path / "model", tokenizer)
    critic.save(tmp_path / "critic")
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    head = load_file(tmp_path / "critic" / "value_head.safetensors")
    with torch.no_grad():
        hidden = lm.model(
            input_ids=batch.tokens, attention_mask=batch.attention_mask.long()
        ).last_hidden_state
        values = hidden @ head["weight"][0] + head["bias"]
        expected = critic(batch).values
    assert torch.allclose(
        values[:, :-1][batch.response_mask[:, 1:]], expected[batch.response_mask], atol=1e-4
    )


def test_no_state_is_kept_in_half_precision(tokenizer):
    policy, batch = policy_of("llama", tokenizer, 0), experience()
    shared, _ = shared_of(policy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = shared(batch)
    assert out.values.dtype == out.logprobs.dtype == torch.float32
    assert math.isfinite(float(out.values.sum()))
