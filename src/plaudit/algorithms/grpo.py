"""GRPO (Shao et al., arXiv:2402.03300) and its relatives: responses against the other responses to the same prompt.

    A_i  = score_i - mean of the prompt's responses; `scale` may divide it        section 4.1.2
    loss = mean of max(-A rho, -A clip(rho, 1 - clip, 1 + clip_high)) + kl_coef KL      eq. 3

The paper divides by the standard deviation of the group, and the KL by nothing. So a reward of any size weighs the same
beside the KL, and where rewards differ by less than 1 the policy may end at one response. Undivided, the two keep the
weights that kl_coef gives them: docs/why/kl-in-force.md.

A relative is the same formula with other values, and so a function that gives a `GRPO`:

    paper      A divided by std + 1e-4; the mean over responses of the mean over tokens; k3 with its naive gradient
    Dr. GRPO   no division by std; a sum over tokens over a constant    Liu et al., arXiv:2503.20783, section 3.2
    DAPO       clip-higher, groups of equal scores sampled anew, a penalty near the length limit, no KL
                                                                        Yu et al., arXiv:2503.14476, eq. 8 to 13
    GSPO       rho is one ratio a response: exp(mean_t (logp - logp_old))   Zheng et al., arXiv:2507.18071, eq. 5
    CISPO      -sg[min(rho, 1 + clip_high)] A logp                      MiniMax, arXiv:2506.13585, eq. 4
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from plaudit.algorithms import cautions
from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.parts import EstimatedKL
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.config.values import CountOrNone, NotNegative, Share, settings_value
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import Scale, compare, overlong_penalty
from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.ratios import cispo_loss, sequence_log_ratio, straight_through
from plaudit.functional.weights import Aggregation


@settings_value
class GRPO(pg.UpdateSettings, EstimatedKL):
    """Each response against the mean of its group; no critic, the KL in the loss."""

    group_size: pg.SeveralResponses = 8
    kl_coef: NotNegative = 0.04
    missing_eos_penalty: NotNegative = 0.0
    ratio_of: Literal["token", "response", "response_token", "capped_token"] = "token"
    """What is clipped: the ratio of each token; or of the response, the geometric mean of its tokens' (GSPO), with the
    gradient of the whole or of each token by itself; or the token's ratio as a weight, never its gradient (CISPO)."""
    scale: Scale = "none"
    """What a score minus the group's mean is divided by: nothing; the batch's standard deviation; or the group's, as in
    the paper, which favours very easy and very hard prompts. The KL is not divided, so it then weighs less."""
    aggregation: Aggregation = "token_mean"
    """How the mean is taken. sequence_mean_token_mean is the paper's; it goes easy on long bad responses."""
    kl_estimator: pg.LossKL = "k3"
    """Estimator of the KL that is logged; all have the gradient of KL(policy || reference) at each place, the tokens
    before it held fixed. naive: that of the estimator itself, as in the paper; for k3 it belongs to KL(reference ||
    policy)."""
    sampling_rounds: CountOrNone = 0
    """At most so many batches of prompts are sampled until enough groups have unequal scores, and only those are
    learned from (dynamic sampling); 0: every group is taken."""
    overlong_buffer: Share = 0.0
    """Share of max_new_tokens, at its end, in which missing_eos_penalty grows from 0; 0: only at the limit itself."""
    filter_overlong: bool = False
    """Keep responses that ran into the length limit out of the loss; they still count in the group's mean."""

    def __post_init__(self) -> None:
        if self.ratio_of == "capped_token" and not self.clip_high:
            raise ConfigError(
                "capped_token caps the weight of a token at 1 + clip_high, and clip_high is 0",
                where="[algorithm] clip_high",
                cure="set clip_high to 4, which caps the weight at 5",
            )

    @property
    def type_name(self) -> str:
        """What ``[algorithm] type`` calls these values: the relative whose formula it is."""
        if self.ratio_of != "token":
            return "cispo" if self.ratio_of == "capped_token" else "gspo"
        if self.sampling_rounds:
            return "dapo"
        if (self.scale, self.aggregation, self.kl_estimator) == PAPER_FORM:
            return "grpo_paper"
        return "dr_grpo" if (self.scale, self.aggregation) == ("none", "constant") else "grpo"

    @property
    def cautions(self) -> tuple[str, ...]:
        """What has no effect, or leads elsewhere than to the optimum of reward and KL, in words for the user."""
        return cautions.that_hold(_cautions(self))

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.needs(self.kl_coef)

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def keeps(self, rewards: Tensor, group_ids: Tensor) -> Tensor:
        """Rows of groups whose rewards, before any penalty, are not all equal.

        Before the penalty, because in a group that is solved by all only the lengths would differ.
        """
        return ~compare(rewards, group_ids, ~rewards.isnan()).equal

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Scores to advantages within the groups; failed rows are masked out and no part of a mean."""
        credit = pg.group_credit(batch, carry, self._scores(batch), self.scale)
        if self.sampling_rounds and self.kl_coef:
            # Groups were left out because of their scores, so what is left is no sample of the policy, whose KL it is.
            credit.metrics.pop("objective/kl_coef_in_force", None)
        if not self.filter_overlong:
            return credit
        # Only now: a response without an end is bad news about its prompt, so it stays in the group's mean.
        shaped = credit.batch
        assert (
            isinstance(shaped, Experience) and shaped.advantages is not None and batch.truncated is not None
        )
        mask = shaped.response_mask & ~batch.truncated[:, None]
        advantages = torch.where(mask, shaped.advantages, 0.0)
        return Credit(shaped.replace(response_mask=mask, advantages=advantages), carry, credit.metrics)

    def weights(self, batch: Experience) -> Experience:
        """As `aggregation` says."""
        return pg.weighted(batch, self.aggregation)

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate plus the KL."""
        surrogate, clipped = self._surrogate(batch, out)
        loss = pg.policy_loss(batch, out, surrogate, clipped)
        return pg.with_kl(loss, batch, out, self.kl_coef, self.kl_estimator)

    def _scores(self, batch: Experience) -> Tensor:
        """``[B]`` rewards less the penalty of responses that reached the limit or, with a buffer, came near it."""
        if not self.overlong_buffer:
            return pg.scores(batch, self.missing_eos_penalty)
        assert batch.rewards is not None and batch.length_limits is not None
        shaping = overlong_penalty(batch.response_mask.sum(-1), batch.length_limits, self.overlong_buffer)
        return batch.rewards + self.missing_eos_penalty * shaping

    def _surrogate(self, batch: Experience, out: Outputs) -> tuple[Tensor, Tensor]:
        """``[B, T]`` loss of each token, and where the clip decided."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        low = self.clip or math.inf
        high = self.clip_high or low
        if self.ratio_of == "token":
            return clipped_policy_loss(out.logprobs, batch.old_logprobs, batch.advantages, low, high)
        if self.ratio_of == "capped_token":
            return cispo_loss(out.logprobs, batch.old_logprobs, batch.advantages, max(1 - low, 0.0), 1 + high)
        moved = sequence_log_ratio(out.logprobs, batch.old_logprobs, batch.response_mask, mean=True)
        if self.ratio_of == "response_token":
            moved = straight_through(moved, out.logprobs)
        # The log-ratio itself takes the place of the log-probs: exp(moved - 0) is the ratio of the response.
        return clipped_policy_loss(moved, torch.zeros_like(moved), batch.advantages, low, high)


PAPER_FORM = ("group", "sequence_mean_token_mean", "k3_naive")
"""scale, aggregation and kl_estimator of the GRPO paper."""


def _cautions(grpo: GRPO) -> list[cautions.Caution]:
    """Settings without an effect, and those that shift where a KL leads."""
    kl, own_part = bool(grpo.kl_coef), grpo.group_size / (grpo.group_size - 1)
    return [
        (grpo.overlong_buffer > 0 and not grpo.missing_eos_penalty,
         "overlong_buffer has no effect: it spreads missing_eos_penalty, which is 0"),
        cautions.divided(grpo.scale != "none", f"scale {grpo.scale}", grpo.kl_coef, "scale none"),
        cautions.forward_kl(kl and grpo.kl_estimator == "k3_naive"),
        (kl and grpo.aggregation == "sequence_mean_token_mean",
         "sequence_mean_token_mean divides the gradient of a response by its length, so the optimum is another one"),
        (kl and grpo.group_size <= 4,
         f"the mean of {grpo.group_size} responses has each response in it, so the KL weighs {own_part:.3g} times "
         "kl_coef; use larger groups, or rloo, which leaves it out"),
        (kl and grpo.sampling_rounds > 0,
         "dynamic sampling leaves responses out because of their rewards, so the KL is not that of the policy"),
    ]  # fmt: skip


# The relatives. A setting that is given wins over the preset's.


def GRPOPaper(**settings: Any) -> GRPO:  # noqa: N802
    """GRPO as its paper has it: rewards in units of the group's deviation, long responses at a discount, k3 as a loss.

    Args:
        settings: of `GRPO`. The paper takes groups of 64.
    """
    values: dict[str, Any] = dict(zip(("scale", "aggregation", "kl_estimator"), PAPER_FORM, strict=True))
    return GRPO(**(values | settings))


def DrGRPO(**settings: Any) -> GRPO:  # noqa: N802
    """GRPO without its two biases: no division by the group's spread, none by the response's own length; no KL.

    Args:
        settings: of `GRPO`.
    """
    values: dict[str, Any] = {"scale": "none", "aggregation": "constant", "kl_coef": 0.0}
    return GRPO(**(values | settings))


def DAPO(**settings: Any) -> GRPO:  # noqa: N802
    """GRPO for rewards that are right or wrong: learns from prompts that are neither solved nor hopeless; no KL.

    Args:
        settings: of `GRPO`. The upper half-width of the clip is larger, so that unlikely tokens may become likely.
    """
    values: dict[str, Any] = {
        "scale": "group", "clip_high": 0.28, "kl_coef": 0.0, "sampling_rounds": 3, "missing_eos_penalty": 1.0,
        "overlong_buffer": 0.2,
    }  # fmt: skip
    return GRPO(**(values | settings))


def GSPO(**settings: Any) -> GRPO:  # noqa: N802
    """GRPO whose ratio and clip are those of whole responses; made for mixtures of experts and long responses.

    Args:
        settings: of `GRPO`. The ratio is a mean over tokens, so its clip is small: 0.2 would switch clipping off.
    """
    values: dict[str, Any] = {
        "scale": "group", "ratio_of": "response", "aggregation": "sequence_mean_token_mean", "kl_coef": 0.0,
        "minibatches": 4, "clip": 3e-4, "clip_high": 4e-4,
    }  # fmt: skip
    return GRPO(**(values | settings))


def CISPO(**settings: Any) -> GRPO:  # noqa: N802
    """GRPO that clips the weight of a token, not its gradient: every token is learned from at every step.

    Args:
        settings: of `GRPO`. The weight of a token is at least 1 - clip and at most 1 + clip_high: 0 to 5.
    """
    values: dict[str, Any] = {
        "scale": "group", "ratio_of": "capped_token", "kl_coef": 0.0, "minibatches": 4, "clip": 1.0, "clip_high": 4.0,
    }  # fmt: skip
    return GRPO(**(values | settings))
