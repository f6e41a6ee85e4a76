"""Models in other formats: read back with gguf and transformers, compared, refused by name, and gated."""

import json
import math

import pytest
import torch
from gguf import GGUFReader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    Phi3Config,
    Qwen3Config,
)

from plaudit.cli.main import main
from plaudit.errors import ConfigError, ModelError
from plaudit.export.gguf import check, write_gguf
from plaudit.export.nearness import Side, nearness, probes, prove_ends
from plaudit.export.write import targets_of
from plaudit.models.files.load import load_causal_lm, quiet
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_classifier, tiny_lm, tiny_tokenizer
from plaudit.stages.export import Requirement, run_export

TEXTS = ["the film was good and bad and it's 1234 times better than others"] * 3
SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
    "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "qwen3": lambda v: Qwen3Config(vocab_size=v, head_dim=32, **SHAPE),
    "gemma2": lambda v: Gemma2Config(vocab_size=v, head_dim=16, **SHAPE),
    "gemma3_text": lambda v: Gemma3TextConfig(vocab_size=v, head_dim=16, **SHAPE),
    "phi3": lambda v: Phi3Config(vocab_size=v, **SHAPE),
}


@pytest.fixture(scope="module")
def byte_pairs():
    return tiny_tokenizer(TEXTS, 400, kind="bpe")


def model_of(family, tokenizer):
    if family in CONFIGS:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[family](len(tokenizer))).eval()
    return tiny_lm(family, tokenizer, hidden=64, layers=2, scale=0.2)


@pytest.fixture
def saved(byte_pairs, tmp_path):
    save_causal_lm(tiny_lm("llama", byte_pairs, hidden=64, scale=0.1), tmp_path / "m", byte_pairs)
    return tmp_path / "m"


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", *CONFIGS])
def test_a_gguf_read_back_is_the_same_function(family, byte_pairs, tmp_path):
    model = model_of(family, byte_pairs)
    write_gguf(model, byte_pairs, tmp_path / "a.gguf", "f16", ends=(3,), name="tiny")
    again = load_causal_lm(tmp_path / "a.gguf", tokenizer=byte_pairs, config=model.config)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="a.gguf")
    figures = nearness(Side.of(model, byte_pairs), Side.of(again, tokenizer), probes(20))
    assert figures["tokens_equal"].value == 1.0
    # Rounding of F16 is 2^-11 of a weight; a wrong order of rows or a lost tensor gives a KL of the order of 1.
    assert 0 <= figures["kl"].value < 1e-4
    assert figures["top1"].value > 0.97


def test_types_of_tensors_and_keys_are_what_llama_cpp_reads(saved, byte_pairs, tmp_path):
    made = run_export(str(saved), ["gguf:q4_0", "gguf:q8_0"], str(tmp_path / "out"))
    out, figures, notes = made.folder, made.figures, made.notes
    reader = GGUFReader(str(out / "m-q4_0.gguf"))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["token_embd.weight"] == "Q8_0" and types["blk.0.attn_q.weight"] == "Q4_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    # 170 = 8 * 64 // 3 is no multiple of 32: these rows are not cut into blocks, and it is said.
    assert types["blk.0.ffn_down.weight"] == "F16" and "ffn_down" in " ".join(notes)
    value = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("llama.", "tok"))}
    assert value["llama.attention.head_count_kv"] == 2 and value["llama.rope.dimension_count"] == 16
    assert value["tokenizer.ggml.model"] == "gpt2" and value["tokenizer.ggml.pre"] == "gpt-2"
    assert value["tokenizer.ggml.eos_token_id"] == 3 and value["tokenizer.ggml.add_bos_token"] is True
    assert value["tokenizer.chat_template"] == byte_pairs.chat_template
    assert value["tokenizer.ggml.tokens"][3] == "</s>" and value["tokenizer.ggml.token_type"][3] == 3
    assert figures["gguf:q8_0"]["kl"].value < figures["gguf:q4_0"]["kl"].value


def test_merged_has_a_card_and_stops(saved, tmp_path):
    made = run_export(str(saved), ["merged"], str(tmp_path / "out"))
    out, figures = made.folder, made.figures
    assert figures["merged"]["kl"].value == pytest.approx(0.0, abs=1e-9)
    text = (out / "merged" / "README.md").read_text(encoding="utf-8")
    for part in ("license:", "## Method", "## Limits", "## Licence", "vllm serve merged", "tokens_equal"):
        assert part in text
    stored = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert stored["figures"]["merged"]["perplexity_ratio"]["value"] == pytest.approx(1.0)
    model = AutoModelForCausalLM.from_pretrained(str(out / "merged"))
    model.generation_config.eos_token_id = 9
    with pytest.raises(ModelError, match="goes on after token 3"):
        prove_ends(model, [3])


def test_kl_is_that_of_the_definition(saved, byte_pairs):
    one, two = load_causal_lm(saved), load_causal_lm(saved)
    two.get_output_embeddings().weight.data[5] += 0.3
    figures = nearness(Side.of(one, byte_pairs), Side.of(two, byte_pairs), TEXTS[:1])
    ids = torch.tensor([byte_pairs(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        p, q = (m(input_ids=ids).logits[0, :-1].double().softmax(-1) for m in (one, two))
    assert figures["kl"].value == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)
    ratio = (p.gather(1, ids[0, 1:, None]) / q.gather(1, ids[0, 1:, None])).log().mean().exp()
    assert figures["perplexity_ratio"].value == pytest.approx(float(ratio), rel=1e-4)
    assert math.isnan(figures["kl"].low)  # one text does not tell how much texts differ


def test_what_gguf_cannot_hold_is_refused_by_name(byte_pairs, tmp_path):
    words = tiny_tokenizer(TEXTS, 64)
    save_causal_lm(tiny_lm("llama", words, hidden=16, layers=1), tmp_path / "words", words)
    with pytest.raises(ModelError, match="word-level tokenizer"):
        run_export(str(tmp_path / "words"), ["gguf:f16"])
    classifier = tiny_classifier("llama", byte_pairs)
    classifier.save_pretrained(tmp_path / "reward")
    byte_pairs.save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match="reward model"):
        run_export(str(tmp_path / "reward"), ["gguf:f16"])
    for kind in ("gemma", "phi"):
        config = AutoConfig.for_model(kind)
        with pytest.raises(ModelError, match=f"no GGUF of the architecture {kind} is written"):
            check(kind, config, byte_pairs)
    with pytest.raises(ModelError, match="no LoRA adapter"):
        run_export(str(tmp_path / "words"), ["adapter"])
    assert not (tmp_path / "words" / "export").exists()


def test_the_gate_and_what_it_takes(saved, capsys):
    command = ["export", str(saved), "--to", "gguf-q4_0", "--require"]
    assert main([*command, "kl <= 1e-9", "--json"]) == 4
    said = capsys.readouterr()
    assert "gguf:q4_0: kl is" in said.err
    assert json.loads(said.out)["figures"]["gguf:q4_0"]["kl"]["value"] > 1e-9
    assert (saved / "export" / "m-q4_0.gguf").is_file()
    assert main([*command, "gold_kept >= 0.9"]) == 78  # no run, so no gold reward: refused before work
    assert main([*command, "glod >= 0.9"]) == 78
    with pytest.raises(ConfigError, match="int3"):
        targets_of(["int3"])
    assert Requirement.of("top1>0.5") == Requirement("top1", ">", 0.5)


def test_what_is_kept_of_the_rewards_is_measured_by_the_runs_own_prompts(saved, tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"the film {i}"}) + "\n" for i in range(30)))
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def good(response): return response.count('a')\n\ndef gold(response): return -len(response)\n")
    run = tmp_path / "run"
    command = f"grpo --policy {saved} --dataset {tmp_path / 'p.jsonl'} --out {run} --reward {rewards}:good --lr 1e-3"
    command += f" --gold {rewards}:gold --iterations 2 --prompts-per-iteration 4 --group-size 2 --max-new-tokens 4"
    assert main([*command.split(), "--eval-prompts", "4", "--device", "cpu", "--precision", "fp32"]) == 0
    made = run_export(str(run), ["gguf:f16"], require=["gold_kept >= -99"], samples=2)
    assert {"gold_kept", "reward_kept"} <= made.figures["gguf:f16"].keys()
    assert made.figures["gguf:f16"]["win_rate"].value == pytest.approx(0.5, abs=0.2)
    # The same function draws the same responses: nothing is lost. Where nothing was gained, nothing can be kept.
    kept = made.figures["gguf:f16"]["gold_kept"].value
    assert math.isnan(kept) or kept == pytest.approx(1.0, abs=0.5)
    assert sorted(path.name for path in made.folder.iterdir()) == ["README.md", "export.json", "run-f16.gguf"]


def test_an_exported_reward_model_is_measured_on_the_rows_that_its_run_held_out(byte_pairs, tmp_path):
    save_causal_lm(tiny_lm("llama", byte_pairs, hidden=64), tmp_path / "base", byte_pairs)
    rows = [
        {"prompt": f"the film {i}", "chosen": "was good" + " and" * (i % 3), "rejected": "was bad" + " it" * (i % 2)}
        for i in range(40)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    command = f"reward --model {tmp_path / 'base'} --dataset {tmp_path / 'c.jsonl'} --out {run} --eval-fraction 0.5"
    assert main([*command.split(), "--epochs", "1", "--lr", "1e-3", "--device", "cpu", "--precision", "fp32"]) == 0
    made = run_export(str(run), ["merged", "int8", "int4"], require=["agreement >= 0.5"])
    same, eight, four = (made.figures[name] for name in ("merged", "int8", "int4"))
    assert same["agreement"].value == 1.0 and same["score_correlation"].value == pytest.approx(1.0, abs=1e-9)
    assert same["agreement"].low < 1.0  # twenty rows do not show that all are decided alike
    assert 0.99 < eight["score_correlation"].value < 1.0 and four["score_correlation"].value < 1.0
    assert not made.failed and "score_correlation" in (made.folder / "README.md").read_text(encoding="utf-8")
