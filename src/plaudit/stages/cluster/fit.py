"""Does a run fit on so many GPUs, what does each of them hold, and what would make it fit. Nothing is loaded or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plaudit import backends
from plaudit.backends.spread import Needs, Processes, fits, gpu
from plaudit.config.sections import Job, LoraSection
from plaudit.errors import ConfigError, PlauditError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward_tables import ClassifierTable, ModelTable
from plaudit.jobs.sft import SFTJob
from plaudit.runtime import Room
from plaudit.stages.doctor.part import Part, in_units

MOST_GPUS = 4096
SMALLEST_MICROBATCH = 1024
A_QUARTER = 4
"""The share of the GPUs that draws responses where nothing says otherwise: one in so many."""
WHOLE = "a generator holds a whole policy, so more GPUs do not help it: take a smaller policy, or GPUs with more memory"
HOST_OF_A_NODE = 8
"""GPUs of a node, for the memory of its host."""
Layouts = dict[str, list[Processes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is asked for."""

    gpus: int
    room: Room
    generators: int
    """0: a quarter of the GPUs."""

    @classmethod
    def of(cls, gpus: int, gigabytes: float, generators: int) -> Asked:
        """GPUs of so many gigabytes (10^9 bytes) each."""
        return cls(gpus, gpu(int(gigabytes * 1e9)), generators)


@dataclass(frozen=True, slots=True)
class Planned:
    """What was worked out of a job."""

    needs: Needs
    layouts: Layouts
    part: Part


def with_models(job: Job, model: str, reward_model: str, folder: Path) -> Job:
    """The job with other models: sizes such as 8B become stand-ins, of which there are no weights.

    Args:
        job: the settings.
        model: a size, a directory or a hub name; empty: that of the job.
        reward_model: the same for each reward model; empty: ``model`` where that is a size, else those of the job.
        folder: where stand-ins are written.
    """
    changes: dict[str, Any] = {}
    if job.compute.precision == "auto":  # as a run would choose on a GPU
        changes["compute"] = job.compute.model_copy(update={"precision": "bf16"})
    key = "policy" if isinstance(job, OnlineJob | BestOfNJob) else "model"
    source = model or str(getattr(job, key))
    stand_in = backends.stand_in(source, folder)
    changes[key] = stand_in or source
    rewards = reward_model or (source if stand_in else "")
    if isinstance(job, OnlineJob | BestOfNJob) and rewards:
        of_rewards = backends.stand_in(rewards, folder, scores=True) or rewards
        for name in ("reward", "gold"):
            changes[name] = tuple(_replaced(table, of_rewards) for table in getattr(job, name))
    return job.model_copy(update=changes)


def _replaced(table: Any, source: str) -> Any:
    if not isinstance(table, ModelTable | ClassifierTable):
        return table
    if isinstance(table, ModelTable) and len(table.members) > 1 and table.ensemble != "weights":
        return table.model_copy(update={"path": (source,) * len(table.members)})
    return ModelTable(path=source)


def plan_memory(job: Job, asked: Asked) -> Planned:
    """The memory of each GPU by role and layout, and what would make it fit.

    Raises:
        ConfigError: fewer GPUs than processes; or workers cannot run the job.
        ModelError, Unplanned: see `plaudit.backends.needs`.
    """
    beside = _rewarded(job)
    sampled = isinstance(job, OnlineJob | BestOfNJob | SFTJob | DPOJob)
    generators = (asked.generators or max(1, asked.gpus // A_QUARTER)) if sampled else 0
    workers = asked.gpus - generators - beside
    if workers < 1:
        raise ConfigError(
            f"{asked.gpus} GPUs are too few: {generators} for generators, {beside} for rewards, and none for a worker",
            where="--gpus",
            cure=f"give at least {generators + beside + 1}, or fewer --generators; --backend local needs one GPU",
        )
    needs = backends.needs(job, workers)
    layouts = _layouts(needs, workers, generators, asked)
    warnings = []
    if not fits(layouts["separate"]):
        warnings = [f"it does not fit in separate processes: {_worst(layouts['separate'])}", *_cures(job, asked, needs)]
    figures = {
        "gpus": asked.gpus, "gpu_memory": asked.room.total, "parameters": needs.model // 4,
        "layouts": {name: _figures(processes) for name, processes in layouts.items()},
        "host": _host(needs, workers, generators),
    }  # fmt: skip
    return Planned(needs, layouts, Part("memory", figures, tuple(_lines(layouts, figures)), tuple(warnings), NOTES))


NOTES = (
    "Every row is taken to be as long as the settings allow. Not compared with a GPU: docs/why/cluster-memory.md says "
    "with what it was.",
    "The ray backend runs separate processes. Colocated is arithmetic alone.",
)


def _layouts(needs: Needs, workers: int, generators: int, asked: Asked) -> Layouts:
    found = {"separate": needs.separate(workers, generators, asked.room)}
    if needs.generator is not None:
        found["colocated"] = needs.colocated(asked.gpus, asked.room)
    return found


def _rewarded(job: Job) -> int:
    """GPUs that rewards take: one for the rewards, one for the gold rewards."""
    return 1 + bool(job.gold) if isinstance(job, OnlineJob | BestOfNJob) else 0


def _worst(processes: Sequence[Processes]) -> str:
    """The process that lacks most, in words."""
    one = max(processes, key=lambda each: each.plan.need - each.plan.room.free)
    return f"a {one.kind} needs {in_units(one.plan.need)} of {in_units(one.plan.room.free)} when {one.plan.moment}"


def _cures(job: Job, asked: Asked, needs: Needs) -> Iterator[str]:
    """Changes, each tried by arithmetic: the first that makes it fit, and how many GPUs would."""
    layout = needs.separate(1, 1, asked.room)
    stuck = [each for each in layout if each.kind == "generator" and each.plan.need > each.plan.room.free]
    if stuck:
        yield f"generator: {_worst(stuck)}; {WHOLE}"
    for words, changed in _changes(job):
        try:
            spread = backends.needs(changed, _workers(changed, asked))
        except PlauditError:
            continue  # such as adapters beside a critic, which workers refuse
        others = [p for p in _separate(spread, changed, asked) if p.kind != "generator"]
        if fits(others):
            yield f"the others fit with {words}" if stuck else f"it fits with {words}"
            break
    count = asked.gpus
    while count < MOST_GPUS:
        count *= 2
        more = replace(asked, gpus=count)
        if fits([p for p in _separate(needs, job, more) if p.kind != "generator"]):
            yield f"{'the workers fit' if stuck else 'it fits'} on {count} GPUs without any other change"
            return


def _workers(job: Job, asked: Asked) -> int:
    generators = asked.generators or max(1, asked.gpus // A_QUARTER)
    return max(1, asked.gpus - generators - _rewarded(job))


def _separate(needs: Needs, job: Job, asked: Asked) -> list[Processes]:
    generators = asked.generators or max(1, asked.gpus // A_QUARTER)
    return needs.separate(_workers(job, asked), generators, asked.room)


def _changes(job: Job) -> Iterator[tuple[str, Job]]:
    """What makes a worker need less, the cheapest first."""
    compute, lora = job.compute, getattr(job, "lora", LoraSection())
    recomputing = compute.model_copy(update={"gradient_checkpointing": True})
    budget = max(SMALLEST_MICROBATCH, job.data.max_length)
    smaller = recomputing.model_copy(update={"tokens_per_microbatch": budget})
    if not compute.gradient_checkpointing:
        yield "--gradient-checkpointing", job.model_copy(update={"compute": recomputing})
    if compute.tokens_per_microbatch > budget:
        words = f"--gradient-checkpointing --tokens-per-microbatch {budget}"
        yield words, job.model_copy(update={"compute": smaller})
    if not lora.rank:
        changes = {"lora": lora.model_copy(update={"rank": 8}), "compute": smaller}
        yield f"--rank 8 --gradient-checkpointing --tokens-per-microbatch {budget}", job.model_copy(update=changes)


def _figures(processes: Sequence[Processes]) -> dict[str, Any]:
    return {
        "fits": fits(processes),
        "processes": [
            {
                "kind": each.kind, "count": each.count, "need": each.plan.need, "free": each.plan.room.free,
                "held": dict(each.plan.held), "peak_at": each.plan.moment,
                "passing": {name: dict(roles) for name, roles in each.plan.passing.items()},
            }
            for each in processes
        ],
    }  # fmt: skip


def _host(needs: Needs, workers: int, generators: int) -> dict[str, int]:
    """Bytes of the memory of a host, of a node full of workers: models are whole until they are sharded."""
    here = min(workers, HOST_OF_A_NODE)
    saved = sum(role.weights + role.moments for role in needs.roles.values() if role.moments)
    return {
        "a worker that loads": needs.loading,
        "a node of workers that load": here * needs.loading,
        "a worker that saves a checkpoint": -(-saved // workers),
        "the first worker, to export": 2 * needs.model,
        "a generator that loads": needs.generator.weights if needs.generator and generators else 0,
    }


def _lines(layouts: Layouts, figures: dict[str, Any]) -> Iterator[str]:
    billions, memory = figures["parameters"] / 1e9, in_units(figures["gpu_memory"])
    yield f"{billions:.2f} billion parameters, {figures['gpus']} GPUs of {memory}"
    for name, processes in layouts.items():
        yield ""
        yield f"{name}: {'fits' if fits(processes) else 'does not fit'}"
        for each in processes:
            yield from _table(each)
    yield ""
    yield "memory of the host:"
    for name, size in figures["host"].items():
        if size:
            yield f"  {name:<38}{in_units(size):>10}"


def _table(each: Processes) -> Iterator[str]:
    plan = each.plan
    yield f"  {each.count} x {each.kind}"
    for role, size in plan.held.items():
        yield f"    {role:<36}{in_units(size):>10}"
    for role, size in plan.passing.get(plan.moment, {}).items():
        yield f"    {f'{role}, when {plan.moment}':<36}{in_units(size):>10}"
    yield f"    {'the allocator':<36}{in_units(plan.need - plan.peak):>10}"
    yield f"    {'needed':<36}{in_units(plan.need):>10} of {in_units(plan.room.free)}"
