"""Tiny random models with fairly sharp distributions, and prompts of different lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, Qwen3Config

from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt, Rollout
from plaudit.runtime import TokenPrompt

WORDS = [f"w{i}" for i in range(90)]
ARCHITECTURES = ("gpt2", "llama", "qwen2")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are faster on one thread, and much faster where others want the cores as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer([" ".join(WORDS)], 110, chat=False)


@pytest.fixture(scope="session")
def models(tokenizer: Any) -> dict[str, Any]:
    """Shared by all tests: do not change them."""
    made = {
        kind: tiny_lm(kind, tokenizer, hidden=32, layers=2, seed=1, scale=0.12)  # type: ignore[arg-type]
        for kind in ARCHITECTURES
    }
    small: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "initializer_range": 0.12,
    }
    for kind, config in (("qwen3", Qwen3Config(**small)), ("gemma", GemmaConfig(**small))):
        torch.manual_seed(1)
        made[kind] = AutoModelForCausalLM.from_config(config).eval()
    return made


def make_prompts(count: int = 6, seed: int = 0) -> list[TokenPrompt]:
    """Prompts of 1 to 12 tokens."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 13, (count,), generator=draw).tolist()
    rows = [torch.randint(4, 90, (n,), generator=draw).tolist() for n in lengths]
    return [TokenPrompt(Prompt(f"p{i}", f"text {i}"), tuple(row)) for i, row in enumerate(rows)]


@torch.no_grad()
def full_forward(lm: Any, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs [T, V] for each response position, from one plain forward pass over one row."""
    ids = torch.tensor([rollout.prompt_ids + rollout.response_ids])
    logits = lm(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1)


@pytest.fixture(scope="session")
def prompts() -> Any:
    return make_prompts


@pytest.fixture(scope="session")
def recompute() -> Any:
    return full_forward
