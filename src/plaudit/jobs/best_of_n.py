"""The settings of `plaudit best-of-n`."""

from __future__ import annotations

from pydantic import Field

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.config.sections import CheckpointSection, Job, OptimizerSection, SamplingSection
from plaudit.jobs.online import Sources, inputs_by_role


class BestOfNJob(Job):
    """Sample n responses to each prompt and keep the best: as they are, or with --rounds to fine-tune the policy on."""

    policy: str = ""
    """The model that is sampled from, usually an SFT run's model: hub name, directory, or GGUF file."""
    reward: Sources = ()
    """What says which response is best: reward model directories or hub names, or functions as file.py:name."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each reward; empty: all 1."""
    reward_timeout: float = Field(60.0, ge=0)
    """Seconds that a call of a reward function may take; a slower one is a failed reward. 0: no limit."""
    gold: Sources = ()
    """A second judge that chooses nothing: what the best responses are worth to somebody else."""
    dataset: str = ""
    """Prompts: a file, a directory, or a hub name. Responses in it are not used."""
    rounds: int = Field(0, ge=0)
    """Rounds of sampling, keeping the best, and fine-tuning on them; 0: no training, only the best responses."""
    prompts_per_round: int = Field(0, ge=0)
    """Prompts of each round, others in each; 0: all of them."""
    epochs: int = Field(2, ge=1)
    """Passes over what was kept, in each round."""
    batch_size: int = Field(16, ge=1)
    """Kept responses per optimizer step."""
    eval_prompts: int = Field(64, ge=1)
    """Held-out prompts on which the policy is compared with its start, before and after each round."""
    algorithm: BestOfN = BestOfN()
    optimizer: OptimizerSection = OptimizerSection(lr=1e-5)
    sampling: SamplingSection = SamplingSection()
    checkpoint: CheckpointSection = CheckpointSection(every=1)

    @property
    def iterations(self) -> int:
        """What the evaluation counts: rounds."""
        return self.rounds

    @property
    def eval_every(self) -> int:
        """Every round is evaluated."""
        return 1

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        return inputs_by_role(self.policy, self.dataset, self.reward, self.gold)
