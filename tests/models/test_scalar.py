"""Reward models and critics: where they are read, how they are saved, and that plain transformers agrees."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from plaudit.config.sections import LoraSection
from plaudit.errors import ConfigError, ModelError
from plaudit.models.critic import Critic
from plaudit.models.files.integrity import SUMS
from plaudit.models.files.load import load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.lora import add_lora
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm

KINDS = ["llama", "gpt2", "qwen2", "roberta"]
LORA = LoraSection(rank=4, alpha=16)


def reward_model(kind, tokenizer, *, lora=False):
    model = tiny_classifier(kind, tokenizer, scale=0.2)
    return RewardModel(add_lora(model, LORA, task="scalar") if lora else model)


def train_a_little(model, data):
    """One big step on the sum of scores; every parameter that may learn does."""
    model(data).scores.sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.add_(p.grad.sign(), alpha=0.02)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_scores_the_same_here_and_in_plain_transformers(
    kind, lora, tokenizer, rows, batch, tmp_path
):
    model, texts = reward_model(kind, tokenizer, lora=lora), rows()
    model.mean, model.std = 0.5, 2.0
    train_a_little(model, batch(texts))
    expected = model(batch(texts)).scores.detach()
    model.save(tmp_path, tokenizer, texts)

    loaded = RewardModel.load(tmp_path)
    assert (loaded.mean, loaded.std) == (0.5, 2.0)
    assert torch.allclose(loaded(batch(texts)).scores, expected, atol=1e-5)

    probe = json.loads((tmp_path / "probe.json").read_text())
    assert probe["scores"] == pytest.approx(expected.tolist(), abs=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    plain_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert plain_tokenizer.pad_token_id != plain_tokenizer.eos_token_id
    inputs = plain_tokenizer.pad({"input_ids": probe["tokens"]}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        scores = plain(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert torch.allclose(scores, expected, atol=1e-5)
    assert not list(tmp_path.glob("*.bin"))
    assert not (tmp_path / "adapter_config.json").exists()


def test_training_goes_on_after_saving_under_lora(tokenizer, rows, batch, tmp_path):
    model, data = reward_model("llama", tokenizer, lora=True), batch(rows())
    train_a_little(model, data)
    before = model(data).scores.detach()
    model.save(tmp_path, tokenizer, rows())
    assert torch.equal(model(data).scores, before)
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_a_changed_weight_is_noticed_at_load(tokenizer, rows, tmp_path):
    model = reward_model("llama", tokenizer)
    model.save(tmp_path, tokenizer, rows())
    (tmp_path / SUMS).unlink()  # as in a model of an earlier version
    probe = json.loads((tmp_path / "probe.json").read_text())
    probe["scores"][1] += 0.01
    (tmp_path / "probe.json").write_text(json.dumps(probe))
    with pytest.raises(ModelError, match="probe text 1"):
        RewardModel.load(tmp_path)


def test_pad_equal_to_end_is_not_saved(tokenizer, tmp_path):
    import copy

    same = copy.deepcopy(tokenizer)
    same.pad_token = same.eos_token
    with pytest.raises(ModelError, match="the same"):
        reward_model("llama", tokenizer).save(tmp_path, same)


def test_normalised_scores(tokenizer):
    model = RewardModel(tiny_classifier("llama", tokenizer), mean=2.0, std=4.0)
    assert model.normalise(torch.tensor([2.0, 10.0])).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_start_from_a_language_model_gives_a_fresh_head_of_known_size(kind, tokenizer, tmp_path):
    save_causal_lm(tiny_lm(kind, tokenizer, hidden=128, layers=1), tmp_path, tokenizer)
    heads = [RewardModel.start(tmp_path, tokenizer, seed=seed).model.score.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].std().item() == pytest.approx(1 / 129**0.5, rel=0.25)
    with pytest.raises(ModelError, match="no scalar head"):
        RewardModel.load(tmp_path)


def test_start_from_a_reward_model_keeps_its_head(tokenizer, rows, tmp_path):
    model = reward_model("qwen2", tokenizer)
    model.save(tmp_path, tokenizer, rows())
    assert torch.equal(RewardModel.start(tmp_path, tokenizer).model.score.weight, model.model.score.weight)


def test_a_classifier_with_two_labels_is_no_reward_model(tokenizer):
    with pytest.raises(ModelError, match="this classifier has 2"):
        RewardModel(tiny_classifier("roberta", tokenizer, labels=2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind, tokenizer, rows, batch):
    model = reward_model(kind, tokenizer)
    model(batch(rows())).scores.sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant added to all keys changes no attention weight: its gradient is 0 up to rounding.
    assert not [n for n in still if "lm_head" not in n and "k_proj.bias" not in n]


# ---- critic


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_critic_from_reward_gives_normalised_scores_and_owns_its_weights(
    decoder, tokenizer, rows, batch, lora
):
    model, text = reward_model(decoder, tokenizer), rows(lengths=(9,))[0]
    model.mean, model.std = 0.3, 1.7
    critic = Critic.from_reward(model, lora)
    values = critic(batch([text], prompt=1)).values[0]
    assert values.dtype == torch.float32
    assert values[0] == 0
    for t in range(1, 9):  # the value about token t is the score of the text before it
        score = model.normalise(torch.tensor(model.score_rows([text[:t]])[0]))
        assert values[t].item() == pytest.approx(score.item(), abs=1e-5)
    expected = model(batch([text])).scores.detach()
    with torch.no_grad():
        for p in filter(lambda p: p.requires_grad, critic.parameters()):
            p.add_(0.1)
    assert torch.equal(model(batch([text])).scores, expected)


@pytest.mark.parametrize("adapted", [False, True], ids=["full policy", "lora policy"])
def test_critic_from_policy_starts_at_zero_and_learns(decoder, tokenizer, rows, batch, adapted):
    lm, data = tiny_lm(decoder, tokenizer, hidden=32, layers=1, scale=0.2), batch(rows())
    if adapted:
        lm = add_lora(lm, LORA, task="causal")
    critic = Critic.from_policy(lm)
    values = critic(data).values
    assert values.shape == data.tokens.shape
    assert not values.any()
    torch.nn.init.ones_(critic.head.weight)
    out = critic(data).values
    assert not out[~data.response_mask].any()
    out.sum().backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert not any(p.grad is not None for p in lm.parameters())


def test_an_encoder_is_refused_as_critic(tokenizer):
    model = reward_model("roberta", tokenizer)
    assert model.is_encoder
    for build in (
        lambda: Critic.from_reward(model),
        lambda: Critic(model.model.base_model, torch.nn.Linear(32, 1)),
    ):
        with pytest.raises(ConfigError, match="encoder") as caught:
            build()
        assert "sft" in caught.value.cure


def test_tokenizer_is_saved_with_its_pad_token(tokenizer, rows, tmp_path):
    reward_model("llama", tokenizer).save(tmp_path, tokenizer)
    assert load_tokenizer(tmp_path).pad_token == "<pad>"
