"""`plaudit plan`: what a run would take on a cluster. Memory by arithmetic, time from the user's own runs."""

from __future__ import annotations

import json
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from plaudit.cli.config import read_job
from plaudit.cli.parser import Parser, show, split_files
from plaudit.errors import ConfigError

ABOUT = """What a run would take on a cluster, before one is there. Nothing is loaded or run:

  plaudit plan ppo.toml --gpus 64 --model 8B
  plaudit plan grpo --gpus 8 --model runs/sft/model --gpu-memory 48 --gradient-checkpointing

Memory of each GPU by role and layout, whether it fits, and what would make it fit. Flags of the run's own command
count as well. Time of an iteration is worked out from runs on your cluster alone:

  plaudit plan --calibrate runs/a runs/b --to cluster.json
  plaudit plan grpo.toml --gpus 64 --calibration cluster.json"""
GPU_MEMORY = 80.0
WIDTH = 100


def run(command: str, argv: list[str]) -> int:
    """Print a plan, or write a calibration file."""
    parser = _parser()
    files, flags = split_files(argv)
    given, others = parser.parse_known_args(flags)
    if given.calibrate:
        if files or others:
            raise ConfigError(
                f"--calibrate takes runs and --to FILE, and nothing else: {' '.join([*files, *others])}",
                where="command line", cure="plaudit plan --calibrate RUN ... --to FILE",
            )  # fmt: skip
        return _calibrate(given.calibrate, given.to)
    if given.gpus is None or given.gpus < 1:
        value = "is not set" if given.gpus is None else f"is {given.gpus}"
        raise ConfigError(f"--gpus {value}", where="command line", cure="say how many there are: --gpus 8")
    if given.gpu_memory <= 1:
        raise ConfigError(
            f"--gpu-memory is {given.gpu_memory:g}", where="command line", cure="give gigabytes of one GPU, such as 80"
        )
    return _plan(files, others, given)


def _parser() -> Parser:
    parser = Parser("plan", ABOUT, usage="plaudit plan [COMMAND] [CONFIG.toml ...] --gpus N [--flag value ...]")
    parser.add_argument("--gpus", type=int, help="how many there are")
    parser.add_argument(
        "--model", default="", metavar="SIZE|MODEL",
        help="of the policy: 135M, 0.5B, 1B, 3B, 7B, 8B, 14B, 32B, 70B, 405B, a directory, or a hub name",
    )  # fmt: skip
    parser.add_argument(
        "--reward-model", default="", metavar="SIZE|MODEL",
        help="of each reward model (default: the size of --model, else those of the config)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-memory", type=float, default=GPU_MEMORY, metavar="GB", help=f"of one GPU (default: {GPU_MEMORY:g})"
    )
    parser.add_argument("--calibration", type=Path, default=None, metavar="FILE", help="times of your cluster")
    parser.add_argument("--calibrate", type=Path, nargs="+", default=[], metavar="RUN", help="runs on your cluster")
    parser.add_argument("--to", type=Path, default=Path("cluster.json"), metavar="FILE", help="[cluster.json]")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _calibrate(runs: list[Path], to: Path) -> int:
    from plaudit.stages.cluster.times import Calibration, Measured

    found = Calibration([Measured.of(run) for run in runs])
    found.save(to)
    for each in found.runs:
        times = ", ".join(f"{part} {seconds:.3g} s" for part, seconds in each.seconds.items())
        show(f"{each.run}: {each.workers} workers, {each.generators} generators, {each.iterations} iterations: {times}")
    show(f"written to {to}; next: plaudit plan CONFIG --gpus N --calibration {to}")
    return 0


def _plan(files: list[str], flags: list[str], given: Any) -> int:
    from plaudit.stages.cluster.fit import Asked, plan_memory, with_models
    from plaudit.stages.cluster.times import Calibration, as_json, plan_times

    name, job, sources = read_job("plan", files, flags)
    told = job.compute.generators if sources.get("compute.generators", "default") != "default" else 0
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked.of(given.gpus, given.gpu_memory, told)
        job = with_models(job, given.model, given.reward_model, Path(folder))
        planned = plan_memory(job, asked)
    parts = [planned.part]
    if given.calibration is not None:
        calibration = Calibration.load(given.calibration)
        calibration.check(job, planned.needs.model // 4, name)
        parts.append(plan_times(calibration, job, given.gpus, len(planned.needs.rewards)))  # type: ignore[arg-type]
    if given.json:
        show(json.dumps({"command": name} | {part.name: as_json(part) for part in parts}, indent=2))
        return 0
    for part in parts:
        show("\n".join([part.name, *(f"  {line}".rstrip() for line in part.lines), ""]))
        for mark, texts in (("!", part.warnings), ("-", part.notes)):
            for text in texts:
                show(textwrap.fill(text, WIDTH, initial_indent=f"  {mark} ", subsequent_indent="    "))
        show("")
    if given.calibration is None:
        show("Time of an iteration: from runs on your cluster, `plaudit plan --calibrate RUN --to cluster.json`.")
    return 0
