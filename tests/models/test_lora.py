"""Adapters: which layers get one, what is trained, merging, and what is refused."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from plaudit.config.sections import LoraSection
from plaudit.errors import ConfigError, ModelError
from plaudit.models import lora
from plaudit.models.critic import Critic
from plaudit.models.files.load import load_causal_lm
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.forward.trunk import is_4bit
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_classifier, tiny_lm, tiny_tokenizer

LORA = LoraSection(rank=8, alpha=16)
LEAVES = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "roberta": {"query", "key", "value", "dense"},
}


def adapted(model) -> set[str]:
    """Full names of the layers that have an adapter."""
    return {name.rpartition(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}


@pytest.mark.parametrize("kind", LEAVES)
def test_targets_and_what_is_trained(kind, tokenizer):
    task = "scalar" if kind == "roberta" else "causal"
    build = tiny_classifier if kind == "roberta" else tiny_lm
    model = add_lora(build(kind, tokenizer, hidden=32, layers=2), LORA, task=task)
    names = adapted(model)
    assert {name.rpartition(".")[2] for name in names} == LEAVES[kind]
    layers = [m for m in lora.linear_layers(model) if ".base_layer" in m]
    assert len(names) == len(layers)
    assert not [n for n in names if "pooler" in n or "classifier" in n or "lm_head" in n]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or (task == "scalar" and "classifier" in name) for name in trained)
    ranks = {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name}
    assert ranks == {8}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "roberta"])
def test_the_scalar_head_is_trained_in_full(kind, tokenizer):
    model = add_lora(tiny_classifier(kind, tokenizer), LORA, task="scalar")
    head = {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert head
    assert all("score" in n or "classifier" in n for n in head)


def test_seed_decides_the_adapters_and_leaves_the_global_random_state(tokenizer):
    state = torch.get_rng_state()
    first, again, other = (
        add_lora(tiny_lm("llama", tokenizer, hidden=32, layers=1), LORA, task="causal", seed=s)
        for s in (0, 0, 1)
    )
    weights = [next(p for n, p in m.named_parameters() if "lora_A" in n) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_merged_policy_is_the_same_policy(decoder, tokenizer, rows, batch, tmp_path):
    lm = tiny_lm(decoder, tokenizer, hidden=32, layers=2, scale=0.2)
    policy, data = Policy(add_lora(lm, LORA, task="causal")), batch(rows())
    start = policy(data).logprobs.detach()
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    expected = policy(data).logprobs.detach()
    assert not torch.allclose(expected, start, atol=1e-2)
    policy.save(tmp_path, tokenizer)
    assert torch.equal(policy(data).logprobs, expected), "saving leaves the adapters as they were"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(Policy(loaded)(data).logprobs, expected, atol=1e-5)
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id
    assert not (tmp_path / "adapter_config.json").exists()


def test_given_targets(tokenizer):
    section = LoraSection(rank=2, targets=("q_proj", "v_proj"))
    model = add_lora(tiny_lm("llama", tokenizer, hidden=32, layers=1), section, task="causal")
    assert {name.rpartition(".")[2] for name in adapted(model)} == {"q_proj", "v_proj"}


def test_a_target_the_model_does_not_have(tokenizer):
    section = LoraSection(rank=2, targets=("q_porj",))
    with pytest.raises(ConfigError, match="q_porj") as caught:
        add_lora(tiny_lm("llama", tokenizer, hidden=32, layers=1), section, task="causal")
    assert "did you mean 'q_proj'" in caught.value.cure
    assert "down_proj" in caught.value.cure


def test_rank_0_is_the_model_itself(tokenizer):
    lm = tiny_lm("llama", tokenizer, hidden=32, layers=1)
    assert add_lora(lm, LoraSection(), task="causal") is lm


def test_unknown_architectures_fall_back_to_their_linear_layers(tokenizer, monkeypatch):
    monkeypatch.delitem(lora.TARGETS, "gpt2")
    model = add_lora(tiny_lm("gpt2", tokenizer, hidden=32, layers=1), LORA, task="causal")
    assert {name.rpartition(".")[2] for name in adapted(model)} == LEAVES["gpt2"]


def test_4bit_is_refused_with_the_cure_where_it_cannot_be(tokenizer, monkeypatch):
    with pytest.raises(ConfigError, match="without adapters"):
        add_lora(
            tiny_lm("llama", tokenizer, hidden=32, layers=1), LoraSection(quantize="4bit"), task="causal"
        )
    section = LoraSection(rank=8, quantize="4bit")
    with pytest.raises(ModelError, match="not loaded in 4 bit"):
        add_lora(tiny_lm("llama", tokenizer, hidden=32, layers=1), section, task="causal")
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="bitsandbytes") as caught:
        lora.quantization_options()
    assert "plaudit[qlora]" in caught.value.cure


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs `pip install 'plaudit[qlora]'`")
@pytest.mark.filterwarnings("ignore")
def test_4bit_base_with_adapters_is_saved_in_full_precision(tokenizer, rows, batch, tmp_path):
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=64, layers=2, scale=0.1), tmp_path / "base", tokenizer)
    lm = load_causal_lm(tmp_path / "base", **lora.quantization_options())
    assert is_4bit(lm)
    section, data = LoraSection(rank=4, quantize="4bit"), batch(rows())
    policy = Policy(add_lora(lm, section, task="causal"))
    policy(data).logprobs.sum().backward()
    with torch.no_grad():
        for p in (p for p in policy.parameters() if p.requires_grad):
            p.add_(p.grad.sign(), alpha=0.05)
    expected = policy(data).logprobs.detach()
    critic = Critic.from_policy(policy.lm, section)
    assert is_4bit(critic)
    assert not critic(data).values.any()
    assert not is_4bit(Critic.from_policy(policy.lm))
    policy.save(tmp_path / "merged", tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not is_4bit(loaded)
    assert torch.allclose(Policy(loaded)(data).logprobs, expected, atol=1e-4)


def test_adapters_in_the_last_layers_only():
    tokenizer = tiny_tokenizer(["a b c"])
    section = LoraSection(rank=2, last_layers=1)
    model = add_lora(tiny_lm("llama", tokenizer, hidden=16, layers=3), section, task="causal")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    adapted = {name.split("layers.")[1].split(".")[0] for name in trained}
    assert adapted == {"2"}
    trunk = Critic.from_policy(tiny_lm("llama", tokenizer, hidden=16, layers=3), section)
    trained = [name for name, p in trunk.named_parameters() if p.requires_grad and "lora" in name]
    assert {name.split("layers.")[1][0] for name in trained} == {"2"}
    with pytest.raises(ConfigError, match="3 layers"):
        add_lora(tiny_lm("llama", tokenizer, hidden=16, layers=3), LoraSection(rank=2, last_layers=4), task="causal")
