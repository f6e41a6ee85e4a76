"""`plaudit sft`, `reward`, `ppo`, `grpo` ...: settings in, run directory and report out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from plaudit.cli.config import require
from plaudit.cli.outcome import finish
from plaudit.cli.parser import ANYWAY, SEEDS, answer, chosen, parse_flags, show, split_files
from plaudit.config.load import Layer, load_job
from plaudit.config.sections import Job
from plaudit.errors import ConfigError, Ended, Stopped, TrainingError
from plaudit.evaluation.comparing.seeds import in_words, over_seeds
from plaudit.evaluation.comparing.trials import trials_of
from plaudit.evaluation.report import write_report
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.checkpoint import steps
from plaudit.runs.directory import fresh
from plaudit.runs.files import write_text
from plaudit.runs.watchdog import STACKS, leave
from plaudit.stages.anew import carried_through
from plaudit.stages.online.gate import refuse_coins

RESULTS = "seeds.json"
"""Of a job with several seeds."""
RESTARTS = "PLAUDIT_RESTARTS"
"""Environment variable in which a command that starts again tells itself from where, and how many times."""
MOST_RESTARTS = 3


def run(command: str, argv: list[str]) -> int:
    """Train, evaluate, and say where the results are."""
    row = COMMANDS[command]
    files, flags = split_files(argv)
    job_class = row.job
    layers = [Layer.read(Path(f)) for f in files]
    overrides = parse_flags(command, chosen(job_class, layers, flags), flags)
    # No setting: it would be copied from one config to the next, and is meant for this one run.
    anyway, seeds = bool(overrides.pop(ANYWAY, False)), overrides.pop(SEEDS, None)
    job, sources = load_job(job_class, files, overrides)
    require(job, row.required)
    refuse_coins(job, anyway)
    if seeds is not None:
        return train_with_seeds(command, job, sources, seeds)
    own = leave.set(partial(start_again, [command, *argv], job))
    try:
        finish(carried_through(job, sources))
    except (Ended, Stopped) as end:
        if end.run is not None:
            finish(end.run)
        raise
    finally:
        # A program that called this command from Python goes on after it: the process is not the command's any more.
        leave.reset(own)
    return 0


def start_again(
    words: Sequence[str], job: Job, run: Path, awaited: str, end: Callable[[int], object] = os._exit
) -> None:
    """Leave a run that hangs: this process becomes the same command anew, which goes on from the last checkpoint.

    It gives up after three times without a new checkpoint in between: then it would hang for ever at the same place.

    Args:
        words: of the command line.
        run: that hangs.
        awaited: what it waits for.
        end: of this process, from any thread.
    """
    if sys.platform == "win32":
        return
    newest = [path.name for path in steps(run / "checkpoints")[-1:]]
    place = newest[0] if newest else "the start"
    before, _, times = os.environ.get(RESTARTS, "").rpartition(":")
    count = int(times) + 1 if before == place else 1
    if count > MOST_RESTARTS:
        stopped = TrainingError(
            f"the run has hung {count} times after {place}, waiting for {awaited}",
            where=str(run / STACKS),
            cure="see there what it does; then mend it and go on with --resume",
        )
        print(f"\n{stopped}", file=sys.stderr, flush=True)
        end(stopped.exit_code)
    said = f"\nthe run hangs, waiting for {awaited}; it starts again from {place} ({count})"
    print(said, file=sys.stderr, flush=True)
    kept = [word for word in words if word not in ("--overwrite", "--resume")]
    out = ["--out", str(run)] if job.out == "auto" else []
    again = [sys.executable, "-m", "plaudit.cli.main", *kept, *out, "--resume"]
    os.execve(sys.executable, again, os.environ | {RESTARTS: f"{place}:{count}"})


def train_with_seeds(command: str, job: Job, sources: Mapping[str, str], count: int) -> int:
    """Train, one run a seed in ``OUT/seed-S``; the exit code: 3 if a limit or an alarm ended one of them, else 0.

    Runs that are finished are not made again, so the same command with ``--resume`` goes on where it was stopped.

    Raises:
        ConfigError: fewer than one seed.
        Stopped: somebody stopped it; the run that was under way can be resumed.
    """
    if count < 1:
        raise ConfigError(f"{count} seeds cannot be trained", where="--seeds", cure="give 2 or more; 5 tell a lot")
    given = job.out != "auto"
    out = Path(job.out) if given else fresh(Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}")
    runs: list[Path] = []
    code = 0
    for seed in range(job.seed, job.seed + count):
        place = out / f"seed-{seed}"
        # A seed that was not begun before a stop has nothing to resume.
        resume = job.checkpoint.resume and place.is_dir()
        checkpoint = job.checkpoint.model_copy(update={"resume": resume})
        one = job.model_copy(update={"seed": seed, "out": str(place), "checkpoint": checkpoint})
        show(f"\nseed {seed}, {len(runs) + 1} of {count}: {place}")
        try:
            run = carried_through(one, {**sources, "seed": "--seeds"})
        except (Ended, Stopped) as end:
            if end.run is None or isinstance(end, Stopped):
                raise
            # Not the end of the others: that one seed in five ends like this is what somebody wants to know.
            run, code = end.run, end.exit_code
            show(f"{end}")
        finish(run)
        runs.append(run)
    found = over_seeds(trials_of(runs))
    write_text(out / RESULTS, json.dumps(found, indent=2) + "\n")
    answer({"run": str(out), **found})
    show("\n".join(["", *in_words(found), "", f"seeds   {out / RESULTS}", f"report  {write_report(out)}"]))
    return code
