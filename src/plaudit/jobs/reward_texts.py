"""The short texts that stand for the table of a reward. No other file reads one: everything else asks a table.

runs/reward/model, owner/name       model        a reward model
A,B,C  or  A,B,C@RULE               model        an ensemble; RULE: mean, min, weights, mean_minus_std[=NUMBER]
runs/ensemble@RULE                  model        the ensemble that `plaudit reward --members M` trained
owner/name#LABEL[@SCALE]            classifier   how sure a classifier is of a label; SCALE: log_odds, logit, prob
file.py:NAME, module:NAME           function     a Python function or class
rule:json, rule:contains:TEXT ...   rule         a rule
https://host/path                   http         a server that is asked
judge:MODEL@https://host/v1         judge        a language model that is asked
{kind = "function", ...}            any          the table itself, as TOML writes it on one line
"""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationInfo

from plaudit.config.fields import nearest
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import (
    KINDS,
    NAME,
    ClassifierTable,
    EnsembleRule,
    FunctionTable,
    HttpTable,
    JudgeTable,
    ModelTable,
    RewardTable,
    RuleTable,
    checked,
    from_mapping,
    on_one_line,
    rule_forms,
)

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_JUDGE = re.compile(r"judge:\s*(\S.*?)\s*@(https?://\S+)", re.IGNORECASE)
_ENSEMBLE = re.compile(r"(.+)@(mean|min|weights|mean_minus_std)(?:=([0-9]+\.?[0-9]*|\.[0-9]+))?")
_SCALED = re.compile(r"(.+)@(log_odds|logit|prob)")
PREFIXES = ("rule", "http", "https")
"""What stands before the first colon of a short text."""
_HOW = 'a short text such as "runs/reward" or "file.py:function", or a table with kind = ' + " | ".join(
    f'"{kind}"' for kind in KINDS
)


def table_of(value: Any, where: str = "reward") -> RewardTable:
    """One reward as a table.

    Args:
        value: a table, a mapping with ``kind``, or a short text.
        where: the config key, ``reward`` or ``gold``, for errors.

    Raises:
        ConfigError: none of them, or a text that has no meaning or two.
    """
    if isinstance(value, BaseModel) and type(value) in KINDS.values():
        return typing.cast("RewardTable", value)
    if isinstance(value, Mapping):
        return from_mapping(value, where)
    if isinstance(value, str):
        return parse(value, where)
    raise ConfigError(f"{where} = {value!r} is no reward", where=where, cure=f"write {_HOW}")


def tables_of(value: Any, where: str = "reward") -> tuple[RewardTable, ...]:
    """Several rewards, or one by itself, as tables. Errors as of `table_of`."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(table_of(each, where) for each in several)


def _read_one(value: Any) -> Any:
    return table_of(value)


def _read(value: Any, info: ValidationInfo) -> Any:
    return tables_of(value, info.field_name or "reward")


Rewards = Annotated[tuple[Annotated[RewardTable, BeforeValidator(_read_one)], ...], BeforeValidator(_read)]
"""The type of a job's ``reward`` and ``gold``: tables, made from whatever `table_of` takes."""


def parse(text: str, where: str = "reward") -> RewardTable:
    """The table that a short text stands for.

    >>> parse("https://host/score#now").kind, parse("owner/name#POSITIVE@prob").source
    ('http', 'owner/name#POSITIVE@prob')

    Raises:
        ConfigError: the text has no meaning, or two; the cure says how to write what is meant.
    """
    text = text.strip()
    if text.startswith("{"):
        return _from_line(text, where)
    scheme = _SCHEME.match(text)
    if scheme:
        return checked(HttpTable, {"url": text}, where)
    word, colon, rest = text.partition(":")
    if colon and word == "rule":
        return _rule(rest, text, where)
    if colon and (judge := _JUDGE.fullmatch(text)):
        return checked(JudgeTable, {"model": judge[1], "url": judge[2]}, where)
    if colon and word in KINDS:
        raise _reserved(text, word, where)
    return _only_reading(text, where)


def _only_reading(text: str, where: str) -> RewardTable:
    """The one way in which a text can be read."""
    readings = [table for read in (_model, _function, _classifier, _ensemble) if (table := read(text, where))]
    # The disk decides between two readings and nothing else, so that a text with one reading means the same whether or
    # not the file is there yet.
    there = [table for table in readings if _is_there(table)] if len(readings) > 1 else readings
    if len(there) == 1:
        return there[0]
    if readings:
        ways = " or as a ".join(table.kind for table in readings)
        tables = " or ".join(map(on_one_line, readings))
        raise ConfigError(f"{text!r} can be read as a {ways}", where=where, cure=f"write {tables}")
    raise _meaningless(text, where)


def _model(text: str, where: str) -> RewardTable | None:
    """A path or a hub name. With a sign of another kind in it only if it is there: a directory may have any name."""
    plain = bool(text) and not re.search("[#,@:]", _DRIVE.sub("", text, count=1))
    is_model = (plain or _exists(text)) and not text.endswith(".py")
    return checked(ModelTable, {"path": text}, where) if is_model else None


def _function(text: str, where: str) -> RewardTable | None:
    """The name stands behind the last colon, because a path of Windows has one in front."""
    place, colon, name = text.rpartition(":")
    if not colon or not NAME.fullmatch(name):
        return None
    in_file = place.endswith(".py") and ("," not in place or _exists(place))
    return checked(FunctionTable, {"path": text}, where) if in_file or NAME.fullmatch(place) else None


def _classifier(text: str, where: str) -> RewardTable | None:
    """The label starts behind the first #, as hub names have none; or behind the name of something that is there."""
    cuts = [i for i, sign in enumerate(text) if sign == "#"]
    cut = next((i for i in cuts if _exists(text[:i])), cuts[0] if cuts else 0)
    name, label = text[:cut], text[cut + 1 :]
    if not name or not label or not _model(name, where):
        return None
    scaled = _SCALED.fullmatch(label)
    label, scale = (scaled[1], scaled[2]) if scaled else (label, "log_odds")
    return checked(ClassifierTable, {"path": name, "label": label, "scale": scale}, where)


def _ensemble(text: str, where: str) -> RewardTable | None:
    ruled = _ENSEMBLE.fullmatch(text)
    names, rule, coef = (ruled[1], ruled[2], ruled[3]) if ruled else (text, "mean", None)
    members = [name.strip() for name in names.split(",")]
    nothing_said = not ruled and len(members) == 1
    if nothing_said or (coef is not None and rule != "mean_minus_std"):
        return None
    if not all(_model(member, where) for member in members):
        return None
    path = members if len(members) > 1 else members[0]
    return checked(ModelTable, {"path": path, "ensemble": rule, "coef": float(coef or 1.0)}, where)


def _rule(text: str, whole: str, where: str) -> RewardTable:
    """The rule that ``whole`` names; ``text`` is what stands behind its ``rule:``."""
    name, _, argument = text.partition(":")
    fields: dict[str, Any] = {"rule": name}
    if argument:
        counts = name == "length" and argument.isdecimal()
        fields |= {"words": int(argument)} if counts else {"text": argument}
    forms = rule_forms()
    try:
        return checked(RuleTable, fields, where)
    except ConfigError:
        near = nearest(name, _rule_names())
        form = next((form for form in forms if near and form.split(":")[1] == near), "")
        cure = f"write {form}" if form else f"use one of {', '.join(forms)}"
        raise ConfigError(f"{whole!r} is not a rule", where=where, cure=cure) from None


def meant_by(text: str) -> str:
    """The text that one with a misspelt prefix seems to mean; empty if it looks like none.

    >>> meant_by("rul:json"), meant_by("Rules:contains:please"), meant_by("https:host/score"), meant_by("my_file:json")
    ('rule:json', 'rule:contains:please', 'https://host/score', '')
    """
    word, colon, rest = text.partition(":")
    near = nearest(word.casefold(), PREFIXES) if colon else ""
    if near != "rule":
        return f"{near}://{rest.lstrip('/')}" if near and "/" in rest else ""
    name, _, argument = rest.partition(":")
    form = next((f for f in rule_forms() if f.split(":")[1] == nearest(name, _rule_names())), "")
    takes_one = form.count(":") == 2
    if not form or (argument and not takes_one):
        return ""
    return f"rule:{form.split(':')[1]}:{argument}" if argument else form


def _rule_names() -> list[str]:
    return [form.split(":")[1] for form in rule_forms()]


def _from_line(text: str, where: str) -> RewardTable:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        cure = 'write {kind = "model", path = "runs/reward"}'
        raise ConfigError(f"{text!r} is not a TOML table: {error}", where=where, cure=cure) from None
    return from_mapping(value, where)


def _reserved(text: str, word: str, where: str) -> ConfigError:
    """The names of kinds do not start a short text, so that a later kind does not change what a text means."""
    what = f"{text!r} is no reward: no short text starts with {word}:"
    meant = meant_by(text)
    cure = f"did you mean {meant}? Else " if meant else ""
    if word == "judge":
        what = f"{text!r} names no judge and its endpoint"
        cure = "write judge:MODEL@http://127.0.0.1:8000/v1. Else "
    cure += f'write {_HOW}. The function of a module called {word} is {{kind = "function", path = "{text}"}}, '
    return ConfigError(what, where=where, cure=cure + f"a directory of that name ./{text}")


def _meaningless(text: str, where: str) -> ConfigError:
    """Why a text cannot be read, as nearly as can be told."""
    forms = ", ".join(rule_forms())
    reason, cure = "is no reward", f"write {_HOW}"
    parts = [part.strip() for part in text.split(",")]
    name, at, rule = text.rpartition("@")
    if text.endswith(".py"):
        reason, cure = "names a Python file and no function in it", f"write {text}:FUNCTION"
    elif re.search("@(mean|min|weights)=", text) or (len(parts) > 1 and not all(parts)):
        reason = "does not name an ensemble"
        cure = "write DIR,DIR,DIR@RULE with the rule mean, min, weights, mean_minus_std or mean_minus_std=NUMBER"
    elif len(parts) > 1:
        reason = "is no ensemble, which is made of reward models only"
        cure = "give rewards of several kinds as several values, without commas between them"
    elif at and "#" not in text and ":" not in rule:
        near = nearest(rule.partition("=")[0], typing.get_args(EnsembleRule))
        reason = f"has no rule for an ensemble behind the @: {rule!r}"
        cure = f"did you mean {name}@{near}? " if near else ""
        cure += "The rules are mean, min, weights, mean_minus_std and mean_minus_std=NUMBER"
    elif "#" in text:
        reason, cure = "does not name a classifier and one of its labels", "write owner/name#LABEL"
    elif ":" in text:
        reason = "names neither a function nor a rule"
        meant = meant_by(text)
        cure = f"did you mean {meant}? " if meant else ""
        cure += f"A function is file.py:function or module:function, a rule is one of {forms}"
    return ConfigError(f"{text!r} {reason}", where=where, cure=cure)


def _is_there(table: RewardTable) -> bool:
    """Is what a reading names on this machine?"""
    if isinstance(table, FunctionTable):
        place = table.path.rpartition(":")[0]
        return _exists(place) if place.endswith(".py") else _importable(place)
    if isinstance(table, ModelTable):
        return all(map(_exists, table.members))
    return isinstance(table, ClassifierTable) and _exists(table.path)


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(os.path.expanduser(path)).exists()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, a NUL in it, or no home
        return False


def _importable(module: str) -> bool:
    # Of the top-level package only: looking for a submodule would run the package's code, and that is for the worker.
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
