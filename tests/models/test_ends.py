"""One set of ends: plain ``generate`` of the saved model stops where Plaudit's sampler stopped in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_patterns as patterns
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from plaudit.backends import open_policy
from plaudit.backends.local.models import policy_format
from plaudit.config.sections import SamplingSection
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.files.vocabulary import end_ids_of, ensure_pad
from plaudit.records import Message, Prompt
from plaudit.runtime import TextFormat, TokenPrompt

GREEDY = SamplingSection(top_k=1, max_new_tokens=8)
ASK = (Message("user", "hello"),)
ENDS = ["chatml", "chatml, end not special", "gemma", "llama3, eos of texts", "gpt-oss", "command-r", "zephyr", "phi3",
        "phi4-mini", "vicuna", "vicuna, no end", "olmo", "deepseek r1", "nemotron"]  # fmt: skip


def chained(tokenizer: Any, *chains: list[int]) -> LlamaForCausalLM:
    """A model that writes each chain of tokens from its first one on, whatever came before."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    lm = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if "o_proj" in name or "down_proj" in name or "lm_head" in name:
                weight.zero_()
        lm.model.embed_tokens.weight.normal_()
        for chain in chains:
            for before, after in zip(chain, chain[1:], strict=False):
                lm.lm_head.weight[after] = lm.model.embed_tokens.weight[before]
    return lm


def sampled(lm: Any, text: TextFormat, start: int) -> Any:
    prompt = TokenPrompt(Prompt("p", "x"), (start,))
    generator = NativeGenerator(lm, text.tokenizer, text.chat.ends)
    return generator.generate([prompt], 1, GREEDY, seed=0, iteration=0)[0]


@pytest.mark.parametrize("name", ENDS)
def test_generate_stops_where_the_sampler_stops(name: str, tmp_path: Path) -> None:
    tokenizer = patterns.tokenizer_of(name)
    ensure_pad(tokenizer)
    letters = tokenizer.convert_tokens_to_ids(list("abcdefghijk"))
    lm = chained(tokenizer)
    text = policy_format(tokenizer, lm, "auto")
    ends = text.chat.end_ids
    chains = [[letters[2 * i], letters[2 * i + 1], end, letters[0]] for i, end in enumerate(ends)]
    lm = chained(tokenizer, *chains)
    text = policy_format(tokenizer, lm, "auto")
    save_causal_lm(lm, tmp_path / "model", tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert again.eos_token == tokenizer.eos_token and again.chat_template == tokenizer.chat_template
    assert set(end_ids_of(loaded)) == set(ends)
    for chain in chains:
        rollout = sampled(lm, text, chain[0])
        assert list(rollout.response_ids) == chain[1:3] and rollout.finish_reason == "stop"
        assert rollout.response == tokenizer.decode(chain[1])
        assert loaded.generate(torch.tensor([chain[:1]]), max_new_tokens=8)[0].tolist() == chain[:3]
    assert text.chat.encode(ASK, "fine").ids[-1] in end_ids_of(loaded)


@pytest.mark.parametrize("listed", [7, [7], [7, 9], None, [7, 10**6]])
def test_all_ends_of_the_generation_config_are_kept(listed: Any, tmp_path: Path) -> None:
    tokenizer = patterns.tokenizer_of("chatml")
    ensure_pad(tokenizer)
    lm = chained(tokenizer, [20, 7, 21], [22, 9, 23])
    lm.generation_config.eos_token_id = listed
    text = policy_format(tokenizer, lm, "auto")
    further = [i for i in (listed if isinstance(listed, list) else [listed]) if i and i < len(tokenizer)]
    own = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert text.chat.end_ids == (own[0], *further, own[1])
    save_causal_lm(lm, tmp_path / "model", tokenizer)
    assert set(end_ids_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))) == {*own, *further}
    for first, end in ((20, 7), (22, 9)):
        assert (sampled(lm, text, first).response_ids[-1] == end) == (end in further)


def test_a_saved_model_has_the_same_ends_when_it_is_opened(tmp_path: Path) -> None:
    tokenizer = patterns.tokenizer_of("chatml")
    ensure_pad(tokenizer)
    lm = chained(tokenizer)
    text = policy_format(tokenizer, lm, "auto")
    save_causal_lm(lm, tmp_path / "model", tokenizer)
    assert open_policy(str(tmp_path / "model"))[1].end_ids == text.chat.end_ids


def test_an_end_of_several_tokens_stops_sampling_and_is_trained_with_an_end_token() -> None:
    tokenizer = patterns.tokenizer_of("end of several tokens")
    ensure_pad(tokenizer)
    text = policy_format(tokenizer, chained(tokenizer), "auto")
    assert text.chat.ends == (tokenizer.eos_token_id, "[END OF TURN]")
    row = text.chat.encode(ASK, "fine")
    assert text.chat.decode(row.ids[row.prompt_length :]) == "fine[END OF TURN]</s>"
    assert "not one token" in text.chat.notes[0]
