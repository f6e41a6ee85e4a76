"""Models whose weights are spread over ranks by FSDP2, and learners on them: what a worker runs. Nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.backends.local.shards import part_of, shard_name
from plaudit.experience import Batch, Loss, Outputs
from plaudit.models.forward.trunk import body
from plaudit.runtime import LossFunction

# FSDP2 finds the tensors in what a module gives back by these rules, and hangs its backward pass on them.
pytree.register_dataclass(Outputs)


def shard(module: nn.Module, model: nn.Module, device: str) -> None:
    """Spread the parameters of a module over all ranks, layer by layer, in place.

    Args:
        module: what is called: its forward pass gathers each layer when it is needed.
        model: the transformers model in it.
        device: kind of the ranks' devices.
    """
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    layers = next((m for m in body(model).modules() if isinstance(m, nn.ModuleList)), nn.ModuleList())
    for each in (*layers, module):
        # Given up after each forward pass, the outermost part too: after a pass without a backward one FSDP2 would keep
        # the gathered weights, and the next pass would read those although `put_back` or `restore` had changed them.
        sharded: Any = fully_shard(each, mesh=mesh, reshard_after_forward=True)
        # A loss is a sum whose weights were fixed for the whole step, so the gradients of ranks add up. FSDP2 would
        # take their mean, which is too small by the number of ranks.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor in it


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, a copy on the CPU. All ranks have to ask for it at the same moment."""
    found = tensor.detach()
    return (found.full_tensor() if isinstance(found, DTensor) else found).cpu().clone()


class Ranks:
    """The reduction of a step that all ranks share; see `Reduction`."""

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Over all ranks."""
        return {name: sum(found) for name, found in _of_all(values).items()}

    def maxima(self, values: dict[str, float]) -> dict[str, float]:
        """Over all ranks."""
        return {name: max(found) for name, found in _of_all(values).items()}

    def norm(self, own: Tensor) -> Tensor:
        """Of the whole gradient."""
        return own.full_tensor() if isinstance(own, DTensor) else own


def _of_all(values: dict[str, float]) -> dict[str, list[float]]:
    """What each rank found, in the order of ranks: every rank adds up in the same order, and gets the same last bit."""
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, values)
    return {name: [found[name] for found in everybody] for name in values}


class ShardedScorer(LocalScorer):
    """A scorer whose module is sharded: every rank calls it equally often, whatever rows it has."""

    def __init__(self, module: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(module, *args, **options)
        self._echoes: list[Batch] = []

    def _parts(self, batch: Batch, token_budget: int) -> Iterator[tuple[Tensor, Batch]]:
        # A forward pass gathers its layers from all ranks. A rank with fewer parts than another would keep it waiting
        # for ever, so it goes through its last part again, which is an echo and counts for nothing.
        found = list(super()._parts(batch, token_budget))
        most = torch.tensor(len(found))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        units, last = found[-1]
        again = [(units, last.replace()) for _ in range(int(most) - len(found))]
        is_echo = any(batch is one for one in self._echoes)
        self._echoes += [part for _, part in ([*found, *again] if is_echo else again)]
        yield from (*found, *again)


class ShardedLearner(ShardedScorer, LocalLearner):
    """See `LocalLearner`: one rank of it."""

    def __init__(self, module: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(module, *args, reduction=Ranks(), **options)
        self.place = (dist.get_rank(), dist.get_world_size())

    def step_on(self, shares: Sequence[tuple[Batch, LossFunction, bool]]) -> dict[str, float]:
        """`Learner.update` with this rank's share of each batch.

        Args:
            shares: batch, loss, and whether the rows are this rank's own. A rank for which no rows are left gets a copy
                of another one's, and goes along without counting.
        """
        self._echoes = [batch for batch, _, is_own in shares if not is_own]
        (batch, loss, _), *further = shares
        try:
            return self.update(batch, loss, [(other, its_loss) for other, its_loss, _ in further])
        finally:
            self._echoes = []

    def _backward(self, part: Batch, loss: LossFunction) -> Loss:
        if not any(part is one for one in self._echoes):
            return super()._backward(part, loss)

        def nothing(batch: Batch, out: Outputs) -> Loss:
            # Names of metrics and limits are those of the loss: every rank decides about the step by all of them.
            found = loss(batch, out)
            zeros = {name: torch.tensor(0.0) for name in found.metrics}
            lowest = {name: torch.tensor(float("-inf")) for name in found.maxima}
            return replace(found, value=found.value * 0.0, metrics=zeros, maxima=lowest)

        return super()._backward(part, nothing)

    @torch.no_grad()
    def put_back(self, weights: Mapping[str, Tensor]) -> None:
        """See `Learner.put_back`: whole tensors, of which each rank takes its part."""
        for name, parameter in self.parameters.items():
            self._own(parameter).copy_(part_of(weights[name], *self.place))

    def gather(self) -> dict[str, Tensor]:
        """All trainable weights, put together; empty on all ranks but the first. All of them have to ask for it."""
        is_first = self.place[0] == 0
        found = ((name, whole(parameter)) for name, parameter in self.parameters.items())
        return {name: tensor for name, tensor in found if is_first}

    def save(self, directory: Path) -> None:
        """``<name>.<rank>-of-<ranks>.safetensors``: what `LocalLearner.save` writes, of this rank's shard."""
        tensors = {name: self._own(value).cpu().contiguous() for name, value in self._state().items()}
        save_file(tensors, directory / shard_name(self.name, *self.place), {"step": str(self.step)})

    def snapshot(self) -> Callable[[Path], None] | None:
        """None: the ranks write side by side, while the training waits."""
        return None

    def _own(self, tensor: Tensor) -> Tensor:
        found = tensor.detach()
        return found.to_local() if isinstance(found, DTensor) else found

    def _moment(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        here = super()._moment(parameter, part)
        if not isinstance(parameter, DTensor) or part.dim() == 0:  # a count of steps is whole on each rank
            return here
        found: Tensor = DTensor.from_local(
            here, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )
        return found
