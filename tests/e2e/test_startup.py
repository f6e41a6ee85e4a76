"""How long until something happens: `plaudit --help`, and the first step of a tiny model.

Seconds are those of the processor, because others may use the machine: both are single-threaded and wait for nothing,
so alone on a machine that is how long they take. What they are compared with is what loading torch takes on the same
machine, which was 1.5 s where --help took 0.1 s and the first step 5 s.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.data.write import write_records
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration

SOURCE = Path(__file__).parents[2] / "src"
MOST_HELP = 0.3
MOST_FIRST_STEP = 10.0
"""In units of loading torch."""


def plaudit(*words):
    """The command in a fresh interpreter; processor seconds it took."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from plaudit.cli.main import main; sys.exit(main())"
    return seconds(code, *words)


def seconds(code, *words):
    """Processor seconds of some code in a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, *words], check=True, capture_output=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.fixture(scope="module")
def torch_seconds():
    """What loading torch takes here."""
    seconds("import torch")  # writes the bytecode, and reads the files into memory
    return seconds("import torch")


def test_help_within_a_blink(torch_seconds):
    plaudit("--help")  # writes the bytecode
    assert min(plaudit("--help") for _ in range(3)) < MOST_HELP * torch_seconds


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


def test_first_step_soon(material, torch_seconds):
    words = [
        "sft", "--model", str(material / "lm"), "--dataset", str(material / "rows.jsonl"), "--out",
        str(material / "run"), "--batch-size", "4", "--no-progress", "--no-tensorboard",
    ]  # fmt: skip
    code = (
        f"import os, sys, time\nsys.path.insert(0, {str(SOURCE)!r})\n"
        "from plaudit.cli.main import main\nfrom plaudit.runs.recorder import Recorder\n"
        "def first(recorder, step, values):\n    print('first', time.process_time(), flush=True)\n    os._exit(0)\n"
        f"Recorder.metrics = first\nmain({words!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last = done.stdout.split()
    assert last[-2:-1] == ["first"], done.stderr
    assert float(last[-1]) < MOST_FIRST_STEP * torch_seconds, done.stdout
