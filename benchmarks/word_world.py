"""A world of 121 words that can be summed over: what the curves of the methods are drawn in.

A response is a word of up to four letters a, b, c, ended by a full stop, or cut after the fourth letter. The reward is
the number of places where it has the letter of "cab." (the full stop counts), and one more for the whole of it. Policy
and critic are tables with a row for each of the 40 beginnings; the reference is a table of random logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.experience import Experience, Outputs
from plaudit.generation.sampling import sample_seed, uniform
from plaudit.records import FinishReason, Prompt, RewardResult, Rollout
from plaudit.runtime import TokenPrompt

LETTERS, END, PAD, PROMPT = "abc.", 3, 4, 5
LENGTH, TARGET = 4, "cab."
OFFSETS = (0, 1, 4, 13)  # row of the first beginning with so many letters
ROWS = 40
BETA = 0.5
"""Nats to reward, wherever a method has a weight of the KL."""


def words() -> list[tuple[int, ...]]:
    """All responses, as token ids."""
    ended = [(*w, END) for n in range(LENGTH) for w in product(range(END), repeat=n)]
    return ended + list(product(range(END), repeat=LENGTH))


def spelt(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids)


def worth(word: str) -> float:
    """The reward of a response."""
    return sum(a == b for a, b in zip(word, TARGET, strict=False)) + float(word == TARGET)


def batch_of(responses: Sequence[Sequence[int]], **fields: Any) -> Experience:
    """Rows of one prompt token and a response."""
    tokens = torch.full((len(responses), LENGTH + 1), PAD)
    tokens[:, 0] = PROMPT
    for row, ids in zip(tokens, responses, strict=True):
        row[1 : len(ids) + 1] = torch.tensor(ids)
    real = tokens != PAD  # no response has the token of the padding in it
    mask = real.clone()
    mask[:, 0] = False
    return Experience(tokens, real, mask, **fields)


class Table(nn.Module):
    """Policy and critic: a row of logits and a value for each beginning."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())
        self.value = nn.Parameter(torch.zeros(ROWS))

    def forward(self, batch: Any) -> Outputs:
        mask, places = batch.response_mask, beginnings(batch.tokens)
        logp = self.logits.log_softmax(-1)
        own = logp[places].gather(-1, batch.tokens.clamp(max=END)[..., None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return Outputs(
            logprobs=torch.where(mask, own, 0.0), entropy=torch.where(mask, entropy[places], 0.0),
            values=torch.where(mask, self.value[places], 0.0),
        )  # fmt: skip


def beginnings(tokens: Tensor) -> Tensor:
    """``[B, T]``: the row of the table that each token was drawn from."""
    places = torch.zeros_like(tokens)
    code = torch.zeros_like(tokens[:, 0])
    for t in range(1, tokens.shape[1]):
        places[:, t] = OFFSETS[t - 1] + code
        code = 3 * code + tokens[:, t].clamp(max=END - 1)
    return places.clamp(max=ROWS - 1)


WORDS = words()
ALL = batch_of(WORDS)
REWARDS = torch.tensor([worth(spelt(w)) for w in WORDS])
START = 0.5 * torch.randn(ROWS, len(LETTERS), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def law(table: Table) -> Tensor:
    """Probability of every word."""
    logprobs = table(ALL).logprobs
    assert logprobs is not None
    return logprobs.double().sum(-1).exp()


REFERENCE = law(Table(START))
_TILTED = REFERENCE * (REWARDS.double() / BETA).exp()
OPTIMUM = _TILTED / _TILTED.sum()
"""The best policy under the KL penalty, ``ref exp(r / beta)`` normalised."""
BEST_VALUE = BETA * math.log(float(_TILTED.sum()))
"""What it is worth: ``beta log sum ref exp(r / beta)``."""


def expected_reward(table: Table) -> float:
    return float((law(table) * REWARDS).sum())


def regularised(table: Table) -> float:
    """Expected reward less BETA times the KL to the reference: exact."""
    p = law(table)
    return float((p * (REWARDS - BETA * (p / REFERENCE).log())).sum())


def word_prompt(index: int, token: int = PROMPT) -> TokenPrompt:
    """One of many prompts that all ask for the same."""
    return TokenPrompt(Prompt(f"p{index}", "a word"), (token,))


class Writer:
    """Samples words from the living table with the engine's counter-based numbers."""

    def __init__(self, table: Table) -> None:
        self.table, self.version = table, 0

    def publish(self, weights: Any, version: int) -> None:
        """The table is the one that is trained."""
        self.version = version

    @torch.no_grad()
    def generate(self, prompts: Any, n: int, sampling: Any, *, seed: int, iteration: int) -> list[Rollout]:
        logp = self.table.logits.log_softmax(-1)
        asked = [(group, prompt, k) for group, prompt in enumerate(prompts) for k in range(n)]
        seeds = np.array([sample_seed(seed, iteration, p.prompt.id, k) for _, p, k in asked], dtype=np.uint64)
        tokens, own = torch.full((len(asked), LENGTH + 1), PAD), torch.zeros(len(asked), LENGTH)
        running, code = torch.ones(len(asked), dtype=torch.bool), torch.zeros(len(asked), dtype=torch.long)
        for t in range(LENGTH):
            rows = logp[(OFFSETS[t] + code).clamp(max=ROWS - 1)]
            u = torch.from_numpy(uniform(seeds, np.full_like(seeds, t + 1))).float()[:, None]
            drawn = torch.searchsorted(rows.exp().cumsum(-1), u).clamp(max=END).squeeze(-1)
            drawn = rows.argmax(-1) if sampling.top_k == 1 else drawn
            own[:, t] = rows.gather(-1, drawn[:, None]).squeeze(-1)
            tokens[:, t + 1] = torch.where(running, drawn, PAD)
            code = 3 * code + drawn.clamp(max=END - 1)
            running &= drawn != END
        result = []
        for ids, values, (group, prompt, _) in zip(tokens[:, 1:].tolist(), own.tolist(), asked, strict=True):
            n = LENGTH - ids.count(PAD)
            finish: FinishReason = "stop" if ids[n - 1] == END else "length"
            result.append(
                Rollout.single(
                    prompt.prompt,
                    group,
                    prompt.ids,
                    tuple(ids[:n]),
                    tuple(values[:n]),
                    spelt(ids[:n]),
                    finish,
                )
            )
        return [replace(rollout, policy_version=self.version) for rollout in result]


def reward(rollouts: Sequence[Rollout]) -> list[RewardResult]:
    return [RewardResult(worth(r.response)) for r in rollouts]
