"""What must not matter: padding and its side, other rows, their order, the pad token, the future."""

from __future__ import annotations

import pytest
import torch

from plaudit.config.sections import LoraSection
from plaudit.models.critic import Critic
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm

TOLERANCE = 1e-5
SCALE = 0.2  # of the weights: large enough that every mistake shows


@pytest.fixture
def policy(decoder, tokenizer):
    return Policy(tiny_lm(decoder, tokenizer, hidden=32, layers=2, scale=SCALE), temperature=0.8)


@pytest.fixture
def critic(decoder, tokenizer):
    return make_critic(decoder, tokenizer)


def make_critic(kind, tokenizer):
    return Critic.from_reward(RewardModel(tiny_classifier(kind, tokenizer, scale=SCALE)))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=TOLERANCE, rtol=TOLERANCE)


VARIANTS = {"left": {"left": True}, "extra": {"extra": 4}, "left and extra": {"left": True, "extra": 3}}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_padding_does_not_matter_to_policy_and_critic(policy, critic, rows, batch, per_row, options):
    plain, padded = batch(rows()), batch(rows(), **options)
    for name, model in (("logprobs", policy), ("entropy", policy), ("values", critic)):
        before = per_row(getattr(model(plain), name), plain)
        after = per_row(getattr(model(padded), name), padded)
        assert all(close(a, b) for a, b in zip(before, after, strict=True)), name


@torch.no_grad()
def test_other_rows_and_their_order_do_not_matter_to_policy_and_critic(policy, critic, rows, batch, per_row):
    texts = rows()
    together, turned = batch(texts), batch(texts[::-1])
    for name, model in (("logprobs", policy), ("values", critic)):
        expected = per_row(getattr(model(together), name), together)
        reverse = per_row(getattr(model(turned), name), turned)[::-1]
        for text, a, b in zip(texts, expected, reverse, strict=True):
            alone = batch([text])
            assert close(a, b)
            assert close(a, per_row(getattr(model(alone), name), alone)[0])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "roberta"])
@torch.no_grad()
def test_padding_rows_and_order_do_not_matter_to_reward_model(kind, tokenizer, rows, batch):
    model = RewardModel(tiny_classifier(kind, tokenizer, scale=SCALE))
    texts = rows()
    expected = model(batch(texts)).scores
    assert expected.std() > 0.01
    for options in VARIANTS.values():
        assert close(model(batch(texts, **options)).scores, expected)
    assert close(model(batch(texts[::-1])).scores.flip(0), expected)
    assert close(torch.cat([model(batch([text])).scores for text in texts]), expected)
    assert close(torch.tensor(model.score_rows(texts)), expected)
    assert close(torch.tensor(model.score_rows(texts, tokens_per_batch=1)), expected)


@torch.no_grad()
def test_pad_token_equal_to_end_token_changes_nothing(decoder, policy, tokenizer, rows, batch):
    texts, end = rows(), tokenizer.eos_token_id
    apart, same = batch(texts), batch(texts, pad=end)
    last = apart.attention_mask.sum(-1) - 1
    assert same.response_mask[range(3), last].all()
    assert torch.equal(apart.response_mask, same.response_mask)
    assert close(policy(apart).logprobs, policy(same).logprobs)
    model = RewardModel(tiny_classifier(decoder, tokenizer, scale=SCALE))
    assert close(model(apart).scores, model(same).scores)


@torch.no_grad()
def test_policy_and_critic_do_not_see_the_future(policy, critic, rows, batch):
    text = rows(lengths=(12,))[0]
    before = batch([text], prompt=1)
    p = 6
    changed = [*text[: p + 1], *rows(seed=9, lengths=(12,))[0][p + 1 :]]
    after = batch([changed], prompt=1)
    for name, model in (("logprobs", policy), ("values", critic)):
        a, b = getattr(model(before), name), getattr(model(after), name)
        assert close(a[:, : p + 1], b[:, : p + 1]), name
        assert not close(a[:, p + 2 :], b[:, p + 2 :]), name


@torch.no_grad()
def test_value_is_read_before_its_token(critic, rows, batch):
    text = rows(lengths=(9,))[0]
    other = [*text[:5], 7 if text[5] != 7 else 8, *text[6:]]
    a, b = (critic(batch([ids])).values[0] for ids in (text, other))
    assert close(a[:6], b[:6])  # the value about token 5 does not depend on token 5
    assert not torch.isclose(a[6], b[6], atol=1e-4)


@torch.no_grad()
def test_an_encoder_does_see_the_future_which_is_why_it_cannot_be_a_critic(tokenizer, rows, batch):
    model = tiny_classifier("roberta", tokenizer, scale=SCALE)
    text = rows(lengths=(12,))[0]
    changed = [*text[:7], *rows(seed=9, lengths=(12,))[0][7:]]
    states = [
        model.base_model(input_ids=b.tokens, attention_mask=b.attention_mask.long()).last_hidden_state
        for b in (batch([text]), batch([changed]))
    ]
    assert not close(states[0][:, :7], states[1][:, :7])


@torch.no_grad()
def test_alignment_with_a_deterministic_next_token_table(tokenizer, batch):
    """A model that always continues t with t + 1 gives the true continuation probability 1."""
    lm = tiny_lm("llama", tokenizer, hidden=64, layers=1)
    size = len(tokenizer)
    assert size <= 64
    for layer in lm.model.layers:  # both residual branches off: the final state is the normed embedding
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    lm.config.tie_word_embeddings = False
    lm.lm_head.weight = torch.nn.Parameter(torch.zeros(size, 64))
    lm.model.embed_tokens.weight.zero_()
    for token in range(size - 1):
        lm.model.embed_tokens.weight[token, token] = 1.0
        lm.lm_head.weight[token + 1, token] = 100.0
    policy = Policy(lm)
    right = batch([list(range(8, 20))])
    out = policy(right)
    assert out.logprobs.abs().max() < TOLERANCE
    assert out.entropy.abs().max() < TOLERANCE
    assert (out.logprobs != 0).sum() <= right.response_mask.sum()
    wrong = batch([[8, 9, 10, 11, 13, 14, 15]])
    misses = policy(wrong).logprobs[0] < -10
    assert misses.tolist() == [False, False, False, False, True, False, False]


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_the_reference_is_the_policy_without_them(
    decoder, tokenizer, rows, batch
):
    data = batch(rows())
    lm = tiny_lm(decoder, tokenizer, hidden=32, layers=2, scale=SCALE)
    plain = Policy(lm)(data).logprobs
    policy = Policy(add_lora(lm, LoraSection(rank=8, alpha=16), task="causal"))
    reference = ReferencePolicy(policy)
    assert torch.equal(policy(data).logprobs, reference(data).logprobs)
    assert close(policy(data).logprobs, plain)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.add_(0.1)
    assert not close(policy(data).logprobs, plain)
    assert close(reference(data).logprobs, plain)
    assert not close(policy(data).logprobs, plain), "adapters are on again after the reference has run"
