"""Reward models in this process: their template, how long a text may be, and when a critic starts from one."""

from __future__ import annotations

import copy

import pytest
import torch

from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.models import build_critic
from plaudit.backends.local.rewards import LocalClassifier, LocalModels, RewardModelScorer
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.jobs.reward_tables import ModelTable
from plaudit.models.files.saving import write
from plaudit.models.files.vocabulary import Words
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_config, tiny_lm, tiny_tokenizer
from plaudit.records import Message, Prompt, Rollout
from plaudit.rewards.classifier import ClassifierReward
from plaudit.rewards.model import ModelReward

COMPUTE = ComputeSection(device="cpu", precision="fp32")
WORDS = " ".join(f"w{i}" for i in range(40))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([WORDS], 60)


def saved(tokenizer, folder, kind="llama", **changes):
    RewardModel(tiny_classifier(kind, tokenizer, scale=0.3, **changes)).save(folder, tokenizer)
    return str(folder)


def table(source):
    return ModelTable(kind="model", path=source)


def rollout(tokenizer, prompt, response):
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
    words = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    content = (Message("user", prompt),)
    return Rollout.single(Prompt("p", content), 0, tuple(ids), words, [0.0] * len(words), response, "stop")


# templates


def test_a_reward_model_with_a_template_of_its_own_reads_chats_in_it(tokenizer, tmp_path):
    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("<|{{ message['role'] }}|>", "{{ ' w1 w2' }}")
    assert other.chat_template != tokenizer.chat_template
    source = saved(other, tmp_path)
    backbone = Backbone(Policy(tiny_lm("llama", tokenizer, hidden=16, layers=1)))
    reward = LocalModels(tokenizer, COMPUTE, backbone).reward_model(table(source))
    (result,) = reward([rollout(tokenizer, " w5", " w6")])
    scorer = RewardModelScorer(RewardModel.load(source, other), other, COMPUTE)
    (own,) = scorer.score_texts([(Message("user", " w5"),)], [" w6"], [False])
    assert result.value == pytest.approx(own)
    policys = rollout(tokenizer, " w5", " w6").tokens
    assert scorer.score_tokens([policys], [len(policys) - 2])[0] != pytest.approx(own)
    assert any("template of its own" in note for note in backbone.notes)


def test_with_the_same_template_the_sampled_ids_are_scored(tokenizer, tmp_path):
    source = saved(tokenizer, tmp_path)
    reward = LocalModels(tokenizer, COMPUTE).reward_model(table(source))
    row = rollout(tokenizer, " w5", " w6")
    scorer = RewardModelScorer(RewardModel.load(source, tokenizer), tokenizer, COMPUTE)
    assert reward([row])[0].value == scorer.score_tokens([row.tokens], [len(row.tokens) - 2])[0]


# critics


@pytest.mark.parametrize("case", ["another tokenizer", "encoder", "reads 512 tokens only"])
def test_a_critic_starts_from_the_policy_where_the_reward_model_cannot_become_one(tokenizer, tmp_path, case):
    theirs = tiny_tokenizer([WORDS + " more words"], 64) if case == "another tokenizer" else tokenizer
    source = saved(theirs, tmp_path, {"encoder": "roberta", "another tokenizer": "llama"}.get(case, "gpt2"))
    backbone = Backbone(Policy(tiny_lm("qwen2", tokenizer, hidden=16, layers=1)))
    critic = build_critic("reward", [table(source)], backbone, tokenizer, LoraSection(), COMPUTE, 600)
    assert not critic.head.weight.any() and critic.trunk.config.model_type == "qwen2"
    (note,) = [note for note in backbone.notes if "critic starts from the policy" in note]
    assert case in note and source in note


def test_a_critic_starts_from_a_reward_model_of_another_architecture_with_the_same_tokenizer(
    tokenizer, tmp_path
):
    source = saved(tokenizer, tmp_path, "qwen2")
    backbone = Backbone(Policy(tiny_lm("gpt2", tokenizer, hidden=16, layers=1)))
    critic = build_critic("reward", [table(source)], backbone, tokenizer, LoraSection(), COMPUTE, 64)
    assert critic.head.weight.any() and critic.trunk.config.model_type == "qwen2"


# rows


def test_a_reward_model_of_fewer_rows_reads_what_a_policy_of_more_rows_draws(tokenizer, tmp_path):
    from plaudit.config.sections import SamplingSection
    from plaudit.generation.native import NativeGenerator
    from plaudit.runtime import TokenPrompt

    source = saved(tokenizer, tmp_path)
    policy = tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.3)
    policy.resize_token_embeddings(len(tokenizer) + 64, mean_resizing=False)
    generator = NativeGenerator(policy, tokenizer, ())
    prompt = TokenPrompt(Prompt("p", " w1"), (2, 9))
    drawn = generator.generate([prompt], 16, SamplingSection(max_new_tokens=12), seed=0, iteration=0)
    assert max(max(r.response_ids) for r in drawn) < Words.known_to(tokenizer).count
    results = LocalModels(tokenizer, COMPUTE).reward_model(table(source))(drawn)
    assert all(result.value is not None for result in results)


# lengths


def long_encoder(tokenizer, positions):
    model = tiny_classifier("roberta", tokenizer)
    config = tiny_config("roberta", tokenizer, hidden=32, layers=2, positions=positions)
    return type(model)(config.__class__(**(config.to_dict() | {"num_labels": 1}))).eval()


@pytest.mark.parametrize("positions", [512, 1024])
def test_an_encoder_reads_as_much_as_it_has_positions_and_cuts_the_rest_with_a_count(tokenizer, positions):
    scorer = RewardModelScorer(RewardModel(long_encoder(tokenizer, positions)), tokenizer, COMPUTE)
    assert scorer.limit == positions
    whole, long = " w1" * (positions - 2), " w1" * (positions + 50)
    scores = scorer.score_texts(["", "", " w2"], [whole, long, long], [False] * 3)
    assert scorer.shortened == [len(tokenizer(whole)["input_ids"]) > positions, True, True]
    assert torch.tensor(scores).isfinite().all()


def test_cut_texts_are_counted_and_said_once_for_each_call(tokenizer):
    scorer = RewardModelScorer(RewardModel(long_encoder(tokenizer, 32)), tokenizer, COMPUTE)
    rows = [rollout(tokenizer, " w1", " w2" * n) for n in (3, 60)]
    with pytest.warns(UserWarning, match="judge: 1 of 2 texts are longer than the model reads"):
        results = ModelReward(scorer, "judge", same_tokenizer=False)(rows)
    assert [r.parts["judge_cut"] for r in results] == [0.0, 1.0] and all(r.value is not None for r in results)


def test_a_decoder_of_few_positions_reads_the_end_of_a_row_that_is_too_long(tokenizer):
    config = tiny_config("gpt2", tokenizer, hidden=32, layers=1, positions=16, scale=0.3)
    config.num_labels = 1
    model = type(tiny_classifier("gpt2", tokenizer))(config).eval()
    scorer = RewardModelScorer(RewardModel(model), tokenizer, COMPUTE)
    row = [2, *range(8, 38), 3]
    (end,) = scorer.score_tokens([row[-16:]], [4])
    assert scorer.shortened == [False]
    assert scorer.score_tokens([row], [4]) == [pytest.approx(end, abs=1e-5)] and scorer.shortened == [True]


def test_a_classifier_cuts_what_it_cannot_read_and_counts_it(tokenizer, tmp_path):
    model = tiny_classifier("roberta", tokenizer, labels=2)
    write(model, tmp_path, tokenizer)
    reward = ClassifierReward(LocalClassifier(str(tmp_path), COMPUTE), 1, name="kind")
    rows = [rollout(tokenizer, " w1", " w2" * n) for n in (3, 700)]
    with pytest.warns(UserWarning, match="kind: 1 of 2 texts"):
        results = reward(rows)
    assert [r.parts["kind_cut"] for r in results] == [0.0, 1.0]
