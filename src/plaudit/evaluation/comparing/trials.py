"""Runs that are compared: their names, how they ended, in which settings they differ, and which differ by seed only."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.config.show import toml_value
from plaudit.evaluation.kinds import kind_of, load_runs
from plaudit.runs.reading import Run, is_run, read_run

FREE = ("out", "overwrite", "seed", "log.", "checkpoint.", "compute.")
"""Settings that make no other trial: where a run is written, what it shows, how fast it is. Seeds have a column."""
NOT_SET = "–"
NO_VALUE = (
    *("name", "timeout", "concurrency", "batch_size"),
    *("prices", "cost_limit", "cache", "key_env"),
)
"""Keys of the table of a reward that change no value: what it is called, how fast it is, what it costs."""


@dataclass(frozen=True)
class Trial:
    """One of the runs of a comparison."""

    name: str
    run: Run

    @property
    def failed(self) -> str:
        """Why it did not end as it was told to, in words; "" if it did."""
        reason = self.run.reason
        if reason == "finished":
            return ""
        kind, _, words = reason.partition(": ")
        return (words if kind.endswith("Error") else reason) or "it has not ended, or was killed"

    @property
    def settings(self) -> dict[str, str]:
        """The settings that make it another trial."""
        return {s.key: s.value for s in self.run.settings if not s.key.startswith(FREE)}

    def judge(self, role: str) -> str:
        """What gives its "reward" or "gold", so that equal texts mean the same judge; "" where nothing is recorded.

        A model counts by the hash of its files, a function and a rubric by that of their text, wherever they lie.
        """
        manifest = dict(self.run.manifest)
        parts = [manifest.get(f"given.{role}", "")]
        text = next((s.value for s in self.run.settings if s.key == role), "")
        for i, table in enumerate(tomllib.loads(f"tables = [{text}]")["tables"]):
            if isinstance(table, dict):
                table = {k: v for k, v in table.items() if k not in NO_VALUE}
                table |= _contents(manifest, f"{role} {i}", table)
            parts.append(toml_value(table) if table else "")
        return ", ".join(part for part in parts if part)

    @property
    def seed(self) -> str:
        """Its seed; "–" where no settings were recorded."""
        return next((s.value for s in self.run.settings if s.key == "seed"), NOT_SET)


def _contents(manifest: Mapping[str, str], place: str, table: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the files that a table of a reward names, as hashes under the keys that name them."""
    found = {}
    if digest := manifest.get(f"inputs.{place}.sha256"):
        found["path"] = digest
    if digest := manifest.get(f"inputs.{place} rubric.sha256"):
        found["rubric"] = digest
    if digest := manifest.get(f"given.{place}"):
        _, colon, function = str(table.get("path", "")).rpartition(":")
        found |= {"path": function if colon else "", "code": digest}
    return found


@dataclass(frozen=True)
class Group:
    """Trials with the same settings: repetitions, which differ by seed."""

    settings: dict[str, str]
    """Those in which the groups differ."""
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """What is special about it, in words."""
        return ", ".join(f"{key} {value}" for key, value in self.settings.items()) or "the same settings"


def trials_of(paths: Sequence[Path]) -> list[Trial]:
    """The runs of a comparison: each path is a run, or a pipeline, of which the last run is compared.

    Raises:
        DataError: a path holds no run.
    """
    return [Trial(name, load_runs(path)[-1]) for name, path in zip(_names(paths), paths, strict=True)]


def trials_in(folder: Path) -> list[Path]:
    """The sub-directories of a folder that are runs or hold runs; none where the folder is one pipeline or one run.

    A pipeline has one run of each kind. Two of a kind are trials, even where a pipeline's other runs lie beside them.
    """
    if is_run(folder):
        return []
    inside = [child for child in sorted(folder.iterdir()) if child.is_dir() and (is_run(child) or _holds_runs(child))]
    kinds = [kind_of(read_run(child)).name for child in inside if is_run(child)]
    several = len(set(kinds)) < len(kinds) or len(inside) - len(kinds) > 1
    return inside if several else []


def _holds_runs(folder: Path) -> bool:
    return any(child.is_dir() and is_run(child) for child in folder.iterdir())


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart."""
    whole = [path.resolve().parts for path in paths]
    depth = next(
        (n for n in range(1, 1 + max(map(len, whole))) if len({parts[-n:] for parts in whole}) == len(set(whole))),
        1,
    )  # fmt: skip
    return ["/".join(parts[-depth:]) for parts in whole]


def differing(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """The settings in which trials differ: name -> value of each trial."""
    known = [trial.settings for trial in trials]
    names = list(dict.fromkeys(name for settings in known for name in settings))
    values = {name: [settings.get(name, NOT_SET) for settings in known] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def groups_of(trials: Sequence[Trial]) -> list[Group]:
    """Trials of one command and the same settings, whatever their seed, in the order in which they were given."""
    differ = differing(trials)
    together: dict[tuple[str, ...], list[int]] = {}
    for index, trial in enumerate(trials):
        key = (trial.run.command, *(values[index] for values in differ.values()))
        together.setdefault(key, []).append(index)
    return [
        Group(
            {name: values[each[0]] for name, values in differ.items() if values[each[0]] != NOT_SET},
            tuple(trials[index] for index in each),
        )
        for each in together.values()
    ]


def by_kind(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials that have the same figures, by the name of their kind: a reward model is not compared with a policy."""
    kinds: dict[str, list[Trial]] = {}
    for trial in trials:
        kinds.setdefault(kind_of(trial.run).name, []).append(trial)
    return kinds
