"""From hidden states to log-probabilities: the LM head in fp32, at the wanted positions, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plaudit.functional.precision import half
from plaudit.models.files.vocabulary import Words
from plaudit.models.forward.attention import is_better_exact
from plaudit.models.forward.reading import UNRUNNABLE, run
from plaudit.models.forward.trunk import bare, body

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


class HalfBackward(torch.autograd.Function):
    """``states @ weight.T + bias`` in fp32, with a gradient whose products are bf16. Not differentiable twice."""

    # bf16 has 8 bits of mantissa: a logit of 20 would be rounded to 1/8, and importance ratios exp(logp - logp_old)
    # would consist of that rounding. PyTorch has no product on a CPU that takes bf16 and gives fp32. A gradient can be
    # rounded like those of all other layers under autocast, and it is two thirds of the work.

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, half: Tensor) -> Tensor:
        """``states [N, D]``, ``weight [V, D]``, ``bias [V]`` -> ``[N, V]`` in fp32; ``half``: the weight in bf16."""
        ctx.save_for_backward(states.bfloat16(), half)
        return nn.functional.linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Of the states, the weight and the bias, each where it is wanted."""
        states, half = ctx.saved_tensors
        grad, of_states, of_weight, of_bias = grads[0].bfloat16(), None, None, None
        if ctx.needs_input_grad[0]:
            of_states = (grad @ half).float()
        if ctx.needs_input_grad[1]:
            of_weight = (grad.T @ states).float()
        if ctx.needs_input_grad[2]:
            of_bias = grads[0].sum(0)
        return of_states, of_weight, of_bias, None


class LMHead(nn.Module):
    """From states to logits: the output layer of a causal language model, and what is done to the logits after it.

    Where an architecture does something that is not known here, the states are the model's own logits at all tokens
    (`whole`), which costs memory and is always right.

    Args:
        lm: the model, plain or wrapped by `add_lora`.
        temperature: divides the logits.
        entropy_grad: let gradients flow through the entropy.
        words: the ids that are tokens; logits of others are left out. None: all of them are.
    """

    def __init__(
        self,
        lm: nn.Module,
        *,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        words: Words | None = None,
    ) -> None:
        super().__init__()
        inner = bare(lm)
        config = inner.config.get_text_config()
        self.temperature, self.entropy_grad, self.words = temperature, entropy_grad, words
        # In a list, so that PyTorch does not register it: the layer belongs to the model. Registered here too, it would
        # be counted, saved and moved twice.
        self._linear = [inner.get_output_embeddings()]
        self.scale = _logit_scale(inner, config) / temperature
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.whole = not self._is_all_of(lm)
        if self.whole:
            self._linear, self.scale, self.softcap = [nn.Identity()], 1.0 / temperature, None
        self._size = int(config.vocab_size)

    NOTE = (
        "log-probs come from the model's own logits at every token, since its output layer is of a kind of its own;"
        " that needs more memory"
    )
    """What a run should say where a head is `whole`."""

    @property
    def vocabulary(self) -> int:
        """Logits of one position."""
        return self._size if self.words is None else min(self._size, self.words.count)

    def trunk(self, lm: nn.Module) -> nn.Module:
        """What gives the states that this head reads: the model's body, or all of it."""
        return LogitsTrunk(lm) if self.whole else body(lm)

    def logits(self, states: Tensor) -> Tensor:
        """``states [N, D]`` -> logits ``[N, V]`` divided by the temperature, in fp32 also under autocast."""
        linear = self._linear[0]
        halved = torch.is_grad_enabled() and is_better_exact(states.device)
        # fp32 also where the trunk runs in bf16; see `HalfBackward`.
        with torch.autocast(states.device.type, enabled=False):
            # Only a plain layer can be applied by its weight; one with an adapter or in 4 bit has its own forward pass.
            if type(linear) is nn.Linear:
                rows = slice(self.words and self.words.count)
                bias = None if linear.bias is None else linear.bias[rows].float()
                weight = linear.weight[rows].float()
                if halved:
                    z = HalfBackward.apply(states.float(), weight, bias, half(linear.weight)[rows])
                else:
                    z = nn.functional.linear(states.float(), weight, bias)
            else:
                z = linear(states).float()
        # Gemma 2: logits = cap * tanh(z / cap). The temperature divides after the cap, as in sampling, while ``scale``
        # already contains it; so it is taken out inside the tanh and put back outside.
        if self.softcap is not None:
            inside = torch.tanh(z * (self.scale * self.temperature / self.softcap))
            z = inside * (self.softcap / self.temperature)
        elif self.scale != 1.0:
            z = z * self.scale
        return z if self.words is None else self.words.of(z)

    @torch.no_grad()
    def _is_all_of(self, lm: nn.Module) -> bool:
        """Are our logits of two tokens the model's own?"""
        # An unknown scale would not raise anything by itself: training would run on a distribution that is not the one
        # that is sampled and saved.
        linear = self._linear[0]
        if linear is None or body(lm) is bare(lm):
            return False
        if linear.weight.device.type == "meta":  # a model without values, made to count parameters
            return True
        words, self.words = self.words, None
        tokens = torch.tensor([[0, linear.weight.shape[0] // 2]], device=linear.weight.device)
        try:
            wanted = lm(input_ids=tokens, use_cache=False).logits[0].float()
            found = self.logits(run(body(lm), tokens)[0]) * self.temperature
        except UNRUNNABLE:
            return False
        finally:
            self.words = words
        tolerance = 1e-3 if linear.weight.dtype == torch.float32 else 5e-2
        atol = tolerance * float(wanted.abs().max().nan_to_num(0.0, 0.0).clamp(min=1))
        return found.shape == wanted.shape and torch.allclose(found, wanted, tolerance, atol, equal_nan=True)

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


class LogitsTrunk(nn.Module):
    """A language model whose states are its logits ``[B, T, V]``, in the place of its body."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm, self.config = lm, bare(lm).config

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        """In a tuple, as transformers gives its states."""
        return (self.lm(input_ids=input_ids, use_cache=use_cache).logits.float(),)


def _logit_scale(inner: Any, config: Any) -> float:
    """The factor between the output layer and the logits: Cohere multiplies, Granite divides."""
    # These live in the model's own forward pass, which is not called here. `LMHead._is_all_of` compares the outcome
    # with it, so an architecture that is missing in this list is slower and not wrong.
    if getattr(config, "logits_scaling", None) is not None:
        scaling = float(config.logits_scaling)
        return scaling if config.model_type == "hyperclovax" else 1.0 / scaling
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        if isinstance(getattr(config, name, None), (int, float)):
            return float(getattr(config, name))
    return 1.0
