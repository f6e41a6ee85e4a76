"""A job as TOML that can be fed back, each value with a comment on where it came from."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from pydantic_core import to_jsonable_python

from plaudit.config.algorithm import name_of
from plaudit.config.fields import is_list_of_tables, settings
from plaudit.config.sections import Job

COLUMN = 44
"""Where the comments start, if the value leaves room."""


def plain_values(job: Job) -> dict[str, Any]:
    """All settings of a job that have a value, by dotted key in the order of the config file, as JSON has them."""
    values: dict[str, Any] = {}
    for setting in settings(type(job)):
        value: Any = job
        for part in setting.key.split("."):
            value = getattr(value, part)
        if value is not None:
            values[setting.key] = to_jsonable_python(value, inf_nan_mode="constants")
    return values


def to_toml(job: Job, sources: Mapping[str, str] | None = None) -> str:
    """All settings of a job as TOML text.

    Args:
        job: any job.
        sources: dotted key -> source, as `load_job` gives it. A value without one is marked ``default`` or
            ``set in Python``.
    """
    sources = sources or {}
    values = plain_values(job)
    blocks = []
    for section, group in groupby(settings(type(job)), key=lambda s: s.section):
        lines = [f"[{section}]"] if section else []
        if section == "algorithm":
            lines.append(f'type = "{name_of(getattr(job, section))}"')
        listed: list[str] = []
        for setting in group:
            if setting.key not in values:
                continue
            value = values[setting.key]
            if is_list_of_tables(setting.annotation) and value:
                listed += _blocks(setting.key, value, sources.get(setting.key, ""))
                continue
            text = f"{setting.key.rpartition('.')[2]} = {toml_value(value)}"
            as_given = value == to_jsonable_python(setting.default, inf_nan_mode="constants", fallback=str)
            source = sources.get(setting.key) or ("default" if as_given else "set in Python")
            lines.append(f"{text:<{COLUMN}} # {source}".replace("\n", " "))
        blocks += ["\n".join(lines), *listed]  # a table ends the plain keys, so its header comes behind all of them
    return "\n\n".join(blocks) + "\n"


def _blocks(key: str, tables: Iterable[Mapping[str, Any]], source: str) -> list[str]:
    """A list of tables as TOML blocks with the header ``[[key]]``."""
    header = f"{f'[[{key}]]':<{COLUMN}} # {source}" if source else f"[[{key}]]"
    return ["\n".join([header, *(f"{k} = {toml_value(v)}" for k, v in table.items())]) for table in tables]


def toml_value(value: Any) -> str:
    """A JSON-like value as a TOML value on one line.

    >>> toml_value([1, 0.5, "a", True, {"b": 1e-05}])
    '[1, 0.5, "a", true, {"b" = 1e-05}]'
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):  # no setting is one, but TOML has them
        return value.isoformat()
    if isinstance(value, Mapping):
        pairs = (f"{toml_value(str(k))} = {toml_value(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    return "[" + ", ".join(toml_value(v) for v in value) + "]"
