"""TOML files, then overrides, to one validated job, with the source of every value.

Later files win over earlier ones, the command line wins over files. Nothing is guessed: an unknown key or a
value of the wrong type is an error that names the key, the value, what was expected, and the line.
"""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from plaudit.config.algorithm import specialise
from plaudit.config.fields import (
    MISSING,
    Setting,
    find,
    is_dict,
    is_list_of_tables,
    nearest,
    settings,
    tables,
)
from plaudit.config.foreign import ALIASES, REASONS
from plaudit.config.moved import changes, gone
from plaudit.config.sections import Job, Section
from plaudit.errors import ConfigError

J = TypeVar("J", bound=Job)
S = TypeVar("S", bound=Section)
TYPE_KEY = "algorithm.type"
COMMAND_LINE = "command line"
Table = tuple[Setting, ...]


class Loaded(NamedTuple, Generic[J]):
    """A validated job and where each of its values came from."""

    job: J
    sources: dict[str, str]
    """Dotted key -> ``default``, ``FILE:line`` or ``command line``."""


def load_job(
    job_class: type[J],
    files: Sequence[Path | str | Layer] = (),
    overrides: Mapping[str, Any] | Sequence[str] = (),
    origin: str = COMMAND_LINE,
) -> Loaded[J]:
    """Read and validate a job.

    Args:
        job_class: the model to fill, such as ``SFTJob``.
        files: TOML files, or what was read from them; later ones win.
        overrides: ``{"lr": 1e-5}``, ``{"optimizer.lr": "1e-5"}`` or ``["lr=1e-5"]``; strings are read as the
            setting's type. They win over files.
        origin: what the overrides are called in sources and errors.

    Raises:
        ConfigError: a file that is missing or not TOML, an unknown key, a missing or ill-typed value.
    """
    layers = [f if isinstance(f, Layer) else Layer.read(Path(f)) for f in files]
    given = dict(overrides) if isinstance(overrides, Mapping) else dict(map(_pair, overrides))
    named = given.pop(TYPE_KEY, "")
    job_class = specialise(job_class, *((named, origin) if named else algorithm_type(layers)))
    table = settings(job_class)
    explicit: dict[str, Any] = {}
    sources = dict.fromkeys((s.key for s in table), "default")
    for layer in layers:
        for key, value in layer.flat((*table, *gone(job_class))).items():
            explicit[key], sources[key] = value, layer.where(key)
    for setting, value in _overrides(given, job_class, origin):
        explicit[setting.key], sources[setting.key] = value, origin
    defaults = {s.key: s.default for s in table if s.default is not MISSING and s.default is not None}
    values = defaults | of_today(job_class, explicit, sources)
    return Loaded(_validate(job_class, values, sources, table), {s.key: sources[s.key] for s in table})


def load_section(section: type[S], given: Mapping[str, Any], origin: str = COMMAND_LINE) -> S:
    """One table by itself, such as ``[sampling]``, checked like that of a job.

    Args:
        given: name -> value.
        origin: what they are called in errors.

    Raises:
        ConfigError: an unknown name, or a value that does not fit.
    """
    table = settings(section)
    values = {s.key: s.default for s in table}
    values |= {setting.key: value for setting, value in _overrides(given, section, origin)}
    return _validate(section, values, dict.fromkeys(values, origin), table)


def of_today(job_class: type[Job], explicit: Mapping[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """What was given under keys of any version, by the keys of today.

    Args:
        explicit: dotted key -> value.
        sources: where each was given; one that took another's place gets its source.

    Raises:
        ConfigError: a setting that is gone, with a value that has no equal.
    """
    defaults = {s.key: s.default for s in settings(job_class)}
    result: dict[str, Any] = {}
    for prefix, owner in tables(job_class):
        mine, where = _names(explicit, prefix), _names(sources, prefix)
        for row, change in changes(owner, mine, _names(defaults, prefix), where):
            where |= dict.fromkeys(change, where[row.name])
        result |= {prefix + name: value for name, value in mine.items()}
        sources |= {prefix + name: source for name, source in where.items()}
    return result


def _names(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values of one table, by the last part of their keys."""
    return {
        key.removeprefix(prefix): value
        for key, value in values.items()
        if key.startswith(prefix) and "." not in key.removeprefix(prefix)
    }


def algorithm_type(layers: Sequence[Layer]) -> tuple[str, str]:
    """The last ``[algorithm] type`` of some files and where it stands; empty strings where there is none."""
    for layer in reversed(layers):
        algorithm = layer.tree.get("algorithm")
        if isinstance(algorithm, dict) and "type" in algorithm:
            return str(algorithm["type"]), layer.where(TYPE_KEY)
    return "", ""


@dataclass(frozen=True)
class Layer:
    """One TOML file: its values, and the line on which each key stands."""

    path: Path
    tree: dict[str, Any]
    lines: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Layer:
        """Parse a file. Raises ConfigError naming the line when it is missing or not TOML."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            folder = path.parent
            close = "" if path.exists() else nearest(path.name, [p.name for p in folder.glob("*.toml")])
            cure = f"did you mean {folder / close}?" if close else "give the path of a TOML file in UTF-8"
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"cannot read the config file: {reason}", where=str(path), cure=cure) from None
        try:
            return cls(path, tomllib.loads(text), _key_lines(text))
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and lists within lists
            line = re.search(r"line (\d+)", str(error))
            where = f"{path}:{line[1]}" if line else str(path)
            cure = 'texts need quotes, tables a [header]; for example lr = 1e-5 or schedule = "cosine"'
            raise ConfigError(f"not valid TOML: {error}", where=where, cure=cure) from None

    def where(self, key: str) -> str:
        """``FILE:line`` of a key, or of the nearest table around it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}:{self.lines[key]}" if key else str(self.path)

    def flat(self, table: Table) -> dict[str, Any]:
        """Dotted key -> value. Raises ConfigError for a key that no setting has."""
        keys = {s.key for s in table}
        tables = {s.section for s in table} - {""}
        found: dict[str, Any] = {}

        def visit(tree: Mapping[str, Any], prefix: str) -> None:
            for name, value in tree.items():
                key = prefix + name
                if key in keys:
                    found[key] = value
                elif key in tables and isinstance(value, dict):
                    visit(value, key + ".")
                elif key in tables:
                    raise ConfigError(
                        f"{key} is a table, found {_shown(value)}",
                        where=self.where(key),
                        cure=f"write [{key}] and the table's settings on the lines below it",
                    )
                elif key != TYPE_KEY:
                    raise unknown(key, table, self.where(key))

        visit(self.tree, "")
        return found


def unknown(key: str, table: Table, where: str) -> ConfigError:
    """The error for a key that does not exist, with the nearest one that does."""
    meant = find(key.rpartition(".")[2], table) or find(nearest(key, [s.key for s in table]), table)
    if where == COMMAND_LINE:
        close, named = meant and meant.flag, "--" + key.replace("_", "-")
        listed = "`--help` lists all flags"
    else:
        close, named = meant and meant.key, key
        listed = f"the tables are {', '.join(sorted({s.section for s in table} - {''}))}"
    whole = key.replace("-", "_")
    name = whole.rpartition(".")[2]
    cure = REASONS.get(whole, REASONS.get(name, ""))
    if not cure and name in ALIASES:
        cure = f"what it means elsewhere this command does not have; {listed}"
    if not cure:
        cure = f"did you mean {close}?" if close else listed
    return ConfigError(f"there is no setting {named}", where=where, cure=cure)


def keys_of(job_class: type[Job], given: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Values under any name of a setting, by their dotted keys.

    Raises:
        ConfigError: an unknown name.
    """
    return {setting.key: value for setting, value in _overrides(given, job_class, origin)}


def _overrides(given: Mapping[str, Any], job_class: type[Section], origin: str) -> list[tuple[Setting, Any]]:
    result = []
    table = settings(job_class)
    for name, value in given.items():
        setting = find(name, table) or find(name, gone(job_class))
        if setting is None:
            raise unknown(name.lstrip("-").replace("-", "_"), table, origin)
        result.append((setting, from_text(setting, value)))
    return result


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"the override {text!r} has no value", where=COMMAND_LINE, cure="write key=value")
    return key.strip(), value.strip()


def pairs_of(texts: Sequence[str], flag: str = "--field") -> dict[str, str]:
    """A table from texts such as "prompt=ask".

    Raises:
        ConfigError: a text without "=", or a name twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag} {text!r} has no value", where=COMMAND_LINE, cure=f"write {flag} prompt=ask")
        if pairs.get(name.strip(), value) != value:
            raise ConfigError(f"{flag} gives {name.strip()} twice", where=COMMAND_LINE, cure="give it once")
        pairs[name.strip()] = value.strip()
    return pairs


def from_text(setting: Setting, value: Any) -> Any:
    """A text (or a list of texts) from the command line as the setting's type; as it is where that fails.

    Where it fails, validation says what was expected, with the same message as for a file.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        return value
    if is_list_of_tables(setting.annotation):
        return texts  # a text may stand for a table, and what it means the job alone knows
    if is_dict(setting.annotation):
        return pairs_of(texts, setting.flag)
    adapter = TypeAdapter(setting.annotation)
    joined = texts[0] if len(texts) == 1 else None
    candidates: list[Any] = [] if joined is None else [joined]
    if joined is not None and joined[:1] in ("[", "{"):
        with contextlib.suppress(tomllib.TOMLDecodeError):  # a text that happens to start with a bracket
            candidates.insert(0, tomllib.loads(f"value = {joined}")["value"])
    candidates.append(joined.split(",") if joined is not None else texts)
    for candidate in candidates:
        try:
            return to_jsonable_python(adapter.validate_python(candidate), inf_nan_mode="constants")
        except ValidationError:
            continue
    return value


def _validate(job_class: type[S], values: dict[str, Any], sources: dict[str, str], table: Table) -> S:
    """The job, or one ConfigError that lists everything wrong with it."""
    try:
        tree = _tree(values)
        # JSON in strict mode has TOML's types: a list fills a tuple, but "5" is no number and 1 is not true.
        return job_class.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise _misfit(error.errors(), values, sources, table) from None
    except ConfigError as error:  # of a value that explains itself, such as a reward; it knows its key and not its file
        if error.where not in sources:
            raise
        raise ConfigError(error.what, where=_place(error.where, sources, table), cure=error.cure) from None


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as tables within tables."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = to_jsonable_python(value, inf_nan_mode="constants")
    return tree


def _place(key: str, sources: dict[str, str], table: Table) -> str:
    """Where the value of a key stands: file and line, or the flag."""
    flag = next((setting.flag for setting in table if setting.key == key), "--" + key)
    return f"{sources[key]}, {flag}" if sources[key] == COMMAND_LINE else sources[key]


def _misfit(
    errors: list[ErrorDetails], values: dict[str, Any], sources: dict[str, str], table: Table
) -> ConfigError:
    """All validation errors as one: the first in full, the others by name."""
    keys = {s.key: s for s in table}
    lines: dict[str, tuple[str, str, str]] = {}
    for error in errors:
        path = [str(part) for part in error["loc"]]
        while path and ".".join(path) not in keys:
            path.pop()
        key = ".".join(path) or ".".join(str(part) for part in error["loc"])
        lines.setdefault(key, _explain(error, keys.get(key), key, values, sources))
    what, where, cure = next(iter(lines.values()))
    others = [name for name in lines if name != next(iter(lines))]
    if others:
        what += f" (and {len(others)} more: {', '.join(others)})"
    return ConfigError(what, where=where, cure=cure)


def _explain(
    error: ErrorDetails, setting: Setting | None, key: str, values: dict[str, Any], sources: dict[str, str]
) -> tuple[str, str, str]:
    if setting is None:
        reason = error["msg"].removeprefix("Value error, ")
        return f"{key}: {reason}" if key else reason, sources.get(key, ""), "change one of the settings named"
    if error["type"] == "missing":
        cure = f"add {key} = ... to a config file, or give {setting.flag} on the command line"
        return f"{key} is not set: {setting.help or setting.expected}", key, cure
    value, reason = values.get(key), error["msg"].removeprefix("Value error, ")
    where = _place(key, sources, (setting,))
    cure = f"{setting.flag} takes {setting.expected}: {setting.help}".strip().rstrip(":")
    options = [str(a) for a in typing.get_args(setting.annotation)]
    close = nearest(str(value), options) if error["type"] == "literal_error" else ""
    if close:
        cure = f"did you mean {close!r}? " + cure
    if error["type"].startswith(("value_error", "assertion")):
        return f"{key} = {_shown(value)}: {reason}", where, cure
    return f"{key} = {_shown(value)} does not fit, expected {setting.expected}", where, cure


def _shown(value: Any) -> str:
    text = json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _key_lines(text: str) -> dict[str, int]:
    """Dotted key -> line number. Good enough for messages: the text has been parsed by tomllib before."""
    lines: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?$", line)
        key = re.match(r"""\s*([\w"'.\- ]+?)\s*=""", line)
        if header:
            prefix = _plain(header[1]) + "."
            lines.setdefault(prefix[:-1], number)
        elif key:
            lines.setdefault(prefix + _plain(key[1]), number)
    return lines


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
