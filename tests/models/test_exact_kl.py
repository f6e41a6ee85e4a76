"""The exact KL along sampled prefixes: against log-softmax by plain transformers, under LoRA, and at the start."""

import copy

import pytest
import torch

from plaudit.backends.local.learner import LocalScorer
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.models import exact_kl
from plaudit.models.exact_kl import ExactKL
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.tiny import tiny_lm


def moved(lm, by=0.05):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn_like(parameter))


def by_hand(lm, ref, data, temperature):
    laws = [
        (m(input_ids=data.tokens, attention_mask=data.attention_mask).logits / temperature).log_softmax(-1)
        for m in (lm, ref)
    ]
    kl = (laws[0].exp() * (laws[0] - laws[1])).sum(-1)[:, :-1]
    return kl[data.response_mask[:, 1:]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_against_plain_transformers(decoder, tokenizer, rows, batch, temperature):
    lm, data = tiny_lm(decoder, tokenizer, hidden=32, layers=1, scale=0.2), batch(rows())
    start = copy.deepcopy(lm)
    policy = Policy(lm, temperature=temperature)
    kl = ExactKL(policy, ReferencePolicy(policy))
    assert not kl(data).full_kl.any(), "at the start policy and reference are the same"
    moved(policy.lm)
    found = LocalScorer(kl, ComputeSection(tokens_per_microbatch=16)).read(data, "full_kl")[0]
    with torch.no_grad():
        expected = by_hand(policy.lm, start, data, temperature)
    assert expected.min() > 1e-4
    assert torch.allclose(found[data.response_mask], expected, atol=1e-5)
    assert not found[~data.response_mask].any()


def test_under_lora_the_reference_is_the_policy_without_adapters(tokenizer, rows, batch, monkeypatch):
    lm, data = tiny_lm("llama", tokenizer, hidden=32, layers=1, scale=0.2), batch(rows())
    start = copy.deepcopy(lm)
    policy = Policy(add_lora(lm, LoraSection(rank=2), task="causal", seed=0))
    kl = ExactKL(policy, ReferencePolicy(policy))
    moved(policy.lm, 0.2)
    whole = kl(data).full_kl
    with torch.no_grad():
        assert torch.allclose(whole[data.response_mask], by_hand(policy.lm, start, data, 1.0), atol=1e-5)
    monkeypatch.setattr(exact_kl, "CHUNK", 4 * policy.head.vocabulary)
    assert torch.allclose(kl(data).full_kl, whole, atol=1e-6), "by chunks of two tokens"
