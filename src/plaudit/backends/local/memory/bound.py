"""An upper limit of what a run needs, from the headers of its models' files alone: in milliseconds.

Most runs need a small part of a machine. For them the limit is enough; only where it comes near what there is, the plan
is worked out in full (`plan.py`), which takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from plaudit.config.sections import Job, PassesJob
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.models.files.outline import Stored
from plaudit.models.files.source import resolve
from plaudit.models.forward.head import CHUNK

FP32 = 4
KEPT_OF_A_PRODUCT = 4
"""Times the input and the output of a matrix product that a layer keeps for its backward pass, at most: what the norms,
the activation function and attention keep is counted with it. Measured on Llama, GPT-2 and Qwen it is below 2."""
LOGIT_COPIES = 5
SIDE_BY_SIDE = 64


@dataclass(frozen=True, slots=True)
class Bulk:
    """A model by its headers."""

    parameters: int
    widths: int
    """Inputs and outputs of all matrices but the embeddings, added up: what a token passes through."""
    largest: int
    """Elements of the largest matrix, the embeddings."""
    vocabulary: int

    @classmethod
    def of(cls, source: str) -> Self | None:
        """None where no file with headers is here."""
        shapes = Stored.of(resolve(source)).shapes
        if not shapes:
            return None
        matrices = sorted((s for s in shapes.values() if len(s) >= 2), key=math.prod)
        vocabulary = max((s[0] for s in matrices), default=1)
        inner = [s for s in matrices if vocabulary not in s]
        total = sum(map(math.prod, shapes.values()))
        return cls(
            total, sum(s[0] + s[-1] for s in inner), math.prod(matrices[-1]) if matrices else 0, vocabulary
        )

    def adapters(self, rank: int) -> int:
        """Parameters of adapters on all matrices."""
        return rank * self.widths

    def passing(self, tokens: int) -> int:
        """Bytes of a forward and a backward pass over so many tokens."""
        logits = LOGIT_COPIES * min(tokens * self.vocabulary, 2 * CHUNK)
        return FP32 * (KEPT_OF_A_PRODUCT * tokens * self.widths + logits + 2 * self.largest)


def upper_limit(
    job: Job, records: Sequence[object], sources: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]] | None:
    """What stays, and what comes and goes at once at most, in bytes by role; None where the headers are not here.

    Args:
        job: the settings.
        records: all that it learns from.
        sources: of its models, the one that is trained first.
    """
    models = [Bulk.of(source) for source in sources]
    if not all(models):
        return None
    first, *others = [model for model in models if model is not None]
    online = isinstance(job, (OnlineJob, BestOfNJob))
    trained = first.adapters(job.lora.rank) if job.lora.rank else first.parameters + first.largest
    held = {"policy" if online else "model": FP32 * (first.parameters + first.largest)}
    held["optimizer"] = 2 * FP32 * trained
    if online and not job.lora.rank:
        held["reference"] = held["policy"]
    if isinstance(job, OnlineJob) and "values" in job.algorithm.needs:
        most = max(model.parameters for model in (first, *others))
        held["critic"] = FP32 * 3 * most
    for index, model in enumerate(others):
        held[f"reward {index + 1}"] = FP32 * model.parameters
    tokens = _tokens(job, len(records))
    passing = {"gradients": FP32 * trained, "activations": max(m.passing(tokens) for m in (first, *others))}
    if online:
        passing["KV cache"] = FP32 * 2 * SIDE_BY_SIDE * job.data.max_length * first.widths
    return held, passing


def _tokens(job: Job, records: int) -> int:
    """Of the largest pass that is learned from: the budget and one row, or all that there is."""
    # What is only read has four times the budget, but keeps nothing of a layer once the next one is computed.
    units = records
    if isinstance(job, (OnlineJob, BestOfNJob)):
        units = (job.prompts_per_iteration or records) * job.algorithm.group_size
    elif isinstance(job, PassesJob):
        units = 9 * min(max(64, job.batch_size), records)  # a ranking has up to nine responses
    return min(job.compute.tokens_per_microbatch + job.data.max_length, units * job.data.max_length)
