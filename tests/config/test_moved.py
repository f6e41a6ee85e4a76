"""Settings of earlier versions: silent at their default, mapped to what says the same, or refused with a cure."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.reward_model import RewardModel
from plaudit.cli.parser import parse_flags
from plaudit.config.algorithm import name_of, specialise, types
from plaudit.config.fields import settings, tables
from plaudit.config.load import load_job
from plaudit.config.moved import MOVED, Moved, rows_of
from plaudit.config.sections import Job
from plaudit.config.show import to_toml
from plaudit.errors import ConfigError
from plaudit.jobs.registry import COMMANDS
from plaudit.jobs.rewarded import RewardedJob

JOBS = [specialise(row.job, name, "") for row in COMMANDS.values() for name in types(row.job)]
ROWS = [
    pytest.param(job, prefix, row, id=f"{job.__name__} {prefix}{row.name}")
    for job in JOBS
    for prefix, owner in tables(job)
    for row in rows_of(owner)
    if not row.forms  # those are earlier words for a setting that there still is
]


def job_of(command: str, kind: str) -> type[Job]:
    return specialise(COMMANDS[command].job, kind, "")


@pytest.mark.parametrize(("job", "prefix", "row"), ROWS)
def test_at_its_default_nothing_is_said_and_nothing_changes(job: type[Job], prefix: str, row: Moved) -> None:
    loaded = load_job(job, (), {prefix + row.name: row.default})
    plain = load_job(job)
    assert loaded.job == plain.job
    assert set(loaded.sources) == set(plain.sources), "what is gone has no source"


def test_every_row_is_about_a_class_that_there_is() -> None:
    owners = {base.__name__ for job in JOBS for _, owner in tables(job) for base in owner.__mro__}
    assert set(MOVED) <= owners
    for owner in {owner for job in JOBS for _, owner in tables(job)}:
        names = {s.key for s in settings(owner)}
        for row in rows_of(owner):
            assert (row.name in names) == bool(row.forms), f"{owner.__name__}.{row.name}"


MAPPED: list[tuple[str, str, dict[str, Any], Any]] = [
    ("ppo", "", {"kl_in": "loss", "kl_estimator": "k3", "kl_grad": "naive"},
     PPO(kl_in="loss", kl_estimator="k3_naive")),
    ("ppo", "", {"kl_grad": "naive"}, PPO()),
    ("ppo", "", {"bootstrap_truncated": True}, PPO(missing_eos="bootstrap")),
    ("ppo", "", {"whiten_rewards": True, "reward_scaling": "none"}, PPO(reward_scaling="whiten")),
    ("ppo", "", {"entropy_coef": 0.1, "entropy_target": 2.0, "entropy_step": 0.03},
     PPO(entropy_coef=0.1, entropy_target=(2.0, 0.03))),
    ("ppo", "", {"critic_lambda": 1.0}, PPO(gae_lambda=(0.95, 1.0))),
    ("ppo", "", {"critic_lambda": 1.0, "gae_lambda": 0.9}, PPO(gae_lambda=(0.9, 1.0))),
    ("ppo", "", {"lambda_alpha": 0.05, "critic_lambda": 1}, PPO(gae_lambda=("length", 1.0))),
    ("ppo", "", {"whiten_advantages": False}, PPO(whiten_advantages="none")),
    ("ppo", "", {"whiten_advantages": True, "whiten_scope": "minibatch"}, PPO(whiten_advantages="minibatch")),
    ("ppo", "", {"whiten_advantages": False, "whiten_scope": "minibatch"}, PPO(whiten_advantages="none")),
    ("ppo", "", {"critic": "separate", "critic_init": "sft"}, PPO(critic="sft")),
    ("ppo", "", {"critic": "trunk", "critic_init": "sft"}, PPO(critic="trunk")),
    ("grpo", "", {"kl_grad": "naive"}, GRPO(kl_estimator="k3_naive")),
    ("grpo", "dapo", {"overlong_penalty": 0.5}, DAPO(missing_eos_penalty=0.5)),
    ("grpo", "cispo", {"ratio_max": 1.5}, CISPO(clip_high=0.5)),
    ("grpo", "gspo", {"ratio": "token"}, GSPO(ratio_of="response_token")),
    ("reinforce", "reinforce_pp", {"baseline": "group", "group_size": 2, "kl_in": "loss"},
     REINFORCEPlusPlus(baseline="group", group_size=2)),
    ("dpo", "", {"robust": True, "label_smoothing": 0.1}, DPO(pair_loss="robust", label_smoothing=0.1)),
    ("dpo", "ipo", {"average": False}, DPO(pair_loss="ipo_sum")),
    ("dpo", "orpo", {"ratio_coef": 0.5}, ORPO(beta=0.5)),
    ("reward", "", {"ranking_weight": "pairs"}, RewardModel(ranking_loss="all_pairs")),
]  # fmt: skip


@pytest.mark.parametrize(("command", "kind", "was", "now"), MAPPED, ids=lambda value: str(value)[:40])
def test_what_says_the_same_today(
    command: str, kind: str, was: dict[str, Any], now: Any, tmp_path: Path
) -> None:
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for name, value in was.items()
    ]
    header = f'type = "{kind}"\n' if kind else ""
    file = tmp_path / "old.toml"
    file.write_text(f"[algorithm]\n{header}" + "\n".join(lines), encoding="utf-8")
    from_file: Any = load_job(COMMANDS[command].job, [file]).job
    assert from_file.algorithm == now
    flags = [word for name, value in was.items() for word in (f"--{name}".replace("_", "-"), str(value))]
    flags = [word.lower() if word in ("True", "False") else word for word in flags]
    job = job_of(command, kind)
    from_flags: Any = load_job(job, (), parse_flags(command, job, flags)).job
    assert from_flags.algorithm == now
    # In Python, where the presets are functions of the same names.
    assert replace(job().algorithm, **was) == now  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (["--no-whiten-advantages"], "none"),
        (["--no-whiten-advantages", "--epochs", "2"], "none"),
        (["--whiten-advantages", "--epochs", "2"], "batch"),
        (["--epochs", "2", "--whiten-advantages"], "batch"),
        (["--whiten-advantages", "minibatch"], "minibatch"),
    ],
)
def test_a_flag_that_was_a_switch_is_understood_without_a_value(flags: list[str], value: str) -> None:
    job = job_of("ppo", "")
    loaded: Any = load_job(job, (), parse_flags("ppo", job, flags)).job
    assert loaded.algorithm.whiten_advantages == value


def test_a_mapped_value_keeps_its_source(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text("[algorithm]\nepochs = 2\nbootstrap_truncated = true\n", encoding="utf-8")
    loaded = load_job(COMMANDS["ppo"].job, [file])
    assert loaded.sources["algorithm.missing_eos"] == f"{file}:3"
    assert 'missing_eos = "bootstrap"' in to_toml(*loaded)


@pytest.mark.parametrize(
    ("command", "kind", "was", "instead"),
    [
        ("ppo", "", {"ratio_limit": 3.0}, "over 10"),
        ("ppo", "", {"whiten_rewards": True}, "reward_scaling = whiten"),
        ("ppo", "", {"lambda_alpha": 0.3}, "gae_lambda = length"),
        ("ppo", "", {"kl_in": "loss", "kl_grad": "naive"}, "k2_naive"),
        ("grpo", "cispo", {"ratio_max": 0.28}, "clip_high"),
        ("reinforce", "", {"critic_lr": 1e-3}, "plaudit ppo"),
        ("reinforce", "reinforce_pp", {"kl_in": "loss"}, "baseline"),
        ("reward", "", {"temperature": 2.0}, "unit"),
        ("best-of-n", "", {"max_kept_length": 9}, "max_new_tokens"),
    ],
)  # fmt: skip
def test_what_has_no_equal_is_refused_with_the_replacement(
    command: str, kind: str, was: dict[str, Any], instead: str
) -> None:
    job = job_of(command, kind)
    overrides = {f"algorithm.{name}": value for name, value in was.items()}
    for make in (lambda: load_job(job, (), overrides), lambda: replace(job().algorithm, **was)):  # type: ignore[attr-defined]
        with pytest.raises(ConfigError) as caught:
            make()
        assert instead in caught.value.cure and caught.value.where and caught.value.exit_code == 78


def test_relatives_are_values_of_one_formula() -> None:
    assert GRPO(scale="none", aggregation="constant", kl_coef=0.0) == DrGRPO() == plaudit.DrGRPO()
    assert {type(make()) for make in (DrGRPO, DAPO, GSPO, CISPO)} == {GRPO}
    assert {type(make()) for make in (IPO, Hinge, SimPO, ORPO)} == {DPO}
    assert SimPO(beta=2.5) == DPO(pair_loss="simpo", beta=2.5, margin=1.0), (
        "what is given wins over the preset"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_type_that_is_shown_is_the_one_that_was_asked_for(command: str, tmp_path: Path) -> None:
    for kind in types(COMMANDS[command].job):
        job = job_of(command, kind)()
        shown = (
            "ppo" if kind.startswith("ppo_max") else kind
        )  # a preset with other numbers only has no name of its own
        assert name_of(job.algorithm) == shown  # type: ignore[attr-defined]
        file = tmp_path / f"{kind}.toml"
        file.write_text(to_toml(job), encoding="utf-8")
        assert load_job(COMMANDS[command].job, [file]).job.algorithm == job.algorithm  # type: ignore[attr-defined]


def test_every_default_is_within_its_bounds() -> None:
    for job in JOBS:
        algorithm = job().algorithm  # type: ignore[attr-defined]
        assert type(algorithm)(**{f.name: getattr(algorithm, f.name) for f in fields(algorithm)}) == algorithm


def test_bounds_are_those_of_the_file_in_python_too() -> None:
    with pytest.raises(ConfigError, match="kl_coef = -1 does not fit, expected number >= 0") as caught:
        REINFORCE(kl_coef=-1)
    assert "--kl-coef takes number >= 0: Weight of the KL" in caught.value.cure
    with pytest.raises(ConfigError, match="group_size = 1 does not fit, expected integer >= 2"):
        DAPO(group_size=1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        DAPO(group_sise=4)


def test_the_list_of_reasons_is_that_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "why" / "config.md").read_text(encoding="utf-8")
    cells = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "`" in line]
    listed = [(first.removeprefix("| "), name.strip("`"), today) for first, name, today, why in cells if len(why) > 9]
    rows = [*MOVED.items(), ("RewardedJob", RewardedJob.moved)]
    assert listed == [(owner, row.name, row.instead) for owner, moved in rows for row in moved]
