"""The settings of `plaudit best-of-n`."""

from __future__ import annotations

from pydantic import Field

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.config.sections import CheckpointSection, OptimizerSection, PassesJob, SamplingSection
from plaudit.jobs.rewarded import RewardedJob


class BestOfNJob(RewardedJob, PassesJob):
    """Sample n responses to each prompt and keep the best: as they are, or with --rounds to fine-tune the policy on."""

    rounds: int = Field(0, ge=0)
    """Rounds of sampling, keeping the best, and fine-tuning on them; 0: no training, only the best responses."""
    prompts_per_iteration: int = Field(0, ge=0)
    """Prompts of each round, others in each; 0: all of them."""
    epochs: int = Field(2, ge=1)
    """Passes over what was kept, in each round."""
    batch_size: int = Field(16, ge=1)
    """Kept responses per optimizer step."""
    algorithm: BestOfN = BestOfN()
    optimizer: OptimizerSection = OptimizerSection()
    sampling: SamplingSection = SamplingSection()
    checkpoint: CheckpointSection = CheckpointSection(every=1)

    @property
    def takes_endpoint(self) -> bool:
        """Without rounds the model only answers."""
        return not self.rounds

    @property
    def iterations(self) -> int:
        """What the evaluation counts: rounds."""
        return self.rounds

    @property
    def eval_every(self) -> int:
        """Every round is evaluated."""
        return 1

    @property
    def responses_per_iteration(self) -> int:
        """Of a round; 0 where a round takes all prompts there are."""
        return self.prompts_per_iteration * self.algorithm.group_size
