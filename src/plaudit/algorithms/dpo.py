"""Preferences without a reward model: DPO and its relatives, which differ in the loss of a pair only.

With ``logp`` the log-prob of a whole response and ``m`` its mean over tokens, w chosen and l rejected:

    gap    = (logp_w - ref_w) - (logp_l - ref_l)
    dpo    -log sigma(beta gap)                         Rafailov et al., arXiv:2305.18290, eq. 7
    robust the same without the bias of wrong labels    Chowdhury et al., arXiv:2403.00409
    ipo    (gap - 1 / (2 beta))^2                       Azar et al., arXiv:2310.12036, eq. 17
    hinge  max(0, 1 - beta gap)                         the loss of SLiC, Zhao et al., arXiv:2305.10425
    simpo  -log sigma(beta (m_w - m_l) - margin)        Meng et al., arXiv:2405.14734, eq. 6; no reference
    orpo   -m_w + beta * -log sigma(log odds_w - log odds_l), odds = p / (1 - p), p = exp(m)
                                                        Hong et al., arXiv:2403.07691, eq. 6 and 7; no reference
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from plaudit.algorithms.parts import DoubtedLabels, ImplicitReward, SoftTargets
from plaudit.algorithms.protocol import Signal
from plaudit.config.values import NotNegative, Positive, settings_value
from plaudit.errors import ConfigError
from plaudit.experience import Loss, Outputs, Pairs
from plaudit.functional import preference_losses as losses
from plaudit.records import Kind

WITHOUT_REFERENCE = ("simpo", "orpo")


@settings_value
class DPO(ImplicitReward, DoubtedLabels, SoftTargets):
    """Direct preference optimisation: the reward model is the policy itself, measured against its start."""

    pair_loss: Literal["dpo", "robust", "ipo", "ipo_sum", "hinge", "simpo", "orpo"] = "dpo"
    """The loss of a pair. ipo measures the gap in nats per token, as its authors do; ipo_sum per response, as printed.
    dpo takes label_smoothing, then called conservative; robust is corrected for label_smoothing without bias. All take
    use_agreement: the loss expected over what the annotators said."""
    beta: Positive = 0.1
    """Turns log-ratios into rewards: smaller lets the policy go further from its start. ipo: the gap aimed at is
    1 / (2 beta). orpo: weight of the odds ratio against the imitation."""
    margin: NotNegative = 0.0
    """How far chosen should be ahead, in units of the reward; of simpo, where 0.3 to 0.5 times beta is usual."""

    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        for name, value, where in (
            ("label_smoothing", self.label_smoothing, ("dpo", "robust")),
            ("margin", self.margin, ("simpo",)),
        ):
            if value and self.pair_loss not in where:
                raise ConfigError(
                    f"{name} = {value:g} has no part in the loss of {self.pair_loss}",
                    where=f"[algorithm] {name}",
                    cure=f"set {name} to 0, or --pair-loss {' or '.join(where)}",
                )
        if self.pair_loss == "robust" and not self.label_smoothing:
            raise ConfigError(
                "robust corrects for a known share of wrong preferences, and label_smoothing says there are none",
                where="[algorithm] label_smoothing",
                cure="set label_smoothing to that share, e.g. 0.1",
            )

    @property
    def type_name(self) -> str:
        """What ``[algorithm] type`` calls these values: the relative whose loss it is."""
        return {"robust": "dpo", "ipo_sum": "ipo"}.get(self.pair_loss, self.pair_loss)

    @property
    def needs(self) -> frozenset[Signal]:
        """The reference's log-probs, but for the losses without a reference."""
        return frozenset(() if self.pair_loss in WITHOUT_REFERENCE else ("ref_logprobs",))

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        # Once per optimizer step, not per microbatch: how a step is split must not change its mean.
        return batch.replace(loss_weights=torch.full((len(batch),), 1 / max(len(batch), 1)))

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs."""
        if self.pair_loss == "simpo":
            means = mean_logprobs(batch, out)
            return pair_result(batch, out, self._expected(batch, gap(means)), self.beta * means)
        if self.pair_loss == "orpo":
            return self._odds_ratio(batch, out)
        policy, reference = sums(batch, out)
        ratio = policy - reference
        if self.pair_loss == "ipo":
            ratio = ratio / response_lengths(batch)
        return pair_result(batch, out, self._expected(batch, gap(ratio)), self.beta * ratio)

    def _expected(self, batch: Pairs, ahead: Tensor) -> Tensor:
        """``[P]`` loss expected over the labels: chosen is better with the pair's target, else rejected is.

        Args:
            ahead: ``[P]`` by how much chosen is ahead of rejected, in nats.
        """
        targets = self._targets(batch)
        return targets * self._loss_of(ahead) + (1 - targets) * self._loss_of(-ahead)

    def _targets(self, batch: Pairs) -> Tensor:
        """``[P]`` probability that chosen is better."""
        return batch.targets if self.use_agreement else torch.ones_like(batch.targets)

    def _loss_of(self, ahead: Tensor) -> Tensor:
        """``[P]`` loss of pairs whose better response is so many nats ahead."""
        if self.pair_loss in ("ipo", "ipo_sum"):
            return losses.squared(ahead, self.beta)
        margin = self.beta * ahead
        if self.pair_loss == "hinge":
            return losses.hinge(margin)
        if self.pair_loss == "robust":
            return losses.robust_logistic(margin, self.label_smoothing)
        return losses.logistic(margin - self.margin, 1 - self.label_smoothing)

    def _odds_ratio(self, batch: Pairs, out: Outputs) -> Loss:
        """The imitation is the mean over the tokens of a response, then over responses."""
        means, targets = mean_logprobs(batch, out), self._targets(batch)
        chosen, rejected = means.view(-1, 2).unbind(-1)
        nll, ahead = -targets * chosen - (1 - targets) * rejected, gap(losses.log_odds(means))
        result = pair_result(batch, out, nll + self.beta * losses.logistic(ahead, targets), self.beta * means)
        result.metrics["policy/nll_chosen"] = batch.weighted_sum(-chosen.detach())
        result.metrics["policy/log_odds_ratio"] = batch.weighted_sum(ahead.detach())
        return result


# The relatives. A setting that is given wins over the preset's.


def IPO(**settings: Any) -> DPO:  # noqa: N802
    """Identity preference optimisation: a finite gap is aimed at, so sure labels do not drive the policy away.

    Args:
        settings: of `DPO`.
    """
    return DPO(**({"pair_loss": "ipo"} | settings))


def Hinge(**settings: Any) -> DPO:  # noqa: N802
    """Hinge loss on the rewards of DPO: a pair that is ranked right by a margin of 1 has no gradient.

    Args:
        settings: of `DPO`.
    """
    return DPO(**({"pair_loss": "hinge"} | settings))


def SimPO(**settings: Any) -> DPO:  # noqa: N802
    """Simple preference optimisation: the reward is the mean log-probability of a token, and there is no reference.

    Args:
        settings: of `DPO`. A beta of 2 to 2.5 is usual.
    """
    values: dict[str, Any] = {"pair_loss": "simpo", "beta": 2.0, "margin": 1.0}
    return DPO(**(values | settings))


def ORPO(**settings: Any) -> DPO:  # noqa: N802
    """Odds-ratio preference optimisation: imitate what was chosen, and make what was rejected less likely.

    Args:
        settings: of `DPO`; beta is lambda in the paper.
    """
    return DPO(**({"pair_loss": "orpo"} | settings))


# What the losses on pairs share. Rows are chosen, rejected, chosen, rejected ...


def sums(batch: Pairs, out: Outputs) -> tuple[Tensor, Tensor]:
    """``[2P]`` log-probs of whole responses under policy and reference, in nats."""
    assert out.logprobs is not None and batch.ref_logprobs is not None, (
        "the reference must have scored the batch"
    )
    mask = batch.response_mask
    return losses.row_sums(out.logprobs, mask), losses.row_sums(batch.ref_logprobs, mask)


def mean_logprobs(batch: Pairs, out: Outputs) -> Tensor:
    """``[2P]`` mean log-prob of the tokens of each response under the policy, in nats."""
    assert out.logprobs is not None
    return losses.row_sums(out.logprobs, batch.response_mask) / response_lengths(batch)


def response_lengths(batch: Pairs) -> Tensor:
    """``[2P]`` response tokens of each row, at least 1."""
    return batch.response_mask.sum(-1).clamp(min=1)


def gap(rows: Tensor) -> Tensor:
    """Chosen minus rejected: ``[2P]`` -> ``[P]``."""
    chosen, rejected = rows.view(-1, 2).unbind(-1)
    return chosen - rejected


def pair_result(batch: Pairs, out: Outputs, values: Tensor, rewards: Tensor) -> Loss:
    """Loss and metrics of a microbatch of pairs.

    Args:
        values: ``[P]`` loss of each pair.
        rewards: ``[2P]`` implicit rewards of the rows, in the unit in which margins are reported.
    """
    assert out.logprobs is not None and out.entropy is not None
    mean = batch.weighted_sum
    value = mean(values)
    mask = batch.response_mask
    chosen, rejected = rewards.detach().view(-1, 2).unbind(-1)
    logps = losses.row_sums(out.logprobs.detach(), mask).view(-1, 2)
    entropy = (losses.row_sums(out.entropy.detach(), mask) / response_lengths(batch)).view(-1, 2).mean(-1)
    right = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    metrics = {
        "loss": value.detach(),
        "rewards/chosen": mean(chosen),
        "rewards/rejected": mean(rejected),
        "rewards/margins": mean(chosen - rejected),
        "rewards/accuracies": mean(right),
        "logps/chosen": mean(logps[:, 0]),
        "logps/rejected": mean(logps[:, 1]),
        "policy/entropy": mean(entropy),
    }
    return Loss(value, metrics)
