"""The config of a loop: its own settings, and for each step the settings of the command that the step is.

``[reward]`` holds settings of `plaudit reward`, ``[policy]`` those of the command that it names (``command = "grpo"``).
A policy of `dpo` learns from the round's comparisons themselves; the reward model and ``[policy] gold`` judge it.
Tables that commands share, such as ``[data]`` and ``[compute]``, hold for every step unless the step has its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from plaudit.config.algorithm import specialise
from plaudit.config.load import COMMAND_LINE, Layer, Loaded, algorithm_type, load_job
from plaudit.config.sections import Job
from plaudit.config.show import to_toml, toml_value
from plaudit.errors import ConfigError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.registry import COMMANDS
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.reward_tables import members_of, on_one_line
from plaudit.jobs.rewarded import RewardedJob

SHARED = ("data", "optimizer", "lora", "compute", "log", "checkpoint", "sampling")
"""Tables of the loop that its steps take over."""
SAID = ("model", "policy", "dataset", "reward", "out", "overwrite", "seed", "member")
"""Settings of a step that the loop says itself."""
SAID_INSIDE = ("data.eval_fraction", "checkpoint.resume")
POLICIES = tuple(name for name, row in COMMANDS.items() if row.kind in ("policy", "best_of_n", "preference"))
JUDGING = ("gold", "eval_prompts")
"""Settings of ``[policy]`` by which a policy is judged, where its command has none of its own."""
JUDGED = ("data", "lora", "compute", "log", "sampling", *JUDGING)
"""What the evaluation of such a policy reads of ``[policy]`` and of the shared tables."""


@dataclass(frozen=True)
class Plan:
    """What a loop is to do.

    Attributes:
        job: its own settings.
        sources: where each of them came from, by dotted key.
        command: that trains the policy.
        layers: by step, the tables that it reads, shared ones first.
        flags: overrides from the command line, by dotted key.
    """

    job: LoopJob
    sources: dict[str, str]
    command: str
    layers: Mapping[str, tuple[Layer, ...]]
    flags: Mapping[str, Any]

    def reward(self, dataset: Path, out: Path) -> Loaded[RewardJob]:
        """The job that trains the reward model of a round."""
        own = {"model": self.job.model, "dataset": str(dataset)}
        return self._step("reward", RewardJob, out, own)

    def policy(self, start: str, reward: Path, out: Path) -> Loaded[Any]:
        """The job that trains the policy of a round from ``start``.

        It learns from the reward model in ``reward``, or, as `dpo` does, from the comparisons beside it.
        """
        job_class = COMMANDS[self.command].job
        if not issubclass(job_class, RewardedJob):
            compared = {"model": start, "dataset": str(reward.with_name("data.jsonl"))}
            return self._step("policy", job_class, out, compared)
        own = self._rewarded(start, reward)
        if job_class is BestOfNJob and not any("rounds" in layer.tree for layer in self.layers["policy"]):
            own |= {"rounds": 1}  # by itself the command only answers, and trains nothing
        return self._step("policy", job_class, out, own)

    def judged(self, reward: Path, out: Path) -> Loaded[OnlineJob]:
        """The job whose start is the SFT model and whose rewards and held-out prompts judge the policy of a round."""
        # A cast: a type checker does not see that all jobs with a reward sample and evaluate alike.
        if "judged" not in self.layers:
            return cast("Loaded[OnlineJob]", self.policy(self.job.model, reward, out))
        return cast("Loaded[OnlineJob]", self._step("judged", BestOfNJob, out, self._rewarded(self.job.model, reward)))

    def _rewarded(self, start: str, reward: Path) -> dict[str, Any]:
        source = reward if members_of(reward) else reward / "model"
        return {"policy": start, "reward": [str(source)], "dataset": self.job.dataset}

    def _step(self, name: str, job_class: type[Any], out: Path, own: Mapping[str, Any]) -> Loaded[Any]:
        layers = self.layers[name]
        job_class = specialise(job_class, *algorithm_type(layers))
        flags = {key: value for key, value in self.flags.items() if key.partition(".")[0] in job_class.model_fields}
        said = {
            "out": str(out), "seed": self.job.seed, "checkpoint.resume": True,
            "data.eval_fraction": self.job.data.eval_fraction,
        }  # fmt: skip
        loaded = load_job(job_class, layers, {**flags, **own, **said}, "plaudit loop")
        given = dict.fromkeys(flags, COMMAND_LINE)
        return Loaded(loaded.job, loaded.sources | given)

    def as_toml(self) -> str:
        """All settings with their sources, as a file that the command reads."""
        parts = [to_toml(self.job, self.sources)]
        for name, loaded in self.steps().items():
            head = f'[{name}]\ncommand = "{self.command}"\n{self._judging()}' if name == "policy" else f"[{name}]\n"
            parts.append(head + _below(name, to_toml(loaded.job, loaded.sources)))
        return "\n".join(parts)

    def _judging(self) -> str:
        """What judges the policy, as lines of TOML, where its own job does not say it."""
        if "judged" not in self.layers:
            return ""
        job = self.judged(Path("round") / "reward", Path("round") / self.command).job
        gold = toml_value([on_one_line(table) for table in job.gold])
        return f"gold = {gold}\neval_prompts = {job.eval_prompts}\n"

    def steps(self) -> dict[str, Loaded[Any]]:
        """The jobs of the steps, with names that stand for what a round puts there."""
        place = Path("round")
        return {
            "reward": self.reward(place / "data.jsonl", place / "reward"),
            "policy": self.policy(self.job.model, place / "reward", place / self.command),
        }


def read_plan(files: Sequence[Path | str | Layer], flags: Mapping[str, Any] | None = None) -> Plan:
    """Read and check the config of a loop, that of every step included.

    Args:
        files: TOML files, or what was read from them; later ones win.
        flags: overrides of the loop's own settings and of shared tables, by dotted key.

    Raises:
        ConfigError: a file that is missing or not TOML, an unknown key, a value that does not fit, or a setting of a
            step that the loop says itself.
    """
    flags = dict(flags or {})
    layers = [f if isinstance(f, Layer) else Layer.read(Path(f)) for f in files]
    names = ("reward", "policy")
    own = [replace(one, tree={k: v for k, v in one.tree.items() if k not in names}) for one in layers]
    loaded = load_job(LoopJob, own, flags)
    job = loaded.job
    if job.out == "auto":
        job = job.model_copy(update={"out": str(Path("runs") / (layers[-1].path.stem if layers else "loop"))})
    command, where = _command(layers)
    if command not in POLICIES:
        raise ConfigError(
            f"[policy] command = {command!r} is not one that a loop trains its policy with", where=where,
            cure=f"write one of {', '.join(POLICIES)}",
        )  # fmt: skip
    classes: dict[str, type[Job]] = {"reward": RewardJob, "policy": COMMANDS[command].job}
    inside = {name: _layers(layers, name, job_class) for name, job_class in classes.items()}
    if not issubclass(classes["policy"], RewardedJob):
        inside["judged"] = tuple(_with(layer, lambda key: key in JUDGED) for layer in inside["policy"])
        inside["policy"] = tuple(_with(layer, lambda key: key not in JUDGING) for layer in inside["policy"])
    shared = {key: value for key, value in flags.items() if key.partition(".")[0] in SHARED and "." in key}
    plan = Plan(job, loaded.sources, command, inside, shared)
    _check(plan)
    return plan


def _command(layers: Sequence[Layer]) -> tuple[str, str]:
    """The command that trains the policy, and where it stands."""
    for layer in reversed(layers):
        table = layer.tree.get("policy")
        if isinstance(table, dict) and "command" in table:
            return str(table["command"]), layer.where("policy.command")
    return "ppo", ""


def _layers(layers: Sequence[Layer], name: str, job_class: type[Job]) -> tuple[Layer, ...]:
    """What a step reads of each file: the shared tables, then its own."""
    shared, own = [], []
    for layer in layers:
        tables = {k: v for k, v in layer.tree.items() if k in SHARED and k in job_class.model_fields}
        shared.append(replace(layer, tree=tables))
        tree = layer.tree.get(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{name} is a table", where=layer.where(name), cure=f"write [{name}] over its settings")
        taken = next((key for key in SAID if key in tree), "")
        if not taken and "eval_fraction" in tree.get("data", {}):
            taken = "data.eval_fraction"
        if taken:
            raise ConfigError(
                f"[{name}] {taken} is not for a step to say: the loop says it, in each round anew",
                where=layer.where(f"{name}.{taken}"), cure="leave it out, or set it at the top of the file",
            )  # fmt: skip
        lines = {k.removeprefix(f"{name}."): n for k, n in layer.lines.items() if k.startswith(f"{name}.")}
        own.append(replace(layer, tree={k: v for k, v in tree.items() if k != "command"}, lines=lines))
    return (*shared, *own)


def _with(layer: Layer, wanted: Callable[[str], bool]) -> Layer:
    """A layer with some of its keys and tables."""
    return replace(layer, tree={key: value for key, value in layer.tree.items() if wanted(key)})


def _check(plan: Plan) -> None:
    """What can be known to be wrong before anything is done."""
    job = plan.job
    for name in ("model", "dataset"):
        if not getattr(job, name):
            what = "the SFT model to start from" if name == "model" else "the prompts"
            raise ConfigError(f"{name} is not set: {what}", where=name, cure=f'write {name} = "..." in the config file')
    if not job.comparisons and not job.feedback:
        raise ConfigError(
            "nothing would be learned from: comparisons is 0, and there is no feedback", where="comparisons",
            cure="ask for comparisons, or name files of feedback",
        )  # fmt: skip
    steps = plan.steps()
    if not getattr(steps["policy"].job, "rounds", 1):
        raise ConfigError(
            "[policy] rounds is 0: best-of-n would answer the prompts and train no policy", where="policy.rounds",
            cure="set rounds = 1 or more in [policy]",
        )  # fmt: skip
    plan.judged(Path("round") / "reward", Path("round") / plan.command)
    members = steps["reward"].job.members
    if job.choose == "disagreement" and members < 2:
        raise ConfigError(
            f"choose = disagreement needs reward models that can disagree, and [reward] members is {members}",
            where="choose", cure='set members = 3 in [reward], or choose = "margin"',
        )  # fmt: skip
    if job.comparisons and not job.annotators.source:
        meant = {"simulated": "the true score", "app": "the database of the annotation app", "judge": "the judge"}
        raise ConfigError(
            f"[annotators] source is not set: {meant[job.annotators.kind]}", where="annotators.source",
            cure='for example source = "file.py:true_score" (simulated) or "annotations.db" (app)',
        )  # fmt: skip


def _below(name: str, text: str) -> str:
    """A job's TOML as tables below ``name``, without what the loop says itself."""
    lines, section = [], ""
    for line in text.splitlines():
        if header := re.match(r"(\[\[?)([^\[\]]+)(\]\]?.*)$", line):
            section = header[2]
            line = f"{header[1]}{name}.{section}{header[3]}"
        key = line.partition("=")[0].strip()
        said = section in SAID or (not section and key in SAID) or f"{section}.{key}" in SAID_INSIDE
        if not said:
            lines.append(line)
    return "\n".join(lines) + "\n"
