"""What the processes of a run on Ray workers need of memory, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.backends.local.memory.bound import upper_limit
from plaudit.backends.local.memory.plan import EASY, Figures, figures_of, positions_of, sources_of
from plaudit.backends.local.memory.traffic import as_allowed, traffic_of
from plaudit.backends.local.precision import resolve_device, room_of
from plaudit.backends.ray.parts import refuse_job
from plaudit.backends.spread import Alone, Needs, Pass, Shared
from plaudit.config.sections import Job
from plaudit.errors import Unplanned
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.files.source import resolve
from plaudit.records import Record
from plaudit.runtime import MemoryPlan

PROCESS = 450_000_000
"""Bytes of a process of Ray that has loaded PyTorch and transformers and no model yet, on a CPU."""
MOMENTS = {"scoring": "policy", "updating the policy": "policy", "updating the reward model": "policy",
           "updating the critic": "critic"}  # fmt: skip
"""Moment of a plan of one process -> the role that computes in it. The others are not a worker's."""


def needs_of(job: Job, workers: int, records: Sequence[Record] = ()) -> Needs:
    """What a job needs as a whole, with as many rows at once as one of its workers has.

    Args:
        job: the settings.
        workers: that share its rows.
        records: all that it learns from; none: every row is as long as the settings allow.

    Raises:
        ConfigError: workers cannot run it.
        ModelError, Unplanned: see `figures_of`.
    """
    refuse_job(job)
    one = share_of(job, workers)
    sources = sources_of(one)
    positions = positions_of(sources[0])
    traffic = traffic_of(one, records, sources[0], positions) if records else as_allowed(one, positions)
    figures = figures_of(one, traffic, sources)
    rename = {"reward model": "policy"}  # of the command that trains one: the workers' only model
    roles = {
        rename.get(name, name): _shared(figures, name)
        for name in ("policy", "reward model", "reference", "critic")
        if figures.held.get(name)
    }
    passes = {
        name: Pass(MOMENTS[name], roles_in.get("activations", 0), roles_in.get("gradients", 0))
        for name, roles_in in figures.passing.items()
        if name in MOMENTS and MOMENTS[name] in roles
    }
    sampled = figures.passing.get("sampling")
    if isinstance(job, SFTJob | DPOJob) and not sampled:
        sampled = {}  # a generator is there all the same, and holds a policy
    weights = roles["policy"].weights
    generator = Alone(weights, {"sampling": sampled}) if sampled is not None else None
    return Needs(roles, passes, generator, _rewards(job, figures, weights))


def memory_plan(job: Job, records: Sequence[Record], *, in_full: bool = True) -> MemoryPlan:
    """The plan of a job on Ray workers: of all its processes on this machine's memory, or of the fullest GPU.

    Args:
        job: the settings.
        records: all that it learns from; their lengths count.
        in_full: work it out in any case; else only where an upper limit is more than a third of what is free.

    Raises:
        ConfigError, ModelError: as `needs_of`.
        Unplanned: the machines are not known: a cluster elsewhere, or an architecture that cannot be rehearsed.
    """
    compute = job.compute
    if compute.ray_address:
        raise Unplanned(
            "what the run needs of memory is not compared with a cluster that runs elsewhere",
            where="--ray-address",
            cure="`plaudit plan` with the same settings, --gpus and --gpu-memory says what each of its GPUs needs",
        )
    device = resolve_device(compute.device)
    room = room_of(device)
    beside = _beside(job)
    if not in_full and device.type == "cpu" and (limit := upper_limit(job, records, sources_of(job))):
        held, passing = ({name: (compute.workers + beside) * n for name, n in part.items()} for part in limit)
        rough = MemoryPlan(str(device), held | _processes(job), {"at once, at most": passing}, room, rough=True)
        if rough.need < EASY * room.free:
            return rough
    needs = needs_of(job, compute.workers, records)
    if device.type != "cpu":
        plans = needs.separate(compute.workers, compute.generators, room)
        return max((each.plan for each in plans), key=lambda plan: plan.need)
    return _on_this_machine(job, needs, room)


def _on_this_machine(job: Job, needs: Needs, room: Any) -> MemoryPlan:
    """All processes on one machine's memory; generators and rewards rest while the workers compute, and the reverse."""
    workers, generators = job.compute.workers, job.compute.generators
    held, passing = needs.on_a_worker(workers)
    total = {name: workers * size for name, size in held.items()}
    moments = {name: {role: workers * size for role, size in roles.items()} for name, roles in passing.items()}
    if needs.generator is not None:
        total["generators"] = generators * needs.generator.weights
        for name, roles in needs.generator.passing.items():
            moments[name] = {role: generators * size for role, size in roles.items()}
    for name, one in needs.rewards.items():
        total[name] = one.weights
        moments |= {moment: dict(roles) for moment, roles in one.passing.items()}
    return MemoryPlan("cpu", total | _processes(job), moments, room)


def _beside(job: Job) -> int:
    """Processes beside the workers."""
    online = isinstance(job, OnlineJob | BestOfNJob)
    generators = job.compute.generators if online or isinstance(job, SFTJob | DPOJob) else 0
    return generators + (1 + bool(job.gold) if isinstance(job, OnlineJob | BestOfNJob) else 0)


def _processes(job: Job) -> dict[str, int]:
    return {"processes of the cluster": (job.compute.workers + _beside(job)) * PROCESS}


def share_of(job: Job, workers: int) -> Job:
    """The job with as many rows at once as one worker has of them."""
    changes: dict[str, Any] = {"compute": job.compute.model_copy(update={"device": "cpu", "backend": "local"})}
    for name in ("prompts_per_iteration", "batch_size"):
        if value := getattr(job, name, 0):
            changes[name] = max(1, -(-value // workers))
    return job.model_copy(update=changes)


def _shared(figures: Figures, role: str) -> Shared:
    parts = figures.groups[role]
    return Shared(
        figures.held[role], figures.held.get(f"optimizer, {role}", 0), parts.root, parts.layer, parts.learned_root,
        parts.learned_layer,
    )  # fmt: skip


def _rewards(job: Job, figures: Figures, base: int) -> dict[str, Alone]:
    """The processes of rewards, each with all its models."""
    if not isinstance(job, OnlineJob | BestOfNJob):
        return {}
    found: dict[str, Alone] = {}
    for name, tables in (("reward", job.reward), ("gold", job.gold)):
        if name == "gold" and not tables:
            continue
        models = [role for role in figures.held if role.split()[0] == name]
        # In one process they may stand on the policy's base; here each of them has a base of its own.
        bases = base * sum(resolve(figures.source[role]).adapter is not None for role in models) if job.lora.rank else 0
        moments = {f"{role}: scoring": dict(figures.passing[f"{role}: scoring"]) for role in models}
        found[name] = Alone(bases + sum(figures.held[role] for role in models), moments)
    return found
