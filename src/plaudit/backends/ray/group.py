"""The workers of one run: how they meet, load their models, and are asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from plaudit.backends.ray.cluster import Cluster
from plaudit.backends.ray.hanging import TO_SAY, HangWatch, Where
from plaudit.backends.ray.worker import WATCH, Sampler, Worker
from plaudit.config.sections import Job
from plaudit.runtime import TextFormat


class Group:
    """The workers of one run, and what is asked of all of them.

    Args:
        cluster: that they are on.
        workers: in the order of ranks.
    """

    def __init__(self, cluster: Cluster, workers: Sequence[Any]) -> None:
        self.cluster, self.workers = cluster, workers

    def ask(self, verb: str, *args: Any, what: str) -> list[Any]:
        """The answers of all ranks to the same question. All are asked at once: most verbs are sums over ranks."""
        return self.ask_each(verb, [args] * len(self.workers), what)

    def ask_each(self, verb: str, each: Sequence[Sequence[Any]], what: str) -> list[Any]:
        """The answers of ranks that are told different things."""
        return self.cluster.answers(self.calls(verb, each), what, HangWatch(self.places, what).look)

    def calls(self, verb: str, each: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Who is asked -> the reference of the call, whose answer nobody waits for yet."""
        return {
            f"worker {rank}": getattr(worker, verb).remote(*args)
            for rank, (worker, args) in enumerate(zip(self.workers, each, strict=True))
        }

    def places(self, names: Collection[str]) -> dict[str, Where | None]:
        """Where ranks are in their work; None of one that does not say."""
        ray = self.cluster.ray
        asked = {worker.where.remote(): f"worker {rank}" for rank, worker in enumerate(self.workers)}
        asked = {ref: name for ref, name in asked.items() if name in names}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TO_SAY)
        return {name: ray.get(ref) if ref in done else None for ref, name in asked.items()}


def open_group(job: Job) -> tuple[Group, TextFormat, tuple[str, ...]]:
    """The workers of a job with their models; how the main one reads texts, and what to say of them.

    Raises:
        ConfigError, MachineError, ModelError: with the cure.
    """
    cluster = Cluster(job.compute)
    workers = cluster.workers(Worker, WATCH)
    address = cluster.answers({"worker 0": workers[0].address.remote()}, "the first worker")[0]
    group = Group(cluster, workers)
    ranks = len(workers)
    found = group.ask_each(
        "join", [(address, rank, ranks, job) for rank in range(ranks)], "the workers, which load their models"
    )
    text, notes = found[0]
    return group, text, notes


def samplers(group: Group, job: Job) -> list[object]:
    """Processes for the generators of a job; Ray starts one anew that dies."""
    return group.cluster.helpers(Sampler, job.compute.generators, restarts=-1)
