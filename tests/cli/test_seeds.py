"""`--seeds N`: one job, several seeds, one page, and what all of them say together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_preference_commands import SMALL, reward, summary  # noqa: F401

from plaudit.cli.main import main
from plaudit.evaluation.comparing.seeds import in_words, over_seeds
from plaudit.evaluation.comparing.trials import trials_of


def policy(world: Any, reward: str, out: Path) -> list[str]:  # noqa: F811
    words = ["grpo", "--policy", str(world.model), "--reward", reward, "--dataset", str(world.preferences)]
    sizes = ["--iterations", "2", "--prompts-per-iteration", "4", "--group-size", "2", "--max-new-tokens", "4"]
    return [*words, *sizes, "--lr", "1e-3", "--out", str(out), *SMALL]


def test_each_seed_is_a_run_and_all_of_them_have_one_page(
    world: Any, tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    out = tmp_path / "runs"
    assert main([*policy(world, reward, out), "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert "seed 3, 1 of 2" in said and "seed 4, 2 of 2" in said and "over 2 seeds" in said
    found = json.loads((out / "seeds.json").read_text(encoding="utf-8"))
    figure = found["figures"]["reward_difference"]
    ends = [summary(out / f"seed-{seed}")["reward_difference"] for seed in (3, 4)]
    assert figure["values"] == {"3": ends[0], "4": ends[1]} and figure["mean"] == pytest.approx(sum(ends) / 2)
    assert ends[0] != ends[1], "they are other runs"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 runs side by side" in page and "Repeated with other seeds" in page
    alone = tmp_path / "alone"
    assert main([*policy(world, reward, alone), "--seed", "4"]) == 0
    assert summary(alone)["reward_difference"] == ends[1], "a seed does not know of the others"


def test_it_goes_on_where_it_was_stopped(world: Any, tmp_path: Path, reward: str) -> None:  # noqa: F811
    out = tmp_path / "runs"
    words = policy(world, reward, out)
    assert main([*words, "--seeds", "1"]) == 0
    before = (out / "seed-3" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main([*words, "--seeds", "2"]) == 78, "a run is never written over"
    assert main([*words, "--seeds", "2", "--resume"]) == 0
    assert (out / "seed-3" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert (out / "seed-4" / "model").is_dir()
    assert main([*words, "--seeds", "0"]) == 78


def test_one_that_a_limit_ends_is_counted_and_named_and_the_others_go_on(
    world: Any, tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    words = policy(world, reward, tmp_path / "runs")
    assert main([*words, "--seeds", "2", "--kl-limit", "1e-9", "--lr", "0.1"]) == 3
    found = json.loads((tmp_path / "runs" / "seeds.json").read_text(encoding="utf-8"))
    assert set(found["failed"]) == {"3", "4"} and not found["figures"]
    assert "! Seed 3 did not end as told" in capsys.readouterr().out


def written(folder: Path, seed: int, gain: float) -> Path:
    run = folder / f"seed-{seed}"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(f"seed = {seed}\n", encoding="utf-8")
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    (run / "events.jsonl").write_text('{"event": "stopped", "reason": "finished"}\n', encoding="utf-8")
    figures = {"command": "ppo", "gold_difference": gain, "gold_difference_ci": [gain - 0.2, gain + 0.2]}
    (run / "summary.json").write_text(json.dumps(figures), encoding="utf-8")
    return run


def test_two_groups_are_said(tmp_path: Path) -> None:
    gains = [1.2, 1.22, 0.05, 1.18, 1.25, 1.21, 1.19, 0.02]
    found = over_seeds(trials_of([written(tmp_path, seed, gain) for seed, gain in enumerate(gains)]))
    words = in_words(found)
    assert "over 8 seeds: +0.91" in words[0] and "clearly above 0 in 6, clearly below in 0" in words[0]
    assert words[1].startswith("! The seeds fall into two groups: 2 near 0.04, 6 near 1.21")
