"""The settings of the online commands: one job, and a class of it for each command's algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, InstanceOf

from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO, GRPOPaper
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.ppo_presets import PPO_MAX_CODE, PPO_MAX_PAPER
from plaudit.algorithms.protocol import OnlineAlgorithm
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO
from plaudit.config.sections import (
    CheckpointSection,
    EvalEvery,
    EvaluatedJob,
    MismatchSection,
    OptimizerSection,
    SamplingSection,
)  # fmt: skip
from plaudit.jobs.rewarded import RewardedJob

OnAlarm = Literal["warn", "stop", "back"]


class OnlineJob(RewardedJob, EvaluatedJob):
    """What the commands share that learn from the policy's own responses."""

    environment: str = ""
    """What replies to the policy, for rollouts of several turns: file.py:Class or module:Class. Empty: one response."""
    iterations: int = Field(100, ge=1)
    """Batches of rollouts."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Prompts in each batch; each gets group_size responses."""
    eval_every: EvalEvery = "auto"
    """Iterations between evaluations, besides those at the start and the end; 0: none; auto: about eight in the run, or
    fewer where they would take more than a fifth of its time."""
    kl_limit: float = Field(20.0, ge=0)
    """The run stops when the KL to the reference exceeds this (nats per response); 0: never."""
    on_alarm: OnAlarm = "warn"
    """When the reward seems to be exploited: warn, and go on; stop, with the best weights; back: go on from the best
    weights with twice the KL coefficient, at most three times. Without a gold reward: those before the alarm."""
    algorithm: InstanceOf[OnlineAlgorithm]
    optimizer: OptimizerSection = OptimizerSection(schedule="constant", warmup_fraction=0.0)
    sampling: SamplingSection = SamplingSection()
    mismatch: MismatchSection = MismatchSection()
    checkpoint: CheckpointSection = CheckpointSection(every=10)

    @property
    def code(self) -> dict[str, str]:
        """Those of rewards, and the file of the environment."""
        place = self.environment.rpartition(":")[0]
        return super().code | ({"environment": place} if place.endswith(".py") else {})

    @property
    def responses_per_iteration(self) -> int:
        """Prompts times responses to each."""
        return self.prompts_per_iteration * self.algorithm.group_size


class RLJob(OnlineJob):
    """Optimise a policy against a reward, near its reference, with PPO: a critic says what to expect of each token."""

    relatives: ClassVar[Mapping[str, Any]] = {"ppo_max_paper": PPO_MAX_PAPER, "ppo_max_code": PPO_MAX_CODE}
    algorithm: PPO = PPO()


class GRPOJob(OnlineJob):
    """Optimise a policy against a reward by comparing responses to the same prompt: GRPO and relatives, no critic."""

    relatives: ClassVar[Mapping[str, Any]] = {
        "grpo": GRPO(), "grpo_paper": GRPOPaper(), "dr_grpo": DrGRPO(), "dapo": DAPO(), "gspo": GSPO(),
        "cispo": CISPO(),
    }  # fmt: skip
    algorithm: GRPO = GRPO()


class OnlineDPOJob(OnlineJob):
    """Optimise a policy with DPO on pairs of its own responses that a reward ranks, new ones in every iteration."""

    algorithm: OnlineDPO = OnlineDPO()


class RLOOJob(OnlineJob):
    """Optimise a policy against a reward with RLOO: each response against the others to its prompt, no critic."""

    algorithm: RLOO = RLOO()


class ReinforceJob(OnlineJob):
    """Optimise a policy against a reward with REINFORCE and a baseline, or with REINFORCE++."""

    relatives: ClassVar[Mapping[str, Any]] = {"reinforce": REINFORCE(), "reinforce_pp": REINFORCEPlusPlus()}
    algorithm: REINFORCE = REINFORCE()
