"""A short form of scripts/corruption.py: some files of a run are damaged in some ways, and read by some commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_damaged_files_of_a_run_are_named_or_do_no_harm():
    words = [sys.executable, str(ROOT / "scripts" / "corruption.py"), "--trainers", "SFT", "--every", "19"]
    words += ["--readers", "report,chat,evaluate,resume"]
    source = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env=os.environ | source, check=False, timeout=1800
    )
    found = re.findall(r"^SFT, ([a-z ]+): (\d+) of (\d+) \(\d+ points\)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [row[0] for row in found] == ["report", "chat", "evaluate", "resume"]
    assert all(int(good) == int(tried) >= 4 for _, good, tried in found), found
