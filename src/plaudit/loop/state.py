"""How far a loop is: one small file that is replaced as a whole after each step, and what may change between starts.

A step that is in the file is done, and never done again. Any other step is done from its beginning, or, where it is a
run, by the run's own way to resume; what it writes replaces what an earlier attempt left.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from plaudit.config.sections import Job
from plaudit.config.show import plain_values, toml_value
from plaudit.errors import ConfigError
from plaudit.loop.plan import Plan
from plaudit.runs.directory import announce
from plaudit.runs.files import LOOP, Row, jsonable, merge_json, read_json
from plaudit.runs.lock import LOCK, is_leftover
from plaudit.runs.resume import hash_of

VERSION = 1
FREE = ("out", "overwrite", "rounds", "log", "compute", "checkpoint", "annotators.wait", "annotators.enough")
"""Settings and tables of the loop that may differ when it goes on: how long, where, and when it is enough."""


class State:
    """The steps that are done, with the figures of each, in ``loop.json``.

    Attributes:
        rounds: for each round the steps that are done: name -> figures, JSON-ready.
    """

    def __init__(self, out: Path, known: Row) -> None:
        self.path = out / LOOP
        self.rounds: list[dict[str, Row]] = [dict(one) for one in known.get("rounds", [])]

    @classmethod
    def open(cls, plan: Plan) -> Self:
        """The state of the loop in the directory of a plan; a new one where there is none. The lock is held.

        Raises:
            ConfigError: the directory holds something else, or a loop of other settings, models or prompts.
        """
        out = Path(plan.job.out)
        known = read_json(out / LOOP)
        if known and plan.job.overwrite:
            # Its own file last: whoever is killed in between leaves a loop, which the same command overwrites.
            for entry in sorted(out.iterdir(), key=lambda entry: entry.name == LOOP):
                if entry.name != LOCK:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            known = {}
        now = _described(plan)
        changed = list(known.get("changed", []))
        if known:
            _refuse_others(out, known, now)
            changed += _say_changes(known, now)
        state = cls(out, known)
        merge_json(state.path, {**now, "changed": changed, "rounds": state.rounds, "finished": False})
        return state

    def has(self, number: int, step: str) -> bool:
        """Whether a step of a round is done."""
        return number <= len(self.rounds) and step in self.rounds[number - 1]

    def figures(self, number: int, step: str) -> Row:
        """What a step that is done has said."""
        return self.rounds[number - 1][step]

    def finish(self, number: int, step: str, figures: Mapping[str, Any]) -> None:
        """A step is done. This is the only moment at which it becomes so: one file is replaced."""
        while len(self.rounds) < number:
            self.rounds.append({})
        self.rounds[number - 1][step] = jsonable(figures)
        merge_json(self.path, {"rounds": self.rounds, "waits": ""})

    def wait(self, words: str) -> None:
        """Keep what the loop waits for, for its page."""
        merge_json(self.path, {"waits": words})

    def end(self) -> None:
        """All rounds are done."""
        merge_json(self.path, {"finished": True})


def check_free(out: Path) -> None:
    """Make sure that a directory is a loop's, or free for one.

    Raises:
        ConfigError: it holds something else.
    """
    if not out.is_dir() or (out / LOOP).is_file():
        return
    if not all(map(is_leftover, out.iterdir())):
        raise ConfigError("the directory holds files that are not a loop", where=str(out), cure="choose another --out")


def _described(plan: Plan) -> Row:
    """What another start is compared with."""
    steps = {name: _plain(loaded.job) for name, loaded in plan.steps().items()}
    steps["policy"]["command"] = plan.command
    inputs = {role: {"source": source, "sha256": hash_of(source)} for role, source in plan.job.inputs.items()}
    return {"version": VERSION, "settings": _plain(plan.job), "steps": steps, "inputs": inputs}


def _plain(job: Job) -> Row:
    values: Row = jsonable(plain_values(job))
    return values


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (was.get(key), now.get(key)) for key in {**was, **now} if was.get(key) != now.get(key)}


def _refuse_others(out: Path, known: Row, now: Row) -> None:
    for role, source in now["inputs"].items():
        if source["sha256"] != known["inputs"][role]["sha256"] or (
            not source["sha256"] and source["source"] != known["inputs"][role]["source"]
        ):
            raise ConfigError(
                f"the {role} is not the one that the loop was started with: {source['source']}", where=str(out / LOOP),
                cure=f"go on with the {role} of the start, or start anew with another --out",
            )  # fmt: skip
    differ = _differences(known["settings"], now["settings"])
    fatal = {
        key: change for key, change in differ.items()
        if key not in now["inputs"] and not any(key == name or key.startswith(f"{name}.") for name in FREE)
    }  # fmt: skip
    if fatal:
        raise ConfigError(
            "the loop was started with other settings: "
            + ", ".join(f"{key} = {_shown(a)}, now {_shown(b)}" for key, (a, b) in fatal.items()),
            where=str(out / LOOP), cure="go on with those of the start, or start anew with another --out",
        )  # fmt: skip


def _say_changes(known: Row, now: Row) -> list[str]:
    """Settings of steps that changed: a round under way is checked by its runs, later rounds take the new ones."""
    changes = [
        f"[{step}] {key} {_shown(a)} -> {_shown(b)}, after {len(known.get('rounds', []))} rounds begun"
        for step, values in now["steps"].items()
        for key, (a, b) in _differences(known["steps"].get(step, {}), values).items()
        if not key.startswith(("log.", "compute.", "checkpoint."))
    ]
    if changes:
        announce({"changed": "; ".join(changes)})
    return changes


def _shown(value: Any) -> str:
    return "none" if value is None else toml_value(value)
