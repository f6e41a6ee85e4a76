"""Online DPO: the pairs are the policy's own responses, ranked by a reward (Guo et al., arXiv:2402.04792).

each prompt:  group_size responses -> scores -> the best is chosen, the worst rejected; equal scores make no pair
h    = beta ((logp_w - ref_w) - (logp_l - ref_l))
loss = -t log sigma(h) - (1 - t) log sigma(-h),   t = 1 - label_smoothing, or sigma(score_w - score_l)

With t = 1 there is no best h: the loss of a pair falls as long as the better response gains, so the policy moves away
from the reference for as long as it is trained. With t = sigma(score_w - score_l) the loss of a pair is least where h
is the difference of the scores. All pairs agree on that: beta log(pi / ref) is the score plus a term of the prompt, so
pi = ref exp(score / beta), normalised, is the optimum, whichever pairs are drawn. Equal scores say h = 0, and stay.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.parts import ImplicitReward, LabelSmoothing
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.config.values import settings_value
from plaudit.experience import Experience, Loss, Outputs, Pairs
from plaudit.functional.controllers import Carry
from plaudit.functional.statistics import masked_mean


@settings_value
class OnlineDPO(pg.StepSettings, ImplicitReward, LabelSmoothing):
    """DPO on pairs that the policy writes and a reward ranks, new ones in every iteration."""

    group_size: pg.SeveralResponses = 2
    """Responses sampled per prompt; of more than two the best and the worst make the pair."""

    target_kl: ClassVar[float] = 0.0  # pairs have no trust region

    @property
    def needs(self) -> frozenset[Signal]:
        """The reference for the loss; the policy's own log-probs for the KL that is reported."""
        return frozenset({"old_logprobs", "ref_logprobs"})

    def start(self) -> Carry:
        """Nothing is carried: the KL is part of the loss."""
        return Carry(kl_coef=0.0)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """The best and the worst response to each prompt as pairs. Failed rewards make none."""
        assert batch.rewards is not None and batch.group_ids is not None and batch.ref_logprobs is not None
        penalty = 0.0 if batch.truncated is None else self.missing_eos_penalty * batch.truncated
        scores = batch.rewards - penalty
        by_score = self.label_smoothing == "score_gap"
        chosen, rejected = best_and_worst(scores, batch.group_ids, ties=by_score)
        gaps = scores[chosen] - scores[rejected]
        rows = torch.stack([chosen, rejected], -1).flatten()
        pairs = Pairs(
            tokens=batch.tokens[rows],
            attention_mask=batch.attention_mask[rows],
            response_mask=batch.response_mask[rows],
            margins=gaps,
            targets=gaps.sigmoid() if by_score else torch.ones(len(chosen)),
            ref_logprobs=batch.ref_logprobs[rows],
        )
        metrics = self._metrics(batch, pairs) | (pg.kl_metrics(self.beta) if by_score else {})
        return Credit(pairs, carry, metrics)

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return DPO().weights(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """DPO's, under the name of an online policy's loss."""
        smoothing = 0.0 if self.label_smoothing == "score_gap" else self.label_smoothing  # is in the targets
        result = DPO(beta=self.beta, label_smoothing=smoothing).loss(batch, out)
        return Loss(result.value, {"policy/loss": result.metrics.pop("loss")} | result.metrics)

    def _metrics(self, batch: Experience, pairs: Pairs) -> dict[str, float]:
        assert (
            batch.old_logprobs is not None and batch.ref_logprobs is not None and batch.group_ids is not None
        )
        mask = batch.response_mask
        gap = torch.where(mask, batch.old_logprobs - batch.ref_logprobs, 0.0)
        metrics = {
            "objective/kl": float(gap.sum(-1).mean()),
            "objective/kl_tok": float(masked_mean(gap, mask)),
            "pairs/kept_share": len(pairs) / len(batch.group_ids.unique()),
        }
        if len(pairs):
            metrics["pairs/score_gap"] = float(pairs.margins.mean())
        return metrics


def best_and_worst(scores: Tensor, groups: Tensor, *, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of the highest and the lowest score of each group, in the order in which groups come.

    Of equal scores the first row counts. NaN (scoring failed) takes no part.

    Args:
        scores: ``[B]``.
        groups: ``[B]`` group ids.
        ties: a group whose scores are all equal gives its first and its last row, if it has two; else no pair.
    """
    best: list[int] = []
    worst: list[int] = []
    for group in dict.fromkeys(groups.tolist()):
        rows = ((groups == group) & ~scores.isnan()).nonzero().flatten()
        if len(rows) and scores[rows].min() < scores[rows].max():
            best.append(int(rows[scores[rows].argmax()]))
            worst.append(int(rows[scores[rows].argmin()]))
        elif ties and len(rows) > 1:
            best.append(int(rows[0]))
            worst.append(int(rows[-1]))
    return torch.tensor(best, dtype=torch.int64), torch.tensor(worst, dtype=torch.int64)
