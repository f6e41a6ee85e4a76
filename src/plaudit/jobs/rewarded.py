"""The part of a job that says what is rewarded, and how it is compared with the job of an earlier start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from plaudit.config.sections import Job
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import TIMEOUT, FunctionTable, RewardTable, on_one_line
from plaudit.jobs.reward_texts import Rewards, parse, tables_of

ROLES = ("reward", "gold")
PLACES = ("path", "url", "name", "timeout", "concurrency", "batch_size")
"""Fields of a table that say where a reward is found and how long it may take, and not what it is worth."""


class RewardedJob(Job):
    """What the commands share that score responses of a policy."""

    policy: str = ""
    """The model to train, usually an SFT run's model: hub name, directory, or GGUF file. It is also the reference."""
    reward: Rewards = ()
    """What is maximised: [[reward]] tables, or short texts: a reward model's directory or hub name, file.py:function,
    module:function, rule:NAME, owner/name#LABEL, an http address. Several are added up."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each reward; empty: all 1."""
    reward_timeout: float = Field(TIMEOUT, ge=0)
    """Seconds that a call of a reward function may take; a slower one is a failed reward. 0: no limit."""
    gold: Rewards = ()
    """A second reward, never trained on, that shows whether the first is being exploited; written as reward is."""
    dataset: str = ""
    """Prompts: a file, a directory, or a hub name. Responses in it are not used."""

    @classmethod
    def from_earlier(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of `Job`: weights and seconds go into the tables."""
        return folded(values)

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        tables = {"reward": self.reward, "gold": self.gold}
        sources = {f"{role} {i}": table.source for role in ROLES for i, table in enumerate(tables[role])}
        return {"policy": self.policy, "dataset": self.dataset} | sources

    @classmethod
    def as_recorded(cls, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of `Job`: short texts of an earlier version become the ones of today, and its weights go into tables."""
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
        left_out = {*PLACES, "weight"} if texts and not was.get("reward_weights") else {*PLACES}

        def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
            gone = {"reward_weights": None, "reward_timeout": None}
            return {
                **settings,
                **gone,
                **{f"--{role}": _kinds(settings, role, left_out) for role in ROLES},
            }

        return plain(was), plain(now)


def _source(text: str) -> str:
    try:
        return parse(text).source if text else text
    except ConfigError:  # it was read otherwise then; it differs from what is read now
        return text


def _kinds(settings: Mapping[str, Any], role: str, left_out: set[str]) -> list[str]:
    """The rewards of a manifest without some fields, a line of TOML each."""
    try:
        tables = folded({key: settings.get(key) or () for key in (*ROLES, "reward_weights")})[role]
    except ConfigError:
        return []
    return [on_one_line(table, left_out) for table in tables]


def folded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a job with ``reward_weights`` and ``reward_timeout`` of earlier versions put into the tables.

    Raises:
        ConfigError: another number of weights than rewards, or one that is no number.
    """
    kept = {key: value for key, value in values.items() if key not in ("reward_weights", "reward_timeout")}
    rewards = {key: tables_of(values[key], key) for key in ROLES if key in values}
    weights = values.get("reward_weights") or ()
    if weights and len(weights) != len(rewards.get("reward", ())):
        raise ConfigError(
            f"{len(weights)} weights for {len(rewards.get('reward', ()))} rewards",
            where="reward_weights",
            cure="give one weight a reward, or write weight = ... into each [[reward]] table",
        )
    if weights:
        numbers = [_number(weight, "reward_weights") for weight in weights]
        pairs = zip(rewards["reward"], numbers, strict=True)
        rewards["reward"] = tuple(table.model_copy(update={"weight": number}) for table, number in pairs)
    if "reward_timeout" in values:
        seconds = _number(values["reward_timeout"], "reward_timeout", least=0)
        rewards = {key: tuple(_timed(table, seconds) for table in tables) for key, tables in rewards.items()}
    return kept | rewards


def _timed(table: RewardTable, seconds: float) -> RewardTable:
    """What a table says of its time itself stays: the setting was for all functions that a short text names."""
    named = isinstance(table, FunctionTable) and "timeout" not in table.model_fields_set
    return table.model_copy(update={"timeout": seconds}) if named else table


def _number(value: Any, where: str, least: float = -math.inf) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and number >= least:
        return number
    raise ConfigError(
        f"{where} = {value!r} does not fit", where=where, cure="give numbers; seconds are 0 or more"
    )
