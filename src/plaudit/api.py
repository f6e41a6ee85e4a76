"""Training from Python, with the names of the command line: ``plaudit.train(plaudit.PPO(), policy=...)``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.reward_model import RewardModel
from plaudit.algorithms.sft import SFT
from plaudit.config.algorithm import with_algorithm
from plaudit.config.load import Loaded, load_job
from plaudit.config.sections import Job, SamplingSection
from plaudit.errors import ConfigError
from plaudit.evaluation import best_of_n as best_of_n_card
from plaudit.evaluation import policy as policy_card
from plaudit.evaluation import preferences as preference_card
from plaudit.evaluation import reward_model as reward_card
from plaudit.evaluation.report import write_report
from plaudit.jobs.online import job_for
from plaudit.records import Content, Message, Preference, Prompt, Rating
from plaudit.stages.best_of_n.answer import run_best_of_n
from plaudit.stages.best_of_n.parts import BestOfNJob
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import DPOJob, run_dpo
from plaudit.stages.respond.policy import TrainedPolicy
from plaudit.stages.reward.train import RewardJob, run_reward
from plaudit.stages.sft import SFTJob, run_sft

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
    algorithm: Any,
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
    if isinstance(algorithm, SFT):
        path = run_sft(*_job(SFTJob, algorithm, settings))
    elif isinstance(algorithm, RewardModel):
        path = run_reward(*_job(RewardJob, algorithm, settings))
        reward_card.card(path)
    elif getattr(algorithm, "learns_from", ""):
        path = _learn_from(preferences, algorithm, settings)
        preference_card.card(path)
    else:
        given = {"dataset": prompts, "reward": reward, "gold": gold}
        named = {n: v for n, v in given.items() if isinstance(v, str) or (n != "dataset" and _is_named(v))}
        if "reward" not in named and _names(reward):
            settings |= {"reward": _names(reward)}  # recorded, and what a critic starts from
        best_of_n = isinstance(algorithm, BestOfN)
        stage: Any = run_best_of_n if best_of_n else run_rl
        job_class: Any = BestOfNJob if best_of_n else job_for(algorithm)
        path = stage(
            *_job(job_class, algorithm, settings | named),
            reward=None if "reward" in named else _reward(reward, "reward"),
            prompts=None if prompts is None or "dataset" in named else _prompts(prompts),
            gold=None if gold is None or "gold" in named else _reward(gold, "gold"),
        )
        (best_of_n_card if best_of_n else policy_card).card(path)
    write_report(path)
    return Run(path)


def _learn_from(preferences: str | Sequence[Any] | None, algorithm: Any, settings: dict[str, Any]) -> Path:
    """A run of the preference stage; its ``model`` may be called ``policy`` as in RL."""
    if "policy" in settings:
        settings |= {"model": settings.pop("policy")}
    if preferences is None or isinstance(preferences, str):
        return run_dpo(*_job(DPOJob, algorithm, settings | ({"dataset": preferences} if preferences else {})))
    records = [_feedback(row, f"preference-{i}") for i, row in enumerate(preferences)]
    return run_dpo(*_job(DPOJob, algorithm, settings), records=records)


def _feedback(row: Any, name: str) -> Any:
    """A record as it is; a dict as a `Preference`, or as a `Rating` if it has one response."""
    if not isinstance(row, Mapping):
        return row
    prompt = _content(row["prompt"])
    if "response" in row:
        return Rating(name, prompt, _content(row["response"]), float(row["reward"]))
    return Preference(name, prompt, _content(row["chosen"]), _content(row["rejected"]))


def _job(job_class: type[J], algorithm: Any, settings: Mapping[str, Any]) -> Loaded[J]:
    values = {f"algorithm.{f.name}": getattr(algorithm, f.name) for f in dataclasses.fields(algorithm)}
    job_class = with_algorithm(job_class, type(algorithm))
    return load_job(job_class, (), {**values, **settings}, "set in Python")


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
