"""Correcting an online batch for a sampler that is not quite the trainer; see functional/mismatch.py."""

from __future__ import annotations

import torch

from plaudit.config.sections import MismatchSection
from plaudit.experience import Experience
from plaudit.functional.mismatch import log_gap, mismatch_metrics, mismatch_weights, within


def correct_mismatch(batch: Experience, section: MismatchSection) -> tuple[Experience, dict[str, float]]:
    """The batch with ``mismatch_weights``, and how far sampler and trainer are apart: measured whatever is corrected.

    Comes after credit, so that statistics of rewards and advantages are those of the samples as they are.
    """
    if batch.old_logprobs is None or batch.sampled_logprobs is None:
        return batch, {}
    old, sampled, mask = batch.old_logprobs, batch.sampled_logprobs, batch.response_mask
    weights = mismatch_weights(
        log_gap(old, sampled, mask, section.level),
        mask,
        section.correction,
        section.weight_low,
        section.weight_high,
    )
    metrics = mismatch_metrics(old, sampled, mask, weights, section.weight_high)
    if section.drop_beyond:
        near = within(log_gap(old, sampled, mask), mask, 1 / section.drop_beyond, section.drop_beyond)
        metrics["rollout/dropped_share"] = 1 - float(near.float().mean())
        mask = mask & near[:, None]
        batch = batch.replace(response_mask=mask)
        if batch.advantages is not None:
            batch = batch.replace(advantages=torch.where(mask, batch.advantages, 0.0))
    return batch.replace(mismatch_weights=None if section.correction == "none" else weights), metrics
