"""Responses are encoded and decoded where they stand: behind their prompt, with one beginning before both."""

from __future__ import annotations

from typing import Any

import chat_patterns as patterns
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plaudit.data.chat import ChatFormat, Tokens
from plaudit.records import Message

MARKED = ["llama legacy", "metaspace first", "metaspace always", "unigram"]
ASK = (Message("user", "hello how are you"),)


@pytest.fixture(params=patterns.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pieces(form: ChatFormat, ids: list[int]) -> list[str]:
    return [str(form.tokenizer.convert_ids_to_tokens(i)) for i in ids]


def llama(kind: str, template: str | None = None) -> ChatFormat:
    tokenizer = patterns.make_tokenizer(
        kind, ["<s>", "</s>", "<|assistant|>"], first="<s>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


def test_no_mark_of_a_beginning_stands_before_a_response(kind: str) -> None:
    form = ChatFormat(patterns.tokenizer_of("llama2", kind))
    row = form.encode(ASK, "I am fine.")
    text = "<s>[INST] hello how are you [/INST] I am fine. </s>"
    assert row.ids == form.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert pieces(form, row.ids[row.prompt_length :])[0] != "▁"


@pytest.mark.parametrize("response", ["I am fine.", " I am fine.", "  two", "\nfine", "é and 12", "", "x"])
@pytest.mark.parametrize("prompt", ["hello", "hello ", "hello\n", "hel", ""])
def test_texts_come_back_as_they_were(kind: str, prompt: str, response: str) -> None:
    if not prompt and response.startswith(" ") and kind in ("metaspace first", "metaspace always", "unigram"):
        pytest.skip("these write a text with and without a space before it the same")
    form = llama(kind)
    row = form.encode(prompt, response)
    before, after = row.ids[: row.prompt_length], row.ids[row.prompt_length : -1]
    assert before == form.prompt_ids(prompt)
    assert form.decode(after, before) == response
    assert form.encode(prompt, form.decode(after, before)) == row


def test_behind_a_special_token_a_text_begins_as_the_template_writes_it(kind: str) -> None:
    turn = "{{ m.content if m.role == 'user' else '<|assistant|>' + m.content + eos_token }}"
    turns = "{{ bos_token }}{% for m in messages %}" + turn + "{% endfor %}"
    form = llama(kind, turns + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    row = form.encode(ASK, "fine")
    text = "<s>hello how are you<|assistant|>fine</s>"
    assert row.ids == form.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert form.decode(row.ids[row.prompt_length : -1], row.ids[: row.prompt_length]) == "fine"


def test_a_sampled_space_is_kept(kind: str) -> None:
    form = llama(kind)
    prompt = form.prompt_ids("hello")
    sampled = form.tokenizer("hello are", add_special_tokens=False)["input_ids"][len(prompt) - 1 :]
    assert form.decode(sampled, prompt) == " are"


@pytest.mark.parametrize(
    "prompt, response",
    [
        ("", "<s>[INST] Hi [/INST] I am fine.</s>"),
        ("", "I am fine.</s>"),
        ("<s>hello", " fine"),
        ("<s><s>hello", " fine</s></s>"),
        ("hello", "<s>fine"),
        (ASK, "<s>fine</s>"),
        (ASK, "fine"),
    ],
)
def test_one_beginning_and_one_end(kind: str, prompt: Any, response: str) -> None:
    bos, eos = 1 if kind != "bytes" else 0, 2 if kind != "bytes" else 1
    for template in (None, patterns.LLAMA2):
        form = llama(kind, template)
        assert (form.tokenizer.bos_token_id, form.tokenizer.eos_token_id) == (bos, eos)
        row = form.encode(prompt, response)
        assert row.ids[0] == bos and row.ids.count(bos) == 1 and not row.mask[0]
        assert row.ids[-1] == eos and row.ids.count(eos) == 1 and row.mask[-1]


def test_a_beginning_that_is_left_out_of_a_response_is_said() -> None:
    form = llama("bytes")
    form.encode("", "<s>the text of a whole row")
    assert form.notes == ()
    form.encode("hello", "<s>fine")
    assert "beginning-of-text" in form.notes[0]


def test_a_bos_that_begins_each_turn_is_no_beginning_of_a_text() -> None:
    form = ChatFormat(patterns.tokenizer_of("smollm2"))
    row = form.encode(ASK, "<|im_start|>fine")
    assert form.decode(row.ids).count("<|im_start|>") == 3


def test_words_of_unknown_tokens_do_not_vanish() -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "hello": 2}, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Split(" ", "isolated"), decoders.Fuse()
    form = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>"))
    assert form.encode("strange", "words").ids == [0, 0, 1]


class Counting:
    """A tokenizer that notes how long the texts are that it reads."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.lengths: list[int] = []

    def __call__(self, text: str, **options: Any) -> Any:
        self.lengths.append(len(text))
        return self.tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def test_a_long_prompt_is_not_read_again_for_each_response() -> None:
    counting = Counting(patterns.tokenizer_of("chatml"))
    form = ChatFormat(counting)
    chat = (Message("user", "hello " * 400),)
    form.encode(chat, "fine")
    assert max(counting.lengths) > 2000
    counting.lengths.clear()
    form.encode(chat, "rain")
    assert max(counting.lengths) < 100


@pytest.mark.parametrize("kind", MARKED)
def test_kinds_that_mark_beginnings_are_known(kind: str) -> None:
    assert Tokens(llama(kind).tokenizer).marks_beginnings
    assert not Tokens(llama("bytes").tokenizer).marks_beginnings
