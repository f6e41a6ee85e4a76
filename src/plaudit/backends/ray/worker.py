"""The processes of a run: workers, each one rank of every sharded model; generators; and rewards.

A constructor does nothing that could fail: Ray runs it again by itself when it starts a process anew. What a process
needs it is told by `Worker.join`, `Sampler.load` and `Judge.load`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn

from plaudit.backends.local.learner import Exported
from plaudit.backends.local.models import load_policy
from plaudit.backends.local.offline import LocalRewardHead
from plaudit.backends.local.precision import product_dtype, resolve_device
from plaudit.backends.local.rewards import build_reward
from plaudit.backends.ray.hanging import Where, place_of
from plaudit.backends.ray.parts import Parts, build_parts
from plaudit.config.sections import ComputeSection, Job, LoraSection, SamplingSection
from plaudit.experience import Batch
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.reward_tables import RewardTable
from plaudit.models.files.load import load_tokenizer
from plaudit.models.reward_model import RewardModel
from plaudit.records import RewardResult, Rollout
from plaudit.runtime import LossFunction, Reward, SignalName, TextFormat, TokenPrompt

WATCH = "watch"
"""The threads of a worker beside the one that works."""
COLLECTIVE = timedelta(minutes=30)
"""A sum over ranks that takes longer has lost one of them."""

class _Process:
    """What all processes of a run can be asked."""

    def ping(self) -> int:
        """The number of its process: it is there."""
        return os.getpid()


class Worker(_Process):
    """One rank of every sharded model of a run."""

    _parts: Parts
    _twin: nn.Module | None = None
    _twin_is_old = True
    _working = 0
    """The thread that does the work."""

    @ray.method(concurrency_group=WATCH)
    def where(self) -> Where:
        """Where this rank is in its work: answered at any time, by another thread."""
        return place_of(self._working)

    def address(self) -> str:
        """Where the ranks meet, on the machine of this one; a port that is free now."""
        with socket.socket() as opened:
            opened.bind(("", 0))
            port = opened.getsockname()[1]
        return f"tcp://{_own_address()}:{port}"

    def join(self, address: str, rank: int, ranks: int, job: Job) -> tuple[TextFormat, tuple[str, ...]]:
        """Meet the other ranks and load the models.

        Returns:
            How the main model reads texts, and what to say of the models.
        """
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._working = threading.get_ident()
        kind = resolve_device(job.compute.device).type
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=ranks, timeout=COLLECTIVE)
        self._job, self._parts = job, build_parts(job)
        return self._parts.format, self._parts.notes

    def read(self, role: str, batch: Batch, signals: Sequence[SignalName]) -> list[Tensor]:
        """See `Scorer.read`: of this rank's rows."""
        scorer = self._parts.learners.get(role) or self._parts.scorers[role]
        return scorer.read(batch, *signals)

    def step_on(self, role: str, shares: Sequence[tuple[Batch, LossFunction, bool]]) -> dict[str, float]:
        """See `ShardedLearner.step_on`."""
        self._twin_is_old = True
        return self._parts.learners[role].step_on(shares)

    def step(self, role: str) -> int:
        """See `Learner.step`."""
        return self._parts.learners[role].step

    def rest(self, role: str) -> None:
        """See `Learner.rest`."""
        self._parts.learners[role].rest()

    def plan(self, role: str, total_steps: int, afresh: bool) -> None:
        """See `Learner.plan`."""
        self._parts.learners[role].plan(total_steps, afresh=afresh)

    def gather(self, role: str) -> dict[str, Tensor]:
        """See `ShardedLearner.gather`."""
        return self._parts.learners[role].gather()

    def put_back(self, role: str, weights: Mapping[str, Tensor]) -> None:
        """See `Learner.put_back`."""
        self._twin_is_old = True
        self._parts.learners[role].put_back(weights)

    def save(self, role: str, directory: Path) -> None:
        """See `ShardedLearner.save`."""
        self._parts.learners[role].save(directory)

    def restore(self, role: str, directory: Path) -> None:
        """See `ShardedLearner.restore`."""
        self._twin_is_old = True
        self._parts.learners[role].restore(directory)

    def export(self, directory: Path, tokenizer: Any) -> None:
        """See `Learner.export`: the first rank writes the main model."""
        twin = self._whole()
        if twin is not None:
            assert isinstance(twin, Exported), "only models that can write themselves are exported"
            twin.save(directory, tokenizer)

    def head(self, verb: str, *args: Any) -> Any:
        """A verb of `RewardHead`, on a whole copy of the reward model that the first rank keeps."""
        twin = self._whole()
        if twin is None:
            return None
        return getattr(LocalRewardHead(cast("RewardModel", twin), self._job.compute), verb)(*args)

    def start_at(self, weight: Tensor) -> dict[str, Tensor] | None:
        """`RewardHead.start_at` on that copy: its weights afterwards, for all ranks to take."""
        self.head("start_at", weight)
        if self._twin is None:
            return None
        trained = self._parts.learners["policy"].parameters
        return {name: p.detach() for name, p in self._twin.named_parameters() if name in trained}

    def _whole(self) -> nn.Module | None:
        """The main model with the weights of now, put together; None on all ranks but the first."""
        if not self._twin_is_old:
            return self._twin
        weights = self._parts.learners["policy"].gather()
        self._twin_is_old = False
        if dist.get_rank() == 0:
            self._twin = self._twin or self._parts.twin()
            _take(self._twin, weights)
        return self._twin


class Sampler(_Process):
    """A whole policy to draw responses from."""

    def load(
        self, source: str, lora: LoraSection, compute: ComputeSection, seed: int, temperature: float,
        ends: Sequence[int | str],
    ) -> None:  # fmt: skip
        """Load the policy that the workers train, as it is at the start; ``ends`` as of `NativeGenerator`."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        tokenizer, policy = load_policy(source, lora, compute, seed=seed, temperature=temperature)
        device = resolve_device(compute.device)
        policy.to(device)
        self._policy = policy
        self._generator = NativeGenerator(
            policy.lm, tokenizer, ends, precision=product_dtype(compute, device), cuda_graphs=compute.packing
        )

    def notes(self) -> tuple[str, ...]:
        """See `NativeGenerator.notes`."""
        return self._generator.notes

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """See `Generator.publish`: the trainable weights themselves."""
        _take(self._policy, weights)
        self._generator.publish(_Told(weights), version)

    def generate(
        self, prompts: Sequence[TokenPrompt], n: int, sampling: SamplingSection, seed: int, iteration: int
    ) -> list[Rollout]:
        """See `Generator.generate`."""
        return self._generator.generate(prompts, n, sampling, seed=seed, iteration=iteration)


class _Told:
    """Weights that a process was sent."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def tensors(self) -> dict[str, Tensor]:
        """See `Weights.tensors`."""
        return dict(self._weights)


class Judge(_Process):
    """The rewards that a job names, with their models."""

    _reward: Reward

    def load(
        self, tables: Sequence[RewardTable], policy: str, compute: ComputeSection, where: str, columns: Collection[str]
    ) -> str:
        """Build them; gives the reward's name."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._reward = build_reward(tables, load_tokenizer(policy), compute, where=where, columns=columns)
        return self._reward.name

    def score(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """See `Reward`."""
        return self._reward(rollouts)


@torch.no_grad()
def _take(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the parameters that bear their names."""
    parameters = dict(module.named_parameters())
    for name, weight in weights.items():
        parameters[name].copy_(weight)


def _own_address() -> str:
    return str(ray.util.get_node_ip_address())
