"""The comparison of four models, one trunk and one backbone: its table and figure, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import one_backbone_report

    return one_backbone_report


def write_run(out, gold, cpu_s):
    """A finished run whose held-out responses were judged ``gold`` at iterations 0 and 4."""
    (out / "ppo").mkdir(parents=True)
    rows = [
        {"step": step, "gold": value + d, "kl": 1.5 * step} for step, value in gold.items() for d in (-1, 1)
    ]
    (out / "ppo" / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    laps = {"time/generate": 1.0, "time/reward": 0.25, "time/score": 0.25, "time/update": 2.0}
    (out / "ppo" / "metrics.jsonl").write_text(json.dumps({"step": 4} | laps) + "\n")
    sizes = {"policy": 0.4, "reference": 0.1, "critic": 0.004, "reward": 0.1}
    memory = {f"memory/{role}": size for role, size in sizes.items()}
    (out / "ppo" / "summary.json").write_text(json.dumps(memory))
    timing = {"ppo": {"cpu_s": cpu_s, "wall_s": 1.0, "peak_gb": 2.5, "libraries_gb": 0.5}}
    (out / "timing.json").write_text(json.dumps(timing))
    (out / "ppo.done").touch()


def test_the_table_says_what_was_found_and_unfinished_runs_are_left_out(report, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    write_run(tmp_path / "quickstart" / "trunk-0", {0: 0.5, 4: 1.5}, 10.0)
    write_run(tmp_path / "quickstart" / "trunk-1", {0: 1.0, 4: 1.5}, 20.0)
    write_run(tmp_path / "quickstart" / "trunk-2", {0: 0.0, 4: 9.0}, 99.0)
    (tmp_path / "quickstart" / "trunk-2" / "ppo.done").unlink()
    report.report(tmp_path, tmp_path / "images")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "one trunk" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:3] == ["+0.75 (+1.00, +0.50)", "6.0"]
    assert cells[3:8] == ["400.0", "100.0", "4.0", "100.0", "604.0"]
    assert cells[8:] == ["2.50", "15", "3.50"]
    assert (tmp_path / "images" / "one-backbone.png").stat().st_size > 1000
    found = json.loads((tmp_path / "figures.json").read_text())["quickstart"]["trunk"]
    assert found["seeds"] == 2 and found["gains"] == [1.0, 0.5]


@pytest.mark.slow
def test_every_side_runs_in_a_small_world_and_is_not_run_again(tmp_path):
    command = [
        sys.executable, str(BENCHMARKS / "one_backbone.py"), "--quick", "--seeds", "1", "--only", "quickstart",
        "--out", str(tmp_path), "--images", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=600)
    found = json.loads((tmp_path / "figures.json").read_text())["quickstart"]
    assert set(found) == {"four", "trunk", "one"}
    assert found["trunk"]["gb"]["critic"] < 0.01 * found["four"]["gb"]["critic"]
    assert found["one"]["gb"]["reference"] == 0 < found["trunk"]["gb"]["reference"]
    times = (tmp_path / "quickstart" / "four-0" / "timing.json").stat().st_mtime_ns
    subprocess.run(command, check=True, timeout=600)
    assert (tmp_path / "quickstart" / "four-0" / "timing.json").stat().st_mtime_ns == times
