"""`plaudit quickstart`: the whole pipeline, offline, on the CPU."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.parser import Parser
from plaudit.errors import Stopped

ABOUT = """Simulated annotators compare responses; from their answers come an SFT model, a reward model and
a PPO policy, all small enough for the CPU of a laptop, and a report that shows what each step gained.
No network, no account."""


def run(command: str, argv: list[str]) -> int:
    """Run the pipeline."""
    parser = Parser("quickstart", ABOUT)
    parser.add_argument("--out", type=Path, help="directory of the results [runs/quickstart]")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    given = parser.parse_args(argv)
    from plaudit.cli.outcome import finish_pipeline
    from plaudit.stages.artifact import fresh
    from plaudit.stages.quickstart import run_quickstart

    out = given.out or fresh(Path("runs/quickstart"))
    try:
        finish_pipeline(run_quickstart(out, given.seed))
    except (Stopped, KeyboardInterrupt) as stop:
        cure = "`plaudit quickstart` starts anew in a directory of its own; single runs can be resumed, it cannot"
        raise Stopped("the quickstart was stopped before its end", where=str(out), cure=cure) from stop
    return 0
