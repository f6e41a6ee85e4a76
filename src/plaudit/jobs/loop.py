"""The settings of `plaudit loop`, except those of its steps: these are the settings of the commands that they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.config.sections import Job, SamplingSection, Section


class AnnotatorsSection(Section):
    """Who answers the comparisons of a loop."""

    kind: Literal["simulated", "app", "judge"] = "simulated"
    """simulated: a true score with errors at a known rate; app: people, through the annotation app; judge: a model."""
    source: str = ""
    """simulated: the true score, as module:function or file.py:function; app: the database, a file or a URL; judge:
    judge:MODEL@URL, its table on one line, or an object that answers, as module:object."""
    per_comparison: int = Field(1, ge=1)
    """How many annotators answer each comparison; the majority counts."""
    error_rate: float = Field(0.05, ge=0, le=0.5)
    """simulated: share of the verdicts that are turned round."""
    enough: float = Field(1.0, gt=0, le=1)
    """app, judge: the loop goes on when this share of a round's comparisons has been answered or skipped."""
    wait: bool = False
    """app: stay and look for answers; else the loop says what it waits for and ends, and the same command goes on."""


class LoopJob(Job):
    """Rounds of RLHF: sample the policy, ask annotators, train a reward model, train the policy on it, evaluate."""

    model: str = ""
    """The fine-tuned (SFT) model that the loop starts from, and that reward models start from in every round."""
    rounds: int = Field(3, ge=1)
    """Rounds in all; more of them go on where a finished loop ended."""
    comparisons: int = Field(500, ge=0)
    """Comparisons asked in each round, those that are held out included; 0: none, only feedback is learned from."""
    choose: Literal["random", "disagreement", "margin"] = "random"
    """Which pairs are asked from the second round on: any, those that the members of the last reward model disagree on
    ([reward] members 2 or more), or those that it is unsure of. Held-out comparisons are always chosen at random."""
    beside: tuple[str, ...] = ()
    """Further sources of responses beside the policy: models, or endpoints, judge:MODEL@URL. Of the pairs of a round,
    each of them takes part in as many as are of the policy alone."""
    candidates: int = Field(4, ge=2)
    """Pairs sampled for each one that is asked, where the choice is not random."""
    old_share: float = Field(1.0, ge=0, le=1)
    """Share of the earlier rounds' comparisons that a round's reward model learns from beside the new ones."""
    start: Literal["last", "sft"] = "last"
    """What a round's policy starts from: the policy of the round before, or the SFT model."""
    feedback: tuple[str, ...] = ()
    """JSONL files of implicit feedback (thumbs, ratings, clicks) of a served model; read anew in every round."""
    annotators: AnnotatorsSection = AnnotatorsSection()
    sampling: SamplingSection = SamplingSection()

    @property
    def inputs(self) -> dict[str, str]:
        """What a loop reads, by role."""
        return {"model": self.model, "dataset": self.dataset}
