"""`plaudit quickstart`: the whole pipeline, offline, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from plaudit.cli.parser import Parser
from plaudit.errors import ConfigError, Ended, Stopped

ABOUT = """Simulated annotators compare responses; from their answers come an SFT model, a reward model and
a PPO policy, all small enough for the CPU of a laptop, and a report that shows what each step gained.
No network, no account."""


def run(command: str, argv: list[str]) -> int:
    """Run the pipeline."""
    parser = Parser("quickstart", ABOUT)
    parser.add_argument("--out", type=Path, help="directory of the results [runs/quickstart]")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--annotate", action="store_true", help="you answer the first comparisons, in the browser"
    )
    parser.add_argument("--port", type=int, default=8000, help="of the page with --annotate [8000]")
    given = parser.parse_args(argv)
    ask = _person(given.port) if given.annotate else None
    from plaudit.cli.outcome import finish_pipeline
    from plaudit.demo.quickstart import run_quickstart
    from plaudit.runs.directory import fresh

    out = given.out or fresh(Path("runs/quickstart"))
    try:
        finish_pipeline(run_quickstart(out, given.seed, ask=ask and partial(ask, db=out / "annotations.db")))
    except Ended as end:
        if end.run is not None:
            finish_pipeline(out)
        raise
    except (Stopped, KeyboardInterrupt) as stop:
        cure = "`plaudit quickstart` starts anew in a directory of its own; single runs can be resumed, it cannot"
        raise Stopped("the quickstart was stopped before its end", where=str(out), cure=cure) from stop
    return 0


def _person(port: int) -> Callable[..., Any]:
    """How to ask the person at this machine; fails at once where the app's packages are missing."""
    try:
        from plaudit.annotate.asking import ask_person
    except ModuleNotFoundError as error:
        what = f"the annotation app needs the package {error.name}"
        cure = "pip install 'plaudit[annotate]', or leave --annotate out"
        raise ConfigError(what, where="--annotate", cure=cure) from error
    return partial(ask_person, port=port)
