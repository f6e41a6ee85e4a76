"""Flags, keywords and commands of the field's guides and of other trainers: understood, or answered with ours."""

from __future__ import annotations

import re

import pytest

import plaudit
from plaudit.cli.main import main
from plaudit.cli.parser import parse_flags
from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import settings
from plaudit.config.foreign import ALIASES, REASONS
from plaudit.errors import ConfigError
from plaudit.jobs.registry import COMMANDS as TRAINING

JOBS = {(row.name, kind): specialise(row.job, kind, "") for row in TRAINING.values() for kind in types(row.job)}
FLAGS = {s.flag for job in JOBS.values() for s in settings(job)} | {"--type", "--resume"}


def parsed(command: str, line: str) -> dict[str, object]:
    return parse_flags(command, TRAINING[command].job, line.split())


def test_the_commands_of_the_guides_run_as_they_are_written() -> None:
    guide = "--model EleutherAI/gpt-neo-2.7B --dataset Anthropic/hh-rlhf --epochs 1 --lr 1e-5 --batch-size 16"
    assert parsed("reward", guide) == {
        "model": "EleutherAI/gpt-neo-2.7B", "dataset": ["Anthropic/hh-rlhf"], "epochs": "1", "optimizer.lr": "1e-5",
        "batch_size": "16",
    }  # fmt: skip
    assert parsed("ppo", "--policy P --reward R --dataset D --kl-coef 0.1 --batch-size 32 --lr 1e-5") == parsed(
        "ppo", "--sft_model P --reward_model R --dataset D --kl_coef 0.1 --batch_size 32 --lr 1e-5"
    )
    assert parsed("reward", "--model_name M --dataset D --epochs 1 --lr 1e-5 --batch_size 16")["model"] == "M"
    assert parsed("ppo", "--pretrain M --reward_pretrain R --save_path DIR --prompt_data D") == {
        "policy": "M", "reward": ["R"], "out": "DIR", "dataset": ["D"],
    }  # fmt: skip
    with pytest.raises(ConfigError) as error:
        parsed("ppo", "--apply_chat_template")
    assert "leave it out" in error.value.cure


@pytest.mark.parametrize(
    ("keyword", "place"),
    [
        ({"batch_size": 32}, "prompts_per_iteration="), ({"learning_rate": 1e-5}, "lr="),
        ({"cliprange": 0.2}, "write clip="), ({"kl_penalty": "kl"}, "--kl-estimator"),
        ({"steps": 10000}, "--iterations"),
    ],
)  # fmt: skip
def test_keywords_of_another_config_are_answered_with_the_place(keyword: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as error:
        plaudit.PPO(**keyword)
    assert place in error.value.cure
    assert plaudit.PPO(kl_coef=0.1).kl_coef == 0.1


@pytest.mark.parametrize(
    ("command", "flag", "key"),
    [
        ("grpo", "--num_generations", "algorithm.group_size"), ("grpo", "--num-generations", "algorithm.group_size"),
        ("grpo", "--beta", "algorithm.kl_coef"), ("dpo", "--beta", "algorithm.beta"), ("sft", "--output_dir", "out"),
        ("sft", "--model_name_or_path", "model"), ("ppo", "--model_name_or_path", "policy"),
        ("sft", "--learning_rate", "optimizer.lr"), ("sft", "--num_train_epochs", "epochs"),
        ("grpo", "--max_completion_length", "sampling.max_new_tokens"), ("sft", "--cutoff_len", "data.max_length"),
        ("ppo", "--num_ppo_epochs", "algorithm.epochs"), ("sft", "--lora_target", "lora.targets"),
        ("ppo", "--rollout_batch_size", "prompts_per_iteration"), ("sft", "--train_batch_size", "batch_size"),
    ],
)  # fmt: skip
def test_names_of_the_same_meaning_are_understood(command: str, flag: str, key: str) -> None:
    assert list(parsed(command, f"{flag} 4")) == [key]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--per_device_train_batch_size", "--tokens-per-microbatch"), ("--gradient_accumulation_steps", "--batch-size"),
        ("--max_steps", "--iterations"), ("--use_peft", "--rank 8"), ("--report_to", "--trackers"),
        ("--num_train_epochs", "--iterations"), ("--num_iterations", "--epochs"),
    ],
)  # fmt: skip
def test_other_names_are_answered_with_what_to_write(flag: str, says: str) -> None:
    for spelling in (flag, flag.replace("_", "-")):
        assert main(["ppo", spelling, "4"]) == 78
        with pytest.raises(ConfigError) as error:
            parsed("ppo", f"{spelling} 4")
        assert says in error.value.cure and "did you mean" not in error.value.cure


def test_every_name_is_understood_or_answered_and_the_answers_name_what_there_is() -> None:
    keys = {s.key for job in JOBS.values() for s in settings(job)}
    assert {key for keys_of in ALIASES.values() for key in keys_of} <= keys
    assert len(ALIASES.keys() | REASONS.keys()) >= 80
    for words in REASONS.values():
        assert set(re.findall(r"--[a-z][a-z-]*", words)) <= FLAGS, words


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trian", "sft"), ("finetune", "sft"), ("rm", "reward"), ("rlhf", "ppo"), ("train_ppo.py", "ppo"),
     ("best_of_n", "best-of-n"), ("evalute", "evaluate"), ("anotate", "annotate"), ("PPO", "ppo")],
)  # fmt: skip
def test_a_command_that_is_not_there_says_which_is_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == 78
    assert f"did you mean `plaudit {meant}`?" in capsys.readouterr().err


def test_subcommands_too(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in (("data chek", "check"), ("annotate serv", "serve"), ("evaluate polcy", "policy")):
        assert main(typed.split()) == 78
        assert f"did you mean {meant}?" in capsys.readouterr().err


def test_train_is_answered_with_all_commands_that_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 78
    assert f"Each way to train is a command: {', '.join(TRAINING)}" in capsys.readouterr().err
