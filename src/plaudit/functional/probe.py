"""A linear probe: how well a linear map of a fixed feature vector predicts a preference or a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe."""

    weight: Tensor  # [D] fp32: ``features @ weight`` is the score
    penalty: float  # chosen by cross-validation, in units of standardised features
    loss: float  # cross-validated log loss, nats; ln 2 is chance
    accuracy: float  # cross-validated share of rows on the right side of 0; a score of exactly 0 counts half


def fit_probe(
    features: Tensor, targets: Tensor, folds: Tensor, penalties: Sequence[float] = PENALTIES
) -> Probe:
    """Logistic regression without intercept, L2-penalised; the penalty has the best cross-validated loss.

    For preferences the features are those of chosen minus those of rejected, which makes it Bradley-Terry.

    Args:
        features: ``[P, D]``.
        targets: ``[P]`` probability that the score is positive.
        folds: ``[P]`` int: rows of one fold are held out together (rows about one prompt belong in one fold).
        penalties: tried in this order.

    >>> x = torch.tensor([[1.0, 0.1], [2.0, -0.1], [-1.0, 0.1], [-2.0, -0.1]]).repeat(3, 1)
    >>> probe = fit_probe(x, (x[:, 0] > 0).float(), torch.arange(12) // 4)
    >>> probe.accuracy, bool(probe.weight[0] > 10 * probe.weight[1].abs())
    (1.0, True)
    """
    assert features.shape[0] == len(targets) == len(folds), "one row, one target, one fold each"
    # Scaled about 0 and not about the mean: which of a pair comes first is arbitrary, so differences have mean 0, and
    # an intercept would predict the position and not the quality.
    scale = features.double().square().mean(0).sqrt().clamp(min=1e-8)
    x, y = features.double() / scale, targets.double()
    tried = [(penalty, *_cross_validated(x, y, folds, penalty)) for penalty in penalties]
    penalty, loss, accuracy = min(tried, key=lambda each: each[1])
    return Probe((_fit(x, y, penalty) / scale).float(), penalty, loss, accuracy)


def _cross_validated(x: Tensor, y: Tensor, folds: Tensor, penalty: float) -> tuple[float, float]:
    # Each score comes from a fit that did not contain its fold, so loss and accuracy are those of unseen prompts.
    scores = torch.zeros_like(y)
    for fold in folds.unique():
        out = folds == fold
        if not out.all():
            scores[out] = x[out] @ _fit(x[~out], y[~out], penalty)
    right = torch.where(scores == 0, 0.5, ((scores > 0) == (y > 0.5)).double())
    return float(F.binary_cross_entropy_with_logits(scores, y)), float(right.mean())


def _fit(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    weight = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = F.binary_cross_entropy_with_logits(x @ weight, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    # Callers are often inside no_grad, because the features are; the fit needs gradients of its weight all the same.
    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()
