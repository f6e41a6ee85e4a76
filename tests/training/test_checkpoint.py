"""Checkpoints: what does not verify is never loaded."""

import json

import pytest
import torch

from plaudit.runs import checkpoint


def write(directory, step, keep=3):
    tensors = {"policy": {"weight/a": torch.full((4,), float(step))}}
    return checkpoint.save(directory, step, tensors, {"state": {"step": step}}, keep)


def latest(directory):
    told = []
    return checkpoint.load_latest(directory, lambda path, reason: told.append((path.name, reason))), told


def test_round_trip_and_rotation(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    found, told = latest(tmp_path)
    assert found.step == 3 and found.trainer["state"] == {"step": 3} and not told
    assert torch.equal(found.tensors["policy"]["weight/a"], torch.full((4,), 3.0))


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
