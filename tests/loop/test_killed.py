"""A loop that is killed with SIGKILL, between its steps and within them, ends as one that nobody disturbed."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLING = Path(__file__).parent / "killing.py"
TIMES = ("time", "throughput", "memory")


def carried_out(config, *moments):
    command = [sys.executable, str(KILLING), str(config), *moments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.endswith(" killed")]


def plain(row):
    return {key: value for key, value in row.items() if not key.startswith(TIMES)}


def contents(out):
    """What a loop has made: weights, rows, figures; without times, and without the place where it lies."""
    made = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".safetensors" and path.parent.name == "model":
            made[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.jsonl":
            made[name] = [plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".jsonl" and path.name != "events.jsonl":
            made[name] = path.read_text().replace(str(out), "OUT")
    state = json.loads((out / "loop.json").read_text().replace(str(out), "OUT"))
    return made | {"loop.json": [state["rounds"], state["finished"]]}


def same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert carried_out(config(out)) == []
    return contents(out)


def test_killed_at_many_moments_it_ends_as_if_undisturbed(config, undisturbed, tmp_path):
    moments = [
        "wrote:1", "write:3", "finish:1", "finished:1", "update:2", "updated:2", "export:1", "page:1",
        "generate:2", "checkpoint:1", "write:12", "finish:2", "generate:1", "update:4", "finished:3", "wrote:9",
    ]  # fmt: skip
    killed = carried_out(config(tmp_path / "out"), *moments)
    assert len(killed) >= 12, f"too few of the moments came: {killed}"
    same(contents(tmp_path / "out"), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finish", "finished", "update", "generate", "write", "export", "checkpoint"])
def test_killed_at_every_moment_of_a_kind(config, undisturbed, tmp_path, name):
    """One child after the other dies at its first, second ... such moment; where it has none left, the loop ends."""
    killed = carried_out(config(tmp_path / "out"), *(f"{name}:{1 + n % 3}" for n in range(40)))
    assert killed
    same(contents(tmp_path / "out"), undisturbed)


@pytest.mark.slow
def test_an_ensemble_and_active_choice_are_killed_too(config, tmp_path):
    changes = (
        ("rounds = 2", 'rounds = 2\nchoose = "disagreement"\ncandidates = 2\nstart = "sft"\nold_share = 0.5'),
        ("batch_size = 8", "batch_size = 8\nmembers = 2"),
        ('command = "grpo"', 'command = "ppo"'),
        ("group_size = 2\n", ""),
    )
    assert carried_out(config(tmp_path / "calm" / "out", *changes)) == []
    moments = ("update:5", "export:2", "wrote:3", "finish:1", "update:2", "generate:2", "checkpoint:1", "finished:1",
               "update:1", "wrote:5")  # fmt: skip
    killed = carried_out(config(tmp_path / "killed" / "out", *changes), *moments)
    assert len(killed) >= 8, killed
    same(contents(tmp_path / "killed" / "out"), contents(tmp_path / "calm" / "out"))
