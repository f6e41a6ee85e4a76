"""`plaudit doctor` with the settings of a run: what it prints, as text and as JSON, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.backends.local import precision
from plaudit.cli.main import main
from plaudit.data.write import write_records
from plaudit.machine import Limit
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration, Message, Preference, Prompt, Rating

WORDS = ("red", "blue", "green", "warm", "cold", "good", "\x1b", "\u202e")
"""A model that writes what a terminal would obey."""
QUICK = ["--threads", "1", "--precision", "fp32"]


def sentence(i: int, n: int) -> str:
    return "".join(f" {WORDS[(i * 5 + j * 3) % len(WORDS)]}" for j in range(n))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor")
    tokenizer = tiny_tokenizer([sentence(i, 8) for i in range(40)])
    tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.2).save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    chats = [(Message("user", sentence(i, 3)),) for i in range(16)]
    write_records([Demonstration(f"d{i}", c, sentence(i, 4)) for i, c in enumerate(chats)], root / "d.jsonl")
    pairs = [Preference(f"c{i}", c, " good good", " cold") for i, c in enumerate(chats)]
    write_records(pairs, root / "c.jsonl")
    write_records([Prompt(f"p{i}", c) for i, c in enumerate(chats)], root / "p.jsonl")
    return root


def words_of(place: Path, command: str) -> list[str]:
    lm, rewarded = str(place / "lm"), ["--reward", "rule:length:4", "--max-new-tokens", "6"]
    data = {"sft": "d.jsonl", "dpo": "c.jsonl", "reward": "c.jsonl", "grpo": "c.jsonl"}.get(command, "p.jsonl")
    model = ["--model", lm] if command in ("sft", "dpo", "reward") else ["--policy", lm, *rewarded]
    return ["doctor", command, *model, "--dataset", str(place / data), *QUICK]


PARTS = {
    "sft": ("memory", "template", "speed"),
    "reward": ("memory", "template", "speed"),
    "dpo": ("memory", "template", "speed"),
    "ppo": ("memory", "template", "reward", "speed"),
    "grpo": ("memory", "template", "reward", "speed"),
    "best-of-n": ("memory", "template", "reward", "speed"),
}


@pytest.mark.parametrize("command", PARTS)
def test_every_command_that_trains(command: str, place: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    assert main(words_of(place, command)) == 0
    out = capsys.readouterr().out
    headings = [line for line in out.splitlines() if line in PARTS["ppo"]]
    assert tuple(headings) == PARTS[command]
    assert all(c.isprintable() for line in out.splitlines() for c in line), "what models write is escaped"
    assert max(map(len, out.splitlines())) <= 100
    assert f"Ready: `plaudit {command}`" in out and "an estimate" in out
    assert not (place / "runs").exists(), "nothing is written"


def test_thumbs_are_examined_too(place: Path, tmp_path: Path, capsys: Any) -> None:
    """KTO measures a KL on batches that are known before the first step."""
    chats = [(Message("user", sentence(i, 3)),) for i in range(16)]
    file = tmp_path / "r.jsonl"
    write_records([Rating(f"r{i}", c, sentence(i, 2), float(i % 2)) for i, c in enumerate(chats)], file)
    words = ["doctor", "dpo", "--type", "kto", "--model", str(place / "lm"), "--dataset", str(file), *QUICK]
    assert main([*words, "--batch-size", "4"]) == 0
    assert "steps" in capsys.readouterr().out


def test_as_json(place: Path, capsys: Any) -> None:
    assert main([*words_of(place, "grpo"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "grpo" and found["ready"] is True
    assert found["memory"]["need"] > 0 and found["memory"]["held"]["policy"] > 0
    assert found["template"]["template_end_stops"] is True and found["template"]["responses"] > 0
    assert {c["worse"] for c in found["reward"]["contests"]} >= {"nothing", "rejected"}
    assert found["speed"]["seconds_in_all"] > 0 and found["speed"]["estimate"] is True


def test_from_a_config_file(place: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "run.toml"
    settings = f'policy = "{place / "lm"}"\ndataset = "{place / "p.jsonl"}"\nreward = "rule:length:4"\n'
    file.write_text(settings + '[algorithm]\ntype = "rloo"\n[sampling]\nmax_new_tokens = 6\n')
    assert main(["doctor", str(file), "--iterations", "7", *QUICK]) == 0
    assert "for 7 iterations" in capsys.readouterr().out


def no_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(precision, "memory_limit", lambda: Limit(size, size, "this machine"))


def test_what_cannot_fit_is_refused_before_it_is_loaded(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    no_memory(monkeypatch, 10_000)
    assert main([*words_of(place, "sft"), "--json"]) == 74
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["ready"] is False and found["error"]["code"] == "SYSTEM" and "template" not in found
    assert "are needed for weights, optimizer and gradients alone" in told.err and "--rank 8" in told.err
    out = tmp_path / "run"
    assert main([*words_of(place, "sft")[1:], "--out", str(out)]) == 74
    assert not out.exists()


def test_a_run_that_may_not_fit_is_warned_of_and_goes_on(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    no_memory(monkeypatch, 200_000)
    out = tmp_path / "run"
    assert main([*words_of(place, "sft")[1:], "--out", str(out)]) == 0
    assert "of this machine" in capsys.readouterr().out
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    [plan] = [event for event in events if event["event"] == "memory plan"]
    assert plan["need"] > plan["free"] - plan["process"] and plan["held"]["policy"] > 0 and not plan["at_most"]
    notes = [event["what"] for event in events if event["event"] == "note"]
    assert any("the run needs about" in note for note in notes)


def test_a_run_says_in_short_what_the_doctor_says(place: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = [*words_of(place, "grpo")[1:], "--out", str(out), "--iterations", "5", "--eval-prompts", "2"]
    assert main([*words, "--prompts-per-iteration", "4"]) == 0
    console = capsys.readouterr().out
    assert "  memory  needs at most" in console and "a response ends at </s> (token 3)" in console
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert {"memory plan", "template", "first rewards", "estimate"} <= set(kinds)
    [estimate] = [event for event in events if event["event"] == "estimate"]
    assert estimate["step"] == 4 and estimate["seconds_left"] == pytest.approx(estimate["seconds_per_step"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["doctor", "ppo"], 78, "policy is not set"),
        (["doctor", "no-such.toml"], 78, "no-such.toml"),
        (["doctor", "--json"], 78, "cannot tell which command"),
        (["doctor", "sft", "--model", "./nowhere", "--dataset", "d.jsonl"], 78, "no model at ./nowhere"),
        (["doctor", "sft", "--model", "lm", "--dataset", "nothing.jsonl"], 65, "nothing.jsonl"),
        (["doctor", "sft", "--model", "lm", "--dataset", "d.jsonl", "--device", "cuda:9"], 74, "cuda:9"),
        (["doctor", "sft", "--model", "lm", "--dataset", "d.jsonl", "--lrr", "1"], 78, "did you mean --lr"),
        (["doctor", "grpo", "--policy", "lm", "--dataset", "p.jsonl", "--reward", "./x"], 78, "no model at ./x"),
    ],
)
def test_errors_have_codes_and_cures(
    words: list[str], code: int, said: str, place: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(place)
    assert main(words) == code
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_help(capsys: Any) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "--json" in capsys.readouterr().out
