"""From the score of a response to its reward: truncated responses, scale, clip. All tensors are ``[B]``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plaudit.functional.controllers import Moments

MissingEos = Literal["subtract", "fixed", "mask"]
Scaling = Literal["none", "scale", "normalize", "bounded"]


def missing_eos(scores: Tensor, truncated: Tensor, treatment: MissingEos, penalty: float) -> Tensor:
    """Scores in which responses that reached the length limit are lower. A reward model is not told of the limit.

    subtract: ``score - penalty`` (TRL). fixed: ``-penalty``, whatever the text (Ziegler et al. use -1).
    mask: NaN, which leaves the response out of everything.

    >>> scores, truncated = torch.tensor([2.0, 2.0]), torch.tensor([True, False])
    >>> [missing_eos(scores, truncated, how, 1.5).tolist() for how in ("subtract", "fixed", "mask")]
    [[0.5, 2.0], [-1.5, 2.0], [nan, 2.0]]
    """
    assert scores.shape == truncated.shape and scores.dim() == 1
    worse = {
        "subtract": scores - penalty,
        "fixed": torch.full_like(scores, -penalty),
        "mask": torch.full_like(scores, float("nan")),
    }
    # NaN is a reward that failed. A penalty in its place would train on a score that nobody gave.
    return torch.where(truncated & ~scores.isnan(), worse[treatment], scores)


def scale(scores: Tensor, moments: Moments, scaling: Scaling, clip: float) -> Tensor:
    """Scores divided by their running std (``scale``), after subtracting the mean (``normalize``); then clipped.

    With one reward for each response, the std of scores takes the place of that of the returns in arXiv:2005.12729.
    bounded: ``2 tanh(z / 2)`` of the normalised score z, which is ``4 sigmoid(z) - 2``: as steep as ``normalize`` where
    the policy started, and never more than 2, so that there is little to gain where a reward has been driven far
    (PAR, Fu et al. 2025, arXiv:2502.18770; there each prompt is centred on responses of the reference to it).

    Args:
        moments: of all scores so far, these included; for ``bounded`` of those at the start.
        clip: to +- this; 0 switches it off.

    >>> scale(torch.tensor([1.0, 2.0, 3.0]), Moments().update([1, 2, 3]), "normalize", 1.0)
    tensor([-1.,  0.,  1.])
    >>> scale(torch.tensor([1.0, 2.0, 9.0]), Moments(3, 2.0, 3.0), "bounded", 0.0)
    tensor([-0.9242,  0.0000,  1.9964])
    """
    if scaling != "none":
        scores = (scores - (0.0 if scaling == "scale" else moments.mean)) / moments.std
    if scaling == "bounded":
        scores = 2 * (scores / 2).tanh()
    return scores.clamp(-clip, clip) if clip else scores
