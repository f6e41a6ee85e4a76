"""The same tiny model and the same rows: ours padded on the right, TRL with the prompt on the left of the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from plaudit.experience import Experience
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"
LIMIT = 8
"""Tokens that a response may have."""


@dataclass(frozen=True)
class Rows:
    """Prompts and responses of different lengths, as token ids."""

    prompts: list[list[int]]
    responses: list[list[int]]

    def experience(self) -> Experience:
        """Rows padded on the right."""
        texts = [p + r for p, r in zip(self.prompts, self.responses, strict=True)]
        width = max(map(len, texts))
        tokens = torch.tensor([t + [0] * (width - len(t)) for t in texts])
        places, lengths = torch.arange(width), torch.tensor([len(t) for t in texts])[:, None]
        starts = torch.tensor([len(p) for p in self.prompts])[:, None]
        real = places < lengths
        return Experience(
            tokens, real, real & (places >= starts), length_limits=torch.full((len(texts),), LIMIT)
        )

    def theirs(self) -> dict[str, Tensor]:
        """TRL's layout."""
        left, right = max(map(len, self.prompts)), max(map(len, self.responses))
        return {
            "prompt_ids": torch.tensor([[0] * (left - len(p)) + p for p in self.prompts]),
            "prompt_mask": torch.tensor([[0] * (left - len(p)) + [1] * len(p) for p in self.prompts]),
            "completion_ids": torch.tensor([r + [0] * (right - len(r)) for r in self.responses]),
            "completion_mask": torch.tensor([[1] * len(r) + [0] * (right - len(r)) for r in self.responses]),
        }

    def in_their_places(self, x: Tensor) -> Tensor:
        """``[B, T]`` of ours, about the response tokens, as TRL's ``[B, R]``."""
        mask, width = self.experience().response_mask, max(map(len, self.responses))
        rows = [x[b][mask[b]] for b in range(len(x))]
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])


@pytest.fixture(scope="session")
def rows() -> Rows:
    draw = torch.Generator().manual_seed(0)

    def words(count: int) -> list[int]:
        return torch.randint(8, 24, (count,), generator=draw).tolist()

    prompts = [[2, *words(n)] for n in (4, 2, 5, 3)]
    return Rows(prompts, [[*words(n), 3] for n in (5, 1, 3, 7)])


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer([WORDS, WORDS.replace("cat", "fox")], 64)


@pytest.fixture
def lm(tokenizer: Any) -> Any:
    return tiny_lm("llama", tokenizer, hidden=32, layers=2, scale=0.2)


@pytest.fixture
def policy(lm: Any) -> Policy:
    return Policy(lm)


@pytest.fixture
def gradients(lm: Any) -> Any:
    """The gradients of a loss with respect to every weight of the model, by name; they are cleared."""

    def of(loss: Tensor) -> dict[str, Tensor]:
        loss.backward()
        found = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
        lm.zero_grad(set_to_none=True)
        return found

    return of


@pytest.fixture(scope="session")
def agree() -> Any:
    """Two sets of gradients are the same to 1e-5, and there is something to compare."""

    def check(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
        assert ours.keys() == theirs.keys() and max(float(g.abs().max()) for g in theirs.values()) > 1e-3
        for name in theirs:
            assert torch.allclose(ours[name], theirs[name], atol=1e-5, rtol=1e-4), name

    return check
