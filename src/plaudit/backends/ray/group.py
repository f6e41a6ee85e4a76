"""The workers of one run: how they meet, load their models, and are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.backends.ray.cluster import Cluster
from plaudit.backends.ray.worker import Sampler, Worker
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
        return self.cluster.answers([getattr(worker, verb).remote(*args) for worker in self.workers], what)

    def ask_each(self, verb: str, each: Sequence[Sequence[Any]], what: str) -> list[Any]:
        """The answers of ranks that are told different things."""
        refs = [getattr(worker, verb).remote(*args) for worker, args in zip(self.workers, each, strict=True)]
        return self.cluster.answers(refs, what)


def open_group(job: Job) -> tuple[Group, TextFormat, tuple[str, ...]]:
    """The workers of a job with their models; how the main one reads texts, and what to say of them.

    Raises:
        ConfigError, MachineError, ModelError: with the cure.
    """
    cluster = Cluster(job.compute)
    workers = cluster.workers(Worker)
    address = cluster.answers([workers[0].address.remote()], "the first worker")[0]
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
