"""Means, variances and whitening under a mask. Masked-out values have no effect, not even NaN."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``x`` where ``mask``; by `where`, because NaN * 0 is NaN.

    >>> masked_sum(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))
    tensor(1.)
    """
    return torch.where(mask, x, torch.zeros_like(x)).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` where ``mask``; 0 if nothing counts.

    >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    return masked_sum(x, mask) / mask.sum().clamp(min=1)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Biased variance where ``mask``: well defined for a single value, for which it is 0.

    >>> masked_var(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    tensor(1.)
    """
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """``(x - mean) / sqrt(var + 1e-8)`` over the counted values of the whole tensor; 0 where masked out.

    With ``shift_mean=False`` the mean is added back, so that only the scale changes.

    >>> whiten(torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.tensor([True, True, True, False]))
    tensor([-1.2247,  0.0000,  1.2247,  0.0000])
    """
    # The biased variance, because with one counted token the unbiased one is 0 / 0; 1e-8 stands inside the root, so
    # equal advantages become 0 and not NaN.
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_var(x, mask) + 1e-8)
    if not shift_mean:
        white = white + mean
    return torch.where(mask, white, torch.zeros_like(white))


def whitening_divisor(x: Tensor, mask: Tensor) -> float:
    """What `whiten` divides by: the biased standard deviation, with the same 1e-8 inside the root.

    >>> round(whitening_divisor(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])), 6)
    1.0
    """
    return float((masked_var(x, mask) + 1e-8).sqrt())


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """``1 - Var(returns - values) / Var(returns)``: 1 is a perfect critic, 0 a constant one, below 0 is worse.

    >>> returns = torch.tensor([1.0, 2.0, 3.0]); everywhere = torch.ones(3, dtype=torch.bool)
    >>> explained_variance(torch.tensor([3.0, 2.0, 1.0]), returns, everywhere)
    tensor(-3.)
    """
    # Equal returns leave nothing to explain: 0 by definition, and no division by 0 (`where` evaluates both branches).
    variance = masked_var(returns, mask)
    return torch.where(variance > 0, 1 - masked_var(returns - values, mask) / variance.clamp(min=1e-12), 0.0)
