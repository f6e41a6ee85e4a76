"""Proof of what is trained: a prompt as the model reads it, the tokens that count, and where a response stops.

The chat format (`plaudit.data.chat`) derives all of this from the tokenizer. Here it is held against the tokenizer's
own `apply_chat_template`, which servers and other tools call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plaudit.data.chat import ChatFormat, Encoded
from plaudit.errors import PlauditError
from plaudit.records import Content, to_json
from plaudit.runtime import TextFormat
from plaudit.stages.doctor.part import WIDTH, Part, printable, shortened
from plaudit.stages.said import Said

WORD = "plaudit"
"""Stands for the words of a turn in the chat that the template is asked to write."""
LABEL = 12


@dataclass(frozen=True, slots=True)
class Example:
    """A row of the data as the model reads it."""

    prompt: Content
    row: Encoded


@dataclass
class _Found:
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def tell_template(text: TextFormat, said: Said) -> None:
    """At the start of a run: how chats are written and where a response ends, in a line."""
    if text.is_encoder:
        return
    fields = {"chats": text.chat.name, "ends": list(text.chat.end_ids), "stop_texts": list(text.chat.stop_texts)}
    how = f"chats are written as {text.chat.name}; a response ends at {_ends(text.chat)}"
    said.fact("template", how, "template", fields)


def examine_template(text: TextFormat, examples: Sequence[Example], *, trained: bool = True) -> Part:
    """What a model reads of some rows, what of it is trained, and where responses stop.

    Args:
        text: of the model.
        examples: rows, at least one.
        trained: they have responses that are trained on; else they are prompts.
    """
    chat = text.chat
    found = _Found({"chats": chat.name, "rows": len(examples)})
    lines = [f"{'chats':<{LABEL}}{chat.name}" if _chats(examples) else f"{'texts':<{LABEL}}continued as they stand"]
    first = examples[0].row
    lines += _labelled("prompt", chat.decode(first.ids[: first.prompt_length]), f"{first.prompt_length} tokens")
    if trained:
        lines += _labelled("trained", _trained_text(chat, first), f"{sum(first.mask)} of {len(first)} tokens")
        _check_trained(chat, examples, found)
    if text.is_encoder:
        lines.append(f"{'ends':<{LABEL}}it reads pairs of texts, and writes none")
        return Part("template", found.figures, lines, found.warnings)
    found.figures |= {"end_ids": list(chat.end_ids), "stop_texts": list(chat.stop_texts)}
    lines.append(f"{'ends':<{LABEL}}a response stops at {_ends(chat)}")
    if _chats(examples) and chat.uses_template:
        lines += _against_template(chat, examples, found)
    _check_beginnings(chat, examples, found)
    return Part("template", found.figures, lines, found.warnings)


def _chats(examples: Sequence[Example]) -> bool:
    return any(not isinstance(example.prompt, str) for example in examples)


def _labelled(label: str, text: str, after: str) -> Iterator[str]:
    """A long text on two lines: its beginning, and its end where that is another part."""
    room = WIDTH - LABEL - 6
    yield f"{label:<{LABEL}}{after}"
    yield f"{'':<{LABEL}}{shortened(text, room)}"
    if len(printable(text)) > room:
        yield f"{'':<{LABEL}}{shortened(text, room, end=True)}"


def _trained_text(chat: ChatFormat, row: Encoded) -> str:
    """The trained tokens, with a gap where others stand between."""
    parts: list[list[int]] = []
    before = False
    for token, counts in zip(row.ids, row.mask, strict=True):
        if counts and not before:
            parts.append([])
        if counts:
            parts[-1].append(token)
        before = counts
    return " [...] ".join(chat.decode(part) for part in parts)


def _ends(chat: ChatFormat) -> str:
    named = [f"{_name(chat, end)} (token {end})" for end in chat.end_ids]
    return " or ".join([*named, *(f"the text {printable(text)!r}" for text in chat.stop_texts)])


def _name(chat: ChatFormat, token: int) -> str:
    return printable(str(chat.tokenizer.convert_ids_to_tokens(token)))


def _check_trained(chat: ChatFormat, examples: Sequence[Example], found: _Found) -> None:
    """Each response ends with an end token that is trained, and no prompt is empty of trained tokens behind it."""
    rows = [example.row for example in examples]
    open_ended = sum(not (row.mask[-1] and row.ids[-1] in chat.end_ids) for row in rows if row.mask)
    found.figures |= {
        "trained_share": sum(map(sum, (row.mask for row in rows))) / max(1, sum(map(len, rows))),
        "rows_without_trained_end": open_ended,
    }
    if open_ended:
        found.warnings.append(
            f"{open_ended} of {len(rows)} rows do not end with an end token that is trained: a model that never sees "
            "its end does not learn to stop; look at `plaudit data check` for responses that are context only or cut"
        )


def _against_template(chat: ChatFormat, examples: Sequence[Example], found: _Found) -> Iterator[str]:
    """Is it what `apply_chat_template` writes, and is the end that it writes one at which sampling stops?"""
    same, compared = 0, 0
    for example in examples:
        wanted = _prompt_of_template(chat, example.prompt)
        if wanted is not None:
            compared += 1
            same += wanted == example.row.ids[: example.row.prompt_length]
    found.figures |= {"prompts_as_apply_chat_template": same, "prompts_compared": compared}
    if compared:
        yield f"{'':<{LABEL}}{same} of {compared} prompts are token for token what apply_chat_template gives"
    if same < compared:
        found.warnings.append(
            f"{compared - same} of {compared} prompts differ from what the tokenizer's apply_chat_template gives: cut "
            "to max_length, or written otherwise; a server that uses the template would show the model other tokens"
        )
    after = _after_a_turn(chat)
    ids = [] if after is None else chat.tokenizer(after, add_special_tokens=False)["input_ids"]
    stops = bool(ids and ids[0] in chat.end_ids) or any((after or "").startswith(t) for t in chat.stop_texts)
    found.figures["template_end_stops"] = stops
    if stops:
        yield f"{'':<{LABEL}}the template ends a turn with {shortened(after or '', 40)!r}: sampling stops there"
    else:
        wrote = "nothing" if not after else repr(shortened(after, 40))
        found.warnings.append(
            f"after a turn of the assistant the chat template writes {wrote}, which is none of the ends: responses "
            "that were trained with it go on until max_new_tokens. Mend the template, or name the text with --stop"
        )


def _prompt_of_template(chat: ChatFormat, prompt: Content) -> list[int] | None:
    """Token ids by the tokenizer's own function; None for a text, and where it refuses the chat."""
    if isinstance(prompt, str) or any(message.tools or message.tool_calls for message in prompt):
        return None
    tokenizer: Any = chat.tokenizer
    try:
        ids = tokenizer.apply_chat_template(
            to_json(list(prompt)), add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except Exception:  # a template may raise anything
        return None
    return list(ids)


def _after_a_turn(chat: ChatFormat) -> str | None:
    """What the template writes right after the words of an assistant's turn; None where it refuses a plain chat."""
    tokenizer: Any = chat.tokenizer
    known = [{"role": "user", "content": "a"}, {"role": "assistant", "content": WORD}]
    try:
        text = str(tokenizer.apply_chat_template(known, tokenize=False))
    except Exception:  # a template may raise anything
        return None
    return text.rpartition(WORD)[2].lstrip()


def _check_beginnings(chat: ChatFormat, examples: Sequence[Example], found: _Found) -> None:
    begin = chat.tokenizer.bos_token_id
    twice = sum(begin is not None and example.row.ids[:2] == [begin, begin] for example in examples)
    found.figures["rows_with_two_beginnings"] = twice
    if twice:
        found.warnings.append(
            f"{twice} of {len(examples)} rows begin with {_name(chat, begin or 0)} twice: the template writes it and "
            "the tokenizer adds it; take it out of one of them"
        )


def sampled_lines(chat: ChatFormat, ids: Sequence[int], finish: str) -> Iterator[str]:
    """A response that was really drawn, with special tokens, and what ended it."""
    ended = {"stop": "stopped by itself", "length": "cut at max_new_tokens"}.get(finish, finish)
    yield from _labelled("a response", chat.decode(ids), f"{len(ids)} tokens, {ended}")


def prompts_of(chat: ChatFormat, contents: Sequence[Content]) -> list[Example]:
    """Prompts as examples; those that the template refuses are left out."""
    found = []
    for content in contents:
        try:
            found.append(Example(content, chat.encode_prompt(content)))
        except PlauditError:
            continue
    return found
