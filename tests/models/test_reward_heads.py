"""Reward models with several heads, an LM head, a rule for length; token types of BERT; tables of positions."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
)
from transformers.models.opt.modeling_opt import OPTForCausalLM

from plaudit.config.sections import LoraSection
from plaudit.errors import ModelError
from plaudit.experience import Pairs
from plaudit.models.critic import Critic
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.forward.trunk import position_limit
from plaudit.models.length import LengthRule
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.reward_extras import auxiliary_head
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_config, tiny_lm

NAMES, WEIGHTS = ("helpful", "short", "kind"), (0.5, -1.0, 2.0)


@pytest.fixture(scope="module")
def lm(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("lm")
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=32, layers=1, scale=0.2), path, tokenizer)
    return path


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_heads_are_saved_by_name_and_the_score_is_their_weighted_sum(kind, tokenizer, rows, batch, tmp_path):
    start = tmp_path / "start"
    plain = tiny_classifier(kind, tokenizer, scale=0.2, labels=3)
    plain.config.plaudit_attributes, plain.config.plaudit_attribute_weights = list(NAMES), list(WEIGHTS)
    model, texts = RewardModel(plain), rows()
    out = model(batch(texts))
    assert out.heads.shape == (3, 3)
    assert torch.allclose(out.scores, out.heads @ torch.tensor(WEIGHTS))
    model.save(start, tokenizer, texts)
    loaded = RewardModel.load(start)
    assert loaded.attributes == NAMES
    assert torch.allclose(loaded(batch(texts)).heads, out.heads, atol=1e-5)
    assert loaded.score_rows(texts) == pytest.approx(out.scores.tolist(), abs=1e-5)
    assert torch.allclose(torch.tensor(loaded.score_heads(texts)), out.heads, atol=1e-5)
    raw = AutoModelForSequenceClassification.from_pretrained(start).eval()
    logits = raw(input_ids=torch.tensor([texts[0]])).logits[0]
    assert torch.allclose(logits, out.heads[0], atol=1e-5)


def test_heads_are_started_fresh_and_other_names_are_refused(lm, tokenizer, tmp_path):
    model = RewardModel.start(lm, tokenizer, attributes=NAMES, attribute_weights=WEIGHTS)
    assert model.model.score.weight.shape[0] == 3 and model.model.score.weight.std() > 0
    model.save(tmp_path, tokenizer)
    with pytest.raises(ModelError, match=r"helpful|another number of labels"):
        RewardModel.start(tmp_path, tokenizer)


def test_a_critic_starts_at_the_weighted_normalised_score(tokenizer, rows, batch):
    plain = tiny_classifier("llama", tokenizer, scale=0.2, labels=3)
    plain.config.plaudit_attributes, plain.config.plaudit_attribute_weights = list(NAMES), list(WEIGHTS)
    model, text = RewardModel(plain, mean=0.3, std=1.7), rows(lengths=(9,))[0]
    values = Critic.from_reward(model)(batch([text], prompt=1)).values[0]
    expected = model.normalise(torch.tensor(model.score_rows([text[:5]])))
    assert values[5].item() == pytest.approx(expected.item(), abs=1e-5)


# ---- length


SCORES, LENGTHS = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([10, 20, 30])


def test_residual_by_hand():
    rule = LengthRule.fit("residual", 1.0, SCORES, LENGTHS)
    assert (rule.coef, rule.centre) == pytest.approx((0.25, -2.0))
    left = rule.apply(SCORES, LENGTHS)
    assert left.tolist() == pytest.approx([0.5, -1.0, 0.5])
    assert (left * (LENGTHS - 20)).sum().item() == pytest.approx(0, abs=1e-6), "no length is left in it"


def test_divide_and_penalty_by_hand():
    divide = LengthRule.fit("divide", 1.0, SCORES, LENGTHS)
    assert divide.apply(SCORES, LENGTHS).tolist() == pytest.approx([-0.2, -0.05, 0.1])
    std = SCORES.std(correction=0).item()
    penalty = LengthRule.fit("penalty", 2.0, SCORES, LENGTHS)
    assert penalty.apply(SCORES, LENGTHS).tolist() == pytest.approx(
        [s - 2 * std * n / 100 for s, n in zip([1.0, 2.0, 6.0], [10, 20, 30], strict=True)]
    )


@pytest.mark.parametrize("kind", ["none", "divide", "residual", "penalty"])
def test_normalisation_after_the_rule_is_exact_idempotent_and_saved(kind, tokenizer, tmp_path):
    model = RewardModel(tiny_classifier("llama", tokenizer))
    for _ in range(2):
        model.fit(LengthRule.fit(kind, 0.5, SCORES, LENGTHS), SCORES, LENGTHS)
        normal = model.normalise(SCORES.double(), LENGTHS)
        assert normal.mean().item() == pytest.approx(0, abs=1e-9)
        assert normal.std(correction=0).item() == pytest.approx(1, abs=1e-9)
    first = (model.mean, model.std, model.length_rule)
    model.save(tmp_path, tokenizer)
    loaded = RewardModel.load(tmp_path)
    assert (loaded.mean, loaded.std, loaded.length_rule) == first


@pytest.mark.parametrize("kind", ["none", "divide", "residual", "penalty"])
def test_a_critic_starts_at_the_score_of_a_response_of_typical_length(kind, tokenizer, rows, batch):
    model, text = RewardModel(tiny_classifier("llama", tokenizer, scale=0.2)), rows(lengths=(9,))[0]
    model.fit(LengthRule.fit(kind, 0.5, SCORES, LENGTHS), SCORES, LENGTHS)
    values = Critic.from_reward(model)(batch([text], prompt=1)).values[0]
    raw = torch.tensor(model.score_rows([text[:5]]))
    expected = model.normalise(raw, torch.tensor([20])).item()
    assert values[5].item() == pytest.approx(expected, abs=1e-4)


# ---- LM head


def pairs_of(batch, rows):
    data = batch(rows(lengths=(9, 7, 8, 6)))
    return Pairs(data.tokens, data.attention_mask, data.response_mask, torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_lm_head_gives_the_log_probs_of_the_language_model_for_what_was_chosen(
    lm, tokenizer, rows, batch, lora
):
    start = RewardModel.start(lm, tokenizer)
    model = RewardModel(add_lora(start.model, LoraSection(rank=2), task="scalar") if lora else start.model)
    model.keep_language_model(*auxiliary_head(str(lm), tokenizer, model.model, {}))
    pairs = pairs_of(batch, rows)
    out = model(pairs)
    expected = Policy(tiny_lm("llama", tokenizer, hidden=32, layers=1, scale=0.2))(pairs).logprobs
    assert torch.allclose(out.logprobs[0::2], expected[0::2], atol=1e-4)
    assert not out.logprobs[1::2].any(), "not of what was rejected"
    out.logprobs.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    with torch.no_grad():
        assert model(pairs).logprobs is None


def test_the_tied_lm_head_learns_with_the_embeddings_and_is_not_saved(lm, tokenizer, rows, batch, tmp_path):
    model = RewardModel.start(lm, tokenizer)
    model.keep_language_model(*auxiliary_head(str(lm), tokenizer, model.model, {}))
    assert model.lm_layer.weight is model.model.get_input_embeddings().weight
    names = [n for n, _ in model.named_parameters()]
    assert not [n for n in names if n.startswith("lm_")], "one tensor, once"
    model.save(tmp_path, tokenizer, rows())
    assert RewardModel.load(tmp_path).lm_head is None


# ---- BERT


def bert(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def test_bert_sees_which_text_a_token_belongs_to(tokenizer, batch):
    model = RewardModel(bert(tokenizer))
    model.model.config.sep_token_id = 3
    cls, sep = 2, 3
    text = [cls, 8, 9, sep, 10, 11, 12, sep]
    types = [0, 0, 0, 0, 1, 1, 1, 1]
    other = [cls, 13, sep]  # one text only, padded
    scores = model(batch([text, other], extra=2)).scores
    with torch.no_grad():
        wanted = model.model(
            input_ids=torch.tensor([text]), token_type_ids=torch.tensor([types])
        ).logits.item()
        alone = model.model(input_ids=torch.tensor([other])).logits.item()
        untyped = model.model(input_ids=torch.tensor([text])).logits.item()
    assert scores.tolist() == pytest.approx([wanted, alone], abs=1e-5)
    assert abs(wanted - untyped) > 1e-4, "the types matter to this model"


# ---- positions


def test_positions_that_a_model_can_read(tokenizer):
    assert position_limit(tiny_lm("gpt2", tokenizer, hidden=16, layers=1)) == 512
    assert position_limit(tiny_lm("llama", tokenizer, hidden=16, layers=1)) is None
    assert position_limit(tiny_classifier("roberta", tokenizer)) == 512
    assert position_limit(bert(tokenizer)) == 64
    opt = OPTConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2,
        max_position_embeddings=48, word_embed_proj_dim=16,
    )  # fmt: skip
    assert position_limit(OPTForCausalLM(opt)) == 48
    assert tiny_config("gpt2", tokenizer, hidden=16, layers=1, positions=8).n_positions == 8
