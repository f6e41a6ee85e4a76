"""What the assistant has to write for a turn: all that the template writes behind the opening of that turn."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from plaudit.data.chat.template import Template
from plaudit.errors import DataError
from plaudit.records import Message

_TAG = re.compile(r"([<\[{(◁])([^\s/<\[{(◁][^\s<\[{(◁]*)\s*\Z")
"""A tag at the end of a text that opens something."""
_KEPT = "responses are trained with their thoughts, which the chat template leaves out of a finished chat"
Count = Callable[[str], None]
"""Counts what is done otherwise than the data or the template say; called with words for one row."""


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The tags between which a model thinks before it answers, where its template opens them for every response."""

    opening: str
    """What the opening of the turn ends with, its line break included: "<think>\\n"."""
    tag: str
    close: str

    @property
    def space(self) -> str:
        """The line break after the opening tag, or none."""
        return self.opening.removeprefix(self.tag)

    @property
    def closing(self) -> str:
        """What closes thoughts, and leads over to the answer."""
        return f"{self.space}{self.close}{2 * self.space}"


class Answers:
    """Finished turns, as what comes behind the opening that generation begins with.

    Args:
        template: of the chats.
        count: told of rows in which something is done otherwise than the template or the data say.
    """

    def __init__(self, template: Template, count: Count) -> None:
        self._template, self._count = template, count

    def finished(self, opened: str, turns: Sequence[Message]) -> str:
        """What the template writes of the last turn, from behind its opening on to its end.

        Args:
            opened: the turns before the last one, with the opening of the assistant's turn.
            turns: all turns.

        Raises:
            DataError: the template refuses the chat, or writes nothing of the last turn or of its calls or thoughts.
        """
        last = self._without_lead(turns[-1])
        if last.reasoning_content and not (self._template.key_of_thoughts or self.thoughts):
            raise DataError(
                "the tokenizer's chat template does not write reasoning_content, the thoughts of a turn",
                cure="take a model whose template knows them, or write them into the content",
            )
        text = self._text(opened, (*turns[:-1], last))
        self._check(text, opened, (*turns[:-1], last))
        return text

    def _text(self, opened: str, turns: Sequence[Message]) -> str:
        """What the template writes of the last turn from behind its opening on, to be checked."""
        whole = self._template.write(turns, open_end=False)
        if whole.startswith(opened):
            return whole[len(opened) :]
        if self.thoughts and whole.startswith(opened.removesuffix(self.thoughts.opening)):
            return self._thought(whole[len(opened) - len(self.thoughts.opening) :], turns[-1])
        self._count("responses stand behind an opening that the chat template does not write in a finished chat")
        return turns[-1].content + self._template.tail

    def earlier(self, opened: str, turns: Sequence[Message]) -> str:
        """As `finished`, for a turn that was answered: "" where the template refuses it, and nothing is counted."""
        silent = Answers(self._template, lambda words: None)
        try:
            return silent.finished(opened, turns)
        except DataError:
            return ""

    def likely(self, words: str, end: str) -> str:
        """What stands behind the opening of a turn with these words, if the template changes nothing of them."""
        return self._template.lead + words + end

    def _without_lead(self, last: Message) -> Message:
        """The turn without the space that the template writes before its words, if they begin with it already."""
        # Responses that were sampled begin with it: it is the first thing that the policy draws.
        lead = self._template.lead
        if not lead or not lead.isspace() or not last.content.startswith(lead):
            return last
        if not self._template.trims:
            self._count("responses begin with the space that the chat template writes before them: it is written once")
        return replace(last, content=last.content.removeprefix(lead))

    def _check(self, text: str, opened: str, turns: Sequence[Message]) -> None:
        """Refuse a turn that vanishes; count one of which only a part is written."""
        last = turns[-1]
        calls = Counter(_name_of(call) for call in last.tool_calls or ())
        if lost := next((name for name, count in calls.items() if text.count(name) < count), None):
            raise DataError(
                f"the tokenizer's chat template does not write every call of {lost}",
                cure="give each call a turn of its own, or take a model whose template knows several calls in a turn",
            )
        tags = (self.thoughts.tag, self.thoughts.close) if self.thoughts else ("<think>", "</think>")
        parts = last.content.replace(tags[0], tags[1]).split(tags[1])
        if all(is_written(part, text) for part in (*parts, last.reasoning_content or "")):
            return
        # A response of thoughts alone may have nothing left behind them.
        answered = parts[-1].strip() or last.reasoning_content
        if answered and text == self._text(opened, (*turns[:-1], Message("assistant", ""))):
            raise DataError(
                "the tokenizer's chat template writes nothing of the response",
                cure="set chat_template to never, or take a model with another template",
            )
        self._count("responses of which the chat template leaves words out, such as thoughts, or writes other ones")

    # Thoughts

    @cached_property
    def thoughts(self) -> Thoughts | None:
        """The tags of thoughts, if every response begins inside them."""
        opened = self._template.opened
        tag = _TAG.search(opened)
        if tag is None:
            return None
        close = f"{tag[1]}/{tag[2]}"
        if close not in self._template.source and "think" not in tag[2].lower():
            return None
        return Thoughts(opened[tag.start() :], tag[0].rstrip(), close)

    def _thought(self, rest: str, last: Message) -> str:
        """What follows an opening that has opened thoughts, where a finished chat does not begin with that opening.

        Args:
            rest: what the template writes of the turn, without the opening of thoughts.
            last: the turn.
        """
        assert self.thoughts is not None
        tag, close, space = self.thoughts.tag, self.thoughts.close, self.thoughts.space
        if rest.lstrip().startswith(tag):  # once, not twice
            return rest.lstrip().removeprefix(tag).removeprefix(space)
        if close in rest:
            return rest
        if close in last.content:
            # The template leaves thoughts out of a finished chat; behind its opening there have to be some.
            self._count(_KEPT)
            inner = last.content[: last.content.rindex(close) + len(close)].lstrip().removeprefix(tag)
            return inner.removeprefix(space) + self._apart(rest)
        if last.reasoning_content:
            self._count(_KEPT)
            return last.reasoning_content.strip("\n") + self.thoughts.closing + rest.lstrip("\n")
        self._count(f"responses without thoughts: what the chat template opens is closed, as {self._closing!r}")
        return self._closing + rest.lstrip("\n")

    def _apart(self, rest: str) -> str:
        assert self.thoughts is not None
        return rest if rest[:1].isspace() else 2 * self.thoughts.space + rest

    @cached_property
    def _closing(self) -> str:
        """What closes thoughts that are empty: as the template does it when it is told not to think, if it does."""
        assert self.thoughts is not None
        opened = self._template.opened
        for switch in ("enable_thinking", "thinking"):
            quiet = self._template.asked(open_end=True, **{switch: False})
            if quiet.startswith(opened) and self.thoughts.close in quiet[len(opened) :]:
                return quiet[len(opened) :]
        return self.thoughts.closing


def is_written(words: str, text: str) -> bool:
    """Whether a text holds some words: as they are, trimmed, or as JSON writes them."""
    words = words.strip()
    return words in text or any(json.dumps(words, ensure_ascii=way)[1:-1] in text for way in (False, True))


def unwritten(turns: Sequence[Message], text: str) -> Iterator[str]:
    """What a template has not written of turns, in words for each kind of it."""
    for turn in turns:
        if turn.reasoning_content and not is_written(turn.reasoning_content, text):
            yield "earlier turns whose thoughts the chat template leaves out"
        if not is_written(turn.content, text):
            # Thoughts in a content are left out of the history by many templates.
            answer = turn.content.rpartition("</think>")[2]
            left = "whose thoughts the chat template leaves out"
            if answer == turn.content or not is_written(answer, text):
                left = "that the chat template leaves out, or writes in another form"
            yield f"turns of the {turn.role} {left}"
        if turn.name and turn.role != "tool" and not is_written(turn.name, text):
            yield "turns whose speaker's name the chat template does not write"


def _name_of(call: object) -> str:
    inner = call.get("function", call) if isinstance(call, dict) else {}
    return str(inner.get("name", "")) if isinstance(inner, dict) else ""
