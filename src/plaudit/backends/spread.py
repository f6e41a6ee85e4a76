"""What each process of a run on a cluster needs of its device: arithmetic on what the roles need as a whole.

FSDP2 keeps of every tensor a part on each worker, and puts the layers together one by one when they are computed. So
weights, moments of the optimizer and gradients are divided by the number of workers; activations are not, since each
worker has rows of its own; and what is put together at once is the same on any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plaudit.runtime import MemoryPlan, Room

CONTEXT = 1_000_000_000
"""Bytes of a GPU that CUDA and NCCL take for themselves. Not measured here: there was no GPU."""
AT_ONCE = 2
"""Layers that are together at the same time: the one that is computed, and the next one on its way."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A model that all workers share, as a whole; in bytes."""

    weights: int
    moments: int
    """Of AdamW; 0 where it is not trained."""
    root: int
    """What is outside of the layers: together during the whole pass."""
    layer: int
    learned_root: int
    """The largest part of ``root`` that is trained."""
    learned_layer: int


@dataclass(frozen=True, slots=True)
class Pass:
    """A moment of a worker: a pass over its rows."""

    role: str
    activations: int
    gradients: int = 0
    """Of the whole model; 0: nothing is learned in it."""


@dataclass(frozen=True, slots=True)
class Alone:
    """A model that is whole in its process, and what comes and goes by moment and role; in bytes."""

    weights: int
    passing: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of one kind, on a device each."""

    kind: str
    count: int
    plan: MemoryPlan


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run on a cluster needs, before it is spread over any number of workers."""

    roles: Mapping[str, Shared]
    passes: Mapping[str, Pass]
    generator: Alone | None
    """None: nothing is sampled."""
    rewards: Mapping[str, Alone]
    """Processes of rewards; those without a model of ours need nothing of a GPU, and get one all the same."""

    @property
    def model(self) -> int:
        """Bytes of the model that is trained."""
        return self.roles["policy"].weights

    def on_a_worker(self, workers: int) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """What stays on each worker, by role; and what comes and goes, by moment and role."""
        held: dict[str, int] = {}
        for name, role in self.roles.items():
            held[name] = _part(role.weights, workers)
            if role.moments:
                held[f"optimizer, {name}"] = _part(role.moments, workers)
        return held, {name: _passing(one, self.roles[one.role], workers) for name, one in self.passes.items()}

    def separate(self, workers: int, generators: int, room: Room) -> list[Processes]:
        """Every process on a GPU of its own: what the ray backend does."""
        found = [Processes("worker", workers, MemoryPlan("a GPU", *self.on_a_worker(workers), room))]
        if self.generator is not None:
            found.append(Processes("generator", generators, _alone("policy", self.generator, room)))
        return found + [Processes(name, 1, _alone(name, one, room)) for name, one in self.rewards.items()]

    def colocated(self, gpus: int, room: Room) -> list[Processes]:
        """On every GPU a worker and a generator, which take turns; on one of them the rewards as well."""
        held, passing = self.on_a_worker(gpus)
        if self.generator is not None:
            held["generator"] = self.generator.weights
            passing |= {name: dict(roles) for name, roles in self.generator.passing.items()}
        fullest, moments = dict(held), dict(passing)
        for name, one in self.rewards.items():
            fullest[name] = one.weights
            moments |= {moment: dict(roles) for moment, roles in one.passing.items()}
        found = [Processes("worker and generator", gpus, MemoryPlan("a GPU", held, passing, room))]
        if not self.rewards:
            return found
        return [
            Processes("with the rewards", 1, MemoryPlan("a GPU", fullest, moments, room)),
            *([Processes("worker and generator", gpus - 1, found[0].plan)] if gpus > 1 else []),
        ]

    @property
    def loading(self) -> int:
        """Bytes of the host that each worker needs while it loads: the policy, and one copy of it at a time."""
        copies = [role.weights for name, role in self.roles.items() if name != "policy"]
        return self.model + max(copies, default=0)


def fits(processes: Sequence[Processes]) -> bool:
    """Does each process find room on its device?"""
    return all(each.plan.need <= each.plan.room.free for each in processes)


def gpu(size: int) -> Room:
    """The memory of a GPU of ``size`` bytes that nothing else is on."""
    return Room(size, size - CONTEXT, "a GPU", 0)


def _passing(one: Pass, role: Shared, workers: int) -> dict[str, int]:
    together = role.root + AT_ONCE * role.layer
    if not one.gradients:
        return {"activations": one.activations, "gathered": together}
    # Gradients of a layer are whole until they are summed over the ranks, in a copy; the head's from the start.
    together += role.learned_root + AT_ONCE * role.learned_layer
    return {"gradients": _part(one.gradients, workers), "activations": one.activations, "gathered": together}


def _alone(name: str, one: Alone, room: Room) -> MemoryPlan:
    return MemoryPlan("a GPU", {name: one.weights}, one.passing, room)


def _part(size: int, workers: int) -> int:
    return -(-size // workers)
