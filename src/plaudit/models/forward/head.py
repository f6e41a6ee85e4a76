"""From hidden states to log-probabilities: the LM head in fp32, at the wanted positions, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plaudit.models.forward.trunk import bare

CHUNK = 2**26
"""Logits held at once (fp32: 256 MiB). Where there are more, the backward pass recomputes them by chunks."""


class TokenLaw(torch.autograd.Function):
    """``log softmax(z)[tokens]`` and the entropy of ``softmax(z)``, with one buffer of probabilities.

    The probabilities are all that the backward pass needs; plain autograd holds four such buffers.
    Not differentiable twice.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, entropy_grad: bool) -> tuple[Tensor, Tensor]:
        """``logits [N, V]`` fp32, ``tokens [N]`` -> log-probs ``[N]``, entropy ``[N]``."""
        probs = logits.softmax(-1)
        # The largest probability is never 0, so this is exact where the normaliser would round at |z|.
        top, log_top = logits.amax(-1), probs.amax(-1).log()
        logprobs = logits.gather(-1, tokens[:, None]).squeeze(-1) - top + log_top
        normaliser = top - log_top
        entropy = normaliser - torch.linalg.vecdot(probs, logits)
        ctx.entropy_grad = entropy_grad
        ctx.save_for_backward(
            probs, tokens, *((logits - normaliser[:, None], entropy) if entropy_grad else ())
        )
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """``d logp / dz = onehot - p`` and ``d H / dz = -p (log p + H)``."""
        probs, tokens, *rest = ctx.saved_tensors
        grad = probs * -grads[0][:, None]
        if ctx.entropy_grad:
            logp, entropy = rest
            grad -= grads[1][:, None] * probs * (logp + entropy[:, None])
        grad.scatter_add_(-1, tokens[:, None], grads[0][:, None])
        return grad, None, None


class LMHead(nn.Module):
    """The output layer of a causal language model, and what its architecture does to the logits after it."""

    def __init__(self, lm: nn.Module, *, temperature: float = 1.0, entropy_grad: bool = False) -> None:
        super().__init__()
        inner = bare(lm)
        config = inner.config.get_text_config()
        self._linear = [inner.get_output_embeddings()]  # in a list: a part of the model, not of this module
        self.scale = _logit_scale(inner, config) / temperature
        self.temperature = temperature
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.entropy_grad = entropy_grad

    @property
    def vocabulary(self) -> int:
        """Logits of one position."""
        return int(self._linear[0].weight.shape[0])

    def logits(self, states: Tensor) -> Tensor:
        """``states [N, D]`` -> logits ``[N, V]`` over temperature, in fp32 whatever autocast says outside."""
        linear = self._linear[0]
        with torch.autocast(states.device.type, enabled=False):
            if type(linear) is nn.Linear:
                bias = None if linear.bias is None else linear.bias.float()
                z = nn.functional.linear(states.float(), linear.weight.float(), bias)
            else:
                z = linear(states).float()
        if self.softcap is not None:
            return torch.tanh(z * (self.scale * self.temperature / self.softcap)) * (
                self.softcap / self.temperature
            )
        return z if self.scale == 1.0 else z * self.scale

    def forward(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs of ``tokens [N]`` and entropies ``[N]`` under what ``states [N, D]`` predict, fp32."""
        size = max(1, CHUNK // self.vocabulary)
        if len(tokens) <= size:
            return self._law(states, tokens)
        recompute = torch.is_grad_enabled()
        parts = [
            checkpoint(self._law, s, t, use_reentrant=False) if recompute else self._law(s, t)
            for s, t in zip(states.split(size), tokens.split(size), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _law(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logprobs, entropy = TokenLaw.apply(self.logits(states), tokens, self.entropy_grad)
        return logprobs, entropy


def _logit_scale(inner: Any, config: Any) -> float:
    """The factor between the output layer and the logits: Cohere multiplies, Granite divides."""
    if getattr(config, "logits_scaling", None) is not None:
        scaling = float(config.logits_scaling)
        return scaling if config.model_type == "hyperclovax" else 1.0 / scaling
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        if isinstance(getattr(config, name, None), (int, float)):
            return float(getattr(config, name))
    return 1.0
