"""Rows to batches: right-padded tensors. Masks come from lengths, never from the padding token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plaudit.data.chat import Encoded
from plaudit.experience import Experience, Pairs, Rankings
from plaudit.records import Rollout


def collate_demonstrations(rows: Sequence[Encoded], pad_id: int) -> Experience:
    """Demonstrations as a batch; ``response_mask`` is the mask of the rows."""
    tokens, attention_mask, response_mask = _padded(rows, pad_id)
    return Experience(tokens, attention_mask, response_mask)


def collate_ratings(rows: Sequence[Encoded], rewards: Sequence[float], pad_id: int) -> Experience:
    """Rated responses as a batch with ``rewards`` [B] float32."""
    batch = collate_demonstrations(rows, pad_id)
    return batch.replace(rewards=_numbers(rewards, len(rows)))


def collate_pairs(
    chosen: Sequence[Encoded],
    rejected: Sequence[Encoded],
    margins: Sequence[float | None],
    targets: Sequence[float],
    pad_id: int,
) -> Pairs:
    """Pairs as a batch with rows chosen, rejected, chosen, rejected ...

    Args:
        chosen: P rows.
        rejected: P rows.
        margins: P numbers, how much better chosen is; ``None`` (unknown) becomes 0.
        targets: P probabilities that chosen is better.
        pad_id: token of the padding.
    """
    rows = [row for pair in zip(chosen, rejected, strict=True) for row in pair]
    tokens, attention_mask, response_mask = _padded(rows, pad_id)
    known = [0.0 if margin is None else margin for margin in margins]
    return Pairs(
        tokens, attention_mask, response_mask, _numbers(known, len(chosen)), _numbers(targets, len(chosen))
    )


def collate_rankings(
    units: Sequence[Sequence[Encoded]], ranks: Sequence[Sequence[float]], pad_id: int
) -> Rankings:
    """Ranked responses as a batch: all responses to a prompt, prompt by prompt.

    Args:
        units: N prompts, each with its encoded responses.
        ranks: their ranks, 1 the best.
        pad_id: token of the padding.
    """
    rows = [row for unit in units for row in unit]
    tokens, attention_mask, response_mask = _padded(rows, pad_id)
    sizes = torch.tensor([len(unit) for unit in units], dtype=torch.int64)
    flat = [float(rank) for unit_ranks in ranks for rank in unit_ranks]
    return Rankings(tokens, attention_mask, response_mask, _numbers(flat, len(rows)), sizes)


def collate_rollouts(rollouts: Sequence[Rollout], pad_id: int) -> Experience:
    """Rollouts as a batch with group ids, rewards (NaN: not scored), truncation, log-probs as sampled.

    ``response_mask`` is True on what the policy sampled, in whichever turn: what an environment wrote between is read,
    and neither trained on nor counted. ``truncated`` says that a limit ended the rollout, of tokens or of turns.
    """
    tokens, attention_mask, response_mask = _padded([encoded_rollout(r) for r in rollouts], pad_id)
    sampled = torch.zeros(tokens.shape, dtype=torch.float32)
    for row, rollout in zip(sampled, rollouts, strict=True):
        assert len(rollout.logprobs) == len(rollout.response_ids), "one log-prob per sampled token"
        row[_columns(rollout)] = torch.tensor(rollout.logprobs, dtype=torch.float32)
    rewards = [float("nan") if r.reward is None else r.reward for r in rollouts]
    return Experience(
        tokens,
        attention_mask,
        response_mask,
        group_ids=torch.tensor([r.group_id for r in rollouts], dtype=torch.int64),
        rewards=_numbers(rewards, len(rollouts)),
        truncated=torch.tensor([r.finish_reason == "length" for r in rollouts], dtype=torch.bool),
        sampled_logprobs=sampled,
    )


def encoded_rollout(rollout: Rollout) -> Encoded:
    """The row of a rollout token for token as the policy saw it, masked True where it was the policy that wrote."""
    return Encoded(list(rollout.tokens), list(rollout.sampled), len(rollout.prompt_ids))


def _columns(rollout: Rollout) -> list[int]:
    """Where the sampled tokens stand in the row."""
    return [column for turn in rollout.policy_turns for column in range(turn.start, turn.end)]


def _padded(rows: Sequence[Encoded], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B, T] int64, attention mask and response mask [B, T] bool.

    Column 0 has nothing before it: masked.
    """
    shape = (len(rows), max((len(row) for row in rows), default=0))
    tokens = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.bool)
    response_mask = torch.zeros(shape, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row.ids, dtype=torch.int64)
        attention_mask[index, : len(row)] = True
        response_mask[index, : len(row)] = torch.tensor(row.mask, dtype=torch.bool)
    response_mask[:, :1] = False
    return tokens, attention_mask, response_mask


def _numbers(values: Sequence[float], length: int) -> Tensor:
    assert len(values) == length, "one number per unit"
    return torch.tensor(values, dtype=torch.float32)
