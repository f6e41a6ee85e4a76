"""One trainable model with its optimizer: read without gradient, update by exactly one optimizer step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from plaudit.awaited import beat
from plaudit.backends.local.microbatch import microbatches
from plaudit.backends.local.precision import autocast, product_dtype, resolve_device
from plaudit.backends.local.shards import Shards
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.experience import Batch, Loss
from plaudit.functional.precision import as_in_forward, without_gradients
from plaudit.machine import memory_limit
from plaudit.runtime import LossFunction, SignalName

PER_ROW = ("scores", "features", "heads")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter."""


class LocalScorer:
    """A model in this process that reads batches."""

    def __init__(self, module: nn.Module, compute: ComputeSection) -> None:
        self.device = resolve_device(compute.device)
        self.module, self.compute = module.to(self.device), compute

    def read(self, batch: Batch, *signals: SignalName) -> list[Tensor]:
        """See `Scorer.read`: forward in microbatches, results back in the order of the batch, on the CPU."""
        with without_gradients(self.module, product_dtype(self.compute, self.device), self.device):
            return self._read(batch, signals)

    def _read(self, batch: Batch, signals: Sequence[SignalName]) -> list[Tensor]:
        results = [torch.zeros(batch.tokens.shape[: 1 if s in PER_ROW else 2]) for s in signals]
        # Without activations to keep, four times the budget of a backward pass fits.
        for units, part in self._parts(batch, 4 * self.compute.tokens_per_microbatch):
            beat()
            out = self.module(part.to(self.device))
            found = [getattr(out, signal).float().cpu() for signal in signals]
            rows = batch.rows(units)
            results = [
                _placed(r, rows, f, s not in PER_ROW) for r, f, s in zip(results, found, signals, strict=True)
            ]
        return results

    def _parts(self, batch: Batch, token_budget: int) -> Iterator[tuple[Tensor, Batch]]:
        return microbatches(batch, token_budget, packed=getattr(self.module, "packing", False))


def _is_weighted(part: Batch) -> bool:
    """Whether anything counts in the loss of a batch; one without weights is left to its loss."""
    return part.loss_weights is None or bool((part.loss_weights != 0).any())


def _placed(result: Tensor, rows: Tensor, found: Tensor, per_token: bool) -> Tensor:
    """``result`` with what was found for some rows; widened at the first if each row has several values."""
    if per_token:
        result[rows, : found.shape[1]] = found
        return result
    result = result if found.dim() == result.dim() else result.new_zeros(len(result), found.shape[1])
    result[rows] = found
    return result


@runtime_checkable
class Exported(Protocol):
    """A model that can write itself as others load it."""

    def save(self, path: Path, tokenizer: Any) -> None:
        """Write what ``from_pretrained`` reads."""
        ...


class Reduction(Protocol):
    """Puts the figures of one optimizer step together over the ranks that share it: sums, maxima, the norm.

    Everything by which a step is taken, skipped or refused goes through here, and through nothing else. Each rank sees
    other rows: one that decided by its own figures could skip a step that the others take, and from then on the ranks
    would hold different weights without an error. So all of them decide by the same reduced figures. Gradients are not
    reduced here; a sharded module does that in its backward pass. Each rank has rows in each step, so names are the
    same on all of them.
    """

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Metrics that add up over microbatches, and so over ranks."""
        ...

    def maxima(self, values: dict[str, float]) -> dict[str, float]:
        """Metrics of which the largest counts."""
        ...

    def norm(self, own: Tensor) -> Tensor:
        """Norm of the whole gradient, from that of this rank's shard of it."""
        ...


class Alone:
    """The reduction of a learner that is one process: nothing changes."""

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Its own."""
        return values

    def maxima(self, values: dict[str, float]) -> dict[str, float]:
        """Its own."""
        return values

    def norm(self, own: Tensor) -> Tensor:
        """Its own."""
        return own


@dataclass(frozen=True, slots=True)
class LocalWeights:
    """See `Weights`: of a learner in this process."""

    learner: LocalLearner

    def tensors(self) -> dict[str, Tensor]:
        """Those of partners bear their name in front."""
        own = {name: p.detach().cpu().clone() for name, p in self.learner.parameters.items()}
        for partner, other in self.learner.partners.items():
            own |= {f"{partner}/{name}": weight for name, weight in other.weights().tensors().items()}
        return own


class LocalLearner(LocalScorer):
    """A model in this process that learns with AdamW, fp32 weights and a global gradient norm limit.

    Args:
        module: the model; those of its parameters that require a gradient are trained.
        optimizer: learning rate, its schedule, weight decay, limit of the gradient norm.
        compute: device, precision, tokens of a microbatch.
        total_steps: see `plan`.
        name: of its file in a checkpoint, ``<name>.safetensors``.
        partners: learners, by name, that own parameters which this model's backward pass reaches as well, such as a
            head on its trunk: they step along with it, at their own rate and under their own norm limit, and their
            metrics bear their name.
        reduction: over the ranks that share each step.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerSection,
        compute: ComputeSection,
        *,
        total_steps: int,
        name: str = "policy",
        partners: Mapping[str, LocalLearner] | None = None,
        reduction: Reduction | None = None,
    ) -> None:
        super().__init__(module, compute)
        self.place = (0, 1)
        """Its rank, and of how many."""
        self.reduction = reduction or Alone()
        self.name, self.section, self.partners = name, optimizer, dict(partners or {})
        # A partner steps along with this learner and also by itself: both are decided over the same ranks.
        for partner in self.partners.values():
            partner.reduction = self.reduction
        self.parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self.plan(total_steps, afresh=True)

    @property
    def step(self) -> int:
        """See `Learner.step`."""
        return self._step_count

    def plan(self, total_steps: int, *, afresh: bool = False) -> None:
        """See `Learner.plan`."""
        self._total_steps = total_steps
        if afresh:
            self._step_count = 0
            self.optimizer = build_optimizer(self.module, self.section)

    def rest(self) -> None:
        """See `Learner.rest`."""
        self._step_count += 1

    def update(
        self, batch: Batch, loss: LossFunction, further: Sequence[tuple[Batch, LossFunction]] = ()
    ) -> dict[str, float]:
        """Forward and backward in microbatches, then one step.

        A step with a gradient that is not finite, here or of a partner, leaves weights, moments and schedule as they
        were: its ``grad_norm`` says so. One in which a metric is over its limit (`Loss.limits`), or in which no token
        or unit has a weight, moves the schedule alone: moments of earlier steps would move the weights without data.
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
                beat()
                result = self._backward(part, its_loss)
                limits |= result.limits
                for name, value in result.metrics.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                for name, value in result.maxima.items():
                    maxima[name] = max(maxima.get(name, float("-inf")), float(value))
        weighted = sum(float(_is_weighted(part)) for part, _ in parts)
        sums = self.reduction.sums(sums | {"weighted": weighted})
        allowed = sums.pop("weighted") > 0 and all(sums[name] <= most for name, most in limits.items())
        return sums | self.reduction.maxima(maxima) | self._step(allowed)

    def _backward(self, part: Batch, loss: LossFunction) -> Loss:
        """Add the gradient of one microbatch."""
        part = part.to(self.device)
        result = loss(part, self.module(part))
        with as_in_forward(self.device):
            result.value.backward()
        return result

    def _step(self, allowed: bool = True) -> dict[str, float]:
        """Step together with the partners; none of them does if the gradient of one is not finite."""
        # One backward pass gave all of these gradients. A trunk that stepped where its head did not would have learned
        # from a batch that the head has never seen.
        along = {"": self} | self.partners
        norms = {who: learner._norm() for who, learner in along.items()}
        finite = all(bool(norm.isfinite()) for norm in norms.values())
        metrics: dict[str, float] = {}
        for who, learner in along.items():
            taken = learner._take(norms[who], finite, allowed)
            metrics |= {f"{who}/{name}" if who else name: value for name, value in taken.items()}
        return metrics

    def _norm(self) -> Tensor:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return self.reduction.norm(nn.utils.get_total_norm(gradients))

    def _take(self, norm: Tensor, finite: bool, allowed: bool) -> dict[str, float]:
        """One step of this optimizer alone; without a finite gradient nothing of it changes, nor of the schedule."""
        lr = learning_rate(self._step_count, self._total_steps, self.section)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            limit = self.section.max_grad_norm or math.inf
            nn.utils.clip_grads_with_norm_(list(self.parameters.values()), limit, norm)
            if allowed:
                self.optimizer.step()
            self._step_count += 1
        self.optimizer.zero_grad(set_to_none=True)
        return {"lr": lr, "grad_norm": float(norm), "steps_skipped": float(not (finite and allowed))}

    def weights(self) -> LocalWeights:
        """See `Learner.weights`."""
        return LocalWeights(self)

    @torch.no_grad()
    def put_back(self, weights: Mapping[str, Tensor]) -> None:
        """See `Learner.put_back`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])
        for partner, other in self.partners.items():
            other.put_back({name.removeprefix(f"{partner}/"): weight for name, weight in weights.items()})

    def export(self, directory: Path, tokenizer: Any) -> None:
        """See `Learner.export`."""
        assert isinstance(self.module, Exported), "only models that can write themselves are exported"
        self.module.save(directory, tokenizer)

    def save(self, directory: Path) -> None:
        """``<name>.safetensors``: ``weight/<parameter>``, and the state of AdamW: ``exp_avg/<parameter>`` ..."""
        on_cpu = {name: value.cpu().contiguous() for name, value in self._state().items()}
        save_file(on_cpu, directory / f"{self.name}.safetensors", {"step": str(self._step_count)})

    def snapshot(self) -> Callable[[Path], None] | None:
        """See `Learner.snapshot`."""
        tensors, name, step = self._state(), self.name, str(self._step_count)
        # Twice what the copy takes: the run is in the middle of its work, and its next step wants memory too.
        if 2 * sum(value.nbytes for value in tensors.values()) > memory_limit().free:
            return None
        copies = {key: value.to("cpu", copy=True).contiguous() for key, value in tensors.items()}
        return lambda directory: save_file(copies, directory / f"{name}.safetensors", {"step": step})

    def _state(self) -> dict[str, Tensor]:
        """Weights and moments, as they are in memory."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value.detach()
        return tensors

    @torch.no_grad()
    def restore(self, directory: Path) -> None:
        """Strict inverse of `save`, also where several ranks wrote it.

        Raises:
            TrainingError: the files are of another model.
            ModelError: a tensor in them is not finite.
        """
        with Shards.of(directory, self.name) as shards:
            shards.check(self.parameters)
            for name, parameter in self.parameters.items():
                self._own(parameter).copy_(shards.part(f"weight/{name}", *self.place))
                kept = [key for key in MOMENTS if shards.has(f"{key}/{name}")]
                parts = {key: shards.part(f"{key}/{name}", *self.place) for key in kept}
                if parts:
                    self.optimizer.state[parameter] = {key: self._moment(parameter, p) for key, p in parts.items()}
            step = shards.step
        self._step_count = step if step is not None else _first_format_step(directory, self.name)

    def _own(self, tensor: Tensor) -> Tensor:
        """What this process has of a tensor: all of it."""
        return tensor.detach()

    def _moment(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        """Of AdamW for a parameter, from what this process has of it."""
        # `step` too: the fused kernel reads it on the device.
        return part.to(parameter.device, copy=True)


def _first_format_step(directory: Path, name: str) -> int:
    """The step of a learner in a checkpoint of the first release, which kept it beside the tensors."""
    trainer = json.loads((directory / "trainer.json").read_text(encoding="utf-8"))
    return int(trainer["steps"][name])


FUSED = {"cpu", "cuda"}
"""Devices for which AdamW in one kernel is known to work."""


def build_optimizer(module: nn.Module, section: OptimizerSection) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; matrices decay, biases and norms do not.

    One fused kernel for all of it where there is one: on a CPU six times as fast as a loop over tensors.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=section.rate,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=all(p.device.type in FUSED for p in trainable),
    )


def learning_rate(step: int, total_steps: int, section: OptimizerSection) -> float:
    """Learning rate of the 0-based ``step``: linear warm-up, then the schedule down to its end at ``total_steps``.

    >>> section = OptimizerSection(lr=1.0, warmup_fraction=0.5, schedule="linear")
    >>> [learning_rate(step, 4, section) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warmup = math.ceil(section.warmup_fraction * total_steps)
    if step < warmup:
        return section.rate * (step + 1) / warmup
    if section.schedule == "constant":
        return section.rate
    # A run resumed with fewer steps may be past the end: the rate stays at its end, and never turns negative.
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    if section.schedule == "linear":
        return section.rate * (1 - progress)
    return section.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
