"""What the driver holds in the place of models: handles that send batches to the workers and get numbers back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.backends.local.learner import PER_ROW
from plaudit.backends.ray.cluster import Cluster
from plaudit.backends.ray.group import Group
from plaudit.config.sections import SamplingSection
from plaudit.errors import MachineError
from plaudit.experience import Batch
from plaudit.records import RewardResult, Rollout
from plaudit.runtime import (
    LengthRuleName,
    LossFunction,
    Normalisation,
    Progress,
    SignalName,
    TokenPrompt,
    TrainedOn,
    Weights,
)

ATTEMPTS = 4
"""How often responses are asked for before a generator that dies each time ends the run."""


def shares(batch: Batch, ranks: int) -> list[tuple[Tensor, Batch, bool]]:
    """Which units each rank works on: about the same number of tokens, rows of one prompt together.

    Returns:
        For each rank the indices of its units, their batch, and whether they are its own: a rank for which nothing is
        left gets a copy of the first unit, and its results do not count.
    """
    count = len(batch)
    groups = getattr(batch, "group_ids", None)
    ids = torch.arange(count) if groups is None or len(groups) != count else groups
    lengths: dict[int, int] = {}
    for group, length in zip(ids.tolist(), batch.lengths.tolist(), strict=True):
        lengths[group] = lengths.get(group, 0) + length
    loads, place = [0] * ranks, dict[int, int]()
    # The longest first, each to the rank that has least: a function of the batch alone, as resumed runs need it.
    for group in sorted(lengths, key=lambda one: (-lengths[one], one)):
        rank = loads.index(min(loads))
        place[group], loads[rank] = rank, loads[rank] + lengths[group]
    ranks_of = torch.tensor([place[group] for group in ids.tolist()])
    found = []
    for rank in range(ranks):
        units = (ranks_of == rank).nonzero().flatten()
        own = len(units) > 0
        units = units if own else torch.zeros(1, dtype=torch.long)
        found.append((units, batch.select(units), own))
    return found


class RemoteScorer:
    """See `Scorer`: a model that is sharded over the workers."""

    def __init__(self, group: Group, role: str) -> None:
        self.group, self.role = group, role

    def read(self, batch: Batch, *signals: SignalName) -> list[Tensor]:
        """See `Scorer.read`."""
        cut = shares(batch, len(self.group.workers))
        asked = [(self.role, part, signals) for _, part, _ in cut]
        answers = self.group.ask_each("read", asked, f"the {self.role}, which reads {len(batch)} rows")
        results: list[Tensor] = []
        for i, signal in enumerate(signals):
            found = [answer[i] for answer in answers]
            per_token = signal not in PER_ROW
            shape = batch.tokens.shape if per_token else (len(batch.tokens), *found[0].shape[1:])
            result = torch.zeros(shape)
            for (units, _, own), values in zip(cut, found, strict=True):
                if own:
                    place = result[:, : values.shape[1]] if per_token else result
                    place[batch.rows(units)] = values
            results.append(result)
        return results


@dataclass(frozen=True, slots=True)
class RemoteWeights:
    """See `Weights`: of a learner on the workers."""

    learner: RemoteLearner

    def tensors(self) -> dict[str, Tensor]:
        """All of them, on this machine."""
        learner = self.learner
        found: dict[str, Tensor] = learner.group.ask("gather", learner.role, what="the weights")[0]
        return found

    def sent(self) -> Any:
        """Where they lie in the cluster: whoever is given it gets them from there, and not from the driver."""
        group = self.learner.group
        asked = group.calls("gather", [(self.learner.role,)] * len(group.workers))
        return group.cluster.arrived(asked, "the weights")


class RemoteLearner(RemoteScorer):
    """See `Learner`: a model that is sharded over the workers, and its optimizer with it."""

    @property
    def step(self) -> int:
        """See `Learner.step`."""
        return int(self._ask("step", what="a number")[0])

    def update(
        self, batch: Batch, loss: LossFunction, further: Sequence[tuple[Batch, LossFunction]] = ()
    ) -> dict[str, float]:
        """See `Learner.update`."""
        ranks = len(self.group.workers)
        cut = [(shares(whole, ranks), its_loss) for whole, its_loss in ((batch, loss), *further)]
        each = [
            (self.role, [(parts[rank][1], its_loss, parts[rank][2]) for parts, its_loss in cut])
            for rank in range(ranks)
        ]
        metrics: dict[str, float] = self.group.ask_each("step_on", each, f"a step of the {self.role}")[0]
        return metrics

    def rest(self) -> None:
        """See `Learner.rest`."""
        self._ask("rest", what="the workers")

    def plan(self, total_steps: int, *, afresh: bool = False) -> None:
        """See `Learner.plan`."""
        self._ask("plan", total_steps, afresh, what="the workers")

    def weights(self) -> RemoteWeights:
        """See `Learner.weights`."""
        return RemoteWeights(self)

    def put_back(self, weights: Mapping[str, Tensor]) -> None:
        """See `Learner.put_back`."""
        self._ask("put_back", self.group.cluster.ray.put(dict(weights)), what="the workers, which take weights")

    def save(self, directory: Path) -> None:
        """See `Learner.save`: each rank writes its own file, into a directory that all of them see."""
        self._ask("save", directory.absolute(), what=f"the files of the {self.role}")

    def snapshot(self) -> Callable[[Path], None] | None:
        """None: the training waits while the ranks write side by side."""
        return None

    def restore(self, directory: Path) -> None:
        """See `Learner.restore`: from whatever number of ranks wrote it."""
        self._ask("restore", directory.absolute(), what=f"the files of the {self.role}")

    def export(self, directory: Path, tokenizer: Any) -> None:
        """See `Learner.export`."""
        self.group.ask("export", directory.absolute(), tokenizer, what="the model, which is written")

    def _ask(self, verb: str, *args: Any, what: str) -> list[Any]:
        return self.group.ask(verb, self.role, *args, what=what)


class RemoteRewardHead:
    """See `RewardHead`: on a whole copy that the first worker keeps."""

    def __init__(self, group: Group, learner: RemoteLearner) -> None:
        self._group, self._learner = group, learner

    def features(self, batch: Batch) -> Tensor:
        """See `RewardHead.features`."""
        found: Tensor = self._ask("features", batch)
        return found

    def start_at(self, weight: Tensor) -> None:
        """See `RewardHead.start_at`."""
        weights = self._group.ask("start_at", weight, what="the head")[0]
        self._learner.put_back(weights)

    def heads(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `RewardHead.heads`."""
        found: list[list[float]] = self._ask("heads", rows)
        return found

    def normalise(self, rule: LengthRuleName, coef: float, scores: Tensor, lengths: Tensor) -> Normalisation:
        """See `RewardHead.normalise`."""
        found: Normalisation = self._ask("normalise", rule, coef, scores, lengths)
        return found

    def leave_raw(self) -> Normalisation:
        """See `RewardHead.leave_raw`."""
        found: Normalisation = self._ask("leave_raw")
        return found

    def describe(self, trained_on: TrainedOn, probe: Sequence[Sequence[int]]) -> None:
        """See `RewardHead.describe`."""
        self._ask("describe", trained_on, probe)

    def _ask(self, verb: str, *args: Any) -> Any:
        return self._group.ask("head", verb, *args, what="the head")[0]


class RemoteGenerators:
    """See `Generator`: several processes, each with a whole policy, that share the prompts.

    A response depends on weights, seeds and its prompt alone, so it does not matter which of them draws it. What one
    was asked that has died is asked for again, and comes out the same.

    Args:
        cluster: that they are on.
        samplers: processes that are started anew when they die.
        load: the arguments of `Sampler.load`, told to each of them and to each that is started anew.
    """

    def __init__(self, cluster: Cluster, samplers: Sequence[Any], load: Sequence[Any]) -> None:
        self._cluster, self._samplers, self._load = cluster, samplers, load
        self._published: tuple[Any, int] | None = None
        asked = {f"generator {i}": one.load.remote(*load) for i, one in enumerate(samplers)}
        cluster.answers(asked, "the generators, which load the policy")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run should say of how the model is sampled."""
        found: tuple[str, ...] = self._cluster.answers({"generator 0": self._samplers[0].notes.remote()}, "notes")[0]
        return found

    def publish(self, weights: Weights, version: int) -> None:
        """See `Generator.publish`. The weights go from the workers to the generators, and not through the driver."""
        sent = weights.sent() if isinstance(weights, RemoteWeights) else self._cluster.ray.put(weights.tensors())
        self._published = (sent, version)
        asked = [(one, "publish", self._published) for one in self._samplers]
        self._attempt(asked, "the generators, which take weights")

    def generate(
        self,
        prompts: Sequence[TokenPrompt],
        n: int,
        sampling: SamplingSection,
        *,
        seed: int,
        iteration: int,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """See `Generator.generate`."""
        if not prompts or n < 1:
            return []
        each = -(-len(prompts) // len(self._samplers))
        starts = range(0, len(prompts), each)
        asked = [
            (one, "generate", (prompts[start : start + each], n, sampling, seed, iteration))
            for one, start in zip(self._samplers, starts, strict=False)
        ]
        answers = self._attempt(asked, f"the generators, for {len(prompts) * n} responses")
        if progress is not None:
            progress(len(prompts) * n, len(prompts) * n)
        return [
            replace(rollout, group_id=rollout.group_id + start)
            for start, part in zip(starts, answers, strict=False)
            for rollout in part
        ]

    def _attempt(self, asked: Sequence[tuple[Any, str, Sequence[Any]]], what: str) -> list[Any]:
        """The answers; of a generator that has died, after it was started anew and told everything."""
        answers: dict[int, Any] = {}
        for attempt in range(ATTEMPTS):
            missing = [i for i in range(len(asked)) if i not in answers]
            refs = {i: getattr(asked[i][0], asked[i][1]).remote(*asked[i][2]) for i in missing}
            died = self._cluster.collect(refs, answers, what)
            if not died:
                return [answers[i] for i in range(len(asked))]
            for i in died if attempt + 1 < ATTEMPTS else ():
                self._revive(asked[i][0], anew=asked[i][1] != "publish")
        raise MachineError(
            f"a generator has died {ATTEMPTS} times in a row while the run waited for {what}",
            where="--backend ray",
            cure="look at its log (`ray logs`): it may be out of memory; --generators 1 needs least",
        )

    def _revive(self, sampler: Any, *, anew: bool) -> None:
        self._cluster.alive(sampler)
        name = f"generator {self._samplers.index(sampler)}"
        self._cluster.answers({name: sampler.load.remote(*self._load)}, "a generator that was started anew")
        if anew and self._published is not None:
            told = {name: sampler.publish.remote(*self._published)}
            self._cluster.answers(told, "a generator that takes weights")


class RemoteReward:
    """See `Reward`: in a process of its own.

    Args:
        cluster: that it is on.
        judge: the process.
        load: the arguments of `Judge.load`.
    """

    def __init__(self, cluster: Cluster, judge: Any, load: Sequence[Any]) -> None:
        self._cluster, self._judge = cluster, judge
        self.name: str = cluster.answers({"the reward": judge.load.remote(*load)}, "the reward")[0]

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """See `Reward.__call__`."""
        asked = {"the reward": self._judge.score.remote(list(rollouts))}
        found: list[RewardResult] = self._cluster.answers(asked, f"rewards of {len(rollouts)} responses")[0]
        return found
