"""The methods of the bake-off and their settings.

Learning rates are round numbers that moved the policy by 3 to 8 nats of KL on seed 0, the first that were tried. The
coefficient of the KL is 0.05 for all; methods are compared at equal KL along their curves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.grpo import GRPO, DrGRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.ppo_presets import PPO_MAX_PAPER
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.rloo import RLOO

ITERATIONS, ITERATIONS_BETWEEN = 20, 5
DPO_STEPS_BETWEEN = 35
KL_COEF = 0.05


@dataclass(frozen=True)
class Method:
    """A line of the tables."""

    name: str
    algorithm: Any
    lr: float = 0.0
    settings: str = ""
    """What differs from the defaults, for the table."""

    @property
    def slug(self) -> str:
        """Its directory."""
        return self.name.lower().replace(" ", "-").replace(".", "")


METHODS = (
    Method("REINFORCE", REINFORCE(kl_coef=KL_COEF), 1e-3, "mean baseline, 1 step an iteration"),
    Method("RLOO", RLOO(kl_coef=KL_COEF), 1e-3, "groups of 4, 1 step"),
    Method(
        "PPO",
        PPO(kl_coef=KL_COEF, critic_lr=5e-4, epochs=2, minibatches=2, critic_warmup=3),
        3e-4,
        "the quickstart's: 2 epochs of 2 minibatches",
    ),
    Method(
        "PPO-max",
        replace(PPO_MAX_PAPER, kl_coef=KL_COEF, critic_lr=5e-4, critic_warmup=3),
        3e-4,
        "`ppo_max_paper`: 4 minibatches; critic as PPO's",
    ),
    Method(
        "GRPO",
        GRPO(scale="group", kl_coef=KL_COEF, minibatches=4),
        3e-4,
        "`scale` group, groups of 8, 4 minibatches",
    ),
    Method("Dr. GRPO", DrGRPO(kl_coef=KL_COEF, minibatches=4), 3e-4, "groups of 8, 4 minibatches"),
    Method("DPO", DPO(beta=0.1), 3e-4, "`beta` 0.1, once through the preferences"),
    Method("best-of-n", BestOfN(group_size=16), 0.0, "of the SFT model, n up to 16"),
)
