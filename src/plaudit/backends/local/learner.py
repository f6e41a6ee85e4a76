"""One trainable model with its optimizer: score without gradient, update by exactly one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from plaudit.backends.local.microbatch import microbatches
from plaudit.backends.local.optim import build_optimizer, learning_rate
from plaudit.backends.local.precision import autocast, product_dtype, resolve_device
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.errors import TrainingError
from plaudit.experience import Batch, Loss
from plaudit.functional.precision import as_in_forward, without_gradients
from plaudit.runtime import LossFunction, SignalName

PER_ROW = ("scores", "features")
NON_FINITE_LIMIT = 3


class LocalScorer:
    """A model in this process that scores batches."""

    def __init__(self, module: nn.Module, compute: ComputeSection, signal: SignalName) -> None:
        self.device = resolve_device(compute.device)
        self.module, self.compute, self.signal = module.to(self.device), compute, signal

    def score(self, batch: Batch) -> Tensor:
        """Forward in microbatches, results back in the order of the batch, on the CPU."""
        return self.read(batch, self.signal)[0]

    def read(self, batch: Batch, *signals: SignalName) -> list[Tensor]:
        """See `Learner.read`."""
        with without_gradients(self.module, product_dtype(self.compute, self.device), self.device):
            return self._read(batch, signals)

    def _read(self, batch: Batch, signals: Sequence[SignalName]) -> list[Tensor]:
        results = [torch.zeros(batch.tokens.shape[: 1 if s in PER_ROW else 2]) for s in signals]
        # Without activations to keep, four times the budget of a backward pass fits.
        for units, part in self._parts(batch, 4 * self.compute.tokens_per_microbatch):
            out = self.module(part.to(self.device))
            found = [getattr(out, signal).float().cpu() for signal in signals]
            rows = batch.rows(units)
            results = [
                _placed(r, rows, f, s not in PER_ROW) for r, f, s in zip(results, found, signals, strict=True)
            ]
        return results

    def _parts(self, batch: Batch, token_budget: int) -> Iterator[tuple[Tensor, Batch]]:
        return microbatches(batch, token_budget, packed=getattr(self.module, "packing", False))


def _placed(result: Tensor, rows: Tensor, found: Tensor, per_token: bool) -> Tensor:
    """``result`` with what was found for some rows; widened at the first if each row has several values."""
    if per_token:
        result[rows, : found.shape[1]] = found
        return result
    result = result if found.dim() == result.dim() else result.new_zeros(len(result), found.shape[1])
    result[rows] = found
    return result


class LocalLearner(LocalScorer):
    """A model in this process that learns with AdamW, fp32 weights and a global gradient norm limit.

    ``partners``, by name, own parameters that this model's backward pass reaches as well, such as a head on its trunk:
    they step along with it, at their own rate and under their own norm limit, and their metrics bear their name.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerSection,
        compute: ComputeSection,
        *,
        total_steps: int,
        signal: SignalName = "logprobs",
        partners: Mapping[str, LocalLearner] | None = None,
    ) -> None:
        super().__init__(module, compute, signal)
        self.partners = dict(partners or {})
        self.section, self.total_steps, self.step = optimizer, total_steps, 0
        self.optimizer = build_optimizer(self.module, optimizer)
        self.parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.non_finite_in_a_row = 0

    def update(
        self, batch: Batch, loss: LossFunction, further: Sequence[tuple[Batch, LossFunction]] = ()
    ) -> dict[str, float]:
        """Forward and backward in microbatches, then one step.

        A step with a non-finite gradient is skipped, and so is one in which a metric is over its limit (`Loss.limits`).

        Raises:
            TrainingError: after three non-finite steps in a row.
        """
        sums: dict[str, float] = {}
        maxima: dict[str, float] = {}
        limits: dict[str, float] = {}
        parts = [
            (part, its_loss)
            for whole, its_loss in ((batch, loss), *further)
            for _, part in self._parts(whole, self.compute.tokens_per_microbatch)
        ]
        with autocast(self.compute, self.device):  # around all of them: each weight is cast once
            for part, its_loss in parts:
                result = self._backward(part.to(self.device), its_loss)
                limits |= result.limits
                for name, value in result.metrics.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                for name, value in result.maxima.items():
                    maxima[name] = max(maxima.get(name, float("-inf")), float(value))
        return sums | maxima | self._step(all(sums[name] <= most for name, most in limits.items()))

    def _backward(self, part: Batch, loss: LossFunction) -> Loss:
        """Add the gradient of one microbatch."""
        result = loss(part, self.module(part))
        with as_in_forward(self.device):
            result.value.backward()
        return result

    def _step(self, allowed: bool = True) -> dict[str, float]:
        lr = learning_rate(self.step, self.total_steps, self.section)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        limit = self.section.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), limit)
        finite = bool(norm.isfinite())
        if finite and allowed:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.non_finite_in_a_row = 0 if finite else self.non_finite_in_a_row + 1
        if self.non_finite_in_a_row >= NON_FINITE_LIMIT:
            raise TrainingError(
                f"the gradient was not finite in {NON_FINITE_LIMIT} steps in a row, the last one step {self.step}",
                where="optimizer step",
                cure="lower --lr, use --precision fp32, or look for rows with extreme rewards in samples.jsonl",
            )
        along = {
            f"{who}/{key}": v
            for who, other in self.partners.items()
            for key, v in other._step(allowed).items()
        }
        return {"lr": lr, "grad_norm": float(norm), "steps_skipped": float(not (finite and allowed))} | along

    def weights(self) -> dict[str, Tensor]:
        """See `Learner.weights`; those of partners bear their name."""
        own = {name: p.detach().cpu().clone() for name, p in self.parameters.items()}
        along = {f"{who}/{n}": w for who, other in self.partners.items() for n, w in other.weights().items()}
        return own | along

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor]) -> None:
        """See `Learner.restore`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
        for who, other in self.partners.items():
            other.restore({name.removeprefix(f"{who}/"): weight for name, weight in weights.items()})

    def tensors(self) -> dict[str, Tensor]:
        """``weight/<name>``, and ``exp_avg/<name>``, ``exp_avg_sq/<name>``, ``step/<name>`` of AdamW."""
        result: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            result[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                result[f"{key}/{name}"] = value.detach()
        return {name: value.cpu().contiguous() for name, value in result.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Strict inverse of `tensors`."""
        expected = {f"weight/{name}" for name in self.parameters}
        found = {name for name in tensors if name.startswith("weight/")}
        if expected != found:
            odd = sorted(expected ^ found)
            raise TrainingError(
                f"the checkpoint is of another model: {len(odd)} tensors differ, the first is {odd[0]}",
                cure="resume with the model and the LoRA settings the run was started with",
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            state = {
                key: tensors[f"{key}/{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in tensors
            }
            if state:
                # `step` too: the fused kernel reads it on the device
                moved = {k: v.to(parameter.device, copy=True) for k, v in state.items()}
                self.optimizer.state[parameter] = moved
