"""What a run is resumed with must be what it was started with: data, models, and the settings that matter.

The manifest of a run keeps its settings, hashes of its models, and a fingerprint of its rows. Some settings may differ
when it is resumed (how long, where, what is logged); some change the results and are said; any other is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from plaudit.config.algorithm import name_of, specialise, types
from plaudit.config.fields import MISSING, settings
from plaudit.config.load import TYPE_KEY, of_today
from plaudit.config.moved import gone
from plaudit.config.sections import Job
from plaudit.config.show import plain_values, toml_value
from plaudit.data.reading.opening.folders import split_of
from plaudit.data.reading.opening.source import sources_in
from plaudit.errors import ConfigError
from plaudit.records import to_json
from plaudit.runs.files import jsonable
from plaudit.runs.lock import MANIFEST, read_manifest

LONGER = ("iterations", "epochs", "rounds", "members")
"""How far a run goes: more of it is what a finished run is resumed for."""
FREE = (
    *("out", "overwrite", "log", "checkpoint", "compute", *LONGER),
    *("kl_limit", "eval_every", "on_alarm"),
    *("data.limit", "data.fields"),  # the fingerprint of the rows knows better
)
"""Settings and tables that may differ: they change no row and no step, rounding only, or when a run ends."""
COMPARED_BY_CONTENT = ("model", "policy", "dataset", "reward", "gold", "references")
"""Sources: the same model may lie elsewhere, and another one at the same place."""
STEERING = ("optimizer", "algorithm", "mismatch")
"""Tables that one may want to change on the way, a learning rate or a coefficient, knowing that results do."""
FIXED = ("algorithm.group_size", "algorithm.epochs", "algorithm.minibatches")
"""What counts steps and positions in the data. Nor may an algorithm's words change: they say what is learned."""

Change = tuple[Any, Any]
"""A value at the start, and now."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run was given besides its settings."""

    rows: Iterable[Any] | None = None
    """What is trained on and held out; None where it is not known, and the dataset's files are compared instead."""
    given: Mapping[str, object] = field(default_factory=dict)
    """What was given in Python as a value and not by name, by role: functions, objects, lists of records, or None."""


def described(job: Job, inputs: Inputs | None) -> dict[str, Any]:
    """What a manifest must keep of a job, so that another start can be compared with it."""
    inputs = inputs or Inputs()
    found = {role: {"source": source, "sha256": hash_of(source)} for role, source in job.inputs.items()}
    values = {role: hash_of(place) for role, place in job.code.items()}
    values |= {role: hash_of_value(value) for role, value in inputs.given.items() if value is not None}
    return {
        "settings": _settings(job),
        "inputs": found,
        "given": {role: digest for role, digest in values.items() if digest},
        "rows_sha256": "" if inputs.rows is None else fingerprint(inputs.rows),
    }


def _settings(job: Job) -> dict[str, Any]:
    """All settings of a job, JSON-ready; those that are not set as None."""
    # With the ones not set: a key that is missing in a manifest is then one that an earlier version did not have.
    values: dict[str, Any] = {s.key: None for s in settings(type(job))} | plain_values(job)
    values |= {"algorithm.type": name_of(getattr(job, "algorithm", None))}
    settled: dict[str, Any] = jsonable(values)
    return settled


def fingerprint(records: Iterable[Any]) -> str:
    """SHA-256 of records, their order included; whatever format, place and cache they came from."""
    digest = hashlib.sha256()
    for record in records:
        # Values given in Python may be of types that JSON does not have, such as an answer that is a numpy number.
        digest.update(json.dumps(to_json(record), sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def check(run: Path, job: Job, now: Mapping[str, Any]) -> dict[str, Change]:
    """Compare with the start what a run is resumed with.

    Args:
        run: the run directory. One without a manifest has nothing to compare with.
        now: what `described` says.

    Returns:
        The settings that steer the training and have changed, and the code of functions that has.

    Raises:
        ConfigError: other data, another model, or another value of a setting that must stay.
    """
    start: Mapping[str, Any] = read_manifest(run)
    if "settings" not in start:
        return {}
    # Settings before rows: another seed or --eval-fraction makes other rows of the same file, and then the setting is
    # what a user has to be told, not that the data differ.
    changed = changes(run, job, start)
    start = job.as_recorded(start)
    _same_rows(run, start, now)
    _same_inputs(run, start, now)
    return changed | _other_values(start, now)


def changes(run: Path, job: Job, start: Mapping[str, Any]) -> dict[str, Change]:
    """The settings that steer the training and differ from those in the manifest ``start``.

    Raises:
        ConfigError: a setting that must stay differs.
    """
    was, now = job.comparable(_as_if_set(start["settings"], job), _settings(job))
    differ = {key: (was.get(key), now.get(key)) for key in {**was, **now} if was.get(key) != now.get(key)}
    fatal = {key: change for key, change in differ.items() if _must_stay(key, change)}
    if fatal:
        flags = {s.key: s.flag for s in settings(type(job))} | {"algorithm.type": "--type"}
        given = [f"{flags.get(key, key)} {_shown(before)}" for key, (before, _) in fatal.items()]
        raise ConfigError(
            "the run was started with other settings: "
            + ", ".join(f"{key} = {_shown(a)}, now {_shown(b)}" for key, (a, b) in fatal.items()),
            where=str(run / MANIFEST),
            cure=f"resume with {' '.join(given)}, or start anew with another --out",
        )
    return {key: change for key, change in differ.items() if _in(key, STEERING)}


def _as_if_set(recorded: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The settings of a start by their names of today; what an earlier version did not know was as it is by default."""
    now = name_of(getattr(job, "algorithm", None))
    named = recorded.get(TYPE_KEY) or now
    known = named in types(type(job))
    job_class = specialise(type(job), named, MANIFEST) if known else type(job)
    defaults = jsonable({s.key: s.default for s in settings(job_class) if s.default is not MISSING})
    if not known and named != now:
        return {**defaults, **recorded}  # another command's algorithm, or a user's own: the names say enough
    was = {key: value for key, value in recorded.items() if value is not None}
    values = defaults | recorded | jsonable(of_today(job_class, was, dict.fromkeys(was, MANIFEST)))
    left = {s.key for s in gone(job_class)}
    if job_class.model_fields["algorithm"].annotation is type(job).model_fields["algorithm"].annotation:
        values |= {TYPE_KEY: now}  # presets of one formula: their values are compared, so their names need not be
    return {key: value for key, value in values.items() if key not in left}


def is_longer(job: Job, start: Mapping[str, Any]) -> bool:
    """Whether the job goes on further than the one whose manifest is ``start``."""
    was, now = start["settings"], plain_values(job)
    return any(now[key] > was[key] for key in LONGER if key in now and isinstance(was.get(key), int | float))


def length_of(start: Mapping[str, Any]) -> str:
    """How long the job of a manifest was, as "100 iterations"."""
    return ", ".join(f"{start['settings'][key]} {key}" for key in LONGER if start["settings"].get(key))


def _must_stay(key: str, change: Change) -> bool:
    if key in LONGER:  # 0 rounds or one member is another kind of run, not a shorter one
        return not all(change) or (key == "members" and 1 in change)
    if _in(key, (*FREE, *COMPARED_BY_CONTENT)):
        return False
    if key.startswith("algorithm."):
        # A number may be tuned on the way. A word, such as how advantages are made, is another method: the moments and
        # the KL coefficient that a checkpoint carries would be those of the old one.
        return key in FIXED or not all(value is None or isinstance(value, (int, float)) for value in change)
    return not _in(key, STEERING)


def _in(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _shown(value: Any) -> str:
    return "none" if value is None else toml_value(value)


def _same_rows(run: Path, start: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    was, found = start.get("rows_sha256"), now["rows_sha256"]
    if not was or not found or was == found:
        return
    source = now["inputs"].get("dataset", {}).get("source") or "the rows given"
    raise ConfigError(
        f"the data are not those the run was started with: {source} has other rows, or in another order",
        where=str(run / MANIFEST),
        cure="resume with the data of the start, or train on these with another --out",
    )


def _same_inputs(run: Path, start: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    known = start.get("inputs", {})
    for role in sorted({*known, *now["inputs"]}):
        if role == "dataset" and now["rows_sha256"]:
            continue
        nothing = {"source": "", "sha256": ""}
        was, found = known.get(role, nothing), now["inputs"].get(role, nothing)
        by = "sha256" if was["sha256"] and found["sha256"] else "source"
        if was[by] == found[by]:
            continue
        what = "has other content" if was["source"] == found["source"] else f"was {was['source'] or 'none'}"
        raise ConfigError(
            f"the {role} is not the one the run was started with: {found['source'] or 'none'} {what}",
            where=str(run / MANIFEST),
            cure=f"resume with the {role} of the start, or start anew with another --out",
        )


def _other_values(start: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Change]:
    """Functions, in files or given in Python, whose code is another: said, since a mended reward may be meant."""
    was, found = start.get("given", {}), now["given"]
    return {
        f"code of the {role}": (f"sha256 {was[role][:8]}", f"sha256 {found[role][:8]}")
        for role in was
        if role in found and was[role] != found[role]
    }


HASHED = {".safetensors", ".json", ".gguf", ".jsonl", ".gz", ".csv", ".tsv", ".txt", ".parquet", ".arrow"}


def hash_of(source: str) -> str:
    """SHA-256 of a local file, or of the weights, config and rows in a directory; empty for hub names, and for "".

    Of several files, and of a split of a folder, that of their hashes.

    Of a run directory the model counts, or its members' models: its figures may be computed again. Links that lead
    nowhere and whatever else is no file are passed over.
    """
    if not source:  # a value was given in Python; as a path, "" would be the working directory
        return ""
    named = sources_in(source)
    if len(named) > 1:
        return hashlib.sha256("".join(map(hash_of, named)).encode()).hexdigest()
    path = Path(os.path.expanduser(named[0])) if named else Path(source)
    path = split_of(path)[0] or path
    if path.is_file():
        files = [path]
    elif path.is_dir():
        models = [p for p in (path / "model", *path.glob("member-*/model")) if p.is_dir()]
        inside = (p for place in models or [path] for p in place.rglob("*"))
        files = sorted(p for p in inside if p.suffix in HASHED and p.is_file())
    else:
        return ""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def hash_of_value(value: object) -> str:
    """SHA-256 of what was given in Python: of records their content, of functions and objects their code.

    Empty where there is nothing to hash, such as a table, which stands in the settings. What a function reads besides
    its code, in a closure or a file, is not seen.
    """
    if isinstance(value, (list, tuple)):
        if all(dataclasses.is_dataclass(one) and not hasattr(one, "value") for one in value):
            return fingerprint(value)
        parts = [digest for one in value if (digest := hash_of_value(one))]
        return hashlib.sha256("".join(parts).encode()).hexdigest() if parts else ""
    if isinstance(value, BaseModel):
        return ""
    inner = getattr(value, "value", value)  # a function with its weight and its time
    return hashlib.sha256(_code_of(inner).encode()).hexdigest()


def _code_of(value: Any) -> str:
    """The source of a function, a class or an object's class; the name of what has none, with its compiled code."""
    if isinstance(value, functools.partial):
        return f"{_code_of(value.func)}{value.args}{sorted(value.keywords.items())}"
    value = inspect.unwrap(value) if callable(value) else value
    owner = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        code = getattr(owner, "__code__", None)
        compiled = f"{code.co_code.hex()}{code.co_names}" if code else ""
        return f"{owner.__module__}.{owner.__qualname__}{compiled}"
