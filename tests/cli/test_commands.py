"""Every command, typed as a user would, on a tiny model."""

from __future__ import annotations

import io
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from plaudit.cli.main import main

FILES = ("config.toml", "manifest.json", "metrics.jsonl", "events.jsonl", "summary.json", "report.html")


@pytest.mark.parametrize("name", ["sft", "reward", "ppo"])
def test_runs_have_all_their_files(world: Any, name: str) -> None:
    run: Path = getattr(world, name)
    assert [f for f in FILES if not (run / f).is_file()] == []
    assert (run / "model" / "config.json").is_file()
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config["seed"] == 3
    assert "# command line" in (run / "config.toml").read_text(encoding="utf-8")


def test_flags_of_the_guides_arrive(world: Any) -> None:
    reward = tomllib.loads((world.reward / "config.toml").read_text(encoding="utf-8"))
    assert (reward["epochs"], reward["optimizer"]["lr"], reward["batch_size"]) == (1, 1e-3, 8)
    ppo = tomllib.loads((world.ppo / "config.toml").read_text(encoding="utf-8"))
    assert (ppo["prompts_per_iteration"], ppo["algorithm"]["kl_coef"], ppo["optimizer"]["lr"]) == (
        4,
        0.1,
        1e-4,
    )
    assert ppo["algorithm"]["type"] == "ppo"


def test_the_report_card_is_written(world: Any) -> None:
    card = json.loads((world.reward / "summary.json").read_text(encoding="utf-8"))
    assert {"accuracy", "accuracy_ci", "kendall_tau", "ece", "length_baseline_accuracy"} <= set(card)
    card = json.loads((world.ppo / "summary.json").read_text(encoding="utf-8"))
    assert {"reward_mean", "kl", "perplexity_ratio", "win_rate", "win_rate_ci"} <= set(card)


def test_config_of_a_run_can_be_fed_back(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", str(world.ppo / "config.toml"), "--kl-coef", "0.3"]) == 0
    text = capsys.readouterr().out
    resolved, before = (
        tomllib.loads(text),
        tomllib.loads((world.ppo / "config.toml").read_text(encoding="utf-8")),
    )
    assert resolved["algorithm"].pop("kl_coef") == 0.3
    before["algorithm"].pop("kl_coef")
    assert resolved == before
    assert f"{world.ppo / 'config.toml'}:" in text


def test_config_needs_to_know_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    file.write_text("seed = 4\n", encoding="utf-8")
    assert main(["config", str(file)]) == 78
    assert "sft|reward|ppo" in capsys.readouterr().err
    assert main(["config", "sft", str(file)]) == 0
    assert tomllib.loads(capsys.readouterr().out)["seed"] == 4


def test_a_run_directory_is_not_overwritten(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(world.commands()[0]) == 78
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sft", "reward", "ppo"])
def test_what_must_be_given(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 78
    assert "is not set" in capsys.readouterr().err


def test_resuming_without_the_settings_names_the_file_that_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").touch()
    assert main(["ppo", "--out", str(tmp_path), "--resume"]) == 78
    assert str(tmp_path / "config.toml") in capsys.readouterr().err


def test_evaluate_and_report(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "reward", str(world.reward)]) == 0
    assert "accuracy_ci" in capsys.readouterr().out
    assert main(["evaluate", "reward", str(world.reward), "--dataset", str(world.preferences)]) == 0
    assert re.search(r"heldout_pairs +24\n", capsys.readouterr().out)
    assert main(["evaluate", "policy", str(world.ppo)]) == 0
    assert "win_rate" in capsys.readouterr().out
    assert main(["evaluate", "policy", str(world.ppo), "--dataset", "x"]) == 78
    assert main(["evaluate", "policy", str(world.ppo), "--samples", "-1"]) == 78
    assert main(["evaluate", "reward", str(world.reward), "--heldout", "x"]) == 78
    assert main(["report", str(world.ppo)]) == 0
    assert str(world.ppo / "report.html") in capsys.readouterr().out
    assert main(["report", str(world.root / "nowhere")]) == 65


def test_an_ensemble_is_named_by_what_exists_and_evaluated(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "ensemble"
    words = ["reward", "--model", str(world.model), "--dataset", str(world.preferences), "--members", "2"]
    assert main([*words, "--batch-size", "8", "--max-length", "32", "--no-progress", "--out", str(run)]) == 0
    named = re.search(r"^model +(\S+) \(an ensemble of 2\)$", capsys.readouterr().out, re.MULTILINE)
    assert named and Path(named[1]) == run
    assert main(["evaluate", "reward", str(run), "--dataset", str(world.preferences)]) == 0
    assert re.search(r"heldout_pairs +24\n", capsys.readouterr().out)


def test_chat(world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        monkeypatch.setattr(
            sys, "stdin", io.StringIO("the film was\n/new\nthe film was\n/quit\nnever read\n")
        )
        assert main(["chat", str(world.sft), "--max-new-tokens", "4"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 2


def test_chat_against_a_second_model_answers_each_message_twice(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def talk(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("the film was\nthe plot was\n/quit\n"))
        assert main(["chat", *words, "--max-new-tokens", "4"]) == 0
        return capsys.readouterr().out.splitlines()

    first, second = talk(str(world.sft)), talk(str(world.ppo))
    both = talk(str(world.sft), "--against", str(world.ppo))
    assert both == [
        f"{model}: {response}"
        for pair in zip(first, second, strict=True)
        for model, response in zip((world.sft, world.ppo), pair, strict=True)
    ]


def test_evaluate_says_which_run_it_was_given(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "reward", str(world.ppo)]) == 78
    assert f"plaudit evaluate policy {world.ppo}" in capsys.readouterr().err
    assert main(["evaluate", "policy", str(world.ppo.parent)]) == 65
    assert str(world.ppo) in capsys.readouterr().err


def test_data_check(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(world.preferences), str(world.demonstrations)]) == 0
    out = capsys.readouterr().out
    assert "24 x preference" in out and "24 x demonstration" in out
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": 3}\n', encoding="utf-8"
    )
    assert main(["data", "check", str(bad), str(world.preferences)]) == 65
    both = capsys.readouterr()
    assert f"{bad}:2" in both.err and "24 x preference" in both.out


def test_data_check_finds_prompts_of_one_file_in_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(f'{{"id": "t{i}", "prompt": "q{i}"}}\n' for i in range(4)), encoding="utf-8")
    test.write_text("".join(f'{{"id": "h{i}", "prompt": "Q{i}"}}\n' for i in range(3, 7)), encoding="utf-8")
    assert main(["data", "check", str(train), str(test)]) == 0
    out = capsys.readouterr().out
    assert f"duplicates-across-splits  with {train}:  1 of 4 rows (25.0%), in rows such as h3" in out
    assert main(["data", "check", str(test)]) == 0
    assert "across-splits" not in capsys.readouterr().out


@pytest.mark.parametrize("target", ["a.json", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_data_convert(world: Any, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / target
    assert main(["data", "convert", str(world.preferences), str(path), "--layout", "trl"]) == 0
    assert main(["data", "check", str(path)]) == 0
    assert "24 x preference" in capsys.readouterr().out


def test_data_convert_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranked = tmp_path / "ranked.jsonl"
    row = {"prompt": "a", "responses": ["b", "c", "d"], "ranks": [1, 2, 2]}
    ranked.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main(["data", "convert", str(ranked), str(tmp_path / "pairs.jsonl"), "--layout", "trl"]) == 0
    out = capsys.readouterr().out
    assert "1 x ranking" in out
    assert "note  ranking records were made into preferences" in out and "note  1 tied pairs" in out


def test_data_convert_to_a_layout_that_does_not_fit(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "a.jsonl")
    assert main(["data", "convert", str(world.demonstrations), target, "--layout", "hh"]) == 65
    assert "the layout hh has no place for demonstration records" in capsys.readouterr().err


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "torch" in out and "cores" in out and "GiB free" in out


def test_doctor_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from plaudit.cli import doctor

    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    assert main(["doctor", "--out", str(tmp_path)]) == 78
    assert "no-such-library is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "report", "chat", "quickstart", "doctor", "data", "sft"])
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"plaudit {command}" in capsys.readouterr().out


def test_wrong_flag_of_a_plain_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--ou", "x"]) == 78
    assert "did you mean --out?" in capsys.readouterr().err


def test_a_run_over_its_kl_limit_exits_with_3_and_has_its_results(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = world.commands()[2]
    words = [*words[: words.index("--out")], "--out", str(tmp_path / "run"), "--kl-limit", "1e-9"]
    assert main([*words, "--eval-prompts", "4", "--iterations", "8", "--lr", "1e-2"]) == 3
    told = capsys.readouterr()
    assert told.err.startswith("ENDED: the KL to the reference is") and "--kl-limit N --resume" in told.err
    assert f"report  {tmp_path / 'run' / 'report.html'}" in told.out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ended"] == "limit"
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The run did not finish: ENDED: the KL to the reference" in page
