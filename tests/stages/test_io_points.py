"""A short form of scripts/io_points.py: a run is killed, or the disk refuses, at some of the points where it writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_runs_are_killed_or_refused_at_points_spread_over_them_and_go_on():
    chosen = ["SFT", "reward model", "PPO"]
    words = [sys.executable, str(ROOT / "scripts" / "io_points.py"), "--trainers", ";".join(chosen), "--every", "150"]
    source = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env=os.environ | source, check=False, timeout=1800
    )
    found = re.findall(r"^(.+), (\w+): (\d+) of (\d+) \(\d+ points\)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [row[:2] for row in found] == [(name, fault) for name in chosen for fault in ("kill", "full", "error")]
    assert all(int(good) == int(tried) >= 1 for _, _, good, tried in found), found
