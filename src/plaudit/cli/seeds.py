"""`--seeds N`: one job trained N times, with one seed after the other, and what all of them say together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from plaudit.cli.outcome import finish
from plaudit.cli.parser import show
from plaudit.config.sections import Job
from plaudit.errors import ConfigError, Ended, Stopped
from plaudit.evaluation.comparing.seeds import in_words, over_seeds
from plaudit.evaluation.comparing.trials import trials_of
from plaudit.evaluation.report import write_report
from plaudit.runs.directory import fresh
from plaudit.stages import stage_of

RESULTS = "seeds.json"


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
            run = stage_of(type(job))(one, {**sources, "seed": "--seeds"})
        except (Ended, Stopped) as end:
            if end.run is None or isinstance(end, Stopped):
                raise
            # Not the end of the others: that one seed in five ends like this is what somebody wants to know.
            run, code = end.run, end.exit_code
            show(f"{end}")
        finish(run)
        runs.append(run)
    found = over_seeds(trials_of(runs))
    (out / RESULTS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show("\n".join(["", *in_words(found), "", f"seeds   {out / RESULTS}", f"report  {write_report(out)}"]))
    return code
