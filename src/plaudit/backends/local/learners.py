"""Who learns in an online run: the policy, and for an algorithm that needs values a critic, apart or on its trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plaudit.algorithms.protocol import ActorCritic, OnlineAlgorithm, SharingTrunk
from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.models import build_critic
from plaudit.config.sections import OptimizerSection
from plaudit.errors import ConfigError
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.reward_tables import ModelTable
from plaudit.models.policy import Policy
from plaudit.models.shared_trunk import SharedTrunk, TrunkCritic
from plaudit.runtime import Learner


@dataclass(frozen=True, slots=True)
class Learners:
    """The learners of a run."""

    policy: LocalLearner
    critic: LocalLearner | None
    shared_trunk: bool = False

    @property
    def named(self) -> dict[str, Learner]:
        """What a checkpoint keeps, by role."""
        named: dict[str, Learner] = {"policy": self.policy}
        return named | ({"critic": self.critic} if self.critic else {})


def build_learners(job: OnlineJob, policy: Policy, backbone: Backbone, tokenizer: Any) -> Learners:
    """Optimizers around the policy and its critic, if any.

    Raises:
        ConfigError: the algorithm needs a critic and is no `ActorCritic`, or see `build_critic`.
    """
    algorithm: OnlineAlgorithm = job.algorithm
    compute = job.compute
    steps = job.iterations * algorithm.epochs * algorithm.minibatches
    if "values" not in algorithm.needs:
        return Learners(LocalLearner(policy, job.optimizer, compute, total_steps=steps), None)
    if not isinstance(algorithm, ActorCritic):
        raise ConfigError(
            f"{type(algorithm).__name__} needs values, but does not say how a critic learns them",
            where="[algorithm] type",
            cure="give it what plaudit.algorithms.protocol.ActorCritic lists: value_loss, phase, after, critic_lr ...",
        )
    alone = algorithm.critic_warmup * algorithm.epochs * algorithm.minibatches
    rate = job.optimizer.model_copy(update={"lr": algorithm.critic_lr})
    if shares_trunk(algorithm):
        return _on_one_trunk(job, policy, rate, steps, steps - alone)
    learner = LocalLearner(policy, job.optimizer, compute, total_steps=steps - alone)
    critic = build_critic(algorithm.critic_init, job.reward, backbone, tokenizer, job.lora, compute)
    return Learners(learner, LocalLearner(critic, rate, compute, total_steps=steps, name="critic"))


def shares_trunk(algorithm: OnlineAlgorithm) -> bool:
    """Is the critic a head on the policy's trunk?"""
    return isinstance(algorithm, SharingTrunk) and algorithm.critic == "trunk"


def _on_one_trunk(
    job: OnlineJob, policy: Policy, rate: OptimizerSection, steps: int, policy_steps: int
) -> Learners:
    """The head has its own rate and steps along with the policy; alone it trains nothing but itself."""
    head = TrunkCritic(policy)
    critic = LocalLearner(head, rate, job.compute, total_steps=steps, name="critic")
    learner = LocalLearner(
        SharedTrunk(policy, head),
        job.optimizer,
        job.compute,
        total_steps=policy_steps,
        partners={"critic": critic},
    )
    return Learners(learner, critic, shared_trunk=True)


def critic_notes(job: OnlineJob) -> list[str]:
    """What a reader of the settings would not expect of the critic."""
    algorithm = job.algorithm
    if "values" not in algorithm.needs or shares_trunk(algorithm):
        return []
    if algorithm.critic_init != "reward" or any(isinstance(table, ModelTable) for table in job.reward):
        return []
    return [
        "no reward is a reward model, so the critic starts from the policy with a zero head, not from the reward"
    ]
