"""The kinds of runs: one file each, with its figures, verdict, warnings and charts; and what kind a run is.

A new kind is a file here that ends in a `Kind`, and a line in `KINDS`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from plaudit.evaluation.kinds.benchmark import BENCHMARK
from plaudit.evaluation.kinds.best_of_n import BEST_OF_N
from plaudit.evaluation.kinds.policy import POLICY
from plaudit.evaluation.kinds.preference import PREFERENCE
from plaudit.evaluation.kinds.reward import REWARD
from plaudit.evaluation.kinds.sft import SFT
from plaudit.evaluation.page import Kind, Verdict
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.files import BEST, Row
from plaudit.runs.reading import Run, naming_odd_rows, read_run, runs_in

KINDS = {kind.name: kind for kind in (SFT, REWARD, BENCHMARK, PREFERENCE, BEST_OF_N, POLICY)}
"""In the order of the pipeline."""


def kind_of(run: Run) -> Kind:
    """The kind of a run: by its command, or by what it left behind."""
    row = COMMANDS.get(run.command)
    if row is not None:
        # `best-of-n` answers prompts (best.jsonl), or trains in rounds: then it makes a policy, evaluated as any other.
        trains = row.kind == BEST_OF_N.name and not (run.path / BEST).is_file()
        # A policy of any command that answered prompts anew after its run.
        if not run.metrics and (run.path / POLICY.rows).is_file():
            own = POLICY if trains else KINDS[row.kind]
            return dataclasses.replace(POLICY, title=f"{own.title}, evaluated")
        return POLICY if trains else KINDS[row.kind]
    # The command of a user's own algorithm is in no table: the files of measured rows decide.
    for kind in (PREFERENCE, POLICY, BEST_OF_N, BENCHMARK, REWARD):
        if (run.path / kind.rows).is_file():
            return kind
    return POLICY if any("reward/mean" in row for row in run.metrics[:1]) else SFT


def card(run_dir: Path) -> Row:
    """Compute the figures of a run of any kind, write them to its summary.json and return them.

    Raises:
        DataError: not a run, or nothing was measured in it.
    """
    with naming_odd_rows(Path(run_dir)):
        return kind_of(read_run(Path(run_dir))).card(Path(run_dir))


def load_run(path: Path) -> Run:
    """Read a run directory; computes its figures first, where the rows are there and the figures are not.

    Raises:
        DataError: not a run, or a broken file in it.
    """
    run = read_run(path)
    kind = kind_of(run)
    if kind.rows and (path / kind.rows).is_file() and kind.computed not in run.summary:
        return dataclasses.replace(run, summary=run.summary | card(path))
    return run


def load_runs(path: Path) -> list[Run]:
    """The run in ``path``, or the runs in its sub-directories, in the order of the pipeline.

    Raises:
        DataError: neither.
    """
    order = list(KINDS)
    runs = [load_run(run) for run in runs_in(Path(path))]
    return sorted(runs, key=lambda run: order.index(kind_of(run).name))


def verdict(run: Run) -> Verdict:
    """The verdict on a run of any kind."""
    return kind_of(run).verdict(run)


def warnings(run: Run) -> list[str]:
    """What to be wary of, most serious first; what happened during the run is part of it."""
    kind = kind_of(run)
    messages = kind.warnings(run)
    if run.reason and run.reason != "finished":
        messages = [f"The run did not finish: {run.reason}", *messages]
    messages += [
        f"Put back to {kind.unit} {e.get('step')}: {e.get('why', 'it was better there')}."
        for e in run.standing
        if e.get("event") == "rolled back"
    ]
    messages += [
        f"Went back at {kind.unit} {e.get('step')} on {e.get('why')}."
        for e in run.standing
        if e.get("event") == "gone back"
    ]
    alarms = [event for event in run.standing if event.get("event") == "alarm" and _words(event)]
    told = [f"During the run: {_words(alarm)}" for alarm in alarms if not alarm.get("early")]
    told += [_early(alarm, run, kind.unit) for alarm in alarms if alarm.get("early")]
    return messages + list(dict.fromkeys(told))


def in_words(run_dir: Path) -> str:
    """The verdict on a run and what to be wary of, one sentence or more a line."""
    with naming_odd_rows(run_dir):
        run = load_run(run_dir)
        said, missing = verdict(run), kind_of(run).unchecked(run)
        lines = [said.headline, said.evidence, *(f"! {warning}" for warning in warnings(run))]
    return "\n".join([*lines, *([f"Not checked: {'; '.join(missing)}."] if missing else [])])


def _early(alarm: Row, run: Run, unit: str) -> str:
    """An alarm that came before anything was lost, with what became of it where a gold reward has decided."""
    text = f"Early in the run, at {unit} {alarm.get('step')}, when nothing was lost yet: {_words(alarm)}"
    if run.summary.get("verdict") == "better" and run.summary.get("gold_difference") is not None:
        text += ". In the end the gold reward was clearly above its start"
    return text


def _words(alarm: Row) -> str:
    # Every alarm has a message; those of the first release may have the words under another name.
    return str(alarm.get("message") or alarm.get("what") or alarm.get("reason") or "")
