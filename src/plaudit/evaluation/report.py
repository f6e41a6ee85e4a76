"""`report.html`: one self-contained page on a run, on the runs of a pipeline, or on several runs side by side."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.evaluation.chapters import chapter, data_chapter, outcome_chapter, training_chapter
from plaudit.evaluation.comparing.page import headline, sections
from plaudit.evaluation.comparing.trials import trials_in, trials_of
from plaudit.evaluation.kinds import kind_of, load_run, load_runs, verdict
from plaudit.evaluation.looping import write_loop_page
from plaudit.evaluation.page import Chapter, environment
from plaudit.runs.files import LOOP, write_text
from plaudit.runs.reading import Run, is_run, naming_odd_rows
from plaudit.tracking.console import duration


def write_report(run_dir: Path) -> Path:
    """Write report.html into ``run_dir`` and return its path.

    Args:
        run_dir: a run of any kind, or a directory whose sub-directories are runs (``sft/``, ``reward/``,
            ``ppo/``): these become one page, told from the data to the outcome. Several runs of one kind are no
            pipeline: they are compared. A loop has a page of its own.

    Raises:
        DataError: no run there, or a broken file in it (with file and line).
    """
    run_dir = Path(run_dir)
    if (run_dir / LOOP).is_file():
        return write_loop_page(run_dir)
    if run_dir.is_dir() and (trials := trials_in(run_dir)):
        return write_comparison(trials, run_dir / "report.html")
    runs = load_runs(run_dir)
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(naming_odd_rows(run.path))
        page = _single(runs[0]) if is_run(run_dir) else _story(run_dir, runs)
        text = environment().get_template("report.html.j2").render(page)
    write_text(run_dir / "report.html", text)
    return run_dir / "report.html"


def inline(run_dir: Path) -> str:
    """The first figures, warnings, curves and samples of a run, as an element that a notebook shows."""
    run = load_run(run_dir)
    page = {"verdict": verdict(run), "chapter": chapter(run), "name": str(run_dir)}
    text = environment().get_template("inline.html.j2").render(page)
    # A frame, because the style of the page must not reach the rest of the notebook.
    return f'<iframe srcdoc="{html.escape(text)}" style="width:100%;height:560px;border:1px solid #8884"></iframe>'


def write_comparison(paths: Sequence[Path], target: Path) -> Path:
    """Write the page on several runs side by side and return its path.

    Args:
        paths: runs, or pipelines, of which the last run is compared.
        target: the HTML file.

    Raises:
        DataError: a path holds no run, or a broken file.
    """
    trials = trials_of(paths)
    words, lead = headline(trials)
    page = {
        "name": f"{target.parent.resolve().name} · {len(trials)} runs",
        "headline": words,
        "lead": lead,
        "sections": sections(trials),
        "pages": [(trial.name, f"plaudit report {trial.run.path}") for trial in trials],
    }
    text = environment().get_template("comparison.html.j2").render(page)
    write_text(target, text)
    return target


def _single(run: Run) -> dict[str, Any]:
    return _page(run, [chapter(run)], [run], f"{kind_of(run).title} · {run.path.resolve().name}")


def _story(root: Path, runs: list[Run]) -> dict[str, Any]:
    chapters: list[Chapter] = []
    data = data_chapter(root / "data")
    if data is not None:
        chapters.append(data)
    for run in runs:
        tell = kind_of(run).training
        chapters.append(chapter(run) if tell is None else training_chapter(run, tell(run)))
    last = runs[-1]
    if kind_of(last).training is not None:
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
        "verdict": verdict(main),
        "chapters": chapters,
        "made": [(kind_of(run).title, run, _log(run)) for run in runs],
        "several": len(runs) > 1,
    }


class Logged(NamedTuple):
    """An event as the page shows it: the time since the start, its kind, its fields."""

    time: str
    kind: str
    fields: str


def _log(run: Run) -> list[Logged]:
    began: float = run.events[0].get("time", 0.0) if run.events else 0.0
    rows = []
    for event in run.events:
        fields = ", ".join(f"{k} {v}" for k, v in event.items() if k not in ("time", "event"))
        rows.append(Logged(duration(event.get("time", began) - began), str(event.get("event", "")), fields))
    return rows
