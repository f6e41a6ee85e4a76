"""A short form of scripts/io_points.py: a run is killed, or the disk refuses, at some of the points where it writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_is_killed_or_refused_at_points_spread_over_it_and_resumed():
    words = [sys.executable, str(ROOT / "scripts" / "io_points.py"), "--trainers", "sft", "--every", "43"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=1800)
    lines = [line for line in done.stdout.splitlines() if " points (" in line]
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [line.split()[1] for line in lines] == ["kill:", "full:", "error:"]
    assert all(int(line.split()[2]) == int(line.split()[4]) >= 3 for line in lines), lines
