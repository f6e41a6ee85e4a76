"""A reward model trained with LoRA stands on the policy's own tensors, and scores there as the merged model does."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.models.conftest import make_batch
from transformers import AutoModelForSequenceClassification

from plaudit.backends.local.backbone import Backbone
from plaudit.config.sections import LoraSection
from plaudit.errors import ModelError
from plaudit.models.critic import Critic
from plaudit.models.files.integrity import SUMS
from plaudit.models.files.layout import FOLDER, WEIGHTS_FILE, fingerprint
from plaudit.models.files.load import load_causal_lm
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.forward.trunk import body
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm

LORA = LoraSection(rank=4)


def learned(model):
    """As if it had been trained: adapters that change something."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    return model


def own_tensors(module, *others):
    known = {t.data_ptr() for other in others for t in other.parameters()}
    return [p for p in module.parameters() if p.data_ptr() not in known]


@pytest.fixture
def files(decoder, tokenizer, tmp_path, rows):
    """An SFT model, and a reward model trained from it with LoRA."""
    save_causal_lm(tiny_lm(decoder, tokenizer, scale=0.2), tmp_path / "sft", tokenizer)
    start = RewardModel.start(tmp_path / "sft", tokenizer, seed=3)
    model = RewardModel(learned(add_lora(start.model, LORA, task="scalar")), mean=0.5, std=2.0)
    model.save(tmp_path / "reward", tokenizer, probe=rows())
    return tmp_path


@pytest.fixture
def policy(files, tokenizer):
    return Policy(add_lora(load_causal_lm(files / "sft", tokenizer=tokenizer), LORA, task="causal"))


def test_it_scores_on_the_policys_base_as_merged(files, policy, tokenizer, rows):
    backbone = Backbone(policy)
    shared, whole = (
        backbone.reward_model(str(files / "reward"), tokenizer),
        RewardModel.load(files / "reward", tokenizer),
    )
    assert shared.on_adapters and not whole.on_adapters
    texts = rows(7, (4, 9, 16, 21))
    scores = shared.score_rows(texts)
    assert scores == pytest.approx(whole.score_rows(texts), abs=1e-4)
    assert max(scores) - min(scores) > 1e-2, "the texts do differ"
    assert (shared.mean, shared.std, shared.trained_on) == (whole.mean, whole.std, whole.trained_on)
    assert "on the policy's frozen base" in backbone.notes[0]


def test_only_adapter_and_head_are_its_own(files, policy, tokenizer):
    shared = Backbone(policy).reward_model(str(files / "reward"), tokenizer)
    own = sum(p.numel() for p in own_tensors(shared, policy))
    adapters = load_file(files / "reward" / FOLDER / WEIGHTS_FILE)
    head = shared.model.get_base_model().score
    assert own == sum(t.numel() for t in adapters.values()) + sum(p.numel() for p in head.parameters())


def test_a_policy_that_learns_does_not_move_the_reward(files, policy, tokenizer, rows):
    shared = Backbone(policy).reward_model(str(files / "reward"), tokenizer)
    before, law = shared.score_rows(rows()), policy(make_batch(rows())).logprobs.detach()
    learned(policy.lm)
    assert shared.score_rows(rows()) == before
    assert not torch.allclose(policy(make_batch(rows())).logprobs, law)


def test_a_critic_from_it_shares_as_well_and_learns_alone(files, policy, tokenizer, rows):
    reward = Backbone(policy).reward_model(str(files / "reward"), tokenizer)
    critic = Critic.from_reward(reward, LoraSection(rank=2))
    trained = [p for p in critic.parameters() if p.requires_grad]
    own = own_tensors(critic, policy, reward)
    assert {id(p) for p in own} == {id(p) for p in trained}
    batch = make_batch(rows())
    values = critic(batch).values
    ends = batch.response_mask.long().cumsum(-1).argmax(-1)
    texts = [row[:-1] for row in rows()]  # the value at the last token is read before it
    scores = reward.normalise(torch.tensor(reward.score_rows(texts)))
    assert torch.allclose(values[torch.arange(len(ends)), ends], scores, atol=1e-4)
    before = reward.score_rows(texts)
    values.sum().backward()
    moved = [p for p in trained if p.grad is not None and p.grad.any()]
    assert len(moved) > 2
    with torch.no_grad():
        for p in moved:
            p.add_(p.grad)
    assert reward.score_rows(texts) == before
    assert not torch.allclose(critic(batch).values, values)


def test_another_base_falls_back_to_the_whole_model(files, decoder, tokenizer, rows):
    other = Policy(add_lora(tiny_lm(decoder, tokenizer, scale=0.2, seed=9), LORA, task="causal"))
    backbone = Backbone(other)
    model = backbone.reward_model(str(files / "reward"), tokenizer)
    assert not model.on_adapters and len(own_tensors(model, other)) == len(list(model.parameters()))
    assert "another base" in backbone.notes[0]


def test_a_policy_without_adapters_shares_nothing_and_says_nothing(files, decoder, tokenizer):
    backbone = Backbone(Policy(tiny_lm(decoder, tokenizer, scale=0.2)))
    assert not backbone.reward_model(str(files / "reward"), tokenizer).on_adapters
    assert backbone.notes == []


def test_a_reward_model_trained_whole_has_no_adapter(files, policy, tokenizer, rows):
    RewardModel(tiny_classifier("llama", tokenizer)).save(files / "reward", tokenizer, probe=rows())
    backbone = Backbone(policy)
    assert not backbone.reward_model(str(files / "reward"), tokenizer).on_adapters, (
        "the old adapter is not taken"
    )
    assert "without an adapter" in backbone.notes[0]


def test_the_merged_model_still_loads_with_plain_transformers(files, rows):
    model = AutoModelForSequenceClassification.from_pretrained(files / "reward")
    stored = json.loads((files / "reward" / "probe.json").read_text())
    with torch.no_grad():
        scores = [model(torch.tensor([row])).logits.item() for row in stored["tokens"]]
    assert scores == pytest.approx(stored["scores"], abs=1e-4)


def test_the_fingerprint_knows_one_changed_number_and_ignores_adapters(policy):
    trunk = body(policy.lm)
    before = fingerprint(trunk)
    learned(policy.lm)
    assert fingerprint(trunk) == before
    with torch.no_grad():
        next(p for n, p in trunk.named_parameters() if "lora" not in n).view(-1)[0] += 1e-3
    assert fingerprint(trunk) != before


def test_damaged_and_swapped_adapters_are_refused(files, policy, tokenizer):
    weights = files / "reward" / FOLDER / WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        Backbone(policy).reward_model(str(files / "reward"), tokenizer)
    (files / "reward" / SUMS).unlink()  # without them, as in a model of an earlier version
    half = len(whole) // 2
    weights.write_bytes(
        whole[:half] + bytes(len(whole) - half)
    )  # well-formed, other numbers: the probe notices
    with pytest.raises(ModelError, match="probe text"):
        Backbone(policy).reward_model(str(files / "reward"), tokenizer)
