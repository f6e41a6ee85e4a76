"""What an iteration costs besides models: collating, the reward function, credit, metrics, logging. Aim: under 5 %.

    python benchmarks/overhead.py [--models tiny] [--tasks grpo,ppo] [--quick] [--device auto]

One worker of Plaudit's side runs under cProfile, and the seconds inside the functions below are added up, each counted
at its outermost call. cProfile slows Python down and matrix products not at all, so the shares are upper bounds.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import plaudit_side
import torch
from against_trl import add_common, machine
from gate import Gate
from plan import make_plan, shape_of
from subjects import subject, words_of

from plaudit.config.sections import ComputeSection
from plaudit.runs.recorder import Recorder

PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "data": (("data/collate.py", "collate_rollouts"), ("data/order.py", "epoch_order")),
    "reward": (("plaudit_side.py", "score"), ("rewards/function.py", "__call__")),
    "credit": (
        ("algorithms/ppo.py", "credit"),
        ("algorithms/grpo.py", "credit"),
        ("algorithms/rloo.py", "credit"),
    ),
    "metrics": (("", "describe"), ("training/online.py", "_mean_over_steps")),
    "logging": (("tracking/recorder.py", "metrics"),),
}
"""Part -> (end of the file's path, function). "" is any file of the package."""


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="grpo,ppo", help="of grpo, rloo, ppo")
    given = add_common(parser, models=["tiny"]).parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.threads:
        torch.set_num_threads(given.threads)
    rows = [measure(given, model, task) for model in given.models for task in given.tasks.split(",")]
    text = json.dumps({"machine": machine(given), "rows": rows}, indent=1)
    (given.out / "overhead.json").write_text(text + "\n", encoding="utf-8")
    print(table(rows))


def measure(given: argparse.Namespace, model: str, task: Any) -> dict[str, Any]:
    """Shares of one task, the first iteration left out."""
    path = subject(model, given.out / "models", given.smollm2)
    rounds = given.rounds or (2 if given.quick else 8)
    shape = shape_of(task, model)
    plan = make_plan(
        task, path, words_of(path), shape, lengths="varied", steps=1 + rounds, device=given.device
    )
    profile = Profile()
    with Recorder(given.out / f"overhead-{task}", command=task, log=plaudit_side.QUIET) as recorder:
        plaudit_side.online(plan, ComputeSection(device=given.device), profile, recorder)  # type: ignore[arg-type]
    return {"model": model, "task": task} | shares(profile.profile, profile.seconds)


class Profile(Gate):
    """In place of the gate between processes: profiles every step but the first."""

    def __init__(self) -> None:
        self.profile, self.seconds, self._began, self._steps = cProfile.Profile(), 0.0, 0.0, 0

    def ready(self) -> None:
        """Nobody is waiting."""

    def step(self, tokens: int, **facts: float) -> None:
        """The end of a step."""
        self.profile.disable()
        if self._steps:
            self.seconds += time.perf_counter() - self._began
        self._steps += 1
        self._began = time.perf_counter()
        self.profile.enable()


def shares(profile: cProfile.Profile, seconds: float) -> dict[str, float]:
    """Share of each part, and their sum."""
    with redirect_stdout(io.StringIO()):
        stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {
        name: sum(cumulative(stats, *f) for f in functions) / seconds for name, functions in PARTS.items()
    }
    return found | {"all": sum(found.values())}


def cumulative(stats: dict[Any, Any], file: str, function: str) -> float:
    """Seconds inside a function, what it calls included."""
    return sum(
        entry[3]
        for (path, _, name), entry in stats.items()
        if name == function
        and path.endswith(file)
        and ("plaudit" in Path(path).parts or path.endswith("plaudit_side.py"))
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Shares in per cent."""
    names = [*PARTS, "all"]
    lines = [f"| model | task | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['task'].upper()} | {' | '.join(f'{row[n]:.2%}' for n in names)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
