"""A tokenizer's chat template: what it writes of a chat, and what it is found to know of turns."""

# A template is a program, and has no list of what it understands. So each question is put to it as a small chat with
# words that can be recognised in what it writes.

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import product
from os.path import commonprefix
from typing import Any

from plaudit.data.chat.tokens import Tokenizer
from plaudit.errors import DataError, ModelError
from plaudit.machine import TooSlow, time_limit
from plaudit.records import Message, to_json

WORD = "plaudit"
"""Stands for the words of a turn in questions to a template."""
CALL = {
    "id": "plaudit01",
    "type": "function",
    "function": {"name": "plaudit_call", "arguments": {"plaudit_key": "plaudit_value"}},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "plaudit_tool",
        "description": "plaudit",
        "parameters": {"type": "object", "properties": {"plaudit_key": {"type": "string", "description": "plaudit"}}},
    },
}  # fmt: skip
ASKED = {"role": "user", "content": "a"}
MOST_SECONDS = 20.0
"""A template writes a long chat in milliseconds. One that takes so long is in a loop, which may have no end."""
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
Written = dict[str, Any]
"""A message as a template reads it."""


class Template:
    """Writes chats as the template of a tokenizer does, each turn in the form that the template understands.

    Args:
        tokenizer: with a chat template.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def source(self) -> str:
        """The text of the template, or of all of them where a tokenizer has several."""
        return str(self._tokenizer.chat_template)

    def write(self, turns: Sequence[Message], *, open_end: bool) -> str:
        """A chat as text; ``open_end`` adds the opening of the assistant's turn.

        Raises:
            DataError: the template refuses the chat, or does not write its calls or its tools.
        """
        tools = turns[0].tools if turns else None
        if tools and not self.writes_tools:
            raise DataError(
                "the tokenizer's chat template does not write tools",
                cure="take a model whose template knows them, or write them into a turn of the system",
            )
        messages = [self._message(turn) for turn in turns]
        try:
            return self._render(messages, open_end, tools)
        except ModelError:
            raise
        except Exception as error:  # a template may raise anything
            roles = ", ".join(turn.role for turn in turns) or "none"
            what = f"the tokenizer's chat template refuses a chat with the turns {roles}: {error}"
            raise DataError(what, cure="let the roles alternate, or set chat_template to never") from error

    def _render(
        self, messages: Sequence[Written], open_end: bool, tools: Any = None, **options: Any
    ) -> str:
        if tools:
            options["tools"] = to_json(tools)
        # A template is a program of whoever made the model. It runs in a sandbox, and that lets it loop without end.
        try:
            with time_limit(MOST_SECONDS):
                return str(
                    self._tokenizer.apply_chat_template(
                        list(messages), tokenize=False, add_generation_prompt=open_end, **options
                    )
                )
        except TooSlow as error:
            raise ModelError(
                f"the chat template of {self._tokenizer.name_or_path or 'the tokenizer'} did not end within"
                f" {MOST_SECONDS:g} s: it may be in an endless loop",
                where="chat_template of the tokenizer",
                cure="mend or replace the template that came with the model, or set chat_template to never",
            ) from error

    def _message(self, turn: Message) -> Written:
        message = {k: v for k, v in to_json(turn).items() if k not in ("train", "tools", "tool_calls") and v != ""}
        message["content"] = self._content(turn.content)
        if turn.reasoning_content and self.key_of_thoughts:
            message[self.key_of_thoughts] = message.pop("reasoning_content")
        if turn.tool_calls:
            if self._form_of_calls is None:
                raise DataError(
                    "the tokenizer's chat template does not write tool_calls",
                    cure="take a model whose template knows them, or write the calls into the content",
                )
            message["tool_calls"] = [self._form_of_calls(call) for call in to_json(turn.tool_calls)]
        return message

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self._wants_parts else text

    # What a template knows

    def asked(self, *messages: Written, open_end: bool = False, **options: Any) -> str:
        """What the template writes of a chat in which a user asks and these messages follow; "" if it refuses."""
        return self._tried([ASKED | {"content": self._content("a")}, *messages], open_end, **options)

    def _tried(self, messages: Sequence[Written], open_end: bool, **options: Any) -> str:
        """What the template writes; "" if it refuses. Raises ModelError for one that does not end."""
        # Templates raise errors of every kind, and a refused question is an answer too.
        try:
            return self._render(messages, open_end, **options)
        except ModelError:
            raise
        except Exception:
            return ""

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether contents are lists of parts, as in templates of models that also see images."""
        contents: tuple[Any, ...] = (WORD, [{"type": "text", "text": WORD}])
        texts = [self._tried([{"role": "user", "content": content}], False) for content in contents]
        # A template that prints whatever it is given prints a list of parts as Python does.
        return WORD not in texts[0] and WORD in texts[1] and "'text'" not in texts[1]

    @cached_property
    def writes_tools(self) -> bool:
        """Whether it writes the tools that the assistant may call."""
        return "plaudit_tool" in self.asked(open_end=True, tools=[TOOL])

    @cached_property
    def key_of_thoughts(self) -> str:
        """The key under which it finds the thoughts of a turn; "" if it writes none."""
        answered = {"role": "assistant", "content": self._content("b")}
        return next((k for k in _THOUGHTS if WORD in self.asked(answered | {k: WORD})), "")

    @cached_property
    def _form_of_calls(self) -> Callable[[Written], Written] | None:
        """What makes a call one that it writes; None if it writes no calls."""
        # Most templates want the arguments as an object, some as a text of JSON, and some the function alone.
        fair: Callable[[Written], Written] | None = None
        for form in _forms_of_calls():
            text = self.asked(self.calling(form(CALL)))
            if "plaudit_call" not in text or "plaudit_value" not in text:
                continue
            # Arguments that are printed as Python does, or as JSON of a text of JSON, are in a wrong form.
            if '\\"plaudit_key' not in text and "{'plaudit_key'" not in text:
                return form
            fair = fair or form
        return fair

    def calling(self, call: Written) -> Written:
        """A turn of the assistant that makes a call."""
        return {"role": "assistant", "content": self._content(""), "tool_calls": [call]}

    @cached_property
    def written_call(self) -> str:
        """What it writes of a chat that ends with a call; "" if it writes none."""
        return self.asked(self.calling(self._form_of_calls(CALL))) if self._form_of_calls else ""

    # What it writes around a turn of the assistant

    @cached_property
    def opened(self) -> str:
        """A question with the opening of the assistant's turn."""
        return self.asked(open_end=True)

    @cached_property
    def _answered(self) -> tuple[str, str]:
        """What it writes before and after the words of the last turn."""
        before, word, after = self.asked({"role": "assistant", "content": self._content(WORD)}).rpartition(WORD)
        return (before, after) if word else ("", "")

    @property
    def lead(self) -> str:
        """What it writes between the opening of the assistant's turn and its words."""
        before = self._answered[0]
        return before.removeprefix(self.opened) if before.startswith(self.opened) else ""

    @property
    def tail(self) -> str:
        """What it writes after the words of the last turn."""
        return self._answered[1]

    @cached_property
    def lasting_tail(self) -> str:
        """The part of `tail` that it writes after an earlier turn too: some write one more token at the very end."""
        turn = {"role": "assistant", "content": self._content(WORD)}
        answered = self.asked(turn, {"role": "user", "content": self._content("b")})
        return commonprefix([self.tail, answered.rpartition(WORD)[2]])

    @property
    def after_user(self) -> str:
        """What it writes after the words of a user who asks."""
        asked = {"role": "user", "content": self._content(WORD)}
        return self._tried([asked], True).rpartition(WORD)[2]

    @cached_property
    def trims(self) -> bool:
        """Whether it takes spaces off the words of the assistant."""
        spaced = self.asked({"role": "assistant", "content": self._content(f" {WORD} ")})
        return spaced.rpartition(WORD)[2] == self.tail


def _forms_of_calls() -> Iterator[Callable[[Written], Written]]:
    """The forms in which templates read a call, the usual one first."""
    for bare, as_text in product((False, True), (False, True)):
        yield partial(_in_form, bare=bare, as_text=as_text)


def _in_form(call: Mapping[str, Any], *, bare: bool, as_text: bool) -> Written:
    inner = dict(call["function"]) if isinstance(call.get("function"), Mapping) else dict(call)
    arguments = inner.get("arguments")
    if as_text and not isinstance(arguments, (str, type(None))):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if arguments is not None:
        inner["arguments"] = arguments
    if bare:
        return ({"id": call["id"]} if "id" in call else {}) | inner
    outer = call if "function" in call else {"type": "function"} | {k: v for k, v in call.items() if k == "id"}
    return {**outer, "function": inner}
