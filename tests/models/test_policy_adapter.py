"""A policy's adapter on disk: the layout of peft, its base by name and hash, and accepted wherever a model is."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.models.test_adapter import learned
from transformers import AutoModelForCausalLM

from plaudit.backends.local.models import load_policy, load_reward_model
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.errors import ConfigError, ModelError
from plaudit.models.files.integrity import SUMS
from plaudit.models.files.load import load_causal_lm, load_classifier, load_tokenizer
from plaudit.models.files.saving import merged, save_causal_lm
from plaudit.models.tiny import tiny_lm

ROWS = torch.tensor([[2, 9, 11, 10, 3]])


@pytest.fixture
def base(decoder, tokenizer, tmp_path):
    save_causal_lm(tiny_lm(decoder, tokenizer, scale=0.2), tmp_path / "base", tokenizer)
    return tmp_path / "base"


def trained(base, saved="both"):
    tokenizer, policy = load_policy(str(base), LoraSection(rank=4, save=saved), ComputeSection(), seed=1)
    learned(policy.lm)
    policy.save(base.parent / "run" / "model", tokenizer)
    return policy, base.parent / "run" / "model"


@torch.no_grad()
def logits(model):
    return model(input_ids=ROWS).logits


def test_both_are_saved_and_peft_loads_the_adapter(base):
    policy, model = trained(base)
    expected = logits(merged(policy.lm))
    assert not torch.allclose(expected, logits(load_causal_lm(base)))
    # As any other program reads them: without Plaudit.
    plain = AutoModelForCausalLM.from_pretrained(model)
    torch.testing.assert_close(logits(plain), expected)
    config = json.loads((model / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"], config["r"]) == ("LORA", "CAUSAL_LM", 4)
    on_base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    # Beside its base, and not merged: the sums are rounded otherwise.
    beside = logits(PeftModel.from_pretrained(on_base, model / "adapter"))
    torch.testing.assert_close(beside, expected, atol=1e-4, rtol=1e-3)


def test_the_layout_is_that_of_peft(base):
    policy, model = trained(base)
    policy.lm.save_pretrained(base.parent / "theirs")
    theirs = load_file(base.parent / "theirs" / "adapter_model.safetensors")
    ours = load_file(model / "adapter" / "adapter_model.safetensors")
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    listed = (model / SUMS).read_text()
    assert "adapter/adapter_model.safetensors" in listed and "adapter/base.json" in listed


def test_an_adapter_alone_is_a_model_everywhere(base):
    policy, model = trained(base, "adapter")
    assert not list(model.glob("model*.safetensors"))
    expected = logits(merged(policy.lm))
    for source in (model, model.parent):  # the directory of the adapter, and the run
        torch.testing.assert_close(logits(load_causal_lm(source)), expected)
        assert load_tokenizer(source).pad_token_id == load_tokenizer(base).pad_token_id
    # transformers itself takes the directory too; it computes base and adapter apart, and the sums round otherwise.
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(model)), expected, atol=1e-4, rtol=1e-3
    )
    # As the start of a reward model: its body is that of the policy, not that of the base.
    body, _ = load_classifier(model, labels=1)
    whole = merged(policy.lm).state_dict()
    names = [name for name in body.state_dict() if name in whole and "score" not in name]
    assert names and all(torch.allclose(body.state_dict()[name], whole[name], atol=1e-6) for name in names)
    assert load_causal_lm(model).generation_config.eos_token_id is not None


def test_another_base_is_refused(base, decoder, tokenizer):
    _, model = trained(base, "adapter")
    other = tiny_lm(decoder, tokenizer, scale=0.2)
    with torch.no_grad():
        other.get_input_embeddings().weight[5] += 1e-3
    save_causal_lm(other, base, tokenizer)
    with pytest.raises(ModelError, match="trained on another base"):
        load_causal_lm(model)


def test_a_later_save_leaves_nothing_of_an_earlier_one(base, tokenizer):
    policy, model = trained(base)
    policy.saved = "merged"
    policy.save(model, tokenizer)
    assert not (model / "adapter" / "adapter_config.json").exists()
    policy.saved = "adapter"
    policy.save(model, tokenizer)
    assert (model / "adapter_config.json").exists() and not list(model.glob("model*.safetensors"))
    policy.saved = "both"
    policy.save(model, tokenizer)
    assert not (model / "adapter_config.json").exists() and list(model.glob("model*.safetensors"))


def test_going_on_from_an_adapter_keeps_what_it_learned(base):
    first, model = trained(base, "adapter")
    tokenizer, second = load_policy(str(model), LoraSection(rank=2), ComputeSection(), seed=2)
    torch.testing.assert_close(logits(second.lm), logits(merged(first.lm)))
    second.save(base.parent / "second", tokenizer)
    # Its base is a sum that is nowhere on disk, so the adapter alone would be of no use.
    assert not (base.parent / "second" / "adapter" / "adapter_config.json").exists()
    with pytest.raises(ConfigError, match="starts from an adapter") as caught:
        load_policy(str(model), LoraSection(rank=2, save="adapter"), ComputeSection(), seed=2)
    assert "--to merged" in caught.value.cure


def test_what_is_no_plain_adapter_is_refused(base):
    _, model = trained(base, "adapter")
    file = model / "adapter_config.json"
    (model / SUMS).unlink()
    section = json.loads(file.read_text())
    file.write_text(json.dumps(section | {"modules_to_save": ["lm_head"]}))
    with pytest.raises(ModelError, match="not plain LoRA"):
        load_causal_lm(model)
    file.write_text(json.dumps(section | {"r": 3}))
    with pytest.raises(ModelError, match="names or shapes differ"):
        load_causal_lm(model)


def test_a_reward_model_is_saved_whole(base):
    with pytest.raises(ConfigError, match="saved whole"):
        load_reward_model(str(base), LoraSection(rank=2, save="adapter"), ComputeSection(), seed=0)
