"""The moments at which a run needs most memory, rehearsed on outlines: sampling, scoring, an optimizer step."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.backends.local.memory.rehearsal import LiveBytes
from plaudit.backends.local.memory.traffic import RowLengths, Traffic
from plaudit.backends.local.microbatch import microbatches
from plaudit.backends.local.precision import autocast, product_dtype, resolve_device
from plaudit.backends.local.rewards import CLASSIFIER_BATCH
from plaudit.config.sections import Job, SamplingSection
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations, collate_pairs, collate_rankings
from plaudit.experience import Batch, Outputs
from plaudit.functional.precision import as_in_forward, without_gradients
from plaudit.generation.cache import SlotCache
from plaudit.generation.decoder import MOST_TOKENS, Decoder
from plaudit.generation.sampling import Distribution, draw
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel

SIDE_BY_SIDE = 64
"""Responses that the generator decodes at once."""
SCORED_TOKENS = 16384
"""Padded tokens that a reward model scores at once."""
Transient = dict[str, int]
"""What comes and goes in a moment: bytes by role."""


class Rehearsal:
    """Computes with outlines what a run will compute, on rows of the lengths that it will have.

    Args:
        job: the settings.
        live: counts; it must be on.
        traffic: the lengths.
    """

    def __init__(self, job: Job, live: LiveBytes, traffic: Traffic) -> None:
        self.job, self.live, self.traffic = job, live, traffic
        self.device = resolve_device(job.compute.device)
        self.sampling: SamplingSection = getattr(job, "sampling", SamplingSection())

    def update(self, learner: LocalLearner, units: int) -> Transient:
        """One optimizer step on ``units`` units: the first two microbatches, which are the largest."""
        batch = _batch(self.traffic.largest(units))
        budget = self.job.compute.tokens_per_microbatch
        packed = bool(getattr(learner.module, "packing", False))
        parts = [part for _, part in islice(microbatches(batch, budget, packed=packed), 2)]
        with self._moment() as measured, autocast(self.job.compute, self.device):
            for part in parts:
                value = _value(learner.module(part.to(self.device)))
                with as_in_forward(self.device):
                    value.backward()
                del value
            gradients = sum(p.grad.nbytes for p in learner.module.parameters() if p.grad is not None)
        for parameter in learner.module.parameters():
            parameter.grad = None
        return {"gradients": gradients, "activations": max(measured[0] - gradients, 0)}

    def read(self, scorer: LocalScorer | nn.Module) -> Transient:
        """A pass without gradients, over the largest microbatch of what is read at once."""
        module = scorer.module if isinstance(scorer, LocalScorer) else scorer
        batch = _batch(self.traffic.largest(self.traffic.read_at_once))
        packed = bool(getattr(module, "packing", False))
        budget = 4 * self.job.compute.tokens_per_microbatch
        _, part = next(microbatches(batch, budget, packed=packed))
        dtype = product_dtype(self.job.compute, self.device)
        with self._moment() as measured, without_gradients(module, dtype, self.device):
            module(part.to(self.device))
        return {"activations": measured[0]}

    def score(self, model: nn.Module, rows: int) -> Transient:
        """A reward, or a reward model at its end, on so many responses: as many at once as it scores."""
        longest = self.traffic.longest
        count = max(1, min(rows, SCORED_TOKENS // longest.tokens))
        if not isinstance(model, RewardModel):
            return self._classify(model, min(rows, CLASSIFIER_BATCH), longest.tokens)
        batch = _batch(self.traffic.largest(count)).to(self.device)
        with self._moment() as measured, torch.no_grad(), autocast(self.job.compute, self.device):
            model(batch)
        return {"activations": measured[0]}

    def _classify(self, model: nn.Module, rows: int, width: int) -> Transient:
        tokens = torch.ones(rows, width, dtype=torch.int64, device=self.device)
        with self._moment() as measured, torch.no_grad(), autocast(self.job.compute, self.device):
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return {"activations": measured[0]}

    def sample(self, policy: Policy, prompts: int, n: int) -> Transient:
        """The prompts are read, their keys and values kept, and a token is drawn for the longest rows."""
        lengths = sorted(self.traffic.prompts(prompts), reverse=True)
        rows = min(SIDE_BY_SIDE, len(lengths) * n)
        first = lengths[: -(-rows // n)]
        most = self.sampling.max_new_tokens
        words = policy.head.words
        decoder = Decoder(policy.lm, product_dtype(self.job.compute, self.device), words)
        with self._moment() as measured, decoder.ready():
            stored, width = 0, lengths[0] + most
            if decoder.in_slots(width):
                cache = SlotCache(rows, width)
                stored = self._filled(decoder, cache, first, rows)
                last = torch.ones(rows, dtype=torch.int64, device=self.device)
                state = decoder.step(last, [width - 1] * rows, cache)
            else:
                state = decoder.whole([[1] * width] * rows)
            u = torch.from_numpy(np.zeros(rows))  # fp64 and on the CPU, as the generator draws them
            draw(decoder.logits(state), u, Distribution.of(self.sampling))
        return {"KV cache": stored, "generation": max(measured[0] - stored, 0)}

    def _filled(
        self, decoder: Decoder, cache: SlotCache, lengths: Sequence[int], rows: int
    ) -> int:
        """Read prompts of these lengths and fill all slots with them; bytes of the slots."""
        left, prefills = list(lengths), []
        while left:
            count = max(1, MOST_TOKENS // left[0])
            prefills.append(decoder.prefill([[1] * n for n in left[:count]]))
            left = left[count:]
        before = self.live.now
        start = 0
        for index, prefill in enumerate(prefills):
            share = rows - start if index == len(prefills) - 1 else min(len(prefill.state), rows - start)
            source = torch.arange(share, device=self.device) % len(prefill.state)
            cache.admit(prefill.cache, source, start)
            start += share
        return self.live.now - before

    @contextmanager
    def _moment(self) -> Iterator[list[int]]:
        """Within it the most that is alive beyond what was alive before; known when it ends."""
        gc.collect()
        before = self.live.mark()
        measured = [0]
        yield measured
        measured[0] = self.live.peak - before


def _value(out: Outputs) -> Tensor:
    """A number that depends on all that a loss would depend on."""
    parts = [x for x in (out.logprobs, out.values, out.scores) if x is not None]
    value = sum((x.sum() for x in parts), start=torch.zeros(()))
    return value if out.entropy is None or not out.entropy.requires_grad else value + out.entropy.sum()


def _batch(units: Sequence[Sequence[RowLengths]]) -> Batch:
    """Units of made-up tokens with these lengths; the rows of a unit share their prompt and nothing else."""
    rows = [[_row(index, place, row) for place, row in enumerate(unit)] for index, unit in enumerate(units)]
    widths = {len(unit) for unit in rows}
    if widths == {1}:
        batch = collate_demonstrations([unit[0] for unit in rows], 0)
        return batch.replace(group_ids=torch.tensor([row.group for unit in units for row in unit]))
    if widths == {2}:
        return collate_pairs(
            [u[0] for u in rows], [u[1] for u in rows], [None] * len(rows), [1.0] * len(rows), 0
        )
    return collate_rankings(rows, [[float(i + 1) for i in range(len(unit))] for unit in rows], 0)


def _row(index: int, place: int, row: RowLengths) -> Encoded:
    prompt = 2 + (index if row.group < 0 else row.group) % 97
    ids = [prompt] * row.prompt + [2 + (31 * index + place) % 89] * row.response
    return Encoded(ids, [False] * row.prompt + [True] * row.response, row.prompt)
