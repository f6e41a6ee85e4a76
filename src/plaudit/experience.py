"""The batches that models and algorithms read: frozen tensors whose ``[B, T]`` columns line up with ``tokens``.

``x[b, t]`` is always about ``tokens[b, t]``; so ``logprobs[b, t] = log p(tokens[b, t] | tokens[b, :t])`` and column 0
is always masked. Rows hold prompt then response and are padded on the right. ``True`` in a mask: this position counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


def _select(batch: Batch, rows: Tensor, units: Tensor, width: int) -> dict[str, Any]:
    """Fields for some rows: ``[rows, T]`` fields are trimmed to ``width``, ``[units]`` fields indexed by unit."""
    # Told by shape, so that a new column needs no entry here. Two-dimensional fields are per token, except those
    # declared "kept"; of the others, one with as many entries as rows is per row. Where units are rows both ways
    # agree.
    picked: dict[str, Any] = {}
    for f in fields(batch):
        value = getattr(batch, f.name)
        if value is None:
            picked[f.name] = None
        elif value.dim() == 2 and f.metadata.get("columns") != "kept":
            picked[f.name] = value[rows, :width]
        else:
            picked[f.name] = value[rows] if len(value) == len(batch.tokens) else value[units]
    return picked


@dataclass(frozen=True, slots=True)
class Experience:
    """Rows of prompt and response, one unit a row: rollouts, demonstrations, or rated texts.

    Frozen: each step of an iteration (scoring, credit, weights) makes a new batch with more columns by `replace`.
    """

    # Columns are optional because they come one after the other; an algorithm says in ``needs`` which it reads. A
    # batch is never changed in place, so nothing that keeps one (a cache, a checkpoint, a test) sees it change.

    tokens: Tensor  # [B, T] int64
    attention_mask: Tensor  # [B, T] bool, real token
    response_mask: Tensor  # [B, T] bool, token that is trained on: sampled, end token included
    group_ids: Tensor | None = None  # [B] int64, rollouts of the same prompt share one
    rewards: Tensor | None = None  # [B] one scalar a row; NaN: scoring failed, the row is left out
    truncated: Tensor | None = None  # [B] bool, stopped by the length limit and not by an end token
    length_limits: Tensor | None = None  # [B] int64, longest response that was allowed
    greedy_rewards: Tensor | None = None  # [B] of the greedy response to the same prompt; NaN: failed
    greedy_truncated: Tensor | None = None  # [B] bool, that response was stopped by the length limit
    sampled_logprobs: Tensor | None = None  # [B, T] as recorded by the generator
    old_logprobs: Tensor | None = None  # [B, T] policy at the start of the update
    ref_logprobs: Tensor | None = None  # [B, T] frozen reference
    full_kl: Tensor | None = (
        None  # [B, T] KL(policy || reference) of the next-token distributions, over the vocabulary
    )
    values: Tensor | None = None  # [B, T] critic, before the token is emitted
    last_values: Tensor | None = None  # [B] critic, after the last response token
    token_rewards: Tensor | None = None  # [B, T] reward with its KL part, per token
    advantages: Tensor | None = None  # [B, T]
    returns: Tensor | None = None  # [B, T] critic targets
    mismatch_weights: Tensor | None = None  # [B, T] bounded pi_old / sampler, times the policy loss; None: 1
    entropy_coefs: Tensor | None = None  # [B] weight of the entropy bonus, where it may change sign
    kl_coefs: Tensor | None = None  # [B] weight of the KL in the loss, where it is adaptive
    loss_weights: Tensor | None = None  # [B, T] how the mean over one optimizer step is taken
    token_weights: Tensor | None = None  # [B, T] plain mean over the step's response tokens, for metrics
    mismatched_kl: Tensor | None = None  # [B] KL to the reference on other prompts' responses, of the step
    class_weights: Tensor | None = None  # [B] 1 / rows of the same class in the step, for means by class
    attributes: Tensor | None = field(
        default=None, metadata={"columns": "kept"}
    )  # [B, H] a rating of each quality

    def __len__(self) -> int:
        """Units that must stay whole in a microbatch: rows."""
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[B] real tokens of each row."""
        return self.attention_mask.sum(-1)

    @property
    def best_rows(self) -> Tensor:
        """[B] bool, rows that a kept language model is trained on: all."""
        return torch.ones(len(self), dtype=torch.bool, device=self.tokens.device)

    def rows(self, units: Tensor) -> Tensor:
        """Indices of the rows of some units, in their order."""
        return units

    def replace(self, **changes: Tensor | None) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # only optional columns may be None

    def select(self, rows: Tensor) -> Self:
        """The given rows, with columns that are padding in all of them cut off."""
        return type(self)(**_select(self, rows, rows, int(self.lengths[rows].max())))

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return type(self)(**{f.name: _to(getattr(self, f.name), device) for f in fields(self)})

    def weighted_sum(self, x: Tensor) -> Tensor:
        """Sum of ``x`` [B, T] under ``loss_weights``: a mean over the optimizer step, added up piece by piece."""
        assert self.loss_weights is not None and x.shape == self.loss_weights.shape, (
            "x must be [B, T], weights set"
        )
        # Weights are fixed for the whole step before it is split, so sums of microbatches add up to the sum of the
        # step; a mean in each microbatch would not. `where`, because 0 * NaN of a masked token is NaN.
        return torch.where(self.loss_weights != 0, x * self.loss_weights, 0.0).sum()

    def token_mean(self, x: Tensor) -> Tensor:
        """Mean of ``x`` [B, T] over the step's response tokens, added up piece by piece: for metrics."""
        weights = self.loss_weights if self.token_weights is None else self.token_weights
        assert weights is not None and x.shape == weights.shape, "x must be [B, T], weights set"
        return torch.where(weights != 0, x * weights, 0.0).sum()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of responses to one prompt. Rows are chosen, rejected, chosen, rejected ...: 2P rows, P units."""

    # Chosen and rejected are neighbours, so that a packed forward pass computes their common prompt once.

    tokens: Tensor  # [2P, T] int64
    attention_mask: Tensor  # [2P, T] bool
    response_mask: Tensor  # [2P, T] bool, the tokens in which the two differ in meaning: the responses
    margins: Tensor  # [P] how much better chosen is; 0 where unknown
    targets: Tensor  # [P] probability that chosen is better: 1, annotator agreement, or 0.5 for a tie
    loss_weights: Tensor | None = None  # [P] 1/P over the pairs of one optimizer step
    ref_logprobs: Tensor | None = None  # [2P, T] frozen reference
    heads: Tensor | None = field(
        default=None, metadata={"columns": "kept"}
    )  # [2P, H] the outputs of each head before the step
    length_pulls: Tensor | None = field(
        default=None, metadata={"columns": "kept"}
    )  # [2P, H] gradient by them of what keeps length out of a score

    def __len__(self) -> int:
        """Units that must stay whole in a microbatch: pairs."""
        return self.tokens.shape[0] // 2

    @property
    def lengths(self) -> Tensor:
        """[P] padded tokens of each pair: twice the longer row. Microbatches are filled by this number."""
        return 2 * self.attention_mask.sum(-1).view(-1, 2).amax(-1)

    @property
    def best_rows(self) -> Tensor:
        """[2P] bool, rows that a kept language model is trained on: the chosen ones."""
        return torch.arange(len(self.tokens), device=self.tokens.device) % 2 == 0

    def rows(self, units: Tensor) -> Tensor:
        """Indices of the rows of some pairs, in their order."""
        return torch.stack([2 * units, 2 * units + 1], -1).flatten()

    def replace(self, **changes: Tensor | None) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # only optional columns may be None

    def select(self, units: Tensor) -> Self:
        """The given pairs, with columns that are padding in all of them cut off."""
        rows = self.rows(units)
        return type(self)(**_select(self, rows, units, int(self.attention_mask[rows].sum(-1).max())))

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return type(self)(**{f.name: _to(getattr(self, f.name), device) for f in fields(self)})

    def weighted_sum(self, x: Tensor) -> Tensor:
        """Sum of ``x`` [P] under ``loss_weights``."""
        assert self.loss_weights is not None and x.shape == self.loss_weights.shape, (
            "x must be [P], weights set"
        )
        return (x * self.loss_weights).sum()


@dataclass(frozen=True, slots=True)
class Rankings:
    """Ranked responses, several to a prompt. Rows are ordered by prompt: R rows, N units."""

    tokens: Tensor  # [R, T] int64
    attention_mask: Tensor  # [R, T] bool
    response_mask: Tensor  # [R, T] bool
    ranks: Tensor  # [R] 1 is the best response to its prompt; ties share a rank
    sizes: Tensor  # [N] int64, responses to each prompt; they add up to R
    loss_weights: Tensor | None = None  # [N] how the mean over the prompts of one optimizer step is taken
    heads: Tensor | None = field(
        default=None, metadata={"columns": "kept"}
    )  # [R, H] the outputs of each head before the step
    length_pulls: Tensor | None = field(
        default=None, metadata={"columns": "kept"}
    )  # [R, H] gradient by them of what keeps length out of a score

    def __len__(self) -> int:
        """Units that must stay whole in a microbatch: prompts with all their responses."""
        return len(self.sizes)

    @property
    def groups(self) -> Tensor:
        """[R] int64, the prompt of each row: 0 to N - 1."""
        return torch.arange(len(self), device=self.sizes.device).repeat_interleave(self.sizes)

    @property
    def lengths(self) -> Tensor:
        """[N] longest row of each prompt times the largest number of rows of any: an upper bound of padded tokens."""
        # Microbatches are sized as units times the largest of their lengths. With each prompt's own number of rows that
        # would be too little for few long rows beside many short ones; with the largest number it never is.
        longest = torch.zeros(len(self), dtype=torch.int64, device=self.sizes.device)
        rows = self.attention_mask.sum(-1)
        return longest.scatter_reduce(0, self.groups, rows, "amax") * self.sizes.max()

    @property
    def best_rows(self) -> Tensor:
        """[R] bool, rows that a kept language model is trained on: no response to the same prompt ranks better."""
        best = torch.full((len(self),), torch.inf, dtype=self.ranks.dtype, device=self.ranks.device)
        return self.ranks == best.scatter_reduce(0, self.groups, self.ranks, "amin")[self.groups]

    def rows(self, units: Tensor) -> Tensor:
        """Indices of the rows of some prompts, in their order."""
        ends = self.sizes.cumsum(0).tolist()
        spans = [torch.arange(ends[u] - int(self.sizes[u]), ends[u]) for u in units.tolist()]
        return torch.cat(spans).to(self.tokens.device)

    def replace(self, **changes: Tensor | None) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # only optional columns may be None

    def select(self, units: Tensor) -> Self:
        """The given prompts, with columns that are padding in all of their rows cut off."""
        rows = self.rows(units)
        return type(self)(**_select(self, rows, units, int(self.attention_mask[rows].sum(-1).max())))

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return type(self)(**{f.name: _to(getattr(self, f.name), device) for f in fields(self)})

    def weighted_sum(self, x: Tensor) -> Tensor:
        """Sum of ``x`` [N] under ``loss_weights``."""
        assert self.loss_weights is not None and x.shape == self.loss_weights.shape, (
            "x must be [N], weights set"
        )
        return (x * self.loss_weights).sum()


Batch = Experience | Pairs | Rankings


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass gives back; only the fields its model has are filled."""

    logprobs: Tensor | None = None  # [B, T] policy; 0 outside the response mask
    entropy: Tensor | None = None  # [B, T] policy, full vocabulary; 0 outside the response mask
    values: Tensor | None = None  # [B, T] critic; 0 outside the response mask
    scores: Tensor | None = None  # [B] reward model, raw (not normalised)
    full_kl: Tensor | None = (
        None  # [B, T] KL(policy || reference) over the vocabulary; 0 outside the response mask
    )
    features: Tensor | None = None  # [B, D] reward model's state at the last token
    heads: Tensor | None = None  # [B, H] reward model with several qualities: the raw score of each
    head_weights: Tensor | None = None  # [H, D] and the linear layer that gives them (decoders, while training)


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one microbatch. ``value`` and ``metrics`` are weighted sums: they add up over microbatches, ranks."""

    value: Tensor  # scalar
    metrics: dict[str, Tensor] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)
    """Metrics that combine by maximum instead of by sum."""
    limits: dict[str, float] = field(default_factory=dict)
    """Metric -> its upper limit over the whole optimizer step; the step is skipped if the metric is larger."""


def _to(value: Tensor | None, device: torch.device | str) -> Any:
    return None if value is None else value.to(device)
