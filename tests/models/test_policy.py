"""Log-probs, entropies and gradients against plain transformers; reference; dropout; recomputation."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
)
from transformers import GraniteForCausalLM as Granite

from plaudit.errors import ModelError
from plaudit.models.forward import head
from plaudit.models.forward.head import TokenLogprobs
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.tiny import tiny_lm

SCALE = 0.2
SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}


def plain_laws(lm, data, temperature):
    """log-softmax of every position by the model's own forward; ``[B, T-1, V]`` about tokens 1, 2 ..."""
    logits = lm(input_ids=data.tokens, attention_mask=data.attention_mask).logits
    return (logits.float() / temperature).log_softmax(-1)[:, :-1]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equal_to_plain_transformers_with_gradients(decoder, tokenizer, rows, batch, temperature):
    lm, data = tiny_lm(decoder, tokenizer, hidden=32, layers=2, scale=SCALE), batch(rows())
    mask = data.response_mask[:, 1:]
    laws = plain_laws(lm, data, temperature)
    expected = laws.gather(-1, data.tokens[:, 1:, None]).squeeze(-1)[mask]
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
    lm.zero_grad(set_to_none=True)

    out = Policy(lm, temperature=temperature)(data)
    assert out.logprobs.dtype == out.entropy.dtype == torch.float32
    assert torch.allclose(out.logprobs[data.response_mask], expected, atol=1e-5)
    assert torch.allclose(out.entropy[data.response_mask], -(laws.exp() * laws).sum(-1)[mask], atol=1e-5)
    assert not out.logprobs[~data.response_mask].any()
    assert not out.entropy.requires_grad
    out.logprobs.sum().backward()
    for name, p in lm.named_parameters():
        if name in gradients:
            assert torch.allclose(p.grad, gradients[name], atol=1e-4, rtol=1e-4), name


def test_more_positions_than_fit_at_once_are_chunked(tokenizer, rows, batch, monkeypatch):
    lm, data = tiny_lm("llama", tokenizer, hidden=32, layers=1, scale=SCALE), batch(rows())
    policy = Policy(lm, entropy_grad=True)

    def run():
        lm.zero_grad(set_to_none=True)
        out = policy(data)
        (out.logprobs.sum() + out.entropy.sum()).backward()
        return out, lm.model.embed_tokens.weight.grad.clone()

    whole, gradient = run()
    monkeypatch.setattr(head, "CHUNK", 4 * len(tokenizer))
    chunked, again = run()
    assert torch.allclose(whole.logprobs, chunked.logprobs, atol=1e-6)
    assert torch.allclose(whole.entropy, chunked.entropy, atol=1e-6)
    assert torch.allclose(gradient, again, atol=1e-5)


def test_token_law_gradients_by_finite_differences():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, generator=draw, requires_grad=True)
    tokens = torch.tensor([0, 3, 5, 2])
    assert torch.autograd.gradcheck(lambda z: TokenLogprobs.apply(z, tokens, True), (logits,))
    assert torch.autograd.gradcheck(lambda z: TokenLogprobs.apply(z, tokens, False)[0], (logits,))


def test_token_law_is_exact_for_extreme_logits():
    logits = torch.tensor([[1e4, 0.0, -1e4], [-200.0, -201.0, -300.0]])
    logprobs, entropy = TokenLogprobs.apply(logits, torch.tensor([0, 1]), False)
    expected = logits.double().log_softmax(-1)
    assert logprobs.tolist() == pytest.approx([0.0, expected[1, 1].item()], abs=1e-6)
    assert entropy[0].item() == 0.0


def test_a_token_that_is_ruled_out_gives_no_nan():
    logits = torch.tensor([[0.0, 1.0986123, -torch.inf], [0.0, 0.0, 0.0]], requires_grad=True)
    logprobs, entropy = TokenLogprobs.apply(logits, torch.tensor([1, 2]), True)
    assert logprobs.tolist() == pytest.approx([-0.287682, -1.098612], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.562335, 1.098612], abs=1e-6)
    (logprobs.sum() + entropy.sum()).backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 2] == 0
    slope = 0.25 * (1.386294 - 0.562335)
    assert logits.grad[0, :2].tolist() == pytest.approx([-0.25 + slope, 0.25 - slope], abs=1e-5)
    assert TokenLogprobs.apply(logits.detach(), torch.tensor([1, 2]), False)[1].isfinite().all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=5.0)),
        lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3)),
        lambda: Granite(GraniteConfig(**SMALL, logits_scaling=4.0)),
    ],
    ids=["softcap", "multiplied", "divided"],
)
@torch.no_grad()
def test_what_an_architecture_does_after_its_head_is_done_here_too(build, rows, batch):
    torch.manual_seed(0)
    lm, data = build().eval(), batch(rows())
    out = Policy(lm, temperature=0.5)(data)
    expected = plain_laws(lm, data, 0.5).gather(-1, data.tokens[:, 1:, None]).squeeze(-1)
    assert torch.allclose(out.logprobs[:, 1:], expected * data.response_mask[:, 1:], atol=1e-5)


@torch.no_grad()
def test_an_unknown_scale_after_the_head_is_taken_from_the_model_itself(tokenizer, rows, batch):
    lm, data = tiny_lm("llama", tokenizer, hidden=32, layers=1, scale=SCALE), batch(rows())
    assert Policy(lm).notes == ()
    forward = lm.forward

    def scaled(**inputs):
        out = forward(**inputs)
        out.logits = 2 * out.logits
        return out

    lm.forward = scaled
    policy = Policy(lm)
    assert "own logits" in policy.notes[0]
    expected = plain_laws(lm, data, 1.0).gather(-1, data.tokens[:, 1:, None]).squeeze(-1)
    assert torch.allclose(policy(data).logprobs[:, 1:], expected * data.response_mask[:, 1:], atol=1e-5)


def test_an_encoder_is_no_policy(tokenizer):
    from transformers import RobertaForCausalLM

    from plaudit.models.tiny import tiny_config

    with pytest.raises(ModelError, match="encoder"):
        Policy(RobertaForCausalLM(tiny_config("roberta", tokenizer, hidden=32, layers=1)))


@torch.no_grad()
def test_log_probs_are_fp32_under_bf16_autocast(tokenizer, rows, batch):
    policy, data = Policy(tiny_lm("llama", tokenizer, hidden=32, layers=1)), batch(rows())
    with torch.autocast("cpu", torch.bfloat16):
        out = policy(data)
    assert out.logprobs.dtype == torch.float32
    logprobs = out.logprobs[data.response_mask]
    assert not torch.equal(logprobs, logprobs.bfloat16().float())
    assert torch.allclose(logprobs, policy(data).logprobs[data.response_mask], atol=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_off_in_training_while_gradients_flow(tokenizer, rows, batch, checkpointing):
    lm = tiny_lm("gpt2", tokenizer, hidden=32, layers=2, scale=SCALE).train()
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in lm.modules())
    policy, data = Policy(lm, gradient_checkpointing=checkpointing).train(), batch(rows())
    first, second = policy(data).logprobs, policy(data).logprobs
    assert torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is not None for p in lm.parameters())
    assert lm.config.resid_pdrop > 0, "the saved model keeps the dropout it came with"


def test_recomputation_changes_no_gradient_and_leaves_generation_its_cache(decoder, tokenizer, rows, batch):
    data, gradients = batch(rows()), []
    for checkpointing in (False, True):
        lm = tiny_lm(decoder, tokenizer, hidden=32, layers=2, scale=SCALE)
        policy = Policy(lm, gradient_checkpointing=checkpointing)
        calls = count_calls(lm.base_model)
        policy(data).logprobs.sum().backward()
        gradients.append(lm.get_input_embeddings().weight.grad)
        assert max(calls.values()) == (2 if checkpointing else 1), "layers run again in the backward pass"
        assert not any(m.training for m in lm.modules())
        with torch.no_grad():
            assert lm(input_ids=data.tokens, use_cache=True).past_key_values.get_seq_length() > 0
    assert torch.allclose(*gradients, atol=1e-5)


def count_calls(trunk):
    """How often each MLP runs from now on."""
    calls: dict[str, int] = {}
    for name, module in trunk.named_modules():
        if name.endswith("mlp"):
            module.register_forward_pre_hook(
                lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1})
            )
    return calls


def test_reference_stays_where_the_policy_started(decoder, tokenizer, rows, batch):
    lm, data = tiny_lm(decoder, tokenizer, hidden=32, layers=1, scale=SCALE), batch(rows())
    policy = Policy(lm)
    reference = ReferencePolicy(policy)
    start = policy(data).logprobs.detach()
    assert torch.equal(reference(data).logprobs, start)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05)
    assert not torch.allclose(policy(data).logprobs, start, atol=1e-3)
    assert torch.equal(reference(data).logprobs, start)
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(p.requires_grad for p in policy.parameters())


def test_padding_gives_no_advice_about_attention_masks(monkeypatch):
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("transformers.modeling_utils")
    monkeypatch.setattr(logger, "handlers", [handler])
    logger.warning_once.cache_clear()
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    tokens = torch.zeros(1, 3, dtype=torch.long)
    lm.transformer.warn_if_padding_and_no_attention_mask(tokens, None)
    logger.warning("something else")
    assert heard == ["something else"]
