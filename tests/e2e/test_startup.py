"""How long until something happens: `plaudit --help`, and the first step of a tiny model."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plaudit.data.write import write_records
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration

SOURCE = Path(__file__).parents[2] / "src"
MOST_HELP = 0.3
MOST_FIRST_STEP = 10.0


def plaudit(*words):
    """The command in a fresh interpreter; seconds it took."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from plaudit.cli.main import main; sys.exit(main())"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


def best(times, limit, attempts):
    """The smallest of several, taken until one is within the limit: others may use the machine."""
    found = []
    for _ in range(attempts):
        found.append(times())
        if found[-1] < limit:
            break
    return min(found)


def test_help_within_a_blink():
    plaudit("--help")  # writes the bytecode
    assert best(lambda: plaudit("--help"), MOST_HELP, 20) < MOST_HELP


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    root = tmp_path_factory.mktemp("startup")
    words = ["red", "blue", "green", "warm", "cold", "good", "bad", "big"]
    tokenizer = tiny_tokenizer([" ".join(words)] * 2, chat=False)
    tiny_lm("llama", tokenizer).save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    rows = [
        Demonstration(f"d{i}", f"say {words[i % 8]}", f" {words[i % 5]} {words[i % 3]}") for i in range(8)
    ]
    write_records(rows, root / "rows.jsonl")
    return root


def test_first_step_soon(material):
    def first_step():
        out = material / f"run{time.time_ns()}"
        began = time.time()
        plaudit(
            "sft", "--model", str(material / "lm"), "--dataset", str(material / "rows.jsonl"), "--out", str(out),
            "--batch-size", "4", "--no-progress",
        )  # fmt: skip
        return json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["time"] - began

    assert best(first_step, MOST_FIRST_STEP, 4) < MOST_FIRST_STEP
