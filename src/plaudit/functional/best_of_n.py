"""Expected reward of the best of n samples, and how far its distribution is from the one it was drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence


def order_weights(total: int, n: int) -> list[float]:
    """How often each of ``total`` samples is the best of a random n of them, from the worst to the best.

    ``C(i - 1, n - 1) / C(total, n)`` for rank i (1 the worst), from the best to the worst.

    Raises:
        ValueError: n is not in 1..total.

    >>> order_weights(3, 2) == [0.0, 1 / 3, 2 / 3]
    True
    """
    if not 1 <= n <= total:
        raise ValueError(f"the best of {n} cannot be estimated from {total} samples")
    # Neighbouring weights differ by the factor (rank - n) / (rank - 1), so no binomial is formed: they overflow
    # doubles.
    weights, share = [0.0] * total, n / total
    for rank in range(total, n - 1, -1):
        weights[rank - 1] = share
        share *= (rank - n) / max(rank - 1, 1)
    return weights


def expected_best(rewards: Sequence[float], n: int, gold: Sequence[float] | None = None) -> float:
    """Expected reward of the best of n, from N >= n samples of one prompt, unbiased: the mean over all subsets of n.

    One set of N samples gives the whole curve over n. Of equal rewards the first one is the best.

    Args:
        gold: another reward of the same samples; then its values are averaged, while ``rewards`` chooses. This is the
            gold reward of best-of-n on a proxy reward.

    >>> round(expected_best([3.0, 1.0, 2.0], 2), 6)
    2.666667
    >>> expected_best([1.0, 2.0, 3.0], 3, gold=[5.0, 0.0, -1.0])
    -1.0
    """
    # The tie rule of best-of-n itself (`BestOfN.ranked`), so the estimate is of what
    # is done. It matters with gold: tied samples differ there.
    order = sorted(range(len(rewards)), key=lambda i: (rewards[i], -i))
    values = rewards if gold is None else gold
    return math.fsum(w * values[i] for w, i in zip(order_weights(len(order), n), order, strict=True))


def kl_bound(n: int) -> float:
    """``log n - (n - 1) / n``: upper bound in nats of KL(best-of-n || base) (Beirami et al., arXiv:2401.01879).

    It is reached only where no two responses have the same reward.

    >>> [round(kl_bound(n), 6) for n in (1, 2, 16)]
    [0.0, 0.193147, 1.835089]
    """
    return math.log(n) - (n - 1) / n


def win_rate_bound(n: int) -> float:
    """``n / (n + 1)``: upper bound of the share in which best-of-n beats one sample, a tie counting a half.

    >>> win_rate_bound(3)
    0.75
    """
    return n / (n + 1)


def best_of_n_probs(probs: Sequence[float], n: int) -> list[float]:
    """Distribution of the best of n draws from ``probs``, whose outcomes are in order of rising reward.

    >>> [round(p, 2) for p in best_of_n_probs([0.5, 0.3, 0.2], 2)]
    [0.25, 0.39, 0.36]
    """
    result, below = [], 0.0
    # P(best <= i) = (p_1 + ... + p_i)^n; the difference of two of them is the probability of i.
    for p in probs:
        result.append((below + p) ** n - below**n)
        below += p
    return result
