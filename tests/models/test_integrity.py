"""A saved model is loaded as it was saved, or not at all: bits, missing files, wrong sums, weights that are NaN."""

import hashlib
import json
import os
import random
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.cli.main import main
from plaudit.config.sections import LoraSection
from plaudit.errors import ModelError
from plaudit.models.files.integrity import SUMS, refuse_non_finite, seal
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.lora import add_lora
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm, tiny_tokenizer

FLIPS = 8
"""Bits that are flipped in each file, spread over it."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A policy, and a reward model with an adapter beside it, each in its directory."""
    root = tmp_path_factory.mktemp("saved")
    tokenizer = tiny_tokenizer(["one two three four"], 64)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), root / "policy", tokenizer)
    model = add_lora(tiny_classifier("llama", tokenizer, hidden=16, layers=1), LoraSection(rank=2), task="scalar")
    RewardModel(model).save(root / "reward", tokenizer, probe=[[2, 5, 6]])
    return root


def load(path):
    """What every command that reads a model does first."""
    return RewardModel.load(path, load_tokenizer(path)) if path.name == "reward" else load_causal_lm(path)


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_every_file_is_in_the_sums_which_other_tools_can_check(saved, kind):
    path = saved / kind
    listed = dict(reversed(line.split("  ")) for line in (path / SUMS).read_text().splitlines())
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {SUMS}
    assert set(listed) == files and {"model.safetensors", "config.json", "tokenizer.json"} <= files
    assert ("adapter/adapter_model.safetensors" in files) == (kind == "reward")
    assert listed["config.json"] == hashlib.sha256((path / "config.json").read_bytes()).hexdigest()
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=path, check=False).returncode == 0
    load(path)


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_a_flipped_bit_in_any_file_is_found_and_named(saved, tmp_path, kind):
    path = tmp_path / kind
    shutil.copytree(saved / kind, path)
    drawn, tried = random.Random(0), 0
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != SUMS):
        whole = file.read_bytes()
        for place in range(FLIPS):
            broken = bytearray(whole)
            at = min(len(whole) - 1, place * len(whole) // FLIPS)
            broken[at] ^= 1 << drawn.randrange(8)
            file.write_bytes(broken)
            with pytest.raises(ModelError, match=r"is damaged: its file .* is not the one") as caught:
                load(path)
            assert file.relative_to(path).as_posix() in caught.value.what and caught.value.cure
            tried += 1
        file.write_bytes(whole[:-1])
        with pytest.raises(ModelError, match="is damaged"):
            load(path)
        file.unlink()
        with pytest.raises(ModelError, match=r"is missing"):
            load(path)
        file.write_bytes(whole)
    assert tried >= FLIPS * 6
    load(path)


ZEROS = "0" * 64


@pytest.mark.parametrize(
    "text", ["", "no sums", f"{ZEROS}  ../config.json", f"{ZEROS}  /etc/passwd", b"\xff\xfe", f"{ZEROS}0  config.json"]
)
def test_sums_that_are_damaged_themselves_are_said(saved, tmp_path, text):
    path = tmp_path / "policy"
    shutil.copytree(saved / "policy", path)
    (path / SUMS).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=f"{SUMS} cannot be read"):
        load(path)


def test_a_model_without_sums_and_further_files_beside_one_are_loaded(saved, tmp_path):
    path = tmp_path / "policy"
    shutil.copytree(saved / "policy", path)
    (path / "README.md").write_text("mine")
    load(path)
    (path / SUMS).unlink()
    (path / "generation_config.json").unlink()
    load(path)


def test_a_run_directory_is_checked_through_its_model(saved, tmp_path):
    shutil.copytree(saved / "policy", tmp_path / "run" / "model")
    (tmp_path / "run" / "model" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json is missing"):
        load_causal_lm(tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_with_their_tensor(saved, tmp_path, value, capsys):
    """A sealed model too: it may have been saved like that."""
    path = tmp_path / "policy"
    shutil.copytree(saved / "policy", path)
    weights = load_file(path / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 1] = value
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    seal(path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": "one " * n + "two"}) + "\n" for n in range(1, 21)))
    command = ["ppo", "--policy", str(path), "--dataset", str(prompts), "--reward", "rule:length:4"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 78
    said = capsys.readouterr().err
    assert "1 of" in said and "model.layers.0.mlp.up_proj.weight" in said and "BUG" not in said
    assert not (tmp_path / "run").exists()


def test_the_adapter_of_a_reward_model_is_looked_at_as_well():
    with pytest.raises(ModelError, match="2 of 4 numbers of the tensor b"):
        refuse_non_finite([("a", torch.ones(3)), ("b", torch.tensor([1.0, float("nan"), 2.0, float("-inf")]))], "here")
    refuse_non_finite([("whole", torch.tensor([1, 2])), ("empty", torch.zeros(0))], "here")


def test_a_command_that_reads_a_damaged_model_says_so(saved, tmp_path, capsys):
    path = tmp_path / "policy"
    shutil.copytree(saved / "policy", path)
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte[0] ^ 4]))
    assert main(["chat", str(path)]) == 78
    assert "model.safetensors is not the one that was saved" in capsys.readouterr().err


def test_a_save_that_is_interrupted_is_found_out(saved, tmp_path):
    """The second save of a directory has written its weights and no sums."""
    path = tmp_path / "policy"
    shutil.copytree(saved / "policy", path)
    weights = load_file(path / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not the one that was saved"):
        load(path)
