"""The settings of a job as one flat list: what files, flags, help texts and the reference are made from."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from plaudit.config.foreign import ALIASES

MISSING: Any = dataclasses.MISSING
"""The default of a setting that must be given."""

@dataclass(frozen=True, slots=True)
class Setting:
    """One value that a user can set."""

    key: str
    """Dotted path in the TOML file, such as ``optimizer.lr``."""
    name: str
    """Flat name on the command line: the last part of the key where that is unique, else the whole key."""
    annotation: Any
    default: Any
    """The value when nothing is set; MISSING: it must be set."""
    help: str
    bounds: str = ""
    """Limits of a number, such as ``> 0``."""

    @property
    def is_everyday(self) -> bool:
        """Whether people change it, or must set it."""
        return self.key in EVERYDAY or self.default is MISSING

    @property
    def in_short(self) -> str:
        """The first sentence of its help."""
        # A sentence ends with one full stop; three of them stand for what a list leaves out.
        return re.split(r"(?<!\.)\. ", " ".join(self.help.split()))[0].rstrip(".")

    @property
    def section(self) -> str:
        """The TOML table, empty for top-level keys."""
        return self.key.rpartition(".")[0]

    @property
    def flag(self) -> str:
        """As typed on the command line; of a table of names, one pair at a time."""
        name = self.name.removesuffix("s") if is_dict(self.annotation) else self.name
        return "--" + name.replace("_", "-").replace(".", "-")

    @property
    def expected(self) -> str:
        """The type in words, with its limits."""
        return f"{describe(self.annotation)} {self.bounds}".strip()


EVERYDAY = (
    *("model", "policy", "reward", "dataset", "out", "epochs", "batch_size", "iterations", "prompts_per_iteration"),
    *("rounds", "comparisons", "choose", "annotators.kind", "annotators.source"),
    *("algorithm.group_size", "algorithm.kl_coef", "algorithm.beta", "optimizer.lr", "lora.rank"),
    *("data.max_length", "sampling.max_new_tokens", "compute.device", "checkpoint.resume"),
)
"""Settings that people change: what `--help` and `help(plaudit.train)` show."""


@cache
def settings(job_class: type[BaseModel]) -> tuple[Setting, ...]:
    """All settings of a job, top-level keys first, then table by table in the order of the class."""
    found = sorted(_walk(job_class, MISSING, ""), key=lambda s: "." in s.key)
    last = Counter(s.key.rpartition(".")[2] for s in found)
    return tuple(_named(found, last))


def _named(found: Iterable[Setting], last: Counter[str]) -> Iterator[Setting]:
    """A name in two tables is spelled with its table; a top-level key always keeps its short name."""
    for s in found:
        short = s.key.rpartition(".")[2]
        yield s if last[short] == 1 or not s.section else dataclasses.replace(s, name=s.key)


def is_table(annotation: Any) -> bool:
    """True for a type whose fields are settings of their own: a section, or an algorithm."""
    return isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    )


def is_dict(annotation: Any) -> bool:
    """True for a table whose names are free; it is one setting."""
    return typing.get_origin(annotation) is dict


def is_list_of_tables(annotation: Any) -> bool:
    """True for a list whose items are tables, of one kind or several; it is one setting."""
    return typing.get_origin(annotation) in (tuple, list) and describe(annotation) == "list of table"


def tables(owner: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """The tables of a job: the dotted prefix of their keys, and the class of their settings. The job comes first."""
    yield prefix, owner
    for name, annotation, _, _ in _fields(owner):
        if is_table(annotation):
            yield from tables(annotation, f"{prefix}{name}.")


def _walk(owner: Any, instance: Any, prefix: str) -> Iterator[Setting]:
    """Leaves of ``owner``; defaults are read off ``instance`` where there is one."""
    for name, annotation, default, text in _fields(owner):
        value = default if instance is MISSING else getattr(instance, name)
        if is_table(annotation):
            yield from _walk(annotation, value, f"{prefix}{name}.")
        else:
            bounds = _bounds(owner, name)
            yield Setting(prefix + name, name, annotation, value, text, bounds)


def _fields(owner: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Name, type, default and docstring of every field of a pydantic model or a dataclass."""
    if issubclass(owner, BaseModel):
        for name, info in owner.model_fields.items():
            default = MISSING if info.is_required() else info.get_default(call_default_factory=True)
            yield name, info.annotation, default, " ".join((info.description or "").split())
        return
    hints, texts = typing.get_type_hints(owner, include_extras=True), _docstrings(owner)
    for field in dataclasses.fields(owner):
        factory: Any = field.default_factory
        default = field.default if factory is MISSING else factory()
        yield field.name, hints[field.name], default, texts.get(field.name, "")


SIGNS = {Gt: ">", Ge: ">=", Lt: "<", Le: "<="}


def bounds(metadata: Iterable[Any]) -> str:
    """Limits of a number in words, such as ``> 0``."""
    limits = [limit for limit in metadata if type(limit) in SIGNS]
    return " and ".join(f"{SIGNS[type(x)]} {getattr(x, type(x).__name__.lower()):g}" for x in limits)


def _bounds(owner: Any, name: str) -> str:
    """Those that pydantic took off the annotation of a section's field; an algorithm's still stand in it."""
    return bounds(owner.model_fields[name].metadata) if issubclass(owner, BaseModel) else ""


@cache  # the source of each class is read and parsed once, which takes milliseconds, and asked for dozens of times
def _docstrings(owner: type) -> dict[str, str]:
    """The strings under the fields of a dataclass, its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue  # made at run time: its source is not to be had
        body = typing.cast("ast.ClassDef", tree.body[0]).body
        for field, text in zip(body, body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[name] = " ".join(words.split())
    return texts


def describe(annotation: Any) -> str:
    """A type in the words of a config file: ``number``, ``cosine | linear``, ``list of text`` ..."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    plain = {bool: "true | false", int: "integer", float: "number", str: "text", type(None): "nothing"}
    if annotation in plain:
        return plain[annotation]
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys("table" if is_table(a) else describe(a) for a in args))
    if origin in (tuple, list, set, frozenset) and args:
        return f"list of {describe(args[0])}"
    if origin is dict:
        return "table of name = text"
    if origin is typing.Annotated:
        return f"{describe(args[0])} {bounds(args[1:])}".strip()
    return getattr(annotation, "__name__", str(annotation)).lower()


def find(name: str, table: tuple[Setting, ...]) -> Setting | None:
    """The setting that a flag or key means: dotted key, flat name or alias; dashes are underscores."""
    name = name.lstrip("-").replace("-", "_")
    by_name = {spelling: s for s in table for spelling in (s.key, s.key.replace(".", "_"), s.name)}
    by_name |= {s.flag.lstrip("-"): s for s in table if is_dict(s.annotation)}
    if name in by_name:
        return by_name[name]
    by_key = {s.key: s for s in table}
    return next((by_key[key] for key in ALIASES.get(name, ()) if key in by_key), None)


def nearest(name: str, choices: Iterable[str]) -> str:
    """The choice that looks most like ``name``, or an empty string."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return close[0]
    parts = {re.split(r"[.-]", c)[-1]: c for c in choices}
    close = difflib.get_close_matches(re.split(r"[.-]", name)[-1], parts, n=1, cutoff=0.6)
    return parts[close[0]] if close else ""
