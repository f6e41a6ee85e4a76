"""Settings that several algorithms have in common, each declared once, with one help text and one bound."""

from __future__ import annotations

from plaudit.config.values import CountOrNone, Mislabelled, NotNegative, Positive, Share, settings_part


@settings_part
class NearReference:
    """Of methods that pay for the distance to the reference."""

    __slots__ = ()
    kl_coef: NotNegative = 0.05
    """Weight of the KL to the reference, per nat; 0 switches it off."""


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
class DoubtedLabels:
    """Of methods that learn from pairs some of which may be the wrong way round."""

    __slots__ = ()
    label_smoothing: Mislabelled = 0.0
    """Assumed share of pairs that are labelled wrongly, in [0, 0.5)."""


@settings_part
class SoftTargets:
    """Of methods that learn from what several annotators said."""

    __slots__ = ()
    use_agreement: bool = True
    """Use the share of annotators who agreed as soft target instead of 1."""
