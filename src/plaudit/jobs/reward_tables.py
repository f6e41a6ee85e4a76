"""The tables of `[[reward]]` and `[[gold]]`, one class a kind."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from plaudit.config.fields import describe, nearest
from plaudit.config.sections import Section
from plaudit.config.show import toml_value
from plaudit.errors import ConfigError

EnsembleRule = Literal["mean", "min", "mean_minus_std", "weights"]
Scale = Literal["log_odds", "logit", "prob"]
RuleName = Literal["json", "exact_answer", "last_number", "contains", "length"]
Ask = Literal["score", "pairs", "group"]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
"""A Python name with dots, such as ``package.module`` or ``Class.method``."""
TIMEOUT = 60.0
"""Seconds that a call may take unless a table says otherwise."""


class _Table(Section):
    """What every kind has."""

    kind: str
    weight: float = Field(1.0, allow_inf_nan=False)
    """The reward is multiplied by it and added to the others; 0: only watched."""
    name: str = ""
    """In metrics; empty: taken from what is named."""


class ModelTable(_Table):
    """A reward model, or an ensemble of them."""

    kind: Literal["model"] = "model"
    path: str | tuple[str, ...] = Field(min_length=1)
    """Directory, run or hub name of a reward model; a list: an ensemble of them."""
    ensemble: EnsembleRule = "mean"
    """What the members of an ensemble give: their mean, the lowest, or the mean less coef standard deviations; weights:
    one model with the mean of their weights (WARM)."""
    coef: float = Field(1.0, ge=0)
    """Standard deviations that mean_minus_std takes off."""

    @property
    def source(self) -> str:
        """The table as a short text, ``A,B@min``; without weight and name, as of every kind."""
        coef = f"={self.coef:g}" if self.coef != 1 else ""
        return ",".join(self._paths) + (f"@{self.ensemble}{coef}" if self.ensemble != "mean" else "")

    @property
    def members(self) -> tuple[str, ...]:
        """The reward models: one by itself, those that are listed, or those that an ensemble's run directory holds."""
        inside = members_of(Path(os.path.expanduser(self._paths[0]))) if len(self._paths) == 1 else []
        return tuple(map(str, inside)) or self._paths

    @property
    def is_ensemble(self) -> bool:
        """Whether scores are combined. A rule with nothing to combine counts too: building it is an error."""
        return len(self.members) > 1 or self.members != self._paths or self.ensemble != "mean"

    @property
    def _paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path


class _CalledTable(_Table):
    """What the kinds have that wait for an answer."""

    timeout: float = Field(TIMEOUT, ge=0)
    """Seconds that one call may take."""
    concurrency: int = Field(16, ge=1)
    """Calls that wait at the same time."""


class FunctionTable(_CalledTable):
    """A Python function or class of yours, in a process of its own."""

    kind: Literal["function"] = "function"
    path: str
    """``file.py:name`` or ``module:name``. A class is made once, with the options."""
    timeout: float = Field(TIMEOUT, ge=0)
    """Seconds that a call may take (a function of a batch: as much for each response); 0: no limit."""
    concurrency: int = Field(16, ge=1)
    """Calls of an async function that wait at the same time."""
    options: dict[str, Any] = {}
    """Arguments by name: of a class when it is made, of a function in each call."""
    env: tuple[str, ...] = ()
    """Environment variables that it is given, by name, such as the key of a service; otherwise it gets no secrets."""

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, path: str) -> str:
        place, colon, name = path.rpartition(":")
        if not (colon and place and NAME.fullmatch(name)):
            raise ValueError("write path/file.py:function or module:function")
        return path

    @property
    def source(self) -> str:
        """``file.py:name``."""
        return self.path


class ClassifierTable(_Table):
    """A text classifier: how sure it is of one of its labels."""

    kind: Literal["classifier"] = "classifier"
    path: str = Field(min_length=1)
    """Directory or hub name of a classifier with two labels or more."""
    label: str | int
    """The wanted label, by name or by index from 0."""
    scale: Scale = "log_odds"
    """log_odds: log(p / (1 - p)); logit: the raw logit; prob: the probability."""

    @property
    def source(self) -> str:
        """``owner/name#LABEL@prob``."""
        return f"{self.path}#{self.label}" + (f"@{self.scale}" if self.scale != "log_odds" else "")


class RuleTable(_Table):
    """A rule that a program checks."""

    kind: Literal["rule"] = "rule"
    rule: RuleName
    """Which rule; contains needs text, length needs words."""
    text: str = ""
    """What contains looks for."""
    words: int = Field(0, ge=0)
    """The number of words that length rewards."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (bool(self.text), bool(self.words)) != (self.rule == "contains", self.rule == "length"):
            raise ValueError("contains needs text, length needs words, and no other rule takes either")
        return self

    @property
    def source(self) -> str:
        """``rule:contains:TEXT``."""
        argument = self.text or str(self.words or "")
        return f"rule:{self.rule}" + (f":{argument}" if argument else "")


class _ServerTable(_CalledTable):
    """What the kinds have that ask another machine."""

    url: str
    """http:// or https://; it gets a POST of JSON (see docs/howto/rewards.md)."""
    timeout: float = Field(TIMEOUT, gt=0)
    """Seconds that one request may take."""
    concurrency: int = Field(4, ge=1)
    """Requests that wait at the same time."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("write an address that starts with http:// or https://")
        if "@" in parts.netloc:  # it would be written into config.toml and into every error
            raise ValueError("leave user name and password out of the address")
        return url


class HttpTable(_ServerTable):
    """A server that scores responses over HTTP."""

    kind: Literal["http"] = "http"
    batch_size: int = Field(32, ge=1)
    """Responses in one request."""

    @property
    def source(self) -> str:
        """The address."""
        return self.url


class JudgeTable(_ServerTable):
    """A language model that is asked as a judge, at any endpoint that speaks OpenAI's chat completions."""

    kind: Literal["judge"] = "judge"
    url: str
    """The endpoint up to its version, such as http://127.0.0.1:8000/v1 (see docs/howto/judge.md)."""
    model: str = Field(min_length=1)
    """The name of the model at the endpoint."""
    ask: Ask = "score"
    """score: a mark for each response by itself; pairs: which of two responses to a prompt is better, for all pairs;
    group: marks for all responses to a prompt in one question. The last two are asked in both orders."""
    rubric: str = ""
    """A text file that says what makes a response good; empty: a general rubric."""
    against: str = ""
    """A column of the data: pairs and group compare each response with the text in it, instead of with each other."""
    key_env: str = ""
    """The environment variable that holds the endpoint's key; empty: no key is sent. The key itself stands nowhere."""
    prices: tuple[Price, Price] = (0.0, 0.0)
    """Of a million tokens of a question, and of an answer, in your currency."""
    cost_limit: float = Field(0.0, ge=0, allow_inf_nan=False)
    """What all answers in the cache together may have cost; then nothing more is asked. 0: no limit."""
    cache: str = Field("judge-answers.jsonl", min_length=1)
    """The file of answers: what stands in it is not asked again, by this run or another."""
    options: dict[str, Any] = {}
    """Further fields of each request, such as max_tokens (1024 if it is not given)."""

    @field_validator("key_env")
    @classmethod
    def _is_the_name_of_a_variable(cls, name: str) -> str:
        if name and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("name the environment variable that holds the key; the key itself does not belong here")
        return name

    @field_validator("options")
    @classmethod
    def _are_no_fields_of_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if any(re.search("key|authorization|token$|secret|password", name, re.IGNORECASE) for name in options):
            raise ValueError("the key comes from the environment variable that key_env names")
        if own := sorted(options.keys() & {"model", "messages", "response_format", "stream", "n"}):
            raise ValueError(f"{', '.join(own)} of a request cannot be set here")
        return options

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.cost_limit and not any(self.prices):
            raise ValueError("cost_limit needs prices = [OF_INPUT, OF_OUTPUT], each for a million tokens")
        if self.against and self.ask == "score":
            raise ValueError('against compares responses, so it goes with ask = "pairs" or "group"')
        return self

    @property
    def source(self) -> str:
        """``judge:MODEL@ADDRESS``."""
        return f"judge:{self.model}@{self.url}"


RewardTable = ModelTable | FunctionTable | ClassifierTable | RuleTable | HttpTable | JudgeTable
KINDS: dict[str, type[RewardTable]] = {
    "model": ModelTable, "function": FunctionTable, "classifier": ClassifierTable, "rule": RuleTable, "http": HttpTable,
    "judge": JudgeTable,
}  # fmt: skip
HIDDEN = ("key_env", "options")
"""Fields in which somebody may have written a key: no error shows what stands in them."""
Table = TypeVar("Table", bound=_Table)


def members_of(directory: Path) -> list[Path]:
    """The members' directories in a run of an ensemble, in their order; none in any other directory."""
    return sorted(directory.glob("member-*"), key=lambda path: (len(path.name), path.name))


def inputs_of(table: RewardTable) -> dict[str, str]:
    """What a run that is resumed must find again, by the end of its name: a file may lie elsewhere, and says the same.

    The endpoint of a judge may move to another machine; its model and its rubric stay.
    """
    if isinstance(table, JudgeTable):
        return {"": f"judge:{table.model}"} | ({" rubric": table.rubric} if table.rubric else {})
    return {"": table.source}


def place_of(table: RewardTable) -> str:
    """The file or directory that holds what a reward computes, where its name is no path: of functions, classifiers.

    Empty for all others, and for a module that is not found from here. What the file imports is not seen.
    """
    if isinstance(table, ClassifierTable):
        return table.path
    if not isinstance(table, FunctionTable):
        return ""
    place = table.path.rpartition(":")[0]
    if place.endswith(".py"):
        return place
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):  # a package above it is missing, or fails
        return ""
    return (spec.origin or "") if spec else ""


def from_mapping(values: Mapping[str, Any], where: str) -> RewardTable:
    """The table with these keys.

    Args:
        values: as TOML gives them, ``kind`` among them.
        where: the config key, ``reward`` or ``gold``.

    Raises:
        ConfigError: no kind, an unknown key, or a value that does not fit.
    """
    kind = values.get("kind")
    if kind in KINDS:
        return checked(KINDS[kind], {key: value for key, value in values.items() if key != "kind"}, where)
    close = nearest(str(kind), KINDS)
    what = (
        f"there is no kind of reward called {kind!r}"
        if "kind" in values
        else "the table of a reward has no kind"
    )
    meant = f'did you mean kind = "{close}"? ' if close else ""
    raise ConfigError(what, where=where, cure=f"{meant}The kinds are {', '.join(KINDS)}")


def checked(table: type[Table], fields: Mapping[str, Any], where: str) -> Table:
    """A table of one kind from its fields; a `ConfigError` for what does not fit."""
    try:
        # JSON in strict mode has TOML's types: a list fills a tuple, but "5" is no number.
        return table.model_validate_json(json.dumps(dict(fields)), strict=True)
    except ValidationError as error:
        raise _misfit(table, fields, error, where) from None
    except TypeError as error:
        cure = "use texts, numbers, lists and tables"
        raise ConfigError(f"the table of a reward cannot be kept: {error}", where=where, cure=cure) from None


def _misfit(
    table: type[_Table], fields: Mapping[str, Any], error: ValidationError, where: str
) -> ConfigError:
    first = error.errors()[0]
    key, known = str((first["loc"] or ("",))[0]), list(table.model_fields)
    header = f'[[{where}]] kind = "{table.model_fields["kind"].default}"'
    if first["type"] == "extra_forbidden":
        close = nearest(key, known)
        meant = f"did you mean {close}? " if close else ""
        return ConfigError(
            f"{header} has no setting {key}", where=where, cure=f"{meant}It has {', '.join(known)}"
        )
    reason = first["msg"].removeprefix("Value error, ")
    shown = "..." if key in HIDDEN else repr(fields.get(key))
    if not key:
        return ConfigError(f"{header} does not fit", where=where, cure=reason)
    about = " ".join((table.model_fields[key].description or "").split())
    if first["type"] == "missing":
        return ConfigError(f"{header} has no {key}", where=where, cure=f"add {key}: {about}")
    if first["type"] == "value_error":
        return ConfigError(f"{header}: {key} = {shown}", where=where, cure=reason)
    expected = describe(table.model_fields[key].annotation)
    what = f"{header}: {key} = {shown} does not fit, expected {expected} ({reason})"
    return ConfigError(what, where=where, cure=f"{key}: {about}")


def on_one_line(table: RewardTable, left_out: Collection[str] = ()) -> str:
    """A table as TOML on one line, without what is as by default."""
    fields = {
        "kind": table.kind,
        **table.model_dump(mode="json", exclude_defaults=True, exclude=set(left_out)),
    }
    return "{" + ", ".join(f"{key} = {toml_value(value)}" for key, value in fields.items()) + "}"


def rule_forms() -> tuple[str, ...]:
    """The rules as short texts: ``rule:json``, ``rule:contains:TEXT`` ..."""
    arguments = {"contains": ":TEXT", "length": ":WORDS"}
    return tuple(f"rule:{name}{arguments.get(name, '')}" for name in typing.get_args(RuleName))
