"""`report.html`: one self-contained page on a run, or on the runs of a pipeline, as one story."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from plaudit.evaluation.curves import curves
from plaudit.evaluation.kinds import kind_of, load_runs, verdict, warnings
from plaudit.evaluation.page import Chapter, Verdict
from plaudit.evaluation.samples import pairs, readable
from plaudit.runs.files import Row, read_lines
from plaudit.runs.reading import Run, is_run
from plaudit.tracking.console import duration


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
    page = _single(runs[0]) if is_run(run_dir) else _story(run_dir, runs)
    path = run_dir / "report.html"
    path.write_text(_environment().get_template("report.html.j2").render(page), encoding="utf-8")
    return path


def _environment() -> jinja2.Environment:
    # What models write may be hostile: everything is escaped, save the charts, which are Markup made here.
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True
    )


def _single(run: Run) -> dict[str, Any]:
    return _page(run, [_chapter(run)], [run], f"{kind_of(run).title} · {run.path.resolve().name}")


def _story(root: Path, runs: list[Run]) -> dict[str, Any]:
    chapters: list[Chapter] = []
    data = _data_chapter(root / "data")
    if data is not None:
        chapters.append(data)
    for run in runs:
        tell = kind_of(run).training
        chapters.append(_chapter(run) if tell is None else _training_chapter(run, tell(run)))
    last = runs[-1]
    if kind_of(last).training is not None:
        chapters.append(_outcome_chapter(last))
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


def _chapter(run: Run) -> Chapter:
    """A run as one chapter: everything there is to say of it."""
    kind = kind_of(run)
    first, more = curves(run, kind)
    return Chapter(
        anchor=_anchor(run),
        step=kind.step or run.command.upper(),
        verdict=kind.verdict(run),
        figures=kind.figures(run),
        warnings=warnings(run),
        charts=kind.panels(run) + first,
        more=more,
        samples=pairs(run),
        brief=kind.brief(run),
    )


def _training_chapter(run: Run, told: Verdict) -> Chapter:
    """The training of the last run of a story: its curves. What came of it is the outcome's chapter."""
    kind = kind_of(run)
    first, more = curves(run, kind)
    step = kind.step or run.command.upper()
    return Chapter(_anchor(run), step, told, charts=first, more=more, brief=kind.brief(run))


def _outcome_chapter(run: Run) -> Chapter:
    """The last chapter of a story that ends in a policy: whether it got better."""
    kind, said = kind_of(run), verdict(run)
    return Chapter(
        anchor="outcome",
        step="Did it work?",
        verdict=said,
        figures=kind.figures(run),
        warnings=warnings(run),
        charts=kind.panels(run),
        samples=pairs(run),
        brief=said.headline,
    )


def _anchor(run: Run) -> str:
    # The name of the directory keeps two runs of one kind apart; not every name can be an id in HTML.
    return run.path.name if run.path.name.isidentifier() else kind_of(run).name


def _data_chapter(folder: Path) -> Chapter | None:
    """What everything was learned from: sizes and two examples of each ``*.jsonl`` in ``folder``."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    contents = [(path.stem, read_lines(path)) for path in files]
    contents = [(name, rows) for name, rows in contents if rows]
    if not contents:
        return None
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in contents)
    told = Verdict("flat", "This is what it learned from.", f"{sizes[0].upper()}{sizes[1:]}.")
    examples = [(name, [_example(row) for row in rows[:2]]) for name, rows in contents]
    brief = max(((len(rows), name) for name, rows in contents), default=(0, ""))
    return Chapter("data", "Data", told, examples=examples, brief=f"{brief[0]} {brief[1]}")


def _example(row: Row) -> Row:
    names = ("prompt", "response", "completion", "chosen", "rejected", "messages")
    return {name: readable(row[name]) for name in names if row.get(name)}


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
