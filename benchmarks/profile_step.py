"""Where the time of one step goes: products by shape and type, attention, elementwise work, casts, optimizer, Python.

    python benchmarks/profile_step.py --models smollm2 --tasks grpo --lengths varied [--precision bf16] [--threads 1]

Runs the same worker as `against_trl.py` and profiles its second step. Shares are of the wall time of that step; what is
left is Python, data and dispatch. The profiler itself slows small operations, so their share is an upper bound.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import plaudit_side
import torch
from against_trl import add_common, listed
from plan import OFFLINE, TASKS, make_plan, shape_of
from subjects import subject, words_of
from torch.profiler import ProfilerActivity, profile

from plaudit.runs.recorder import Recorder

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn::_linear_pointwise", "aten::mkldnn_linear")
CASTS = ("aten::_to_copy", "aten::to", "aten::copy_")
LARGEST = 8


class DoneError(Exception):
    """The step that was wanted is over."""


class ProfiledStep:
    """In the place of a gate: the first step warms up, the second is profiled."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
        self.began = self.seconds = 0.0
        self._steps = 0

    def ready(self) -> None:
        """Nothing to wait for."""

    def step(self, tokens: int, **facts: float) -> None:
        """A step is over."""
        self._steps += 1
        if self._steps == 2:
            self.seconds = time.perf_counter() - self.began
            self.profiler.stop()
            raise DoneError
        self.profiler.start()
        self.began = time.perf_counter()


def kind_of(name: str) -> str:
    """What an operation is counted as."""
    if name in PRODUCTS:
        return "products"
    if "attention" in name:
        return "attention"
    if name in CASTS:
        return "copies and casts"
    if "adam" in name.lower() or "Optimizer" in name:
        return "optimizer"
    return "elementwise and the rest"


def shares(step: ProfiledStep) -> tuple[dict[str, float], list[tuple[str, float, int]]]:
    """Share of the step's seconds by kind; and the products that took most, with seconds and calls."""
    kinds: Counter[str] = Counter()
    products: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in step.profiler.key_averages(group_by_input_shape=True):
        seconds = event.self_cpu_time_total / 1e6
        kinds[kind_of(event.key)] += seconds
        if event.key in PRODUCTS:
            shape = " x ".join(str(list(s)) for s in event.input_shapes if len(s) >= 2)
            name = f"{event.key.split('::')[1]} {shape}"
            products[name] += seconds
            calls[name] += event.count
    whole = step.seconds
    kinds["Python, data, dispatch"] = max(0.0, whole - sum(kinds.values()))
    largest = [(name, seconds, calls[name]) for name, seconds in products.most_common(LARGEST)]
    return {name: seconds / whole for name, seconds in kinds.most_common()}, largest


def profiled(plan: Any, precision: str) -> ProfiledStep:
    """The second step of a plan."""
    step: Any = ProfiledStep()
    compute = plaudit_side.compute_of(plan, precision)
    run_task = plaudit_side.offline if plan.task in OFFLINE else plaudit_side.online
    with (
        tempfile.TemporaryDirectory() as run,
        Recorder(Path(run), command=plan.task, log=plaudit_side.QUIET) as recorder,
        contextlib.suppress(DoneError),
    ):
        run_task(plan, compute, step, recorder)
    return step


def main() -> None:
    """One table a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=listed(TASKS), default=["grpo"])
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    given = add_common(parser, models=("smollm2",)).parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.models:
        path = subject(name, given.out / "models", given.smollm2)
        for task in given.tasks:
            for lengths in given.lengths:
                plan = make_plan(
                    task, path, words_of(path), shape_of(task, name), lengths=lengths, steps=2, device=given.device
                )  # fmt: skip
                step = profiled(plan, given.precision)
                kinds, largest = shares(step)
                print(f"\n{name} {task} {lengths}, {step.seconds:.2f} s:")
                for kind, share in kinds.items():
                    print(f"  {share:6.1%}  {kind}")
                for product, seconds, count in largest:
                    print(f"  {seconds:7.3f} s in {count:5d} calls  {product}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
