"""Masks, one beginning, one end: the same tokens in training as in generation, whatever the template."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from plaudit.data.chat import ChatFormat
from plaudit.errors import DataError, ModelError
from plaudit.records import Message

SPECIALS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no system turns here') }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "inst": INST, "none": None}
END_OF_CHAT = {"chatml": "<|im_end|>", "inst": "</s>", "none": "</s>"}
CHAT = (Message("user", "hello"), Message("assistant", "are you"), Message("user", "how"))


def make_tokenizer(template=None, adds_bos=True, **specials):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["hello world how are you user assistant"] * 3, trainer)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | specials
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, extra_special_tokens=["<|im_start|>", "<|im_end|>"], **named
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=["chatml", "inst", "none"])
def name(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["adds-bos", "adds-none"])
def form(request, name):
    return ChatFormat(make_tokenizer(TEMPLATES[name], request.param))


def trained(form, encoded):
    """The text of each run of trained tokens."""
    runs, last = [], False
    for token, is_trained in zip(encoded.ids, encoded.mask, strict=True):
        if is_trained:
            runs = [*runs[:-1], [*runs[-1], token]] if last else [*runs, [token]]
        last = is_trained
    return [form.tokenizer.decode(run) for run in runs]


def test_the_prompt_of_a_row_is_the_prompt_of_generation(form):
    for content in (CHAT, CHAT[:1], "hello", ""):
        encoded = form.encode(content, "world")
        assert encoded.ids[: encoded.prompt_length] == form.prompt_ids(content)
        assert form.encode_prompt(content).ids == form.prompt_ids(content)


def test_only_the_response_and_its_end_are_trained_on(form, name):
    encoded = form.encode(CHAT, "world")
    space = "" if name == "chatml" else " "
    assert trained(form, encoded) == [f"{space}world{END_OF_CHAT[name]}"]
    assert encoded.mask.index(True) == encoded.prompt_length


def test_all_turns_are_trained_on_if_asked_for(form, name):
    encoded = form.encode(CHAT, "world", all_turns=True)
    end = END_OF_CHAT[name]
    space, inner_end = ("", end) if name == "chatml" else (" ", end if name == "inst" else "")
    assert trained(form, encoded) == [f"{space}are you{inner_end}", f"{space}world{end}"]
    assert encoded.ids == form.encode(CHAT, "world").ids


def test_one_beginning_and_one_end(form, name):
    bos, eos = 0, 1
    for prompt in (CHAT[:1], "hello", "<s>hello", ""):
        for response in ("world", "", "world</s>", "world" + END_OF_CHAT[name]):
            encoded = form.encode(prompt, response)
            end = form.end_ids[-1] if isinstance(prompt, str) else form.end_ids[0]
            assert encoded.ids.count(bos) <= 1 and encoded.ids[1:].count(bos) == 0
            assert encoded.ids[-1] == end and encoded.mask[-1]
            if isinstance(prompt, str):
                assert encoded.ids.count(eos) == 1 or response.endswith("<|im_end|>")
            else:
                assert encoded.ids.count(end) == encoded.ids[: encoded.prompt_length].count(end) + 1


def test_a_tokenizer_that_adds_a_beginning_gets_one_always(name):
    form = ChatFormat(make_tokenizer(TEMPLATES[name], adds_bos=True))
    assert form.opening == (0,)
    for content in (CHAT, "hello", ""):
        assert form.prompt_ids(content)[0] == 0
        assert form.encode_prompt(content).opening == 1


def test_a_tokenizer_that_adds_none_gets_none_but_before_nothing():
    form = ChatFormat(make_tokenizer(adds_bos=False))
    assert form.opening == () and 0 not in form.prompt_ids("hello")
    assert form.prompt_ids("") == [0]
    assert ChatFormat(make_tokenizer(adds_bos=False, bos_token=None)).prompt_ids("") == [1]


def test_end_tokens(name):
    ends = ChatFormat(make_tokenizer(TEMPLATES[name])).end_ids
    assert ends == ((4, 1) if name == "chatml" else (1,))
    assert ChatFormat(make_tokenizer(CHATML), "never").end_ids == (1,)
    assert ChatFormat(make_tokenizer(CHATML, eos_token="<|im_end|>")).end_ids == (4,)
    with pytest.raises(ModelError, match="no end token"):
        _ = ChatFormat(make_tokenizer(eos_token=None)).end_ids


def test_what_was_generated_is_encoded_to_the_same_tokens(form):
    encoded = form.encode(CHAT, "hello world")
    said = form.tokenizer.decode(encoded.ids[encoded.prompt_length : -1])
    assert form.encode(CHAT, said) == encoded


def test_no_merge_at_the_boundary():
    form = ChatFormat(make_tokenizer())
    assert (
        form.tokenizer("hello", add_special_tokens=False)["input_ids"] != form.encode("hel", "lo").ids[1:-1]
    )
    assert form.encode("hel", "lo").ids[: len(form.prompt_ids("hel"))] == form.prompt_ids("hel")


def test_responses_of_several_turns(form, name):
    turns = (Message("assistant", "are"), Message("user", "you"), Message("assistant", "how"))
    encoded = form.encode(CHAT[:1], turns)
    end = END_OF_CHAT[name]
    space, inner_end = ("", end) if name == "chatml" else (" ", end if name == "inst" else "")
    assert trained(form, encoded) == [f"{space}are{inner_end}", f"{space}how{end}"]
    assert encoded.prompt_length == encoded.mask.index(True)
    assert form.tokenizer.decode(encoded.ids).count("hello") == 1


def test_a_whole_chat_without_a_prompt(form):
    encoded = form.encode((), CHAT[:2])
    assert encoded.ids == form.encode(CHAT[:1], "are you").ids


def test_templates_that_refuse_are_a_data_error():
    form = ChatFormat(make_tokenizer(INST))
    with pytest.raises(DataError, match="no system turns here"):
        form.prompt_ids((Message("system", "be kind"), *CHAT[:1]))
    with pytest.raises(DataError, match="ends with a turn of user"):
        form.encode(CHAT[:1], (Message("assistant", "a"), Message("user", "b")))


def test_a_template_that_rewrites_earlier_turns_loses_only_their_mask():
    hidden = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else '...' }}")
    encoded = ChatFormat(make_tokenizer(hidden)).encode(CHAT, "world", all_turns=True)
    assert sum(encoded.mask) == len(encoded) - encoded.prompt_length


def test_readable_text(form):
    assert form.text("hello") == "hello"
    assert form.text(CHAT[:2]) == "Human: hello\n\nAssistant: are you"
