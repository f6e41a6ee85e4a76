"""`plaudit dpo`, `online-dpo` and `best-of-n`, typed as a user would, on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from plaudit.cli.main import main

SMALL = ["--max-length", "32", "--precision", "fp32", "--no-progress", "--no-tensorboard", "--seed", "3"]
REWARD = "def goods(prompt, response):\n    return float(response.count('good') - response.count('bad'))\n"


@pytest.fixture
def reward(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(REWARD, encoding="utf-8")
    return f"{path}:goods"


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", ["dpo", "ipo", "hinge", "kto", "orpo", "simpo"])
def test_dpo(world: Any, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["dpo", "--type", kind, "--model", str(world.model), "--dataset", str(world.preferences)]
    assert main([*words, "--batch-size", "8", "--lr", "1e-3", "--out", str(run), *SMALL, "--debug"]) == 0
    assert {"accuracy", "accuracy_ci", "heldout_loss", "margin_mean"} <= set(summary(run))
    for name in ("config.toml", "manifest.json", "metrics.jsonl", "samples.jsonl", "report.html", "model"):
        assert (run / name).exists()
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config["algorithm"]["type"] == kind
    assert ("good_above" in config["algorithm"]) == (kind == "kto"), "a method's own keys and no others"
    out = capsys.readouterr().out
    assert "accuracy_ci" in out and str(run / "model") in out


def test_a_key_of_another_method_is_refused(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dpo", "--type", "simpo", "--model", str(world.model), "--dataset", str(world.preferences)]
    assert main([*words, "--label-smoothing", "0.1"]) == 78
    assert main(["dpo", "--model", str(world.model)]) == 78
    assert main(["dpo", "--model", str(world.model), "--dataset", "nowhere.jsonl"]) == 65
    assert main(["dpo", "--type", "dpoo", "--model", str(world.model), "--dataset", "x"]) == 78
    assert "ipo" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["dpo", "online-dpo", "best-of-n"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"plaudit {command}" in capsys.readouterr().out


@pytest.mark.parametrize("labels", ["0.1", "score_gap"])
def test_online_dpo(world: Any, tmp_path: Path, reward: str, labels: str) -> None:
    run = tmp_path / "run"
    words = [
        "online-dpo",
        "--policy",
        str(world.model),
        "--reward",
        reward,
        "--dataset",
        str(world.preferences),
    ]
    sizes = [
        "--iterations",
        "3",
        "--prompts-per-iteration",
        "6",
        "--group-size",
        "4",
        "--max-new-tokens",
        "6",
    ]
    sizes += ["--label-smoothing", labels, "--beta", "0.2"]
    assert main([*words, *sizes, "--lr", "1e-2", "--out", str(run), *SMALL, "--debug"]) == 0
    assert {"reward_mean", "kl", "win_rate", "win_rate_ci"} <= set(summary(run))
    assert summary(run).get("kl_coef_in_force") == (0.2 if labels == "score_gap" else None)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(row.get("rewards/margins") is not None and row["loss"] > 0 for row in rows)
    assert all(0 <= row["pairs/kept_share"] <= 1 for row in rows)


def test_online_dpo_with_nothing_to_prefer(world: Any, tmp_path: Path) -> None:
    flat, run = tmp_path / "flat.py", tmp_path / "run"
    flat.write_text("def same(prompt, response):\n    return 1.0\n", encoding="utf-8")
    words = [
        "online-dpo",
        "--policy",
        str(world.model),
        "--reward",
        f"{flat}:same",
        "--missing-eos-penalty",
        "0",
    ]
    sizes = ["--dataset", str(world.preferences), "--iterations", "2", "--prompts-per-iteration", "4"]
    assert main([*words, *sizes, "--max-new-tokens", "4", "--out", str(run), *SMALL, "--debug"]) == 0


def test_best_of_n(world: Any, tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = [
        "best-of-n",
        "--policy",
        str(world.model),
        "--reward",
        reward,
        "--dataset",
        str(world.preferences),
    ]
    sizes = ["--group-size", "3", "--max-new-tokens", "6", "--out", str(run)]
    assert main([*words, *sizes, *SMALL, "--debug"]) == 0
    assert [point["n"] for point in summary(run)["curve"]] == [1, 2, 3]
    out = capsys.readouterr().out
    assert str(run / "best.jsonl") in out and str(run / "model") not in out
    assert (
        main([*words, "--max-new-tokens", "6", "--rounds", "1", "--out", str(tmp_path / "rft"), *SMALL]) == 0
    )
    assert (tmp_path / "rft" / "model" / "config.json").is_file()
    assert "reward_difference" in summary(tmp_path / "rft")


def test_a_stopped_run_exits_with_75_and_resumes(world: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["dpo", "--model", str(world.model), "--dataset", str(world.preferences), "--batch-size", "2",
             "--epochs", "2000", "--eval-every", "0", "--out", str(run), *SMALL]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "plaudit.cli.main", *words], stderr=subprocess.PIPE, env=os.environ | PATHS
    )
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 75, error
    assert "--resume" in error
    events = map(json.loads, (run / "events.jsonl").read_text(encoding="utf-8").splitlines())
    done = [row["step"] for row in events if row["event"] == "saved" and "step" in row][-1]
    assert (run / "model" / "model.safetensors").is_file() and (run / "report.html").is_file()
    assert main([*words, "--epochs", str(1 + done // 10), "--resume", "--debug"]) == 0


PATHS = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
