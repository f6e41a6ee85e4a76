"""Small random models of four architectures, and ways to pad the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from plaudit.experience import Experience
from plaudit.models.tiny import tiny_tokenizer

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)


def make_rows(
    seed: int = 0, lengths: Sequence[int] = (11, 5, 8), low: int = 8, high: int = 24
) -> list[list[int]]:
    """Token rows that start with BOS (2) and end with EOS (3)."""
    draw = torch.Generator().manual_seed(seed)
    inner = [torch.randint(low, high, (n - 2,), generator=draw).tolist() for n in lengths]
    return [[2, *ids, 3] for ids in inner]


def make_batch(
    texts: Sequence[Sequence[int]], pad: int = 0, *, left: bool = False, extra: int = 0, prompt: int = 3
) -> Experience:
    """Rows as a batch; the first ``prompt`` tokens are the prompt. ``left``: padded on the left."""
    width = max(map(len, texts)) + extra
    tokens = torch.full((len(texts), width), pad)
    attention = torch.zeros(len(texts), width, dtype=torch.bool)
    response = attention.clone()
    for b, ids in enumerate(texts):
        start = width - len(ids) if left else 0
        tokens[b, start : start + len(ids)] = torch.tensor(ids)
        attention[b, start : start + len(ids)] = True
        response[b, start + prompt : start + len(ids)] = True
    return Experience(tokens, attention, response)


def split_rows(values: torch.Tensor, of: Experience) -> list[torch.Tensor]:
    """The values of response tokens, row by row, wherever they stand."""
    return [v[m] for v, m in zip(values, of.response_mask, strict=True)]


@pytest.fixture(params=["llama", "gpt2", "qwen2"])
def decoder(request) -> str:
    """The architecture of a causal language model."""
    return request.param


@pytest.fixture(scope="session")
def rows():
    return make_rows


@pytest.fixture(scope="session")
def batch():
    return make_batch


@pytest.fixture(scope="session")
def per_row():
    return split_rows
