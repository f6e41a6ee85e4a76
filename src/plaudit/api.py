"""Training from Python, with the names of the command line: ``plaudit.train(plaudit.PPO(), policy=...)``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from plaudit.algorithms.protocol import Algorithm, PreferenceAlgorithm
from plaudit.config.algorithm import with_algorithm
from plaudit.config.load import Loaded, load_job
from plaudit.config.sections import Job, SamplingSection
from plaudit.errors import ConfigError
from plaudit.evaluation.kinds import card
from plaudit.evaluation.report import write_report
from plaudit.jobs.registry import COMMANDS, command_for
from plaudit.records import Content, Message, Preference, Prompt, Rating
from plaudit.stages import stage_of
from plaudit.stages.respond.policy import TrainedPolicy

J = TypeVar("J", bound=Job)
RewardSource = str | Callable[..., Any] | Sequence[Any]


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, its figures, and for SFT and RL the trained policy."""

    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The final figures, as in summary.json."""
        figures: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        return figures

    @property
    def report(self) -> Path:
        """The HTML page about the run."""
        return self.path / "report.html"

    @cached_property
    def policy(self) -> Generating:
        """The trained language model, loaded on first use."""
        return Generating(self.path)


class Generating:
    """The trained language model of a run.

    Args:
        source: run directory, model directory, hub name, or GGUF file.
    """

    def __init__(self, source: str | Path) -> None:
        self._policy = TrainedPolicy(source)

    def generate(self, prompt: Any, *, seed: int = 0, **sampling: Any) -> str:
        """One response, as text.

        Args:
            prompt: text, or messages.
            seed: the same seed and prompt give the same response.
            sampling: settings of the ``[sampling]`` table, such as ``temperature=0.7``.
        """
        return self._policy.respond(_content(prompt), SamplingSection(**sampling), seed=seed)


def train(
    algorithm: Algorithm,
    *,
    prompts: str | Sequence[Any] | None = None,
    reward: RewardSource | None = None,
    gold: RewardSource | None = None,
    preferences: str | Sequence[Any] | None = None,
    **settings: Any,
) -> Run:
    """Train, evaluate, write the report.

    Args:
        algorithm: ``plaudit.SFT(...)``, ``plaudit.RewardModel(...)``, ``plaudit.PPO(...)``, ``plaudit.GRPO(...)``
            ..., or your own.
        prompts: for RL: texts, chats (lists of ``{"role", "content"}``), `Prompt` records, or a file or hub
            name.
        reward: for RL: a reward model (directory or hub name), a function ``f(prompt, response) -> float``,
            or a list of ``(function or name, weight)``.
        gold: for RL: a second judge that is never trained on.
        preferences: for ``plaudit.DPO(...)`` and its family: a file or hub name, `Preference` records, or dicts with
            ``prompt``, ``chosen`` and ``rejected``; for ``plaudit.KTO(...)`` also ``prompt``, ``response``, ``reward``.
        settings: any setting of the command, by its flat name: ``model``, ``dataset``, ``policy``, ``lr``,
            ``batch_size``, ``out`` ... See docs/reference/config.md.

    Raises:
        ConfigError, DataError, ModelError, RewardError, TrainingError: with the cure.
    """
    row = command_for(algorithm) or COMMANDS[_own_command(algorithm)]
    given = {"prompts": prompts, "reward": reward, "gold": gold, "preferences": preferences}
    strange = [name for name, value in given.items() if value is not None and name not in row.values]
    if strange:
        raise ConfigError(
            f"training with {type(algorithm).__name__} has no use for {', '.join(strange)}",
            where=f"plaudit.train({strange[0]}=...)",
            cure="leave it out" + (f"; what it takes is {', '.join(row.values)}" if row.values else ""),
        )
    named, values = _named_and_values({name: given[name] for name in row.values})
    if "policy" in settings and "policy" not in row.job.model_fields:
        settings["model"] = settings.pop("policy")  # the model that is trained, by the name that it has in RL
    path = stage_of(row.job)(*_job(row.job, algorithm, settings | named), **values)
    card(path)
    write_report(path)
    return Run(path)


def _own_command(algorithm: Algorithm) -> str:
    """The command for an algorithm that is not ours: preferences where it says so, else its own responses."""
    return "dpo" if isinstance(algorithm, PreferenceAlgorithm) else "ppo"


def _named_and_values(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given by name, as settings of the job, and what was given as values, as arguments of the stage."""
    named: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, convert in (("prompts", _prompts), ("preferences", _records)):
        source = given.get(name)
        if isinstance(source, str):
            named["dataset"] = source
        elif source is not None:
            values["records" if name == "preferences" else name] = convert(source)
    for name in ("reward", "gold"):
        source = given.get(name)
        if _is_named(source):
            named[name] = source
        elif source is not None or (name == "reward" and name in given):
            values[name] = _reward(source, name)
    if "reward" in values and (names := _names(given["reward"])):
        named["reward"] = names  # recorded, and what a critic starts from
    return named, values


def _records(rows: Sequence[Any]) -> list[Preference | Rating]:
    return [_feedback(row, f"preference-{i}") for i, row in enumerate(rows)]


def _feedback(row: Any, name: str) -> Preference | Rating:
    """A record as it is; a dict as a `Preference`, or as a `Rating` if it has one response."""
    if isinstance(row, (Preference, Rating)):
        return row
    prompt = _content(row["prompt"])
    if "response" in row:
        return Rating(name, prompt, _content(row["response"]), float(row["reward"]))
    return Preference(name, prompt, _content(row["chosen"]), _content(row["rejected"]))


def _job(job_class: type[J], algorithm: Algorithm, settings: Mapping[str, Any]) -> Loaded[J]:
    values = {f"algorithm.{f.name}": getattr(algorithm, f.name) for f in _fields(algorithm)}
    job_class = with_algorithm(job_class, type(algorithm))
    return load_job(job_class, (), {**values, **settings}, "set in Python")


def _fields(algorithm: object) -> tuple[dataclasses.Field[Any], ...]:
    """The settings of an algorithm.

    Raises:
        ConfigError: it is no dataclass, so nobody knows them.
    """
    if not dataclasses.is_dataclass(algorithm):
        raise ConfigError(
            f"{type(algorithm).__name__} is not a dataclass",
            where="plaudit.train(algorithm)",
            cure="write @dataclass(frozen=True) over the class; its fields are its settings",
        )
    return dataclasses.fields(algorithm)


def _is_named(value: Any) -> bool:
    """True for what the command line could name as well: a text, or several."""
    return isinstance(value, str) or (
        isinstance(value, Sequence) and bool(value) and all(isinstance(v, str) for v in value)
    )


def _names(source: Any) -> list[str]:
    """The rewards given by name in a list of functions, names and (function or name, weight)."""
    if isinstance(source, str) or not isinstance(source, Sequence):
        return []
    return [
        s for s in (part[0] if isinstance(part, tuple) else part for part in source) if isinstance(s, str)
    ]


def _reward(source: Any, name: str) -> Any:
    """A function, or weighted functions and names, as (function or name, weight) that a stage builds rewards of."""
    if callable(source):
        return [(source, 1.0)]
    if isinstance(source, Sequence) and source:
        parts = [part if isinstance(part, tuple) else (part, 1.0) for part in source]
        if all(callable(part) or isinstance(part, str) for part, _ in parts):
            return parts
    raise ConfigError(
        f"{name} = {source!r} cannot be used",
        where=f"plaudit.train({name}=...)",
        cure="give a function of (prompt, response), the name of a reward model, or a list of (either, weight)",
    )


def _prompts(prompts: Sequence[Any]) -> list[Prompt]:
    return [p if isinstance(p, Prompt) else Prompt(f"prompt-{i}", _content(p)) for i, p in enumerate(prompts)]


def _content(prompt: Any) -> Content:
    """Text as it is; messages (records or dicts) as a tuple of `Message`."""
    if isinstance(prompt, str):
        return prompt
    return tuple(m if isinstance(m, Message) else Message(m["role"], m["content"]) for m in prompt)
