"""Checkpoints: what does not verify is never loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.runs import checkpoint
from plaudit.runs.best import BestWeights


def write(directory, step, keep=3, needed=()):
    def policy(place):
        save_file({"weight/a": torch.full((4,), float(step))}, place / "policy.safetensors")

    return checkpoint.save(directory, step, [policy], {"state": {"step": step}}, keep, needed)


def latest(directory):
    told = []
    return checkpoint.load_latest(directory, lambda path, reason: told.append((path.name, reason))), told


def test_round_trip_and_rotation(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    found, told = latest(tmp_path)
    assert found.step == 3 and found.trainer["state"] == {"step": 3} and not told
    assert torch.equal(load_file(found.path / "policy.safetensors")["weight/a"], torch.full((4,), 3.0))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped bit": lambda p: flip(p / "policy.safetensors"),
    "truncated": lambda p: (p / "policy.safetensors").write_bytes(b""),
    "deleted": lambda p: (p / "policy.safetensors").unlink(),
    "extra file": lambda p: (p / "other.json").write_text("{}"),
    "edited manifest": lambda p: (p / "MANIFEST.json").write_text(
        json.dumps(json.loads((p / "MANIFEST.json").read_text()) | {"step": 9})
    ),
    "no manifest": lambda p: (p / "MANIFEST.json").unlink(),
    "manifest is a list": lambda p: (p / "MANIFEST.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_the_one_before_is_used(tmp_path, damage):
    write(tmp_path, 1)
    DAMAGE[damage](write(tmp_path, 2))
    found, told = latest(tmp_path)
    assert found.step == 1
    assert [name for name, _ in told] == ["step-000002"]


def test_leftovers_of_a_crash_are_cleaned(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".tmp-000002").mkdir()
    (tmp_path / ".del-step-000000").mkdir()
    assert latest(tmp_path)[0].step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_nothing_there(tmp_path):
    assert latest(tmp_path / "none") == (None, [])


def weights(value):
    return {"a": torch.full((3,), float(value))}


@pytest.fixture
def run(tmp_path):
    """A run whose best weights were those of step 1, then 2, with a checkpoint after each."""
    best = BestWeights(tmp_path)
    for step in (1, 2):
        best.keep(step, weights(step))
        write(tmp_path / "checkpoints", step, needed=[best.file])
        best.prune(tmp_path / "checkpoints")
    return best


def files(best):
    return sorted(p.name for p in (best.run / "best").iterdir())


def test_the_best_weights_stay_as_long_as_a_checkpoint_names_them(run):
    assert files(run) == ["step-000001.safetensors", "step-000002.safetensors"]
    assert torch.equal(run.tensors()["a"], weights(2)["a"])
    write(run.run / "checkpoints", 3, keep=2, needed=[run.file])
    run.prune(run.run / "checkpoints")
    assert files(run) == ["step-000002.safetensors"], "no checkpoint names the first one any more"
    run.keep(4, weights(4))
    run.prune(run.run / "checkpoints")
    assert files(run) == ["step-000002.safetensors", "step-000004.safetensors"], "the old ones still do"


def test_a_run_without_checkpoints_keeps_one_file_of_best_weights(tmp_path):
    best = BestWeights(tmp_path)
    for step in (1, 2, 3):
        best.keep(step, weights(step))
    assert files(best) == ["step-000003.safetensors"]


@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink()])
def test_a_checkpoint_whose_best_weights_are_damaged_is_not_used(run, damage):
    damage(run.run / "best" / "step-000002.safetensors")
    found, told = latest(run.run / "checkpoints")
    assert found.step == 1 and found.needs[0].name == "best/step-000001.safetensors"
    assert "best/step-000002.safetensors" in told[0][1]


def test_without_any_best_weights_the_newest_checkpoint_is_used_and_says_so(run):
    """Each checkpoint has its own weights; only what could be put back at the end is lost."""
    for path in (run.run / "best").iterdir():
        path.unlink()
    told = []
    found = checkpoint.load_latest(run.run / "checkpoints", lambda path, reason: told.append(path.name))
    assert found.step == 2 and "best/step-000002.safetensors" in found.lost
    assert told == ["step-000001"]
    assert sorted(p.name for p in (run.run / "checkpoints").iterdir()) == [".bad-step-000001", "step-000002"]


def test_best_weights_are_resumed_from_what_a_checkpoint_names(run):
    found, _ = latest(run.run / "checkpoints")
    again = BestWeights(run.run)
    again.resume(found.path, 2, found.needs[0])
    assert again.step == 2 and torch.equal(again.tensors()["a"], weights(2)["a"])


def test_best_weights_inside_a_checkpoint_of_the_first_release_are_taken_out(tmp_path):
    save_file(weights(5), tmp_path / "best.safetensors")
    best = BestWeights(tmp_path / "run")
    best.resume(tmp_path, 5, None)
    assert best.step == 5 and files(best) == ["step-000005.safetensors"]
    assert torch.equal(best.tensors()["a"], weights(5)["a"])
