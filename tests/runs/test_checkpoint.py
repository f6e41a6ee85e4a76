"""Checkpoints: what does not verify is never loaded."""

import dataclasses
import itertools
import json
import os
import random
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from plaudit import machine
from plaudit.errors import MachineError, TrainingError
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


def damages(directory, rng):
    """Damage of every kind at every file, as what it is and what does it."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    for _ in range(200):
        path = rng.choice(files)
        at, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)
        yield f"bit {bit} of byte {at} of {path.name}", lambda c=path, a=at, b=bit: c.write_bytes(
            bytes(byte ^ (b if i == a else 0) for i, byte in enumerate(c.read_bytes()))
        )
    for path in files:
        for _ in range(20):
            size = rng.randrange(path.stat().st_size)
            yield f"{path.name} cut to {size}", lambda c=path, s=size: os.truncate(c, s)
        yield f"{path.name} deleted", path.unlink
        yield f"{path.name} twice as long", lambda c=path: c.write_bytes(2 * c.read_bytes())
    for one, other in itertools.combinations(files, 2):
        yield f"{one.name} and {other.name} swapped", lambda a=one, b=other: swap(a, b)


def swap(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_no_damage_anywhere_in_a_checkpoint_is_loaded(tmp_path):
    write(tmp_path / "whole", 1)
    write(tmp_path / "whole", 2)
    newest = tmp_path / "now" / "step-000002"
    shutil.copytree(tmp_path / "whole", tmp_path / "now")
    tried = 0
    for what, damage in list(damages(newest, random.Random(0))):
        shutil.rmtree(tmp_path / "now")
        shutil.copytree(tmp_path / "whole", tmp_path / "now")
        damage()
        found, told = latest(tmp_path / "now")
        assert found.step == 1 and [name for name, _ in told] == ["step-000002"], what
        tried += 1
    assert tried == 200 + 3 * 22 + 3


def test_leftovers_of_a_crash_are_cleaned(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".tmp-000002").mkdir()
    (tmp_path / ".del-step-000000").mkdir()
    assert latest(tmp_path)[0].step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_a_step_may_be_damaged_twice(tmp_path):
    write(tmp_path, 1)
    for _ in range(3):
        DAMAGE["flipped bit"](write(tmp_path, 2))
        assert latest(tmp_path)[0].step == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".bad-step-000002", ".bad-step-000002-2", ".bad-step-000002-3", "step-000001",
    ]  # fmt: skip


def test_leftovers_may_be_files_and_links(tmp_path):
    write(tmp_path / "checkpoints", 1)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("kept")
    (tmp_path / "checkpoints" / ".tmp-000002").write_text("")
    (tmp_path / "checkpoints" / ".del-step-000000").symlink_to(tmp_path / "theirs")
    (tmp_path / "checkpoints" / ".tmp-000003").symlink_to(tmp_path / "nowhere")
    assert latest(tmp_path / "checkpoints")[0].step == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    assert (tmp_path / "theirs" / "file").read_text() == "kept"


def test_a_million_steps_are_more_than_999_999(tmp_path):
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        write(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000", "step-1000001"]
    assert latest(tmp_path)[0].step == 1_000_001


def test_a_rotation_that_was_killed_is_made_up_for(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=9)
    found = checkpoint.load_latest(tmp_path, lambda path, reason: None, 2)
    assert found.step == 4 and [p.name for p in checkpoint.steps(tmp_path)] == ["step-000003", "step-000004"]


def test_other_names_in_the_folder_are_left_alone(tmp_path):
    write(tmp_path, 1)
    for name in ("step-12", "step-000002.old", "step-00000x", "notes.txt"):
        (tmp_path / name).write_text("mine")
    found, told = latest(tmp_path)
    assert found.step == 1 and not told and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_checkpoint_under_the_name_of_another_step_is_not_used(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2).rename(tmp_path / "step-000007")
    found, [(name, reason)] = latest(tmp_path)
    assert found.step == 1 and name == "step-000007" and "of step 2" in reason


def rewritten(path, change):
    """A manifest with another content and its right hash."""
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest.pop("self_sha256")
    change(manifest)
    manifest["self_sha256"] = checkpoint._self_hash(manifest)
    (path / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_a_newer_version_ends_the_resume_and_stays(tmp_path):
    write(tmp_path, 1)
    rewritten(write(tmp_path, 2), lambda manifest: manifest.update(format=2, more=[]))
    with pytest.raises(TrainingError, match="format 2, and this version of Plaudit reads format 1") as caught:
        latest(tmp_path)
    assert "newer" in caught.value.cure and (tmp_path / "step-000002").is_dir()


@pytest.mark.parametrize("what", ["file", "whole", "up", "elsewhere"])
def test_what_lies_outside_of_the_run_is_not_loaded(tmp_path, what):
    place = tmp_path / "run" / "checkpoints"
    write(place, 1)
    path = write(place, 2)
    inside = path / "policy.safetensors"
    if what == "file":
        inside.rename(tmp_path / "other.safetensors")
        inside.symlink_to(tmp_path / "other.safetensors")
    elif what == "whole":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    else:
        (tmp_path / "secret").write_text("x")
        named = checkpoint.NamedFile("../secret" if what == "up" else str(tmp_path / "secret"), 1,
                                     checkpoint.sha256(tmp_path / "secret"))  # fmt: skip
        rewritten(path, lambda manifest: manifest.update(needs=[dataclasses.asdict(named)]))
    found, [(_, reason)] = latest(place)
    assert found.step == 1
    assert {"file": "no file of its own", "whole": "a link"}.get(what, "outside of the run") in reason


ODD = [None, True, -1, 0, 10**30, 1.5, "", "step-000002", [], {}, [[]], [{}], [None], {"name": 1}, "\udc80", [1, "a"]]


def test_manifests_of_any_shape_are_read_or_set_aside(tmp_path):
    """Every value of a manifest, at every depth, is replaced by odd ones, its hash being right."""
    write(tmp_path, 1)
    path = write(tmp_path, 2, needed=[])
    text = (path / "MANIFEST.json").read_text()
    tried = 0
    for keys in ([], ["format"], ["step"], ["files"], ["needs"], ["files", 0], ["files", 0, "name"],
                 ["files", 0, "bytes"], ["files", 0, "sha256"], ["files", 1, "name"], ["more"],
                 ["self_sha256"]):  # fmt: skip
        for odd in ODD:
            (path / "MANIFEST.json").write_text(text)

            def change(manifest, keys=keys, odd=odd):
                for key in keys[:-1]:
                    manifest = manifest[key]
                if keys:
                    manifest[keys[-1]] = odd

            if not keys or keys == ["self_sha256"]:
                (path / "MANIFEST.json").write_text(json.dumps(odd if not keys else json.loads(text) | {keys[0]: odd}))
            else:
                rewritten(path, change)
            try:
                found = checkpoint.verify(path)
            except TrainingError:
                assert keys == ["format"] and odd == 10**30
                continue
            assert isinstance(found, str) or (found.step == 2 and found.trainer["state"] == {"step": 2})
            tried += 1
    assert tried == 12 * len(ODD) - 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": ' + "9" * 5000 + "}", "\x00", "NaN", '{"a": 1', "\ufeff{}"])
def test_manifests_that_are_hardly_json_are_set_aside(tmp_path, text):
    write(tmp_path, 1)
    (write(tmp_path, 2) / "MANIFEST.json").write_text(text)
    assert latest(tmp_path)[0].step == 1


def test_a_full_disk_is_told_before_and_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def refuse(*args, **more):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(MachineError, match=r"the checkpoint of step 2: .*os error 28.*needed, .* free") as caught:
        checkpoint.save(tmp_path, 2, [refuse], {}, 3)
    assert caught.value.exit_code == 74 and "--resume" in caught.value.cure
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000001"], "what was saved is as it was"
    monkeypatch.setattr(machine, "free_bytes", lambda path: 10)
    with pytest.raises(MachineError, match=r"step 2: not enough space \(.* needed, 10 bytes free\)"):
        write(tmp_path, 2)
    assert latest(tmp_path)[0].step == 1


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
