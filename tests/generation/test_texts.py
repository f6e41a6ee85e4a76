"""Texts of responses: special tokens are seen, stop texts end where they are first complete."""

from __future__ import annotations

from typing import Any

import chat_patterns as patterns
import pytest

from plaudit.config.sections import SamplingSection
from plaudit.data.chat import Tokens
from plaudit.generation.native import NativeGenerator
from plaudit.generation.texts import ResponseTexts
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt


@pytest.fixture(params=patterns.KINDS)
def tokens(request: pytest.FixtureRequest) -> Tokens:
    specials = ["<s>", "</s>", "<|end|>", "<|call|>"]
    return Tokens(patterns.make_tokenizer(request.param, specials, bos_token="<s>", eos_token="</s>"))


def ids(tokens: Tokens, text: str) -> list[int]:
    return tokens.following("hello", tokens.ids("hello"), text)[0]


def drawn(tokens: Tokens, text: str, *stop: str, least: int = 0) -> tuple[str, int]:
    """The text of a response whose tokens are those of ``text``, and how many were drawn until it stopped."""
    texts, prompt, row = ResponseTexts(tokens, stop), tokens.ids("hello"), ids(tokens, text)
    for count in range(1, len(row) + 1):
        if count >= least and texts.stopped(prompt, row[:count]):
            return texts.of(prompt, row[:count], stopped=True), count
    return texts.of(prompt, row, stopped=False), len(row)


def test_special_tokens_are_part_of_the_text(tokens: Tokens) -> None:
    assert drawn(tokens, " fine<|call|>rain")[0].replace("> ", ">") == " fine<|call|>rain"


def test_a_special_token_may_be_a_stop_text(tokens: Tokens) -> None:
    text, count = drawn(tokens, " fine<|call|>rain", "<|call|>")
    assert text == " fine" and ids(tokens, " fine<|call|>rain")[count - 1] == ids(tokens, " fine<|call|>")[-1]


def test_a_stop_text_at_the_very_beginning_keeps_its_space(tokens: Tokens) -> None:
    assert drawn(tokens, " rain and sun", " rain")[0] == ""
    assert drawn(tokens, " rain and sun", "  rain")[0] == " rain and sun"


def test_the_first_of_two_stop_texts_in_one_token_ends_the_text() -> None:
    tokens = Tokens(patterns.make_tokenizer("bytes", ["</s>"], eos_token="</s>"))
    tokenizer: Any = tokens.tokenizer
    tokenizer.add_tokens([" ab--cd--"])
    assert len(ids(tokens, " ab--cd--")) == 1
    assert drawn(tokens, " ab--cd--", "--")[0] == " ab"
    assert drawn(tokens, " ab--cd--", "cd", "--cd--")[0] == " ab"


def test_stop_texts_before_the_least_length_do_not_end_a_response(tokens: Tokens) -> None:
    text = " a; b; c; d"
    least = len(ids(tokens, " a; b;")) + 1
    assert drawn(tokens, text, ";", least=least)[0] == " a; b; c"
    assert drawn(tokens, text, ";")[0] == " a"
    assert drawn(tokens, " ; hello", ";", least=len(ids(tokens, " ;")) + 1)[0] == " ; hello"


def test_a_stop_text_of_characters_of_several_tokens(tokens: Tokens) -> None:
    assert drawn(tokens, " é and ü end", "ü")[0] == " é and "
    assert drawn(tokens, " ü", "ü")[0] == " "


def test_stop_texts_of_the_template_end_every_response(tokenizer: Any, models: Any) -> None:
    sampling = SamplingSection(max_new_tokens=12, temperature=5.0)
    prompt = TokenPrompt(Prompt("p", "x"), (5, 9))
    free = NativeGenerator(models["llama"], tokenizer, ()).generate([prompt], 8, sampling, seed=0, iteration=0)
    stop = tokenizer.decode(free[0].response_ids[4:5])
    for before, after in zip(
        free, NativeGenerator(models["llama"], tokenizer, (stop,)).generate([prompt], 8, sampling, seed=0, iteration=0),
        strict=True,
    ):  # fmt: skip
        assert after.response == before.response.split(stop)[0]
        assert after.finish_reason == ("stop" if stop in before.response else "length")


def test_a_setting_hides_special_tokens_and_stop_texts_still_see_them(tokens: Tokens) -> None:
    texts, prompt = ResponseTexts(tokens, ("<|end|>",), "plain"), tokens.ids("hello")
    row = ids(tokens, " fine<|call|> rain<|end|>")
    assert texts.stopped(prompt, row) and not texts.stopped(prompt, row[:-1])
    seen = texts.of(prompt, row, stopped=True), texts.of(prompt, row[:-1], stopped=False)
    assert [" ".join(text.split()) for text in seen] == ["fine rain", "fine rain"]
    whole = ResponseTexts(tokens, ("<|end|>",)).of(prompt, row, stopped=True)
    assert "<|call|>" in whole and "<|end|>" not in whole
