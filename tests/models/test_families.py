"""A dozen architectures whose rows are read in ways of their own; `make test-models` walks through all of them."""

from __future__ import annotations

import check_models as checks
import pytest
import torch
from tiny_families import ORIGINAL, WINDOW, tiny

from plaudit.config.sections import LoraSection, SamplingSection
from plaudit.errors import ConfigError, ModelError
from plaudit.generation.decoder import Decoder
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.vocabulary import Words
from plaudit.models.forward.reading import ANY, Reading
from plaudit.models.forward.trunk import body, position_limit
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel

CACHED = ("gemma2", "gpt_oss", "mistral", "phi3, window", "qwen2, window", "opt, projection", "llama, YaRN")
"""Sampled with a cache, beyond their windows."""
WHOLE = ("bloom", "falcon, ALiBi", "gpt_neo", "jamba", "openai-gpt", "phi3, LongRoPE", "rwkv")
"""Sampled by forward passes over whole rows."""


def in_slots(lm, capacity=40):
    decoder = Decoder(lm, words=Words.known_to(checks.tokenizer()))
    with decoder.ready():
        return decoder.in_slots(capacity)


@pytest.mark.parametrize("name", (*CACHED, *WHOLE))
def test_samples_and_log_probs_are_those_of_forward_passes_over_one_row(name):
    lm = tiny(name)
    assert in_slots(lm) == (name in CACHED)
    checks.check_sampler(lm)
    checks.check_logprobs(lm)


@pytest.mark.parametrize("name", ["qwen2, window", "gpt_neo", "phi3, LongRoPE", "rwkv", "llama4_text"])
def test_greedy_tokens_are_those_of_generate(name):
    checks.check_generate(tiny(name))


@pytest.mark.parametrize("name", ["bloom", "phi3, LongRoPE", "doge", "bert"])
def test_gradients_are_those_of_forward_passes_over_one_row(name):
    checks.check_gradients(tiny(name))


@pytest.mark.parametrize("name", ["opt, projection", "bloom", "ctrl", "phi3, LongRoPE"])
def test_values_are_those_of_forward_passes_over_one_row(name):
    checks.check_critic(tiny(name))


@pytest.mark.parametrize("name", ["ctrl", "mamba", "bart"])
def test_adapters_are_put_where_they_work(name):
    checks.check_lora(tiny(name))


def test_adapters_do_not_go_into_a_tower_for_images():
    adapted = add_lora(tiny("git"), LoraSection(rank=2), task="causal")
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert names and not [name for name in names if "image" in name or "vision" in name]


def test_a_narrow_table_of_attention_is_known_up_to_its_width():
    lm = tiny("gpt_neo")
    assert in_slots(lm, WINDOW) and not in_slots(lm, WINDOW + 1)


def test_positions_that_change_with_the_length_keep_longer_rows_apart():
    reading = Reading.of(body(tiny("phi3, LongRoPE")))
    assert reading.together == ORIGINAL and f"more than {ORIGINAL} tokens" in reading.note("training")
    assert Reading.of(body(tiny("llama"))).together == ANY


def test_dynamic_frequencies_are_refused_beyond_their_length_and_right_up_to_it():
    checks.check_sampler(tiny("llama, dynamic NTK"))
    lm = tiny("llama, dynamic NTK, longer")
    assert position_limit(lm) == ORIGINAL
    with pytest.raises(ModelError, match="dynamic NTK"):
        Policy(lm)(checks.padded())
    with pytest.raises(ConfigError, match="dynamic NTK"):
        checks.check_sampler(lm)


def test_sparse_attention_is_refused_beyond_what_it_chooses_and_right_up_to_it():
    checks.check_sampler(tiny("deepseek_v32"))
    with pytest.raises(ModelError, match="with more than 26.*index_topk"):
        Policy(tiny("deepseek_v32"))(checks.padded())


@pytest.mark.parametrize("name", ["xlnet", "cpmant"])
def test_what_looks_at_later_tokens_is_refused_by_name(name):
    with pytest.raises(ModelError, match=rf"^MODEL: {name}.*(later tokens|after it|token ids alone)"):
        Policy(tiny(name))


def test_what_cannot_be_trained_as_it_is_read_is_refused_by_name():
    with pytest.raises(ModelError, match="^MODEL: reformer cannot be trained here: .*training mode"):
        Policy(tiny("reformer"))
    frozen = tiny("reformer")
    frozen.requires_grad_(False)
    assert Policy(frozen), "a model that is only read needs no gradients"


def test_a_classifier_without_a_score_of_the_last_state_is_refused(tmp_path):
    Policy(tiny("ctrl")).save(tmp_path, checks.tokenizer())
    with pytest.raises(ModelError, match="ctrl has no linear score"):
        RewardModel.start(tmp_path, checks.tokenizer())


# ids without a token


@torch.no_grad()
def test_ids_without_a_token_are_never_drawn_and_have_no_share_of_the_probability():
    lm, known = tiny("llama"), len(checks.tokenizer())
    lm.lm_head.weight[known:] = 3 * lm.lm_head.weight[known - 1]  # likely ones, if they counted
    words = Words.known_to(checks.tokenizer())
    assert (words.count, words.holes) == (known, ())
    checks.check_sampler(lm)
    checks.check_logprobs(lm)
    drawn = NativeGenerator(lm, checks.tokenizer(), ()).generate(
        [checks.TokenPrompt(checks.Prompt("p", ""), (5, 6))],
        8,
        SamplingSection(max_new_tokens=20),
        seed=0,
        iteration=0,
    )
    assert max(max(r.response_ids) for r in drawn) < known


@torch.no_grad()
def test_holes_in_the_ids_of_a_tokenizer_have_no_probability():
    lm, batch = tiny("llama"), checks.padded()
    holes = (7, 20, 33)
    words = Words(60, holes)
    out = Policy(lm, words=words, entropy_grad=True)(batch)
    logits = lm(input_ids=batch.tokens[:1, :30]).logits[0]
    allowed = [i for i in range(60) if i not in holes]
    plain = logits[:, allowed].log_softmax(-1)
    for t in range(3, 30):
        token = int(batch.tokens[0, t])
        if token in allowed:
            assert torch.isclose(out.logprobs[0, t], plain[t - 1, allowed.index(token)], atol=1e-4)
    entropy = -(plain.exp() * plain).sum(-1)
    assert torch.allclose(out.entropy[0, 3:30], entropy[2:29], atol=1e-4)


def test_holes_are_found_by_ids_and_not_by_their_number():
    class Sparse:
        def get_vocab(self):
            return {"a": 0, "b": 1, "c": 5}

    assert Words.known_to(Sparse()) == Words(6, (2, 3, 4))
