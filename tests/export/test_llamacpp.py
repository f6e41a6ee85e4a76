"""GGUF files in llama.cpp itself: `make test-export`, in an environment of its own where llama.cpp is compiled."""

import math

import pytest
import torch
from gguf import GGUFReader

from plaudit.errors import ModelError
from plaudit.export import llamacpp
from plaudit.export.llamacpp import side_of
from plaudit.export.nearness import Side, nearness, probes
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.stages.export import run_export

TEXTS = ["the film was good and bad and it's 1234 times better than others"] * 3
compiled = pytest.mark.skipif(not llamacpp.is_here(), reason="llama-cpp-python is not installed: make test-export")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llamacpp")
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=256, layers=2, scale=0.1), folder / "m", tokenizer)
    return folder / "m"


def test_k_types_without_the_quantiser_are_refused_before_work(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(llamacpp, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="llama-cpp-python is not installed") as refused:
        run_export(str(saved), ["gguf:q4_k_m"], str(tmp_path / "out"))
    assert "plaudit[llamacpp]" in refused.value.cure and not any((tmp_path / "out").glob("*"))


@compiled
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_llama_cpp_cuts_a_hundred_texts_alike_and_gives_the_same_logits(family, tmp_path):
    tokenizer = tiny_tokenizer(TEXTS, 400, kind="bpe")
    save_causal_lm(tiny_lm(family, tokenizer, hidden=64, layers=2, scale=0.2), tmp_path / "m", tokenizer)
    made = run_export(str(tmp_path / "m"), ["gguf:f16"], str(tmp_path / "out"))
    figures = made.figures["gguf:f16"]
    assert "measured in llama.cpp" in " ".join(made.notes)
    assert figures["tokens_equal"].value == 1.0 and figures["tokens_equal"].n == 100
    assert figures["kl"].value < 1e-4 and figures["logprob_difference"].value < 0.05
    assert not math.isnan(figures["kl"].low)


@compiled
def test_logits_are_llama_cpps_own(saved, tmp_path):
    made = run_export(str(saved), ["gguf:q8_0"], str(tmp_path / "out"))
    path = next(made.folder.glob("*.gguf"))
    tokenizer = load_tokenizer(saved)
    read = load_causal_lm(path, tokenizer=tokenizer)
    own, other = side_of(path), Side.of(read, tokenizer)
    ids = own.cut(probes(1)[0])
    with torch.no_grad():
        difference = (own.logits(ids) - other.logits(ids)).abs().max()
    # llama.cpp rounds activations to 8 bit as well, and transformers does not: near, and not the same.
    assert 0 < float(difference) < 0.5
    assert nearness(own, own, probes(3))["kl"].value == pytest.approx(0.0, abs=1e-9)


@compiled
def test_k_types_say_which_matrices_fell_back(saved, tmp_path):
    made = run_export(str(saved), ["gguf:q4_k_m", "gguf:q5_k_m", "gguf:q6_k"], str(tmp_path / "out"))
    types = {t.name: t.tensor_type.name for t in GGUFReader(str(made.folder / "m-q4_k_m.gguf")).tensors}
    assert types["blk.0.attn_q.weight"] == "Q4_K"
    # 682 = 8 * 256 // 3 is no multiple of 256 nor of 32: llama.cpp keeps these rows in 16 bit.
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert "gguf:q4_k_m: 2 matrices are F16: rows are no multiple of 256: blk.0.ffn_down.weight" in " ".join(made.notes)
    kl = [made.figures[f"gguf:{kind}"]["kl"].value for kind in ("q4_k_m", "q5_k_m", "q6_k")]
    assert kl[0] > kl[1] > kl[2] > 0
    assert sorted(p.name for p in made.folder.iterdir()) == [
        "README.md", "export.json", "m-q4_k_m.gguf", "m-q5_k_m.gguf", "m-q6_k.gguf",
    ]  # fmt: skip
