"""From hidden states to log-probabilities: the LM head in fp32, at the wanted positions, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plaudit.models.forward.trunk import bare

CHUNK = 2**26
"""Logits held at once (fp32: 256 MiB). Where there are more, the backward pass recomputes them by chunks."""


class TokenLogprobs(torch.autograd.Function):
    """``log softmax(z)[tokens]`` and the entropy of ``softmax(z)``. Not differentiable twice."""

    # Written by hand because of memory: [N, V] is the largest tensor of a training step by far. The gradient needs the
    # probabilities and nothing else, where autograd through log_softmax, exp, product and sum keeps four such buffers.

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, entropy_grad: bool) -> tuple[Tensor, Tensor]:
        """``logits [N, V]`` fp32, ``tokens [N]`` -> log-probs ``[N]``, entropy ``[N]``."""
        probs = logits.softmax(-1)
        # log p = z - logsumexp(z) would subtract two numbers of the size of |z|, and so round at that size: with logits
        # near 1000 in fp32 that is an error of 6e-5, more than the log-prob of a nearly certain token. Relative to the
        # largest logit the difference is small and exact, and the largest probability is never 0: its log is finite.
        top, log_top = logits.amax(-1), probs.amax(-1).log()
        logprobs = logits.gather(-1, tokens[:, None]).squeeze(-1) - top + log_top
        normaliser = top - log_top
        # H = logsumexp(z) - sum p z. As one dot product it needs no [N, V] tensor for p log p.
        expected = torch.linalg.vecdot(probs, logits)
        if bool(expected.isnan().any()):  # of a token that is ruled out: 0 * -inf
            expected = torch.linalg.vecdot(probs, logits.masked_fill(probs == 0, 0.0))
        entropy = normaliser - expected
        ctx.entropy_grad = entropy_grad
        rest: tuple[Tensor, ...] = ()
        if entropy_grad:
            rest = (logits - normaliser[:, None]).masked_fill_(probs == 0, 0.0), entropy
        ctx.save_for_backward(probs, tokens, *rest)
        # Without an entropy bonus the entropy is only a metric; its gradient would cost a second [N, V] buffer.
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
        # In a list, so that PyTorch does not register it: the layer belongs to the model. Registered here too, it would
        # be counted, saved and moved twice.
        self._linear = [inner.get_output_embeddings()]
        self.scale = _logit_scale(inner, config) / temperature
        self.temperature = temperature
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.entropy_grad = entropy_grad

    @property
    def vocabulary(self) -> int:
        """Logits of one position."""
        return int(self._linear[0].weight.shape[0])

    def logits(self, states: Tensor) -> Tensor:
        """``states [N, D]`` -> logits ``[N, V]`` divided by the temperature, in fp32 also under autocast."""
        linear = self._linear[0]
        # fp32 even where the trunk runs in bf16: bf16 has 8 bits of mantissa, so a logit of 20 is rounded to 1/8, and
        # importance ratios exp(logp - logp_old) would consist of that rounding.
        with torch.autocast(states.device.type, enabled=False):
            # Only a plain layer can be applied by its weight; one with an adapter or in 4 bit has its own forward pass.
            if type(linear) is nn.Linear:
                bias = None if linear.bias is None else linear.bias.float()
                z = nn.functional.linear(states.float(), linear.weight.float(), bias)
            else:
                z = linear(states).float()
        # Gemma 2: logits = cap * tanh(z / cap). The temperature divides after the cap, as in sampling, while ``scale``
        # already contains it; so it is taken out inside the tanh and put back outside.
        if self.softcap is not None:
            return torch.tanh(z * (self.scale * self.temperature / self.softcap)) * (
                self.softcap / self.temperature
            )
        return z if self.scale == 1.0 else z * self.scale

    def forward(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs of ``tokens [N]`` and entropies ``[N]`` of what ``states [N, D]`` predict, in fp32."""
        # 16 000 tokens and 150 000 words are 9.6 GB of logits. Chunk by chunk, with the logits of each computed again
        # in the backward pass, only one chunk is held; the head is applied twice, the trunk once.
        size = max(1, CHUNK // self.vocabulary)
        if len(tokens) <= size:
            return self._read(states, tokens)
        recompute = torch.is_grad_enabled()
        parts = [
            checkpoint(self._read, s, t, use_reentrant=False) if recompute else self._read(s, t)
            for s, t in zip(states.split(size), tokens.split(size), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _read(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logprobs, entropy = TokenLogprobs.apply(self.logits(states), tokens, self.entropy_grad)
        return logprobs, entropy


def _logit_scale(inner: Any, config: Any) -> float:
    """The factor between the output layer and the logits: Cohere multiplies, Granite divides."""
    # These live in the model's own forward pass, which is not called here. `Policy._check_head` compares the outcome
    # with it, so an architecture that is missing in this list is refused and not trained wrongly.
    if getattr(config, "logits_scaling", None) is not None:
        scaling = float(config.logits_scaling)
        return scaling if config.model_type == "hyperclovax" else 1.0 / scaling
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        if isinstance(getattr(config, name, None), (int, float)):
            return float(getattr(config, name))
    return 1.0
