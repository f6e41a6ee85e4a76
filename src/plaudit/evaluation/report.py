"""`report.html`: one self-contained page on a run, or on the runs of a quickstart, as one story."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jinja2

from plaudit.evaluation import verdict as judge
from plaudit.evaluation.chapters import Chapter, chapter, data_chapter, outcome_chapter
from plaudit.evaluation.rundir import Run, is_run, load_runs
from plaudit.tracking.console import duration

TITLES = {
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "dpo": "Preferences",
    "best_of_n": "Best of n",
    "rl": "Reinforcement learning",
}


def write_report(run_dir: Path) -> Path:
    """Write report.html into ``run_dir`` and return its path.

    Args:
        run_dir: a run of any kind, or a directory whose sub-directories are runs (``sft/``, ``reward/``,
            ``ppo/``): these become one page, told from the data to the outcome.

    Raises:
        DataError: no run there, or a broken file in it (with file and line).
    """
    run_dir = Path(run_dir)
    runs = load_runs(run_dir)
    page = _story(run_dir, runs) if not is_run(run_dir) else _single(runs[0])
    path = run_dir / "report.html"
    path.write_text(_environment().get_template("report.html.j2").render(page), encoding="utf-8")
    return path


def _environment() -> jinja2.Environment:
    # What models write is hostile text: everything is escaped, save the charts, which are Markup made here.
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True
    )


def _single(run: Run) -> dict[str, Any]:
    return _page(run, [chapter(run)], [run], f"{TITLES[run.kind]} · {run.path.resolve().name}")


def _story(root: Path, runs: list[Run]) -> dict[str, Any]:
    chapters: list[Chapter] = []
    data = data_chapter(root / "data")
    if data is not None:
        chapters.append(data)
    for run in runs:
        chapters.append(chapter(run, whole=run.kind != "rl"))
    last = runs[-1]
    if last.kind == "rl":
        chapters.append(outcome_chapter(last))
    return _page(last, chapters, runs, f"{root.resolve().name} · {len(runs)} stages")


def _page(main: Run, chapters: list[Chapter], runs: list[Run], name: str) -> dict[str, Any]:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    began = min((event["time"] for run in runs for event in run.events[:1]), default=None)
    facts = [
        time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else "",
        duration(sum(seconds)) if seconds else "",
        main.reason.partition(":")[0].lower() if main.reason else "still running",
    ]
    return {
        "name": name,
        "facts": [fact for fact in facts if fact],
        "verdict": judge.verdict(main),
        "chapters": chapters,
        "steps": [c for c in chapters if c.step],
        "runs": runs,
        "several": len(runs) > 1,
        "titles": TITLES,
    }
