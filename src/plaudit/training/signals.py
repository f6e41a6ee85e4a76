"""Filling in what an algorithm needs to know about a batch before credit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plaudit.experience import Experience
from plaudit.training.learner import Scorer
from plaudit.training.runtime import Runtime


def fill_signals(batch: Experience, needs: frozenset[str], runtime: Runtime) -> Experience:
    """The batch with the signals in ``needs``, and no others."""
    if "old_logprobs" in needs:
        batch = batch.replace(old_logprobs=runtime.policy.score(batch))
    if "ref_logprobs" in needs:
        batch = batch.replace(ref_logprobs=runtime.reference.score(batch))
    if "full_kl" in needs:
        assert runtime.full_kl is not None
        batch = batch.replace(full_kl=runtime.full_kl.score(batch))
    if "values" in needs:
        assert runtime.critic is not None
        if "last_values" not in needs:
            return batch.replace(values=runtime.critic.score(batch))
        values, last = values_to_the_end(runtime.critic, batch)
        batch = batch.replace(values=values, last_values=last)
    return batch


def values_to_the_end(critic: Scorer, batch: Experience) -> tuple[Tensor, Tensor]:
    """Values ``[B, T]`` before each response token, and ``[B]`` after the last one, from one pass.

    One token is put after each row, for the value before it; which one does not matter, since values do not look ahead.
    So rows may not be longer than the model's context less one.
    """
    rows, end = torch.arange(len(batch)), batch.lengths
    longer = {"tokens": 0, "attention_mask": False, "response_mask": False}
    parts = {name: pad(getattr(batch, name), (0, 1), value=fill) for name, fill in longer.items()}
    parts["attention_mask"][rows, end] = True
    parts["response_mask"][rows, end] = True
    values = critic.score(Experience(**parts, group_ids=batch.group_ids))
    return torch.where(batch.response_mask, values[:, :-1], 0.0), values[rows, end]
