"""Settings of earlier versions that were renamed, merged, derived or dropped, and what says the same today.

One table for files, flags, Python and the manifests of runs that are resumed. docs/why/config.md lists the same rows
with the reasons; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from plaudit.config.fields import Setting, settings, tables
from plaudit.errors import ConfigError

NumberOrText = Annotated[float | str, Field(union_mode="left_to_right")]
Values = Mapping[str, Any]
Change = dict[str, Any]
Becomes = Callable[[Any, Values], Change | None]


def _none(value: Any, others: Values) -> Change | None:
    return None


@dataclass(frozen=True, slots=True)
class Moved:
    """One setting that is gone, or an earlier form of its value."""

    name: str
    """The field's name as it was."""
    default: Any
    """The value that nobody set. With it nothing is said: what there is today does the same."""
    instead: str
    """What to write today, for people."""
    becomes: Becomes = _none
    """Its value, and all values of its table -> the settings of today; None: this value has no equal."""
    forms: tuple[Any, ...] = ()
    """The name is still there, and only these values are of the earlier form; empty: the name is gone."""

    def is_meant(self, name: str, value: Any) -> bool:
        """Whether this row is about a setting with this value."""
        return name == self.name and (
            not self.forms or any(value is form or value == str(form) for form in self.forms)
        )


def to(name: str, words: Mapping[Any, Any] | None = None) -> Becomes:
    """The same value under another name; with ``words`` in other words, and those without one have no equal."""

    def becomes(value: Any, others: Values) -> Change | None:
        if words is not None and value not in words:
            return None
        return {name: value if words is None else words[value]}

    return becomes


def where(name: str, needed: Any, change: Becomes, otherwise: Change | None = None) -> Becomes:
    """``change`` where another setting has the value ``needed``."""

    def becomes(value: Any, others: Values) -> Change | None:
        return change(value, others) if others.get(name) in needed else otherwise

    return becomes


def _critic_lambda(value: Any, others: Values) -> Change | None:
    return {"gae_lambda": (others.get("gae_lambda", 0.95), value)}


def _entropy_step(value: Any, others: Values) -> Change | None:
    return {"entropy_target": (others.get("entropy_target", 0.0), value)} if value else {}


def _length_coef(value: Any, others: Values) -> Change | None:
    return {"length": (others.get("length", "none"), value)}


def _naive_kl(value: Any, others: Values) -> Change | None:
    """In the reward it had no effect; of k1 it is noise."""
    if others.get("kl_in", "loss") == "reward":
        return {}
    kl = others.get("kl_estimator", "k3")
    return {"kl_estimator": f"{kl}_naive"} if kl in ("k2", "k3") else None


def _critic_start(value: Any, others: Values) -> Change | None:
    """A critic on the trunk starts with a zero head, whatever this said."""
    return {} if others.get("critic") == "trunk" else {"critic": value}


def _without(tracker: str) -> Becomes:
    """The trackers but one, where it was switched off."""

    def becomes(value: Any, others: Values) -> Change:
        kept = others.get("trackers", ("console", "tensorboard"))
        off = value in (False, "false")
        return {"trackers": tuple(name for name in kept if name != tracker)} if off else {}

    return becomes


def _cap(value: Any, others: Values) -> Change | None:
    return {"clip_high": value - 1} if value > 1 else None


def _leveled(level: str, correction: str) -> Change:
    return {} if correction == "none" else {"correction": f"{correction}_{level}"}


_WHITENED = {True: "batch", False: "none", "true": "batch", "false": "none"}
_CRITIC = "plaudit ppo, where the critic can be tuned"
MOVED: dict[str, tuple[Moved, ...]] = {
    "PPO": (
        Moved("kl_grad", "unbiased", "kl_estimator = k2_naive or k3_naive", _naive_kl),
        Moved("kl_horizon", 10_000.0, "kl_target; the horizon is 10 000 responses"),
        Moved("bootstrap_truncated", False, "missing_eos = bootstrap", to("missing_eos", {True: "bootstrap"})),
        Moved("whiten_rewards", False, "reward_scaling = whiten",
              where("reward_scaling", ("none",), to("reward_scaling", {True: "whiten"}))),
        Moved("lambda_alpha", 0.0, "gae_lambda = length: lambda by length, with alpha 0.05",
              to("gae_lambda", {0.05: "length"})),
        Moved("critic_lambda", "auto", "gae_lambda with two values", _critic_lambda),
        Moved("entropy_step", 0.0, "entropy_target with two values", _entropy_step),
        Moved("whiten_advantages", True, "whiten_advantages = batch, minibatch or none",
              to("whiten_advantages", _WHITENED), forms=tuple(_WHITENED)),
        Moved("whiten_scope", "batch", "whiten_advantages = minibatch",
              where("whiten_advantages", ("batch", "minibatch"), to("whiten_advantages"), otherwise={})),
        Moved("ratio_limit", 10.0, "leave it out: a step whose mean ratio is over 10 is never taken"),
        Moved("critic", "separate", "critic = reward or sft", lambda value, others: {"critic": "reward"},
              forms=("separate",)),
        Moved("critic_init", "reward", "critic = reward or sft", _critic_start),
    ),
    "GRPO": (
        Moved("kl_grad", "unbiased", "kl_estimator = k2_naive or k3_naive", _naive_kl),
        Moved("overlong_penalty", 1.0, "missing_eos_penalty", to("missing_eos_penalty")),
        Moved("ratio_max", 5.0, "clip_high = ratio_max - 1, a distance from 1 as everywhere", _cap),
        Moved("ratio", "sequence", "ratio_of", to("ratio_of", {"token": "response_token"})),
    ),
    "REINFORCE": (
        Moved("ema_decay", 0.99, "leave it out: baseline ema keeps 0.99 of the old value"),
        Moved("critic_lr", 1e-5, _CRITIC),
        Moved("critic_init", "reward", _CRITIC),
    ),
    "REINFORCEPlusPlus": (
        Moved("kl_in", "auto", "baseline: with group the KL is in the loss, else in the reward",
              lambda value, others: {} if (value == "loss") == (others.get("baseline") == "group") else None),
    ),
    "DPO": (
        Moved("robust", False, "pair_loss = robust",
              where("pair_loss", ("dpo",), to("pair_loss", {True: "robust"}))),
        Moved("average", True, "pair_loss = ipo_sum",
              where("pair_loss", ("ipo",), to("pair_loss", {False: "ipo_sum"}))),
        Moved("ratio_coef", 0.1, "beta", where("pair_loss", ("orpo",), to("beta"))),
    ),
    "RewardModel": (
        Moved("temperature", 1.0, "leave it out: a score has the unit that the loss gives it"),
        Moved("centering_form", "sum", "leave it out: (s_chosen + s_rejected)^2 leaves differences alone"),
        Moved("length_coef", 1.0, "length with two values", _length_coef),
        Moved("ranking_weight", "prompts", "ranking_loss = all_pairs",
              where("ranking_loss", ("pairs",), to("ranking_loss", {"pairs": "all_pairs"}))),
    ),
    "ComputeSection": (
        Moved("lower_states_gb", 1.0, "packing; the states of frozen layers have 1 GB", lambda value, others: {}),
        Moved("cuda_graphs", True, "packing = false", to("packing", {False: False})),
    ),
    "LogSection": (
        Moved("progress", True, "trackers, without console", _without("console")),
        Moved("tensorboard", True, "trackers, without tensorboard", _without("tensorboard")),
    ),
    "MismatchSection": (
        Moved("drop_beyond", 0.0, "correction = drop, and weight_high"),
        Moved("weight_low", 0.5, "weight_high; mask keeps ratios from its inverse to it",
              lambda value, others: {} if value * others.get("weight_high", 2.0) == 1 else None),
        Moved("level", "token", "correction = truncate_sequence, mask_geometric ...",
              lambda value, others: _leveled(value, others.get("correction", "truncate"))),
    ),
    "RewardJob": (Moved("evaluate_every", 0, "eval_every, as in the other commands", to("eval_every")),),
    "DPOJob": (Moved("evaluate_every", "auto", "eval_every, as in the other commands", to("eval_every")),),
    "BestOfNJob": (Moved("prompts_per_round", 0, "prompts_per_iteration", to("prompts_per_iteration")),),
    "BestOfN": (
        Moved("margin", 0.0, "threshold; what is worse than the mean of its prompt is never kept"),
        Moved("max_kept_length", 0, "[sampling] max_new_tokens"),
    ),
}  # fmt: skip
"""Class of the settings -> what has moved in it, in the order in which it is looked at."""


def rows_of(owner: type) -> tuple[Moved, ...]:
    """What has moved in a class of settings and its bases."""
    # By name and each once: a job with another algorithm is a class of the same name as the one it is made from.
    names = dict.fromkeys(base.__name__ for base in owner.__mro__)
    listed = [row for name in names for row in MOVED.get(name, ())]
    # A class may hold rows of its own, where what they become is known only there: see `plaudit.jobs.rewarded`.
    own = [row for base in owner.__mro__ for row in vars(base).get("moved", ())]
    return (*listed, *own)


def gone(job_class: type[BaseModel]) -> tuple[Setting, ...]:
    """The settings of a job whose names are no more, so that files and flags with them are understood."""
    taken = {setting.key for setting in settings(job_class)}
    return tuple(
        Setting(prefix + row.name, row.name, _kind(row.default), row.default, f"Replaced: {row.instead}.")
        for prefix, owner in tables(job_class)
        for row in rows_of(owner)
        if prefix + row.name not in taken
    )


def former_switches(job_class: type[BaseModel]) -> set[str]:
    """Keys of the settings that were True or False in an earlier version, and are a word today."""
    return {
        prefix + row.name
        for prefix, owner in tables(job_class)
        for row in rows_of(owner)
        if any(isinstance(form, bool) for form in row.forms)
    }


def _kind(default: Any) -> Any:
    """What a text on the command line is read as; where the default was a word, a number is a number all the same."""
    if isinstance(default, tuple):
        return tuple[float, ...]
    return type(default) if not isinstance(default, str) else NumberOrText


def renewed(owner: type, given: Values, defaults: Values | None = None) -> Change:
    """Settings by the names of today.

    Args:
        owner: the class whose settings they are.
        given: name -> value, with names of any version.
        defaults: values of those that are not given.

    Raises:
        ConfigError: a setting that is gone, with a value that has no equal.
    """
    values = dict(given)
    for _ in changes(owner, values, defaults or {}, {}):
        pass  # each changes the values
    return values


def changes(
    owner: type, values: Change, defaults: Values, where: Mapping[str, str]
) -> Iterator[tuple[Moved, Change]]:
    """Bring ``values`` up to date in place; each setting that is gone, and what took its place.

    Args:
        where: name of a setting -> where it was given.
    """
    for row in rows_of(owner):
        if row.name not in values or not row.is_meant(row.name, values[row.name]):
            continue
        value = values.pop(row.name)
        if value == row.default and not row.forms:
            continue  # what there is today does the same
        change = row.becomes(value, {**defaults, **values})
        if change is None:
            raise ConfigError(
                f"{row.name} = {value!r} is no setting any more, and nothing else says the same",
                where=where.get(row.name, f"[algorithm] {row.name}"),
                cure=f"{row.instead} (docs/why/config.md says what became of each setting)",
            )
        values |= change
        yield row, change
