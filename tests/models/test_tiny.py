"""Tokenizers and models made on the spot."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from plaudit.models.tiny import tiny_lm, tiny_tokenizer

TEXTS = ["The cat sat on the mat, didn't it?", "user: hello!\n\tAssistant: good day"]
TURNS = [{"role": "user", "content": "The cat"}, {"role": "assistant", "content": " sat"}]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_decoding_gives_the_text_back_also_after_saving(kind, tmp_path):
    tokenizer = tiny_tokenizer(TEXTS, 400, kind=kind)
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        for text in TEXTS:
            ids = one(text)["input_ids"]
            assert ids.count(one.bos_token_id) == 1
            assert ids[0] == one.bos_token_id
            assert one.decode(ids, skip_special_tokens=True) == text
        assert len({one.pad_token_id, one.eos_token_id, one.bos_token_id, one.unk_token_id}) == 4


def test_vocabulary_is_the_most_frequent_and_does_not_depend_on_order():
    texts = ["b b b a a c"]
    tokenizer = tiny_tokenizer(texts, 6, chat=False)
    assert set(tokenizer.get_vocab()) == {"<pad>", "<unk>", "<s>", "</s>", " a", " b"}
    assert tokenizer("c", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    two = ["b a", "a b"]
    assert tiny_tokenizer(two, 20).get_vocab() == tiny_tokenizer(two[::-1], 20).get_vocab()


def test_byte_pairs_know_every_text():
    tokenizer = tiny_tokenizer(TEXTS, 300, kind="bpe")
    text = "größer 漢字 🙂"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_chat_template_has_one_bos_and_ends_every_turn():
    tokenizer = tiny_tokenizer(TEXTS, 400)
    ids = tokenizer.apply_chat_template(TURNS, return_dict=False)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == 2
    assert ids[-1] == tokenizer.eos_token_id
    prompt = tokenizer.apply_chat_template(TURNS[:1], return_dict=False, add_generation_prompt=True)
    assert ids[: len(prompt)] == prompt
    assert tiny_tokenizer(TEXTS, chat=False).chat_template is None


def test_models_are_tiny_and_given_by_their_seed(decoder):
    tokenizer = tiny_tokenizer([" ".join(f"word{i}" for i in range(400))], 512)
    state = torch.get_rng_state()
    first, again, other = (tiny_lm(decoder, tokenizer, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert 0.5e6 < sum(p.numel() for p in first.parameters()) < 1.2e6
    weights = [m.get_input_embeddings().weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.config.pad_token_id == tokenizer.pad_token_id != first.config.eos_token_id
