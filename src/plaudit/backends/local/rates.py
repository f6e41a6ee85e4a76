"""Which learning rate `lr = "auto"` is: by what is trained, the size of the model, and whether adapters are.

The rate of a method at 7 billion parameters is what is published for it. For other sizes it goes with the inverse root
of the size, as Adam's best rate goes with the inverse width (Yang et al. 2022, arXiv:2203.03466); that of learning from
preferences falls faster, by what was measured on small models (docs/why/rates.md).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from plaudit.config.sections import OptimizerSection

Trained = Literal["sft", "reward", "preference", "online", "critic"]
"""What is trained, and how."""
RULES: dict[Trained, tuple[float, float]] = {
    "sft": (1e-5, 0.5), "reward": (5e-6, 0.5), "preference": (1e-6, 0.63), "online": (1e-6, 0.5), "critic": (5e-6, 0.5),
}  # fmt: skip
"""The rate for all weights of a model of 7 billion parameters, and the power of the inverse size that it goes with."""
SIZE = 7e9
ADAPTERS = 10.0
"""How many times larger the rate of low-rank adapters is (Schulman et al. 2025, "LoRA without regret")."""
LARGEST = 3e-3


def auto_rate(trained: Trained, parameters: int, *, adapters: bool = False) -> float:
    """The learning rate of a model, to two digits.

    Args:
        trained: what is trained, and how.
        parameters: of the whole model, frozen ones included.
        adapters: whether low-rank adapters are trained, and not all weights.

    >>> auto_rate("online", 7_000_000_000), auto_rate("online", 70_000_000), auto_rate("sft", 1000)
    (1e-06, 1e-05, 0.003)
    """
    at_7b, power = RULES[trained]
    rate = at_7b * (SIZE / max(parameters, 1)) ** power * (ADAPTERS if adapters else 1.0)
    return float(f"{min(rate, LARGEST):.1e}")


def rated(
    section: OptimizerSection, trained: Trained, model: nn.Module, *, adapters: bool, flag: str = "lr"
) -> tuple[OptimizerSection, tuple[str, ...]]:
    """The settings of an optimizer with a rate that is a number; and what to know of it, in words.

    Args:
        section: as the user gave it.
        trained: what is trained, and how.
        model: all of it, frozen parts included.
        adapters: whether low-rank adapters are trained, and not all weights.
        flag: the setting that the rate was given by.
    """
    count = _parameters(model)
    rule = auto_rate(trained, count, adapters=adapters)
    about = f"{'adapters on ' if adapters else ''}{count / 1e6:.3g} million parameters"
    if section.lr == "auto":
        return section.model_copy(update={"lr": rule}), (f"{flag} auto is {rule:.2g} for {about}",)
    far = _far(section.lr / rule)
    if not far:
        return section, ()
    return section, (f"{flag} {section.lr:g} is {far} what is usual for {about}, which is {rule:.2g}",)


def _far(times: float) -> str:
    """How far a rate is from the rule, and what that may do; nothing where it is near."""
    if times >= FAR:
        return f"{times:.0f} times as much as"
    return f"{times:.1g} times" if times <= 1 / FAR else ""


FAR = 30.0
"""A rate so many times above or below the rule is worth a word. Rates of one method differ tenfold between papers."""


def _parameters(model: nn.Module) -> int:
    """Parameters of the whole model; a quantised weight counts as many as it stands for."""
    sizes: list[Any] = [getattr(p, "quant_state", None) for p in model.parameters()]
    return sum(
        p.numel() if state is None else int(state.shape.numel())
        for p, state in zip(model.parameters(), sizes, strict=True)
    )
