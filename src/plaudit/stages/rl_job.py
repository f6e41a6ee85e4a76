"""The settings of the online commands: one job, and a class of it for each command's algorithm."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import CheckpointSection, Job, MismatchSection, OptimizerSection, SamplingSection


def _several(value: Any) -> Any:
    """One name as a tuple of one; a list, which strict validation does not take for a tuple, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Sources = Annotated[tuple[str, ...], BeforeValidator(_several)]


class RLJob(Job):
    """Optimise a policy against a reward, near its reference."""

    command: ClassVar[str] = "ppo"
    """What the run directory and the records of a run say."""

    policy: str = ""
    """The model to train, usually an SFT run's model: hub name, directory, or GGUF file. It is also the reference."""
    reward: Sources = ()
    """What is maximised: reward model directories or hub names, or functions as file.py:name or module:name."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each reward; empty: all 1."""
    gold: Sources = ()
    """A second judge, never trained on, that shows whether the reward is being hacked."""
    dataset: str = ""
    """Prompts: a file, a directory, or a hub name. Responses in it are not used."""
    iterations: int = Field(100, ge=1)
    """Batches of rollouts."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Prompts in each batch; each gets group_size responses."""
    eval_prompts: int = Field(64, ge=1)
    """Held-out prompts on which the policy is compared with its start."""
    eval_every: int | Literal["auto"] = "auto"
    """Iterations between evaluations; auto: about eight in the run."""
    kl_limit: float = Field(20.0, ge=0)
    """The run stops when the KL to the reference exceeds this (nats per response); 0: never."""
    algorithm: PPO = PPO()
    optimizer: OptimizerSection = OptimizerSection(lr=1e-6, schedule="constant", warmup_fraction=0.0)
    sampling: SamplingSection = SamplingSection()
    mismatch: MismatchSection = MismatchSection()
    checkpoint: CheckpointSection = CheckpointSection(every=10)


JOBS: tuple[type[RLJob], ...] = (RLJob,)
"""One a command."""


def job_for(algorithm: Any) -> type[RLJob]:
    """The job of the command that trains with an algorithm of this class; `RLJob` for one that no command has."""

    def has(job_class: type[RLJob]) -> bool:
        return type(algorithm) in (
            job_class.model_fields["algorithm"].annotation,
            *job_class.relatives.values(),
        )

    return next(filter(has, JOBS), RLJob)
