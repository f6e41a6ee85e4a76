"""int8 and int4 by torchao: written, computed by torchao, loaded again as plain tensors, and refused by name."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from plaudit.errors import ModelError
from plaudit.export import integers
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.stages.export import run_export

TEXTS = ["the film was good and bad and it's 1234 times better than others"] * 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integers")
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=64, scale=0.1), folder / "m", tokenizer)
    return run_export(str(folder / "m"), ["int8", "int4", "gguf:f16"], str(folder / "out"))


def test_int8_and_int4_are_near_and_of_their_bits(made):
    eight, four = made.figures["int8"], made.figures["int4"]
    assert eight["tokens_equal"].value == four["tokens_equal"].value == 1.0
    assert made.figures["gguf:f16"]["kl"].value < eight["kl"].value < four["kl"].value < 0.1
    with safe_open(made.folder / "int4" / "model.safetensors", "pt") as file:
        numbers = {name: file.get_tensor(name) for name in file.keys() if "qdata" in name}  # noqa: SIM118
    assert numbers and all(tensor.dtype is torch.int8 for tensor in numbers.values())
    assert all(int(tensor.min()) >= -8 and int(tensor.max()) <= 7 for tensor in numbers.values())
    # 170 = 8 * 64 // 3 is no multiple of 32, so rows of this width stay as they are, in int8 too, and it is said.
    assert not any("down_proj" in name for name in numbers)
    assert "int4: " in " ".join(made.notes) and "down_proj" in " ".join(made.notes)
    assert "torchao" in (made.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", integers.KINDS)
def test_what_is_loaded_again_is_plain_and_the_same_function(kind, made, tmp_path):
    path = made.folder / kind
    model, tokenizer = load_causal_lm(path), load_tokenizer(path)
    assert {type(p) for p in model.parameters()} == {torch.nn.Parameter}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.tensor([tokenizer("the film was good")["input_ids"]])
    with torch.no_grad():
        own = integers.read_integers(AutoModelForCausalLM, path)(input_ids=ids).logits.float()
        plain = model(input_ids=ids).logits
    # torchao computes in bf16, whose rounding is 2^-9 of a number.
    assert torch.allclose(own, plain, atol=0.03 * float(plain.abs().max()))
    save_causal_lm(model, tmp_path / "again", tokenizer)
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    with torch.no_grad():
        assert torch.equal(load_causal_lm(tmp_path / "again")(input_ids=ids).logits, plain)


def test_what_torchao_cannot_quantise_is_refused_before_the_weights_are_read(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    save_causal_lm(tiny_lm("gpt2", tokenizer, hidden=64), tmp_path / "g", tokenizer)
    (tmp_path / "g" / "SHA256SUMS").unlink()
    (tmp_path / "g" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="nothing of a gpt2"):
        run_export(str(tmp_path / "g"), ["int8"])
    monkeypatch.setattr(integers, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="torchao") as refused:
        run_export(str(tmp_path / "g"), ["int8"])
    assert "plaudit[torchao]" in refused.value.cure


def test_a_command_says_nothing_of_torchaos_kernels():
    code = "import plaudit.models.files.load, torchao"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["export.card", "export.write", "generation.native", "models.policy"])
def test_with_torchao_installed_nothing_is_logged_that_a_user_cannot_mend(module):
    pytest.importorskip("torchao")
    done = subprocess.run(
        [sys.executable, "-c", f"import plaudit.{module}"], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stderr == ""
