"""Training and loops from Python, with the names of the command line: ``plaudit.train(plaudit.PPO(), policy=...)``."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from plaudit.algorithms.protocol import Algorithm, PreferenceAlgorithm
from plaudit.config.algorithm import load_algorithm, specialise, types, with_algorithm
from plaudit.config.fields import Setting, nearest
from plaudit.config.fields import settings as settings_of
from plaudit.config.load import Layer, Loaded, keys_of, load_job, load_section
from plaudit.config.sections import Job, SamplingSection
from plaudit.data.values import prompt_of
from plaudit.errors import ConfigError, Ended, Stopped
from plaudit.evaluation.kinds import card, in_words
from plaudit.evaluation.report import inline, write_report
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.registry import COMMANDS, Command, command_for
from plaudit.jobs.reward_tables import TIMEOUT, RewardTable
from plaudit.jobs.reward_texts import table_of
from plaudit.jobs.rewarded import RewardedJob
from plaudit.loop.annotators import Annotators
from plaudit.loop.plan import read_plan
from plaudit.loop.rounds import run_loop as carry_out
from plaudit.rewards.build import GivenReward
from plaudit.rollouts.environment import Environment
from plaudit.rollouts.turns import check_environment
from plaudit.runs.files import LOOP, METRICS, SAMPLES, read_json, read_lines
from plaudit.stages.anew import carried_through
from plaudit.stages.online.gate import refuse_coins
from plaudit.stages.respond.policy import TrainedPolicy
from plaudit.stages.session import OnIteration

J = TypeVar("J", bound=Job)
IN_PYTHON = "set in Python"
RewardSource = str | Callable[..., Any] | Mapping[str, Any] | RewardTable | Sequence[Any]


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its directory, its figures, and for SFT and RL the trained policy."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # a string as well: ``plaudit.Run("runs/ppo")``

    @property
    def summary(self) -> dict[str, Any]:
        """The final figures, as in summary.json."""
        figures: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        return figures

    @property
    def report(self) -> Path:
        """The HTML page about the run."""
        return self.path / "report.html"

    @property
    def metrics(self) -> Any:
        """The figures of each step: a pandas table where pandas is installed, else a list of rows."""
        return _table(self.path / METRICS)

    @property
    def samples(self) -> Any:
        """Prompts and responses over time with their rewards, as ``metrics``."""
        return _table(self.path / SAMPLES)

    def __repr__(self) -> str:
        """The verdict and the warnings, and where the run is."""
        return f"{in_words(self.path)}\nreport  {self.report}"

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, figures, warnings, curves and samples."""
        return inline(self.path)

    @cached_property
    def policy(self) -> Model:
        """The trained language model, loaded on first use; of a loop that of its last round."""
        rounds = read_json(self.path / LOOP).get("rounds", [])
        done = [place for place, steps in enumerate(rounds, 1) if "policy" in steps]
        if not done:
            return Model(self.path)
        return Model(self.path / f"round-{done[-1]}" / rounds[done[-1] - 1]["policy"]["command"])


class Model:
    """A language model that answers: that of a run, or any other.

    Args:
        source: run directory, model directory, hub name, or GGUF file.
    """

    def __init__(self, source: str | Path) -> None:
        self._policy = TrainedPolicy(source)

    def generate(self, prompt: Any, *, seed: int = 0, **sampling: Any) -> str:
        """One response, as text.

        Args:
            prompt: text, or a chat (a list of messages), or a row with ``prompt``.
            seed: the same seed and prompt give the same response.
            sampling: settings of the ``[sampling]`` table, such as ``temperature=0.7``.
        """
        return self._policy.respond(
            prompt_of(prompt, "prompt"), load_section(SamplingSection, sampling, IN_PYTHON), seed=seed
        )


def _table(path: Path) -> Any:
    rows = read_lines(path)
    if find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def train(
    algorithm: Algorithm | type[Algorithm] | str,
    *,
    prompts: str | Path | Iterable[Any] | None = None,
    reward: RewardSource | None = None,
    gold: RewardSource | None = None,
    preferences: str | Path | Iterable[Any] | None = None,
    environment: str | Environment | None = None,
    **settings: Any,
) -> Run:
    """Train, evaluate, write the report.

    Args:
        algorithm: ``plaudit.SFT(...)``, ``plaudit.RewardModel(...)``, ``plaudit.PPO(...)``, ``plaudit.GRPO(...)``
            ..., or your own. Or a name, such as "ppo" or "dapo": then its settings are given beside the others,
            ``train("ppo", kl_coef=0.05, ...)``.
        prompts: for RL: a file or hub name; or a list or another iterable of texts, of chats (lists of ``{"role",
            "content"}``, of `Message` or of ``(role, text)``), of rows (dicts with the names that a file would have),
            or of `Prompt` records; or a `datasets.Dataset` or pandas table. It is read as a file is.
        reward: for RL: a function ``f(prompt, response) -> float``, a class or object that can be called, a name as on
            the command line (``runs/reward``), a table as in a config (``{"kind": "http", "url": ...}``), or a list of
            these or of ``(one of these, weight)``. See docs/howto/rewards.md.
        gold: for RL: a second reward that is never trained on.
        environment: for RL over several turns: what replies to the policy, an object (see `plaudit.Environment`) or
            file.py:Class. See docs/howto/environments.md.
        preferences: for ``plaudit.RewardModel(...)``, ``plaudit.DPO(...)`` and its family: a file or hub name, rows
            (dicts with ``prompt``, ``chosen`` and ``rejected``, for instance) in one of these forms, or records.
        settings: any setting of the command, by its flat name; ``dataset`` is a name, or rows in one of these forms.
            Those that people change are below; `plaudit COMMAND --help-all` and docs/reference/config.md have all.
            And ``on_iteration``, a function that is called as ``f(number, metrics, rollouts)`` after each iteration of
            RL; where the data set is fixed, after each optimizer step, with no rollouts. What it raises ends the run.
            And for RL ``anyway=True``: train on a reward model that may be no better than a coin, by its own report
            card.

    Raises:
        ConfigError, DataError, ModelError, RewardError, TrainingError: with the cure.
        Ended: a limit or an alarm ended the run; ``run`` is its directory, with model and report.
        Stopped: on SIGTERM or Ctrl-C; ``run`` likewise.
    """
    if isinstance(algorithm, (str, type)):
        algorithm = _with_settings(algorithm, settings)
    row = command_for(algorithm) or COMMANDS[_own_command(algorithm)]
    given: dict[str, Any] = {
        "prompts": prompts, "reward": reward, "gold": gold, "preferences": preferences, "environment": environment,
    }  # fmt: skip
    _refuse_useless(given, row, algorithm)
    on_iteration: OnIteration | None = settings.pop("on_iteration", None)
    taken = {name: given[name] for name in row.values} | {"dataset": settings.pop("dataset", None)}
    named, values = _named_and_values(taken, settings.get("reward_timeout", TIMEOUT))
    if on_iteration is not None:
        values["on_iteration"] = on_iteration
    if "policy" in settings and "policy" not in row.job.model_fields:
        settings["model"] = settings.pop("policy")  # the model that is trained, by the name that it has in RL
    anyway = issubclass(row.job, RewardedJob) and settings.pop("anyway", False)
    job, sources = _job(row.job, algorithm, settings | named)
    refuse_coins(job, anyway)
    return _judged(partial(carried_through, job, sources, **values))


def run_loop(
    *configs: str | Path | Mapping[str, Any],
    annotators: Annotators | None = None,
    anyway: bool = False,
    **settings: Any,
) -> Run:
    """Carry out a loop: rounds of sampling, asking, reward model, policy and evaluation, as `plaudit loop` does.

    The same call goes on where an earlier one was ended.

    Args:
        configs: TOML files, or mappings with the same keys; later ones win.
        annotators: an object that answers comparisons (see docs/howto/loop.md), instead of what the config names.
        anyway: train on a reward model that may be no better than a coin, by its own report card.
        settings: settings of the loop by their flat names, such as ``rounds=3``; they win over configs.

    Returns:
        The loop: its directory, the figures of its last round, its page, and the last policy.

    Raises:
        ConfigError, DataError, ModelError, RewardError, Refused: with the cure.
        Waiting: people have not answered enough yet. Stopped: on SIGTERM or Ctrl-C. The same call goes on.
    """
    read = [Layer(Path(IN_PYTHON), dict(one), {}) if isinstance(one, Mapping) else one for one in configs]
    if configs and isinstance(configs[-1], Mapping):
        settings = {"out": configs[-1].get("out", "runs/loop"), **settings}
    return Run(carry_out(read_plan(read, keys_of(LoopJob, settings, IN_PYTHON)), annotators=annotators, anyway=anyway))


def _refuse_useless(given: Mapping[str, Any], row: Command, algorithm: Algorithm) -> None:
    """Refuse what a command has no use for.

    Raises:
        ConfigError: something was given that it does not take.
    """
    strange = [name for name, value in given.items() if value is not None and name not in row.values]
    if strange:
        raise ConfigError(
            f"training with {type(algorithm).__name__} has no use for {', '.join(strange)}",
            where=f"plaudit.train({strange[0]}=...)",
            cure="leave it out" + (f"; what it takes is {', '.join(row.values)}" if row.values else ""),
        )


def _judged(stage: Callable[[], Path]) -> Run:
    """Run a stage, and write the figures and the page of its run, however it ended."""
    try:
        path = stage()
    except (Ended, Stopped) as end:
        if end.run is not None:
            card(end.run)
            write_report(end.run)
        raise
    card(path)
    write_report(path)
    return Run(path)


def _with_settings(algorithm: type[Algorithm] | str, settings: dict[str, Any]) -> Algorithm:
    """The algorithm of a name or a class, with those of its own settings that are given; they are taken out."""
    given = _named(algorithm) if isinstance(algorithm, str) else algorithm
    names = {f.name for f in _fields(given)} & settings.keys()
    own = {name: settings.pop(name) for name in names}
    if isinstance(given, type):
        return given(**own)
    return dataclasses.replace(cast(Any, given), **own)


def _named(name: str) -> Algorithm | type[Algorithm]:
    """The algorithm that a command or ``[algorithm] type`` calls so.

    Raises:
        ConfigError: there is none.
    """
    plain = name.lower().replace("-", "_")
    known: list[str] = []
    for row in COMMANDS.values():
        own = types(row.job)
        known += [row.name, *own]
        if plain in own or plain == row.name.replace("-", "_"):
            job = specialise(row.job, plain if plain in own else own[0], "plaudit.train(algorithm)")
            made: Algorithm = job.model_fields["algorithm"].get_default(call_default_factory=True)
            return made
    if ":" in name:
        return load_algorithm(name, "plaudit.train(algorithm)")
    close = nearest(plain, known)
    raise ConfigError(
        f"there is no algorithm {name!r}",
        where="plaudit.train(algorithm)",
        cure=(f"did you mean {close!r}? " if close else "") + f"one of {', '.join(dict.fromkeys(known))}",
    )


def _own_command(algorithm: Algorithm) -> str:
    """The command for an algorithm that is not ours: preferences where it says so, else its own responses."""
    return "dpo" if isinstance(algorithm, PreferenceAlgorithm) else "ppo"


def _named_and_values(given: Mapping[str, Any], timeout: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given by name, as settings of the job, and what was given as values, as arguments of the stage."""
    named: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name in ("dataset", "prompts", "preferences"):
        source = given.get(name)
        if isinstance(source, (str, Path)):
            named["dataset"] = str(source)
        elif source is not None:
            values["prompts" if "prompts" in given else "records"] = source
    if isinstance(given.get("environment"), str):
        named["environment"] = given["environment"]
    elif given.get("environment") is not None:
        values["environment"] = check_environment(given["environment"], "environment")
    for name in ("reward", "gold"):
        if given.get(name) is None and not (name == "reward" and name in given):
            continue
        sources = _rewards(given[name], name, timeout)
        tables = [source for source in sources if not isinstance(source, GivenReward)]
        if tables:
            named[name] = tables  # recorded, and what a critic starts from
        if len(tables) < len(sources):
            values[name] = sources
    return named, values


def _job(job_class: type[J], algorithm: Algorithm, settings: Mapping[str, Any]) -> Loaded[J]:
    values = {f"algorithm.{f.name}": getattr(algorithm, f.name) for f in _fields(algorithm)}
    job_class = with_algorithm(job_class, type(algorithm))
    return load_job(job_class, (), {**values, **settings}, IN_PYTHON)


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


def _rewards(source: Any, name: str, timeout: float) -> list[RewardTable | GivenReward]:
    """One reward, or a list of them or of (reward, weight): tables, and functions with a time limit."""
    parts = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    weighted = [part if isinstance(part, tuple) else (part, None) for part in parts]
    rewards: list[RewardTable | GivenReward] = []
    for value, weight in weighted:
        if callable(value):
            rewards.append(GivenReward(value, 1.0 if weight is None else float(weight), timeout))
            continue
        if not isinstance(value, (str, Mapping, BaseModel)):
            raise _no_reward(source, name)
        table = table_of(value, name)
        rewards.append(table if weight is None else table.model_copy(update={"weight": float(weight)}))
    if not rewards:
        raise _no_reward(source, name)
    return rewards


def _no_reward(source: Any, name: str) -> ConfigError:
    return ConfigError(
        f"{name} = {source!r} cannot be used",
        where=f"plaudit.train({name}=...)",
        cure="give a function of (prompt, response), the name of a reward model, a table such as "
        '{"kind": "http", "url": ...}, or a list of these or of (one of these, weight)',
    )


def _with_real_parameters() -> None:
    """Give `train` the signature and the docstring that its settings have: ``help`` and notebooks show these."""
    # Made from the jobs, so that it names what there is; type checkers read the one that is written above.
    found: dict[str, tuple[Setting, list[str]]] = {}
    for row in COMMANDS.values():
        for setting in settings_of(row.job):
            if setting.is_everyday and setting.name not in ("reward", "gold", "environment"):
                found.setdefault(setting.name, (setting, []))[1].append(row.name)
    signature = inspect.signature(train)
    *first, rest = signature.parameters.values()
    new = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in found
        if name.isidentifier()
    ]
    train.__signature__ = signature.replace(parameters=[*first, *new, rest])  # type: ignore[attr-defined]
    lines = [
        f"    {name}: {setting.in_short} ({', '.join(commands) if len(commands) < 6 else 'most commands'})"
        for name, (setting, commands) in found.items()
    ]
    train.__doc__ = f"{inspect.cleandoc(train.__doc__ or '')}\n\nSettings that people change:\n" + "\n".join(lines)


_with_real_parameters()
