"""What settings do that is allowed and often not meant, in words: the cautions that several algorithms share."""

from __future__ import annotations

from collections.abc import Iterable

Caution = tuple[bool, str]
"""Whether it is so, and what it does."""

USUAL_LAMBDA = 0.95
"""Below it a lambda by length relies more on the critic than a constant lambda usually does."""


def that_hold(cautions: Iterable[Caution]) -> tuple[str, ...]:
    """The words of those that hold."""
    return tuple(words for holds, words in cautions if holds)


def divided(holds: bool, by: str, kl_coef: float, cure: str) -> Caution:
    """A setting divides the reward by a deviation and not the KL: another optimum than that of kl_coef."""
    return (
        holds and bool(kl_coef),
        f"{by} divides the reward by its deviation and not the KL: kl_coef {kl_coef:g} is in units of that deviation "
        "(objective/kl_coef_in_force), so that a reward of any size weighs the same; "
        f"with {cure} it is in units of the reward",
    )


def discounted(gamma: float, kl_coef: float) -> Caution:
    """The reward at the end of a response is worth less at its beginning, the KL there is not."""
    return (
        bool(kl_coef) and gamma < 1,
        f"gamma {gamma:g} discounts the reward at the end of a response and not the KL of its first tokens, so the KL "
        "weighs more there than kl_coef",
    )


def forward_kl(holds: bool) -> Caution:
    """k3 as a loss, as the GRPO paper has it."""
    return holds, "k3 differentiated as it stands is KL(reference || policy), another objective"


def short_for_lambda(tokens: float, alpha: float) -> str:
    """What a lambda of ``1 - 1 / (alpha * length)`` comes to for so many tokens; empty where they are long enough."""
    by_length = 1 - 1 / (alpha * max(tokens, 1))
    if by_length >= USUAL_LAMBDA:
        return ""
    enough = 1 / (alpha * (1 - USUAL_LAMBDA))
    return (
        f"gae_lambda length: for responses of {tokens:.0f} tokens lambda is {max(by_length, 0.0):.2f}, so "
        f"advantages rest on the critic; from {enough:.0f} tokens on it is over {USUAL_LAMBDA}. Set gae_lambda to "
        f"a number, such as {USUAL_LAMBDA} or 1, where responses are short"
    )
