"""Log-probabilities of tokens. The shift by one between a hidden state and the token it predicts happens here only."""

from __future__ import annotations

import torch
from torch import Tensor


def predicting_states(hidden: Tensor, mask: Tensor) -> Tensor:
    """Hidden states ``[N, D]`` that predict the N masked tokens: the state one position before each of them.

    >>> hidden = torch.arange(4.0).view(1, 4, 1)
    >>> predicting_states(hidden, torch.tensor([[False, False, True, True]])).flatten()
    tensor([1., 2.])

    Args:
        hidden: ``[B, T, D]``.
        mask: ``[B, T]`` bool; column 0 must be False, since nothing predicts the first token.
    """
    assert not mask[:, 0].any(), "the first token of a row has no predecessor and cannot be trained on"
    # Everywhere else x[b, t] is about tokens[b, t]. A second place that shifts would sooner or later shift twice.
    return hidden[:, :-1][mask[:, 1:]]


def at_mask(values: Tensor, mask: Tensor) -> Tensor:
    """Put the N values of the masked tokens back at their places in ``[B, T]``; 0 elsewhere. Inverse of the gather.

    >>> at_mask(torch.tensor([5.0, 6.0]), torch.tensor([[False, True], [False, True]]))
    tensor([[0., 5.],
            [0., 6.]])
    """
    # 0 and not NaN outside of the mask: `where` removes a NaN in the forward pass, but in the backward pass the
    # gradient 0 would be multiplied by it.
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / temperature)[tokens]`` in fp32. ``logits [N, V]``, ``tokens [N]`` -> ``[N]``.

    >>> logits = torch.tensor([[0.0, 2.0, 3.0]]).log().nan_to_num(neginf=-1e9)
    >>> round(token_logprobs(logits, torch.tensor([2])).item(), 6)
    -0.510826
    """
    scaled = logits.float() / temperature
    return scaled.gather(-1, tokens[:, None]).squeeze(-1) - scaled.logsumexp(-1)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of ``softmax(logits / temperature)``: ``logsumexp(z) - sum softmax(z) z``. ``[N, V]`` -> ``[N]``.

    >>> round(token_entropy(torch.zeros(1, 4)).item(), 6)
    1.386294
    >>> round(token_entropy(torch.tensor([[0.0, 0.0, -torch.inf]])).item(), 6)
    0.693147
    """
    scaled = logits.float() / temperature
    # A token that is ruled out (-inf) has no part in the sum, but 0 * -inf would be NaN, and so would its gradient.
    finite = scaled.masked_fill(scaled == -torch.inf, 0.0)
    return scaled.logsumexp(-1) - (scaled.softmax(-1) * finite).sum(-1)
