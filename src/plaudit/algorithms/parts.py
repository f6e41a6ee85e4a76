"""Settings that several algorithms have in common, each declared once, with one help text and one bound."""

from __future__ import annotations

from typing import Literal

from plaudit.config.values import CountOrNone, Mislabelled, NotNegative, Positive, Share, settings_part


@settings_part
class NearReference:
    """Of methods that pay for the distance to the reference."""

    __slots__ = ()
    kl_coef: NotNegative = 0.05
    """Weight of the KL to the reference, per nat; 0 switches it off."""


@settings_part
class EstimatedKL:
    """Of methods that estimate the KL to the reference from what was sampled."""

    __slots__ = ()
    kl_estimator: Literal["k1", "k2", "k3", "full", "k2_naive", "k3_naive"] = "k3"
    """How the KL to the reference is estimated; naive: with the gradient of the estimator itself."""


@settings_part
class Discounted:
    """Of methods that add rewards up along a response."""

    __slots__ = ()
    gamma: Share = 1.0
    """Discount per token."""


@settings_part
class WithCritic:
    """Of methods that may have a critic."""

    __slots__ = ()
    critic_warmup: CountOrNone = 5
    """Iterations at the start in which only the critic learns, fewer once it explains half the variance."""


@settings_part
class ImplicitReward:
    """Of methods whose reward is a log-ratio of policy and reference."""

    __slots__ = ()
    beta: Positive = 0.1
    """Turns log-ratios into rewards: smaller lets the policy go further from its start."""


@settings_part
class LabelSmoothing:
    """Of methods whose pairs have labels that are not certain: how sure they are, by a number or by their scores."""

    __slots__ = ()
    label_smoothing: Mislabelled | Literal["score_gap"] = 0.0
    """Assumed share of pairs that are labelled wrongly, in [0, 0.5); score_gap: as many as the scores say, so that the
    better response wins with probability sigma(its score - the other's), and the optimum is ref exp(score / beta)."""


@settings_part
class DoubtedLabels(LabelSmoothing):
    """Of methods whose pairs come with a label and without scores."""

    __slots__ = ()
    label_smoothing: Mislabelled = 0.0
    """Assumed share of pairs that are labelled wrongly, in [0, 0.5)."""


@settings_part
class SoftTargets:
    """Of methods that learn from what several annotators said."""

    __slots__ = ()
    use_agreement: bool = True
    """Use the share of annotators who agreed as soft target instead of 1."""
