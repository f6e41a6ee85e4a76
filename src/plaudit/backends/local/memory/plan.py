"""What a run needs of memory, role by role, from outlines of its models: before anything is loaded.

What stays is counted: the tensors of every role, and two moments of AdamW for each that is trained. What comes and goes
is rehearsed (`moments.py`): sampling, scoring, an optimizer step. The need is all that stays and the largest moment.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from plaudit.algorithms.protocol import ActorCritic, EntropyBonus
from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.memory.bound import upper_limit
from plaudit.backends.local.memory.moments import Rehearsal
from plaudit.backends.local.memory.rehearsal import Groups, LiveBytes
from plaudit.backends.local.memory.traffic import Traffic, traffic_of
from plaudit.backends.local.models import load_backbone, load_policy, load_reference, load_reward_model
from plaudit.backends.local.online import UNPLANNED, build_learners, shares_trunk
from plaudit.backends.local.precision import resolve_device, room_of
from plaudit.backends.local.rewards import LocalModels
from plaudit.config.sections import Job, OfflineJob
from plaudit.errors import ModelError, Unplanned
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.reward_tables import ClassifierTable, ModelTable, RewardTable
from plaudit.jobs.sft import SFTJob
from plaudit.models.exact_kl import ExactKL
from plaudit.models.files.outline import config_of, layers_of, outlines, repeats_of
from plaudit.models.files.source import resolve
from plaudit.models.forward.reading import UNRUNNABLE
from plaudit.records import Record
from plaudit.runtime import MemoryPlan

J = TypeVar("J", bound=Job)
NF4_BITS = 4.13
"""Of a weight, with its share of the scales (arXiv:2305.14314, section 3)."""
MOMENTS = 2
"""Copies of a trained tensor that AdamW keeps."""
EASY = 1 / 3
"""Share of what is free up to which an upper limit is enough."""
WITHOUT_A_PLAN = "watch memory/peak of the first iterations; the run itself does not depend on a plan"
SHALLOW = 3
"""Models of at most so many layers are rehearsed as they are."""


@dataclass
class Figures:
    """Bytes by name at one depth, and of which model's depth each of them depends."""

    held: dict[str, int] = field(default_factory=dict)
    passing: dict[str, dict[str, int]] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    """Name of a role or of a moment -> the model whose layers it follows."""
    groups: dict[str, Groups] = field(default_factory=dict)
    """By role, the parts of its model that a worker of a cluster puts together one at a time."""


def memory_plan(job: Job, records: Sequence[Record], *, in_full: bool = True) -> MemoryPlan:
    """The plan of a job of this process, on its device.

    Args:
        job: the settings.
        records: all that it learns from; their lengths count.
        in_full: work it out in any case; else only where an upper limit is more than a third of what is free.

    Raises:
        ConfigError, ModelError: what loading the models would raise as well, as far as it can be known.
        Unplanned: an architecture that cannot be rehearsed.
    """
    sources = sources_of(job)
    device = resolve_device(job.compute.device)
    if not in_full and (limit := upper_limit(job, records, sources)):
        held, passing = limit
        plan = MemoryPlan(str(device), held, {"at once, at most": passing}, room_of(device), rough=True)
        if plan.need < EASY * plan.room.free:
            return plan
    traffic = traffic_of(job, records, sources[0], positions_of(sources[0]))
    whole = figures_of(job, traffic, sources)
    return MemoryPlan(str(device), whole.held, whole.passing, room_of(device))


def figures_of(job: Job, traffic: Traffic, sources: Sequence[str]) -> Figures:
    """What a job needs in one process, role by role.

    Args:
        job: the settings.
        traffic: the rows that pass through it.
        sources: see `sources_of`.

    Raises:
        ConfigError, ModelError: what loading the models would raise as well, as far as it can be known.
        Unplanned: an architecture that cannot be rehearsed.
    """
    try:
        return _in_full(job, traffic, sources)
    except UNRUNNABLE as error:
        text = " ".join(str(error).split())[:200]
        raise Unplanned(
            f"what the models need of memory cannot be worked out: {type(error).__name__}: {text}",
            where=", ".join(sources),
            cure=WITHOUT_A_PLAN,
        ) from error


def _in_full(job: Job, traffic: Traffic, sources: Sequence[str]) -> Figures:
    depths = {source: _layers(source) for source in sources}
    deepest = max(depths.values(), default=1)
    if deepest <= SHALLOW:
        return _measured(job, traffic, None)
    # Layers are alike, or alike again after a few: two depths give what each repetition adds.
    first = 1 + max(job.lora.last_layers, *(_repeats(source)[0] for source in depths))
    second = first + max(_repeats(source)[1] for source in depths)
    one, two = (_measured(job, traffic, depth) for depth in (first, second))
    return _extended(one, two, depths, first, second)


def _measured(job: Job, traffic: Traffic, depth: int | None) -> Figures:
    """All figures with models of at most ``depth`` layers."""
    figures = Figures()
    with outlines(depth, resolve_device(job.compute.device)), LiveBytes() as live, _quiet():
        if isinstance(job, (OnlineJob, BestOfNJob)):
            _online(job, traffic, live, figures)
        elif isinstance(job, RewardJob):
            _reward_model(job, traffic, live, figures)
        elif isinstance(job, (SFTJob, DPOJob)):
            _offline(job, traffic, live, figures)
    return figures


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it PyTorch does not say what it thinks of tensors without values, and a model's refusal is no fact.

    Raises:
        Unplanned: in the place of a `ModelError`, since it is only the outline that was refused.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModelError as error:
        what = f"what the models need of memory cannot be worked out: {error.what}"
        raise Unplanned(what, where=error.where, cure=WITHOUT_A_PLAN) from error
    finally:
        log.setLevel(level)


def _offline(job: SFTJob | DPOJob, traffic: Traffic, live: LiveBytes, figures: Figures) -> None:
    quantised, job = job.lora.quantize == "4bit", _outlined(job)
    _, policy = load_policy(job.model, job.lora, job.compute, seed=job.seed)
    learner = LocalLearner(policy, job.optimizer, job.compute, total_steps=UNPLANNED)
    _hold(figures, {"policy": [policy]}, {"policy": job.model}, live)
    figures.held["policy"] -= _saved_by_4bit(policy) if quantised else 0
    rehearsal = Rehearsal(job, live, traffic)
    _pass(figures, "updating the policy", job.model, rehearsal.update(learner, job.batch_size))
    _pass(figures, "scoring", job.model, rehearsal.read(learner))
    if job.log.samples:
        _pass(figures, "sampling", job.model, rehearsal.sample(policy, job.log.samples, 1))


def _reward_model(job: RewardJob, traffic: Traffic, live: LiveBytes, figures: Figures) -> None:
    quantised, job = job.lora.quantize == "4bit", _outlined(job)
    algorithm = job.algorithm
    _, model = load_reward_model(
        job.model, job.lora, job.compute, seed=job.seed, attributes=algorithm.attributes,
        attribute_weights=algorithm.head_weights, keep_lm=algorithm.lm_coef > 0,
    )  # fmt: skip
    learner = LocalLearner(model, job.optimizer, job.compute, total_steps=UNPLANNED)
    _hold(figures, {"reward model": [model]}, {"reward model": job.model}, live)
    figures.held["reward model"] -= _saved_by_4bit(model) if quantised else 0
    rehearsal = Rehearsal(job, live, traffic)
    _pass(figures, "updating the reward model", job.model, rehearsal.update(learner, job.batch_size))
    _pass(figures, "scoring the references", job.model, rehearsal.score(model, traffic.records))
    _pass(figures, "scoring", job.model, rehearsal.read(learner))


def _online(job: OnlineJob | BestOfNJob, traffic: Traffic, live: LiveBytes, figures: Figures) -> None:
    compute, quantised, job = job.compute, job.lora.quantize == "4bit", _outlined(job)
    tokenizer, policy = load_policy(
        job.policy, job.lora, compute, seed=job.seed, temperature=job.sampling.temperature,
        entropy_grad=isinstance(job.algorithm, EntropyBonus) and job.algorithm.entropy_coef > 0,
    )  # fmt: skip
    saved = _saved_by_4bit(policy) if quantised else 0
    roles: dict[str, list[nn.Module]] = {"policy": [policy]}
    sources = {"policy": job.policy, "reference": job.policy}
    tables = {"reward": job.reward, "gold": job.gold}
    backbones = {role: load_backbone(policy, compute) for role in ("reward", "gold")}
    for role, backbone in backbones.items():
        _load_rewards(tables[role], LocalModels(tokenizer, compute, backbone))
    trains = isinstance(job, OnlineJob) or bool(job.rounds)
    frozen = load_reference(policy) if trains else None
    roles["reference"] = [frozen] if frozen else []
    critic: LocalLearner | None = None
    if isinstance(job, OnlineJob):
        learner, critic, _ = build_learners(job, policy, backbones["reward"], tokenizer)
    else:
        learner = LocalLearner(policy, job.optimizer, compute, total_steps=UNPLANNED)
    if critic is not None:
        roles["critic"] = [critic.module]
        sources["critic"] = _critic_source(job, backbones["reward"])
    for role, backbone in backbones.items():
        for index, model in enumerate(backbone.loaded):
            name = f"{role} {index + 1}" if len(backbone.loaded) > 1 else role
            roles[name], sources[name] = [model], _model_sources(tables[role])[index]
    if not trains:
        policy.requires_grad_(False)
    _hold(figures, roles, sources, live)
    figures.held["policy"] -= saved
    rehearsal = Rehearsal(job, live, traffic)
    _pass(figures, "sampling", job.policy, rehearsal.sample(policy, traffic.at_once, traffic.group_size))
    _pass(figures, "scoring", job.policy, rehearsal.read(learner))
    if frozen and isinstance(job, OnlineJob) and "full_kl" in job.algorithm.needs:
        _pass(figures, "the exact KL", job.policy, rehearsal.read(ExactKL(policy, frozen)))
    for name in [name for name in roles if name.split()[0] in backbones]:
        _pass(figures, f"{name}: scoring", sources[name], rehearsal.score(roles[name][0], traffic.read_at_once))
    if trains:
        _rehearse_updates(job, learner, critic, rehearsal, figures)


def _rehearse_updates(
    job: OnlineJob | BestOfNJob, learner: LocalLearner, critic: LocalLearner | None, rehearsal: Rehearsal,
    figures: Figures,
) -> None:  # fmt: skip
    alone = critic
    if isinstance(job, BestOfNJob):
        rows = job.batch_size
    else:
        rows = -(-job.responses_per_iteration // job.algorithm.minibatches)
        alone = None if shares_trunk(job.algorithm) else critic  # its head is in the policy's step
    _pass(figures, "updating the policy", job.policy, rehearsal.update(learner, rows))
    if alone is not None:
        _pass(figures, "updating the critic", figures.source["critic"], rehearsal.update(alone, rows))
    if learner.device.type != "cpu":
        return  # copies of weights are in the memory of the host
    if isinstance(job, BestOfNJob):
        figures.held["copy of the start"] = figures.passing["updating the policy"]["gradients"]
        figures.source["copy of the start"] = job.policy
    else:
        # The weights of the best evaluation are read from their file while a copy of the last ones is kept.
        staging = 2 * figures.passing["updating the policy"]["gradients"]
        _pass(figures, "comparing the best weights", job.policy, {"staging": staging})


def _load_rewards(tables: Sequence[RewardTable], models: LocalModels) -> None:
    """Those that are models; the others run elsewhere, or need next to nothing."""
    for table in tables:
        if isinstance(table, ModelTable):
            models.reward_model(table)
        elif isinstance(table, ClassifierTable):
            models.classifier(table)


def _model_sources(tables: Iterable[RewardTable]) -> list[str]:
    """What each loaded reward comes from, in the order in which they are loaded."""
    found: list[str] = []
    for table in tables:
        if isinstance(table, ModelTable):
            found += table.members[:1] if table.ensemble == "weights" else table.members
        elif isinstance(table, ClassifierTable):
            found.append(table.path)
    return found


def _critic_source(job: OnlineJob | BestOfNJob, backbone: Backbone) -> str:
    """The model whose layers the critic has."""
    models = _model_sources(table for table in job.reward if isinstance(table, ModelTable))
    starts_at_policy = any("the critic starts from the policy" in note for note in backbone.notes)
    wanted = isinstance(job.algorithm, ActorCritic) and job.algorithm.critic_init == "reward"
    return models[0] if models and wanted and not starts_at_policy else job.policy


def sources_of(job: Job) -> list[str]:
    """The models of a job, the one that is trained first."""
    if isinstance(job, (OnlineJob, BestOfNJob)):
        return [job.policy, *_model_sources(job.reward), *_model_sources(job.gold)]
    assert isinstance(job, OfflineJob), "every other job learns from a fixed data set"
    return [job.model]


def _layers(source: str) -> int:
    return layers_of(_config(source))


def positions_of(source: str) -> int | None:
    """The longest row that a model with a table of positions can read."""
    config = _config(source).get_text_config()
    return int(config.n_positions) if getattr(config, "n_positions", None) else None


def _repeats(source: str) -> tuple[int, int]:
    return repeats_of(_config(source))


def _config(source: str) -> Any:
    try:
        return config_of(resolve(source))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"cannot read the settings of the model {source!r}: {' '.join(str(error).split())[:300]}",
            where=source,
            cure="check that the directory holds a config.json of an architecture of transformers",
        ) from error


def _outlined(job: J) -> J:
    """The job with a base in fp32, whose shapes are the same, and a rate, of which nothing depends here."""
    lora = job.lora.model_copy(update={"quantize": "none"})
    return job.model_copy(update={"lora": lora, "optimizer": job.optimizer.model_copy(update={"lr": 1e-5})})


def _saved_by_4bit(model: nn.Module) -> int:
    """Bytes by which the linear layers of a frozen base are smaller in NF4 with scales than in fp32."""
    layers = (m for name, m in model.named_modules() if isinstance(m, nn.Linear) and "lora_" not in name)
    weights = (m.weight for m in layers if not m.weight.requires_grad)
    return int((1 - NF4_BITS / 32) * sum(weight.nbytes for weight in weights))


def _hold(
    figures: Figures, roles: Mapping[str, Iterable[nn.Module]], sources: Mapping[str, str], live: LiveBytes
) -> None:
    """What stays of each role; a tensor that several roles stand on counts for the first of them."""
    seen: set[int] = set()
    for role, modules in roles.items():
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        total = moments = 0
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key not in seen:
                seen.add(key)
                total += tensor.untyped_storage().nbytes()
                moments += MOMENTS * tensor.nbytes if tensor.requires_grad else 0
        for module in modules:
            live.hold(module)
            figures.groups[role] = Groups.of(module)
        figures.held[role] = total
        if moments:
            figures.held[f"optimizer, {role}"] = moments
        figures.source[role] = figures.source[f"optimizer, {role}"] = sources[role]


def _pass(figures: Figures, moment: str, source: str, transient: Mapping[str, int]) -> None:
    figures.passing[moment] = dict(transient)
    figures.source[moment] = source


def _extended(one: Figures, two: Figures, depths: Mapping[str, int], first: int, second: int) -> Figures:
    """The figures of whole models from those at two depths."""

    def at(name: str, a: int, b: int) -> int:
        depth = depths[one.source[name]]
        return b if depth <= second else max(0, b + (b - a) * (depth - second) // (second - first))

    held = {name: at(name, value, two.held[name]) for name, value in one.held.items()}
    passing = {
        moment: {role: at(moment, value, two.passing[moment][role]) for role, value in roles.items()}
        for moment, roles in one.passing.items()
    }
    return Figures(held, passing, one.source, two.groups)
