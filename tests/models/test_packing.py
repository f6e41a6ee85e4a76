"""Packed forward passes: the same states and gradients as padded rows, from fewer tokens."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

from plaudit.models.forward.packing import can_pack, fits_window, pack
from plaudit.models.forward.trunk import body, hidden_states, packs, silence_dropout

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = {**SIZE, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": LlamaConfig(**ROTARY),
    "qwen2": Qwen2Config(**{k: v for k, v in ROTARY.items() if k != "head_dim"}),
    "qwen3": Qwen3Config(**ROTARY),
    "gemma": GemmaConfig(**ROTARY),
}


@pytest.fixture(params=CONFIGS)
def lm(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param])
    silence_dropout(model)
    return model


def rows(*lengths_and_heads):
    """Rows padded on the right; each is (tokens of its group's prompt, group, further tokens)."""
    generator = torch.Generator().manual_seed(1)
    prompts = {}
    made = []
    for prompt, group, more in lengths_and_heads:
        prompts.setdefault(group, torch.randint(0, 50, (prompt,), generator=generator))
        made.append(torch.cat([prompts[group], torch.randint(0, 50, (more,), generator=generator)]))
    width = max(map(len, made))
    tokens = torch.zeros(len(made), width, dtype=torch.int64)
    mask = torch.zeros(len(made), width, dtype=torch.bool)
    for row, each in enumerate(made):
        tokens[row, : len(each)], mask[row, : len(each)] = each, True
    return tokens, mask


GROUPS = ((7, "a", 3), (7, "a", 9), (7, "a", 1), (2, "b", 4), (2, "b", 4), (12, "c", 2))


def test_states_and_gradients_equal_the_padded_path(lm):
    trunk, (tokens, mask) = body(lm), rows(*GROUPS)
    assert can_pack(trunk)
    direction = torch.randn(tokens.shape + (32,), generator=torch.Generator().manual_seed(2))

    def run(packing):
        states = hidden_states(trunk, tokens, mask, packing=packing)
        (states * direction)[mask].sum().backward()
        grads = {name: p.grad.clone() for name, p in trunk.named_parameters() if p.grad is not None}
        trunk.zero_grad(set_to_none=True)
        return states.detach()[mask], grads

    (padded, wanted), (packed, found) = run(False), run(True)
    assert torch.allclose(packed, padded, rtol=1e-5, atol=1e-5)
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=2e-5 * max(scale, 1.0)), name


def test_shared_prompts_are_computed_once():
    tokens, mask = rows(*GROUPS)
    packing = pack(tokens, mask)
    assert mask.sum() == 10 + 16 + 8 + 6 + 6 + 14
    # Responses that begin alike by chance would share as well, so at most the prompts plus all responses.
    assert len(packing.tokens) <= 7 + 13 + 2 + 8 + 12 + 2
    assert torch.equal(packing.tokens[packing.place][mask], tokens[mask])
    assert torch.equal(tokens.flatten()[packing.first], packing.tokens)
    assert torch.equal(
        packing.positions[packing.place][mask], torch.arange(tokens.shape[1]).expand_as(tokens)[mask]
    )


def test_a_row_equal_to_the_one_before_adds_nothing(lm):
    tokens, mask = (
        torch.tensor([[3, 4, 5], [3, 4, 5], [3, 4, 0]]),
        torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]]) == 1,
    )
    assert len(pack(tokens, mask).tokens) == 3
    states = hidden_states(body(lm), tokens, mask, packing=True)
    assert torch.equal(states[0], states[1]) and torch.equal(states[0, :2], states[2, :2])


def test_nothing_to_gain_is_not_packed():
    tokens = torch.arange(40).view(2, 20)
    assert pack(tokens, torch.ones_like(tokens, dtype=torch.bool)) is None


def test_left_padding_is_run_padded_and_right(lm):
    tokens, mask = rows((4, "a", 3), (2, "b", 1))
    left, left_mask = tokens.clone(), mask.clone()
    left[1], left_mask[1] = tokens[1].roll(4), mask[1].roll(4)
    right = hidden_states(body(lm), tokens, mask, packing=True)
    found = hidden_states(body(lm), left, left_mask, packing=True)
    assert torch.allclose(found[1, 4:], right[1, :3], atol=1e-5)


def test_a_sliding_window_narrower_than_the_rows_is_respected():
    config = Qwen2Config(**{k: v for k, v in ROTARY.items() if k != "head_dim"}, sliding_window=4)
    trunk = AutoModelForCausalLM.from_config(config).eval().model
    trunk.config.sliding_window = 4
    assert fits_window(trunk, 4) and not fits_window(trunk, 5)


def test_gradient_checkpointing_is_not_packed(lm):
    assert packs(body(lm))
    lm.gradient_checkpointing_enable()
    assert not packs(body(lm))


def test_eager_attention_is_left_alone(lm):
    trunk = body(lm)
    trunk.config._attn_implementation = "eager"
    assert not can_pack(trunk)
