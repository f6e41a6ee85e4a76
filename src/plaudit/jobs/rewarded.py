"""The part of a job that says what is rewarded, and how it is compared with the job of an earlier start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from plaudit.config.moved import Moved
from plaudit.config.sections import Job, Sources
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import TIMEOUT, inputs_of, on_one_line, place_of
from plaudit.jobs.reward_texts import Rewards, parse, tables_of

ROLES = ("reward", "gold")
PLACES = (
    *("path", "url", "rubric", "cache", "key_env"),
    *("name", "timeout", "concurrency", "batch_size", "prices", "cost_limit"),
)
"""Fields of a table that say where a reward is found and what it may take, and not what it is worth."""


def _weighted(value: Any, others: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rewards with the weights of ``reward_weights``; None if there are more or fewer of them."""
    rewards = _tables(others, "reward")
    if not value or rewards is None:
        return {}
    if len(value) != len(rewards):
        return None
    return {"reward": [{**table, "weight": weight} for table, weight in zip(rewards, value, strict=True)]}


def _timed(value: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """The functions with the seconds of ``reward_timeout``, except where a table says its own."""
    roles = {role: tables for role in ROLES if (tables := _tables(others, role))}
    return {
        role: [{"timeout": value, **table} if table["kind"] == "function" else table for table in tables]
        for role, tables in roles.items()
    }


def _tables(values: Mapping[str, Any], role: str) -> list[dict[str, Any]] | None:
    """The rewards of a role as mappings of what was said of each, and of nothing that is as by default.

    None where they cannot be read: whoever reads the rewards themselves says why, and where they stand.
    """
    try:
        tables = tables_of(values.get(role) or (), role)
    except ConfigError:
        return None
    return [{"kind": table.kind, **table.model_dump(mode="json", exclude_unset=True)} for table in tables]


class RewardedJob(Job):
    """What the commands share that score responses of a policy."""

    moved: ClassVar[tuple[Moved, ...]] = (
        Moved("reward_weights", (), "weight = ... in each [[reward]] table", _weighted),
        Moved("reward_timeout", TIMEOUT, "timeout = ... in the [[reward]] table of a function", _timed),
    )

    policy: str = ""
    """The model to train, usually an SFT run's model: hub name, directory, or GGUF file. It is also the reference.
    best-of-n without rounds trains nothing, and takes judge:MODEL@ADDRESS as well."""
    reward: Rewards = ()
    """What is maximised: [[reward]] tables, or short texts: a reward model's directory or hub name, file.py:function,
    module:function, rule:NAME, owner/name#LABEL, an http address, judge:MODEL@ADDRESS. Several are added up."""
    gold: Rewards = ()
    """A second reward, never trained on, that shows whether the first is being exploited; written as reward is."""
    dataset: Sources = ""
    """Prompts: a file, several, a directory, or a hub name. Responses in it are not used."""
    prompts_per_iteration: int = Field(32, ge=0)
    """Prompts of each iteration or round, others in each; each gets group_size responses."""
    eval_prompts: int = Field(64, ge=1)
    """Held-out prompts on which the policy is compared with its start: half choose the weights, half judge them."""

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        tables = {"reward": self.reward, "gold": self.gold}
        sources = {
            f"{role} {i}{part}": source
            for role in ROLES
            for i, table in enumerate(tables[role])
            for part, source in inputs_of(table).items()
        }
        return {"policy": self.policy, "dataset": self.dataset} | sources

    @property
    def code(self) -> dict[str, str]:
        """Where functions and classifiers are, by role and place."""
        tables = {"reward": self.reward, "gold": self.gold}
        places = {f"{role} {i}": place_of(table) for role in ROLES for i, table in enumerate(tables[role])}
        return {role: place for role, place in places.items() if place}

    @classmethod
    def as_recorded(cls, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of `Job`: short texts of an earlier version become the ones of today."""
        inputs = dict(manifest["inputs"])
        for role, source in inputs.items():
            if role.split(" ")[0] in ROLES:
                inputs[role] = {**source, "source": _source(source["source"])}
        return {**manifest, "inputs": inputs}

    @classmethod
    def comparable(
        cls, was: Mapping[str, Any], now: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As of `Job`: a reward may lie elsewhere, and take its time, but not count otherwise."""
        # The first version wrote short texts. Its Python API kept no weights, so where it says none nobody knows them.
        texts = any(isinstance(reward, str) for reward in was.get("reward") or ())
        left_out = {*PLACES, "weight"} if texts else {*PLACES}

        def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
            return {**settings, **{f"--{role}": _kinds(settings, role, left_out) for role in ROLES}}

        return plain(was), plain(now)


def _source(text: str) -> str:
    try:
        return parse(text).source if text else text
    except ConfigError:  # it was read otherwise then; it differs from what is read now
        return text


def _kinds(settings: Mapping[str, Any], role: str, left_out: set[str]) -> list[str]:
    """The rewards of a manifest without some fields, a line of TOML each."""
    try:
        tables = tables_of(settings.get(role) or (), role)
    except ConfigError:
        return []
    return [on_one_line(table, left_out) for table in tables]
