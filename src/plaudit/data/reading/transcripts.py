"""`Human:/Assistant:` transcripts: reading, writing, and splitting two of them into a prompt and two responses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plaudit.records import Content, Message, Role

_START = re.compile(r"\s*(?:Human|System):")
_TURN = re.compile(r"(?:^\s*|\n\n)(Human|Assistant|System):")
_ROLE_OF: dict[str, Role] = {"Human": "user", "Assistant": "assistant", "System": "system"}
_NAME_OF: dict[str, str] = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def is_transcript(text: str) -> bool:
    """Whether a text is a conversation in the format of HH-RLHF: "Human:" first, and an "Assistant:" turn.

    >>> is_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello"), is_transcript("Human: after all")
    (True, False)
    """
    return bool(_START.match(text)) and "\n\nAssistant:" in text


def parse_transcript(text: str, *, whole: bool = False) -> tuple[Message, ...]:
    """The turns of a transcript. One space after each colon belongs to the format; all other space is kept.

    An empty last assistant turn is an empty response if the transcript is ``whole``; otherwise it only marks
    the place of the response, and is left out.

    >>> parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant:")
    (Message(role='user', content='Hi'),)
    """
    parts = _TURN.split(text)[1:]
    # Splitting by a pattern with a group gives names and texts in turn.
    named = zip(parts[::2], parts[1::2], strict=True)
    turns = [Message(_ROLE_OF[name], text.removeprefix(" ")) for name, text in named]
    open_end = turns[-1].role == "assistant" and not turns[-1].content
    return tuple(turns[:-1] if open_end and not whole else turns)


def write_transcript(messages: Sequence[Message], *, open_end: bool = False) -> str:
    """Turns as an HH-RLHF transcript; ``open_end`` adds the "Assistant:" that a response continues.

    >>> write_transcript([Message("user", "Hi")], open_end=True)
    '\\n\\nHuman: Hi\\n\\nAssistant:'
    """
    turns = "".join(f"\n\n{_speaker(m)}: {m.text}" for m in messages)
    return turns + ("\n\nAssistant:" if open_end else "")


def _speaker(message: Message) -> str:
    return _NAME_OF[message.role] + (f" ({message.name})" if message.name else "")


def as_messages(content: Content, role: Role) -> tuple[Message, ...]:
    """A chat unchanged; a text as one turn of ``role``."""
    return (Message(role, content),) if isinstance(content, str) else content


def plain_text(content: Content) -> str:
    """A text or chat for people and reward functions: a single turn gives its text, several give named turns."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return content[0].text
    return write_transcript(content).lstrip("\n")


def prompt_key(prompt: Content) -> str:
    """The key of a prompt: two prompts that differ in case or spaces only have the same one."""
    words = ((m.role, f"{m.name} {m.text}" if m.name else m.text) for m in as_messages(prompt, "user"))
    return "\n".join(f"{role}:{' '.join(text.casefold().split())}" for role, text in words)


def split_shared(chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    """Two whole transcripts as prompt, chosen, rejected: the prompt is what they share.

    Chats are split before the first turn that differs if it is the assistant's, else before the last assistant turn
    before it. Chats that differ from the first turn on share an empty prompt. Plain texts are split at the last space
    that they share.

    >>> split_shared("The sky is blue.", "The sky is green.")
    ('The sky is', ' blue.', ' green.')
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        at = _shared_text(chosen, rejected)
        return chosen[:at], chosen[at:], rejected[at:]
    first, second = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    at = _shared_turns(first, second)
    return first[:at], response_of(first[at:]), response_of(second[at:])


def response_of(turns: tuple[Message, ...]) -> Content:
    """Turns as a response: a single assistant turn gives its text, unless there is more to it (see `Message`)."""
    only = turns[0] if len(turns) == 1 else None
    return only.content if only and only.role == "assistant" and only.is_plain else turns


def _shared_turns(first: tuple[Message, ...], second: tuple[Message, ...]) -> int:
    shortest = min(len(first), len(second))
    at = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    # Back to a turn of the assistant: a response begins with one, and the difference may lie in a turn of the user.
    while at > 0 and not (at < shortest and first[at].role == second[at].role == "assistant"):
        at -= 1
    return at


def _shared_text(first: str, second: str) -> int:
    shortest = min(len(first), len(second))
    at = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    # Back to a space: "green" and "grey" share "gre", and a response must not begin inside a word.
    while at > 0 and not (at < shortest and first[at].isspace()):
        at -= 1
    return at
