"""Does a run fit into memory: its plan in words, what to do where it does not, and the refusal where nothing helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from plaudit import backends
from plaudit.config.sections import Job
from plaudit.errors import MachineError, PlauditError, Unplanned
from plaudit.records import Record
from plaudit.runtime import SLACK, MemoryPlan
from plaudit.stages.doctor.part import Part, in_units
from plaudit.stages.said import Said

TIGHT = 0.85
"""Share of what is free beyond which a plan is called tight: it is right to within 15 %."""
LEAST_MICROBATCH = 256
GIVES_BACK = "MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_TRIM_THRESHOLD_=1000000"
"""For glibc, which otherwise keeps freed activations in pieces: docs/why/memory.md."""
SMALL = 0.02
"""Share of the need below which a role is not worth a line of advice."""


def examine_memory(job: Job, records: Sequence[Record]) -> Iterator[Part]:
    """The plan of a job, in words.

    Raises:
        ConfigError, ModelError: the models cannot be known.
        MachineError: after the part, where no microbatch is small enough.
    """
    try:
        plan = backends.plan(job, records)
    except Unplanned as error:
        yield Part("memory", warnings=[f"{error.what}: {error.cure}"])
        return
    warnings = [caution] if (caution := caution_of(plan, job)) else []
    yield Part("memory", figures_of(plan), tuple(_table(plan)), tuple(warnings))
    refuse(plan, job)


def check_memory(job: Job, records: Sequence[Record], said: Said) -> None:
    """At the start of a run: say in a line what it needs, warn where that may be too much.

    Raises:
        MachineError: the weights, moments and gradients alone are more than the machine has.
    """
    try:
        plan = backends.plan(job, records, in_full=False)
    except Unplanned as error:
        said.note([error.what])
        return
    except PlauditError:
        return  # what is wrong with a model is said by whoever loads it, and better
    refuse(plan, job)
    about = "needs at most" if plan.rough else f"needs about {in_units(plan.need)} when {plan.moment}, of"
    about = f"{about} {in_units(plan.need)} of" if plan.rough else about
    said.fact("memory", f"{about} {in_units(_room(plan))} on {plan.device}", "memory plan", figures_of(plan))
    if caution := caution_of(plan, job):
        said.note([caution])


def refuse(plan: MemoryPlan, job: Job) -> None:
    """Raise MachineError where no microbatch is small enough."""
    if plan.rough or plan.least <= plan.room.total:
        return
    raise MachineError(
        f"{in_units(plan.least)} are needed for weights, optimizer and gradients alone, and {plan.room.of} has "
        f"{in_units(plan.room.total)}",
        where=f"memory of {plan.device}",
        cure="; ".join([*_fewer_weights(plan, job), "take a smaller model, or a larger machine"]),
    )


def caution_of(plan: MemoryPlan, job: Job) -> str:
    """What to be wary of, with the cure; empty where the run fits."""
    room = _room(plan)
    if plan.need <= TIGHT * room:
        return ""
    fits = plan.need <= room
    how = "is nearly all that is free" if fits else "is more than is free"
    cures = "; ".join(_cures(plan, job)) or "take a smaller model, or a larger machine"
    return (
        f"the run needs about {in_units(plan.need)} when {plan.moment}, which {how} of {plan.room.of} "
        f"({in_units(room)}). {cures[0].upper()}{cures[1:]}"
    )


def figures_of(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as JSON has it, in bytes."""
    return {
        "device": plan.device,
        "need": plan.need,
        "free": _room(plan),
        "total": plan.room.total,
        "process": plan.room.process,
        "held": dict(plan.held),
        "moments": {name: dict(roles) for name, roles in plan.passing.items()},
        "peak_at": plan.moment,
        "at_most": plan.rough,
    }


def _room(plan: MemoryPlan) -> int:
    """Bytes that the run may come to, those that its process holds already included."""
    return plan.room.free + plan.room.process


def _table(plan: MemoryPlan) -> Iterator[str]:
    for role, size in plan.held.items():
        yield f"{role:<34}{in_units(size):>10}"
    yield f"at the peak, {plan.moment}:"
    for role, size in plan.passing.get(plan.moment, {}).items():
        yield f"  {role:<32}{in_units(size):>10}"
    yield f"{'the process and its allocator':<34}{in_units(plan.need - plan.peak):>10}"
    yield f"{'needed, about':<34}{in_units(plan.need):>10}"
    yield f"{'free':<34}{in_units(_room(plan)):>10} of {in_units(plan.room.total)} ({plan.room.of})"
    others = {name: sum(roles.values()) for name, roles in plan.passing.items() if name != plan.moment}
    for name, size in others.items():
        inside = plan.passing[name]
        cache = f", KV cache {in_units(inside['KV cache'])} of it" if "KV cache" in inside else ""
        yield f"instead, {name:<25}{in_units(size):>10}{cache}"


def _cures(plan: MemoryPlan, job: Job) -> Iterator[str]:
    """What would make the run smaller, the most effective first."""
    roles = plan.passing.get(plan.moment, {})
    activations, budget = roles.get("activations", 0), job.compute.tokens_per_microbatch
    room = TIGHT * _room(plan) - (plan.need - (1 + SLACK) * activations)
    wanted = int(budget * room / ((1 + SLACK) * activations)) if activations else 0
    smaller = 2 ** max(wanted, 1).bit_length() // 2
    if activations and max(LEAST_MICROBATCH, job.data.max_length) <= smaller < budget:
        yield f"lower --tokens-per-microbatch to {smaller} (now {budget})"
    elif activations > SMALL * plan.need and not job.compute.gradient_checkpointing:
        lowest = min(budget, max(job.data.max_length, LEAST_MICROBATCH))
        lower = f" and --tokens-per-microbatch {lowest}" if lowest < budget else ""
        yield f"use --gradient-checkpointing{lower}"
    if "KV cache" in roles:
        yield "lower --max-new-tokens or --max-length: keys and values of 64 rows are kept while sampling"
    yield from _fewer_weights(plan, job)
    if plan.device == "cpu" and sys.platform == "linux":
        yield f"start it with {GIVES_BACK} in its environment, so that freed memory is given back"


def _fewer_weights(plan: MemoryPlan, job: Job) -> Iterator[str]:
    """What makes smaller what stays."""
    roles = plan.passing.get(plan.moment, {})
    if not job.lora.rank:
        saved = sum(size for role, size in plan.held.items() if role.startswith(("optimizer", "reference", "critic")))
        saved += roles.get("gradients", 0)
        if saved > SMALL * plan.peak:
            yield f"train adapters, --rank 8, which saves up to {in_units(saved)}"
    elif job.lora.quantize == "none" and plan.device.startswith("cuda"):
        yield "keep the frozen base in 4 bit, --quantize 4bit"
