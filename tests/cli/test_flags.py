"""Flags are made from the settings of a job."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from plaudit.cli.main import main
from plaudit.cli.parser import Parser, job_parser, parse_flags, split_files
from plaudit.config.fields import settings
from plaudit.config.load import load_job
from plaudit.config.sections import Job, SamplingSection
from plaudit.errors import ConfigError
from plaudit.jobs.registry import COMMANDS


class ToyJob(Job):
    """Train a toy.

    More about it.
    """

    policy: str
    """Model to train, 100 % of it."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Prompts in each batch."""
    sampling: SamplingSection = SamplingSection()


def parse(*words: str) -> dict[str, Any]:
    return parse_flags("toy", ToyJob, words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lr", "1e-5"], {"optimizer.lr": "1e-5"}),
        (["--lr=1e-5"], {"optimizer.lr": "1e-5"}),
        (["--optimizer.lr", "1"], {"optimizer.lr": "1"}),
        (["--batch-size", "16"], {"prompts_per_iteration": "16"}),
        (["--batch_size=16"], {"prompts_per_iteration": "16"}),
        (["--sft_model", "x"], {"policy": "x"}),
        (["--max_new_tokens", "3"], {"sampling.max_new_tokens": "3"}),
        (["--overwrite"], {"overwrite": "true"}),
        (["--overwrite", "false"], {"overwrite": "false"}),
        (["--no-progress"], {"log.progress": "false"}),
        (["--stop", "a", "b", "--seed", "1"], {"sampling.stop": ["a", "b"], "seed": "1"}),
        (["--eval-fraction", "-1"], {"data.eval_fraction": "-1"}),
        ([], {}),
    ],
)
def test_flags(words: list[str], expected: dict[str, Any]) -> None:
    assert parse(*words) == expected


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--kl-coef", "1"], ""),
        (["--polcy", "x"], "did you mean --policy?"),
        (["--tempratur=1"], "did you mean --temperature?"),
        (["--no-policy"], ""),
        (["--lr"], "see `plaudit toy --help`"),
        (["--lr", "1", "stray"], ""),
    ],
)
def test_wrong_flags_are_config_errors(words: list[str], cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*words)
    assert caught.value.exit_code == 78
    assert cure in caught.value.cure and caught.value.cure


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help-all")
    text = " ".join(capsys.readouterr().out.split())
    for setting in settings(ToyJob):
        assert setting.flag in text
        assert setting.help in text
    assert "Train a toy." in text and "More about it" not in text
    assert "(required)" in text and "[optimizer]" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_is_a_dozen_settings_an_example_and_the_way_to_the_others(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    flags = {line.split()[0] for line in text.splitlines() if line.startswith("  --")} - {"--help-all", "--type"}
    assert 9 <= len(flags - {"--anyway", "--seeds"}) <= 16, "about a dozen settings"
    assert "cuda:1 and so on; auto: the first GPU" in " ".join(text.split())
    assert {"--out", "--dataset", "--lr"} <= flags
    assert f"plaudit {command} --help-all" in text
    example = " ".join(text.partition("example:")[2].partition("All ")[0].replace("\\", "").split())
    words = example.removeprefix(f"plaudit {command} ").split()
    job = COMMANDS[command].job
    made = load_job(job, (), parse_flags(command, job, words)).job
    assert all(getattr(made, name) for name in COMMANDS[command].required), "the example has what is required"


class DottedJob(Job):
    """Train a toy."""

    policy: str
    """A folder, a name, ... and so on: what to train. Only the long help has this sentence."""
    reward: str
    """One, two, ... Three dots before a capital do not end it either. Nor does the short help have this."""


def test_short_help_is_the_first_sentence_and_three_dots_do_not_end_one() -> None:
    def help_of(everything: bool) -> str:
        return " ".join(job_parser("toy", DottedJob, settings(DottedJob), everything).format_help().split())

    short, long = help_of(False), help_of(True)
    assert "A folder, a name, ... and so on: what to train (required)" in short
    assert "One, two, ... Three dots before a capital do not end it either (required)" in short
    assert "Only the long help has this sentence. (required)" in long


def test_files_come_first() -> None:
    assert split_files(["a.toml", "b.toml", "--lr", "1"]) == (["a.toml", "b.toml"], ["--lr", "1"])
    assert split_files(["--lr", "1", "a.toml"]) == ([], ["--lr", "1", "a.toml"])


def test_job_parser_allows_no_abbreviations() -> None:
    assert isinstance(job_parser("toy", ToyJob, settings(ToyJob)), Parser)
    with pytest.raises(ConfigError):
        parse("--temp", "1")
