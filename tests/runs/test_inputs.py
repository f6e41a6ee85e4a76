"""What the manifest keeps of the inputs: hashes of files that were named, and of values that were given in Python."""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit.evaluation.comparing.trials import trials_of
from plaudit.jobs.online import GRPOJob
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt
from plaudit.rewards.build import GivenReward
from plaudit.runs.files import read_json
from plaudit.runs.resume import hash_of, hash_of_value

WORDS = "the a film soup bed room was is very quite good bad warm cold".split()
SMALL: dict[str, Any] = {
    "max_length": 32, "precision": "fp32", "progress": False, "tensorboard": False, "batch_size": 4, "iterations": 1,
    "max_new_tokens": 4, "eval_prompts": 2,
}  # fmt: skip


def liked(prompt: str, response: str) -> float:
    return float(response.count("good"))


def disliked(prompt: str, response: str) -> float:
    return -float(response.count("good"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    tokenizer = tiny_tokenizer([" ".join(WORDS)], 64)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), tmp_path / "start", tokenizer)
    return str(tmp_path / "start")


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data in it that are none of the run's business, and a link that leads nowhere."""
    place = tmp_path / "work"
    (place / "deep").mkdir(parents=True)
    for name in ("big.jsonl", "deep/weights.safetensors", "notes.txt"):
        (place / name).write_text("[]\n", encoding="utf-8")
    (place / "gone.json").symlink_to(place / "nowhere.json")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that Python opens, as an absolute path."""
    paths: list[str] = []
    plain = io.open

    def noted(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, os.PathLike)):
            paths.append(os.path.abspath(file))
        return plain(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", noted)
    monkeypatch.setattr(io, "open", noted)
    return paths


def test_a_run_from_values_reads_no_file_of_the_working_directory(
    model: str, crowded: Path, opened: list[str], tmp_path: Path
) -> None:
    prompts = [f"the {word} was" for word in WORDS]
    out = tmp_path / "run"
    plaudit.train(
        plaudit.REINFORCE(kl_coef=0.1), policy=model, prompts=prompts, reward=liked, out=str(out), **SMALL
    )
    assert any(path.startswith(str(out)) for path in opened), "the count sees what the run opens"
    assert [path for path in opened if path.startswith(str(crowded))] == []
    manifest = read_json(out / "manifest.json")
    assert manifest["inputs"]["dataset"] == {"source": "", "sha256": ""}
    assert manifest["inputs"]["policy"]["sha256"] and manifest["rows_sha256"]
    records = [Prompt(f"prompt-{i}", text) for i, text in enumerate(prompts)]
    assert manifest["given"]["prompts"] == hash_of_value(records)
    assert manifest["given"]["reward"] == hash_of_value([GivenReward(liked)]) and "gold" not in manifest["given"]


def test_resuming_with_another_function_is_said_and_recorded(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [f"the {word} was" for word in WORDS]
    out = tmp_path / "run"
    common = SMALL | {"policy": model, "prompts": prompts, "out": str(out)}
    plaudit.train(plaudit.REINFORCE(), reward=liked, **common)
    capsys.readouterr()
    plaudit.train(plaudit.REINFORCE(), reward=disliked, **(common | {"iterations": 2, "resume": True}))
    assert "code of the reward" in capsys.readouterr().out
    [change] = read_json(out / "manifest.json")["changed"]
    assert any("code of the reward" in text for text in change["settings"])


def test_a_mended_function_in_a_file_is_another_reward_and_may_be_resumed_with(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, file = [f"the {word} was" for word in WORDS], tmp_path / "rewards.py"
    file.write_text("def score(prompt, response):\n    return len(response) / 10\n", encoding="utf-8")
    common = SMALL | {"policy": model, "prompts": prompts, "reward": f"{file}:score"}
    first, same, other = (str(tmp_path / name) for name in ("first", "same", "other"))
    plaudit.train(plaudit.REINFORCE(), out=first, **common)
    plaudit.train(plaudit.REINFORCE(), out=same, **common)
    file.write_text("def score(prompt, response):\n    return -len(response) / 10\n", encoding="utf-8")
    plaudit.train(plaudit.REINFORCE(), out=other, **common)
    trials = trials_of([Path(run) for run in (first, same, other)])
    judges = [trial.judge("reward") for trial in trials]
    assert judges[0] == judges[1] != judges[2] and '"score"' in judges[0]
    capsys.readouterr()
    plaudit.train(plaudit.REINFORCE(), out=first, **(common | {"iterations": 2, "resume": True}))
    assert "code of the reward 0" in capsys.readouterr().out
    [change] = read_json(Path(first) / "manifest.json")["changed"]
    assert any("code of the reward 0" in text for text in change["settings"])


def test_what_a_reward_computes_with_is_found_by_its_file_its_module_and_its_directory(tmp_path: Path) -> None:
    rewards = ("r.py:f", "plaudit.demo.reviews:true_score", "no.such.module:f", f"{tmp_path}#good", "rule:json")
    job = GRPOJob(policy="p", dataset="d", reward=rewards, gold=("g.py:f",), environment="e.py:Env")
    code = job.code
    assert code.pop("reward 1").endswith("reviews.py")
    assert code == {"reward 0": "r.py", "reward 3": str(tmp_path), "gold 0": "g.py", "environment": "e.py"}


def test_records_are_hashed_by_content_and_functions_by_code() -> None:
    rows = [Prompt("a", "one"), Prompt("b", "two")]
    assert hash_of_value(rows) == hash_of_value(list(rows)) != hash_of_value(rows[::-1])
    assert hash_of_value(liked) == hash_of_value(liked) != hash_of_value(disliked)
    halved, thirded = functools.partial(liked, scale=0.5), functools.partial(liked, scale=0.3)
    assert hash_of_value(halved) == hash_of_value(functools.partial(liked, scale=0.5)) != hash_of_value(thirded)
    assert hash_of_value(WORDS.count) and hash_of_value(eval("lambda p, r: 1.0")), "without a source as well"
    assert hash_of_value(eval("lambda p, r: len(r)")) != hash_of_value(eval("lambda p, r: max(r)"))


@pytest.mark.parametrize("source", ["", "no/such/place", "~nobody-of-this-name/x", "owner/name"])
def test_what_is_no_local_file_has_no_hash(crowded: Path, source: str) -> None:
    assert hash_of(source) == ""


def test_links_to_nowhere_pipes_and_directories_with_an_ending_are_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "model"
    (place / "odd.json").mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    before = hash_of(str(place))
    (place / "gone.json").symlink_to("nowhere.json")
    (place / "loop.json").symlink_to("loop.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe.jsonl")  # opening it would wait for a writer for ever
    assert hash_of(str(place)) == before != ""
    (place / "config.json").write_text(json.dumps({"a": 2}), encoding="utf-8")
    assert hash_of(str(place)) != before
