"""Who runs the models of a job. Stages know these functions and the protocols of `plaudit.runtime`, and no backend."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from plaudit.jobs.registry import names_of

if TYPE_CHECKING:
    from plaudit.backends.spread import Needs
    from plaudit.config.sections import ComputeSection, Job
    from plaudit.data.chat import ChatFormat
    from plaudit.jobs.best_of_n import BestOfNJob
    from plaudit.jobs.online import OnlineJob
    from plaudit.jobs.preference import DPOJob
    from plaudit.jobs.reward import RewardJob
    from plaudit.jobs.sft import SFTJob
    from plaudit.live import Engine
    from plaudit.records import Record
    from plaudit.rewards.build import Given
    from plaudit.rewards.model import Scorer as TextScorer
    from plaudit.runtime import (
        Generator,
        MeasuringRuntime,
        MemoryPlan,
        OfflineRuntime,
        OnlineRuntime,
        Reward,
        RewardRuntime,
        ScoringRuntime,
    )

# Named and not imported: the builders lie in this package, so they import this module before themselves; and what a
# backend needs is loaded only when it is used.
_BUILDERS = {
    "sft:SFTJob": "offline:build_policy",
    "preference:DPOJob": "offline:build_policy",
    "reward:RewardJob": "offline:build_reward_model",
    "online:OnlineJob": "online:build_online",
    "best_of_n:BestOfNJob": "online:build_best_of_n",
}
"""Job class below ``plaudit.jobs`` -> what builds its runtime, below a backend."""
_CHECKS = {"local": "precision:check", "ray": "cluster:check"}
"""Backend -> what makes sure that its device or cluster is there."""
_PLANS = {"local": "memory.plan:memory_plan", "ray": "memory:memory_plan"}
"""Backend -> what works out the memory that a job needs."""


@overload
def open(job: SFTJob | DPOJob) -> OfflineRuntime: ...
@overload
def open(job: RewardJob) -> RewardRuntime: ...
@overload
def open(
    job: OnlineJob | BestOfNJob, *, reward: Given, gold: Given, columns: Collection[str]
) -> OnlineRuntime: ...
def open(job: Job, **values: Any) -> OfflineRuntime | RewardRuntime | OnlineRuntime:
    """Load the models of a job and put them together.

    Args:
        job: the settings.
        values: what a job that samples may be given by value, not by name: ``reward``, ``gold``; and ``columns``, the
            names of the further columns of its data, which rewards may ask for.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    builder = next(_BUILDERS[name] for name in names_of(type(job)) if name in _BUILDERS)
    runtime: OfflineRuntime | RewardRuntime | OnlineRuntime = _of(job.compute.backend, builder)(job, **values)
    return runtime


def plan(job: Job, records: Sequence[Record], *, in_full: bool = True) -> MemoryPlan:
    """What a job needs of memory, role by role, worked out before anything is loaded.

    Args:
        job: the settings.
        records: all that it learns from, prompts or rows; the longest of them decide.
        in_full: work it out in any case; else only where it might be more than there is.

    Raises:
        ConfigError, ModelError: the settings of a model cannot be read, or do not fit.
        Unplanned: the models are of a kind of which it cannot be known in advance.
    """
    found: MemoryPlan = _of(job.compute.backend, _PLANS[job.compute.backend])(job, records, in_full=in_full)
    return found


def needs(job: Job, workers: int) -> Needs:
    """What a job needs of memory on a cluster, before it is spread over any number of GPUs; nothing is loaded.

    Args:
        job: the settings. Its data are not read: every row is as long as they allow.
        workers: that share its rows.

    Raises:
        ConfigError: workers cannot run it.
        ModelError: the settings of a model cannot be read, or do not fit.
        Unplanned: the models are of a kind of which it cannot be known in advance.
    """
    found: Needs = _of("ray", "memory:needs_of")(job, workers)
    return found


def stand_in(size: str, folder: Path, *, scores: bool = False) -> str:
    """A directory with the settings of a model of a published size, such as 8B; empty if a name is no size.

    Args:
        size: by name.
        folder: where it is written.
        scores: a reward model of that size.
    """
    found: str = _local("models:stand_in")(size, folder, scores=scores)
    return found


def parameters(source: str) -> int:
    """How many parameters the files of a model hold; 0 where they are not on this machine."""
    found: int = _local("models:parameters")(source)
    return found


def check(compute: ComputeSection) -> None:
    """Make sure that the device or the cluster that is asked for is there, before anything is loaded for it.

    Raises:
        ConfigError, MachineError: with the cure.
    """
    _of(compute.backend, _CHECKS[compute.backend])(compute)


def precision(job: Job) -> tuple[Literal["fp32", "bf16"], str]:
    """What ``precision = "auto"`` is for the model that a job starts from, on this machine; and why, in words.

    Raises:
        ConfigError, MachineError: with the cure.
    """
    model = job.inputs.get("policy") or job.inputs.get("model", "")
    found: tuple[Literal["fp32", "bf16"], str] = _local("precision:chosen_precision")(job.compute.device, model)
    return found


def open_measuring(
    job: OnlineJob | BestOfNJob, model: str, columns: Collection[str], *, judge: Given = None, harm: Given = None
) -> MeasuringRuntime:
    """What a job trained, beside its start, with the job's rewards; nothing of it is trained.

    Args:
        job: of the run.
        model: the directory of what it trained.
        columns: names of the further columns of the prompts, which rewards may ask for.
        judge, harm: see `MeasuringRuntime`.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    runtime: MeasuringRuntime = _local("online:build_measuring")(job, model, columns, judge, harm)
    return runtime


def open_rewards(
    job: BestOfNJob, *, reward: Given, gold: Given, columns: Collection[str]
) -> tuple[Reward, Reward | None, tuple[str, ...]]:
    """Reward and gold reward of a job whose policy answers elsewhere, and what to know of them, in words.

    Args and errors as of `open`.
    """
    rewards: tuple[Reward, Reward | None, tuple[str, ...]] = _local("online:build_rewards")(job, reward, gold, columns)
    return rewards


def open_policy(source: str) -> tuple[Generator, ChatFormat]:
    """A trained language model to sample from, and how it reads prompts.

    Args:
        source: model directory, hub name, or GGUF file.

    Raises:
        ModelError: nothing there that can be loaded.
    """
    policy: tuple[Generator, ChatFormat] = _local("offline:load_generator")(source)
    return policy


def open_engine(source: str, *, rows: int, context: int = 0, queue: int = 256) -> tuple[Engine, ChatFormat]:
    """A trained language model that answers requests as they come, and how it reads prompts.

    Args:
        source: run directory, model directory, hub name, or GGUF file.
        rows: most responses that are drawn side by side.
        context: most tokens of a prompt and its response; 0: what the model can read, 4096 at most.
        queue: most requests that wait for a row.

    Raises:
        ModelError: nothing there that can be loaded, or that can be sampled from.
        ConfigError: the model cannot read so much.
    """
    inside = Path(source) / "model"
    name = str(inside if inside.is_dir() else source)
    engine: tuple[Engine, ChatFormat] = _local("offline:load_engine")(
        name, rows=rows, context=context, queue=queue
    )
    return engine


def open_reward_model(directory: Path, job: RewardJob) -> ScoringRuntime:
    """A trained reward model, on the device and in the precision that its job says.

    Raises:
        ModelError: it is none, or its files are damaged.
    """
    runtime: ScoringRuntime = _local("offline:load_scoring")(directory, job)
    return runtime


def open_text_scorer(source: str) -> tuple[TextScorer, float]:
    """A trained reward model that scores texts, and by what its raw scores were divided.

    Raises:
        ModelError: as `open_reward_model`.
    """
    scorer: tuple[TextScorer, float] = _local("offline:load_text_scorer")(source)
    return scorer


def _local(name: str) -> Any:
    """A function of the backend in this process."""
    return _of("local", name)


def _of(backend: str, name: str) -> Any:
    """A function of a backend."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(f"plaudit.backends.{backend}.{module}"), function)
