"""Texts of models and people as safe HTML. Every text counts as hostile until it has passed through here.

A text that takes too long to render, or is very long, is shown as plain text.
"""

# Two independent nets against scripts in texts: the Markdown parser lets no raw HTML through, and nh3 removes
# whatever is not on the list of tags and attributes. Images are off, because loading one tells its server who is
# reading. Code is coloured by class names, because the pages' security policy forbids inline styles.
#
# Why a time limit: parsers of Markdown and of programming languages need time that grows with the square of the
# length for some texts (a long row of "[", for example). A model may write such a text by chance and a person on
# purpose, and the server would be busy with it for minutes. The limit is checked before every token, in processor
# time of this thread.

from __future__ import annotations

import html
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import format as format_tokens
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_all_lexers, get_lexer_by_name

from plaudit.records import Content, Message

MOST_COLOURED = 10_000
MOST_RENDERED = 65_536
RENDER_SECONDS = 0.25
"""For one text. Ordinary prose of 64 KiB takes about that long."""
COLOUR_SECONDS = 0.1
"""Part of that for all the code of a text."""
MOST_LANGUAGES = 8
"""Programming languages coloured in one text; code in others is shown without colours."""
FIRST_PART, NEXT_PART = 16_384, 131_072
"""Characters that are shown of a text longer than ``MOST_RENDERED``, and that each further part adds."""
TAGS = set(
    "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a table thead tbody tr th td span div".split()
)
ATTRIBUTES = {
    "a": {"href", "title", "target"},
    "span": {"class"},
    "code": {"class"},
    "ol": {"start"},
    "pre": {"tabindex"},
}
SCHEMES = {"http", "https", "mailto"}
ROLES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


class _TooSlow(Exception):
    """The time that a text has for rendering is over."""


@dataclass
class _Budget:
    """The processor time that one text has used. It is the thread's own: work of other threads does not count."""

    began: float
    coloured: float = 0.0
    lexers: dict[str, Lexer] = field(default_factory=dict)

    def check(self) -> None:
        if time.thread_time() - self.began > RENDER_SECONDS:
            raise _TooSlow

    def lexer(self, language: str) -> Lexer | None:
        """The lexer of a language; None for unknown languages and once a text has used ``MOST_LANGUAGES``."""
        name = language.lower()
        if name not in _LANGUAGES or (name not in self.lexers and len(self.lexers) == MOST_LANGUAGES):
            return None
        # Kept, because making one takes milliseconds for some languages, and a text may have thousands of blocks. The
        # first use of a language in a process loads it, up to 0.3 s for some. That is not counted as time of the text;
        # the number of languages keeps a text from loading all of them.
        if name not in self.lexers:
            before = time.thread_time()
            self.lexers[name] = get_lexer_by_name(name)
            self.began += time.thread_time() - before
        return self.lexers[name]

    def colour(self, code: str, lexer: Lexer) -> str:
        """Code as spans of classes; raises _TooSlow when the text's time for colours is over."""
        tokens, begun = [], time.thread_time()
        try:
            for token in lexer.get_tokens(code):
                tokens.append(token)
                if self.coloured + time.thread_time() - begun > COLOUR_SECONDS:
                    raise _TooSlow
        finally:
            self.coloured += time.thread_time() - begun
        return str(format_tokens(tokens, _FORMATTER))


# The parser calls ``_in_time`` and ``_coloured`` with its own arguments only, so the budget of the text that is being
# rendered travels in a context variable, of which every thread has its own.
_BUDGET: ContextVar[_Budget] = ContextVar("budget")
_FORMATTER = HtmlFormatter(nowrap=True, classprefix="hl-")
_LANGUAGES = frozenset(
    alias.lower() for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases
)


def _in_time(state: Any, *rest: Any) -> bool:
    """A rule of the parser that never matches. It stands before all others, so it is called before every token."""
    _BUDGET.get().check()
    return False


def _coloured(code: str, language: str, attributes: str) -> str:
    budget = _BUDGET.get()
    budget.check()  # blocks are coloured after parsing, where ``_in_time`` is not called any more
    lexer = budget.lexer(language) if language and len(code) <= MOST_COLOURED else None
    if lexer is None:
        return html.escape(code)
    try:
        return budget.colour(code, lexer)
    except _TooSlow:
        return html.escape(code)


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": 20, "highlight": _coloured}
    made = MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")
    # Also in the rules that may interrupt a paragraph, a quote or a list: inside of these the parser calls only the
    # rules registered for them.
    made.inline.ruler.before("text", "in_time", _in_time)
    made.block.ruler.before(
        "table", "in_time", _in_time, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    return made


_MARKDOWN = _parser()
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@lru_cache(maxsize=2048)
def markdown(text: str) -> Markup:
    """Markdown as HTML; texts that are very long, or take very long to render, as plain text."""
    if len(text) > MOST_RENDERED:
        return plain(text)
    _BUDGET.set(_Budget(time.thread_time()))
    try:
        rendered = _MARKDOWN.render(_BIDI.sub(_visible, text))
    except _TooSlow:
        return plain(text)
    clean = nh3.clean(
        rendered,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}, "pre": {"tabindex": "0"}},
    )
    return Markup(clean)


def plain(text: str) -> Markup:
    """The characters as they are, with control characters made visible."""
    return Markup('<pre class="plain" tabindex="0">{}</pre>').format(_HIDDEN.sub(_visible, text))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a long text."""

    shown: Markup
    turn: int
    """Which turn of the content it belongs to."""
    end: int
    """Characters of the turn up to the end of this part."""
    total: int
    """Characters of the turn."""


def first_part(words: str, turn: int) -> Part | None:
    """The beginning of a text that is too long to be shown whole; None for others."""
    # Browsers lay out a whole text at once, and freeze for seconds over some megabytes of it.
    return _part(words, turn, 0, FIRST_PART) if len(words) > MOST_RENDERED else None


def next_part(content: Content, turn: int, start: int) -> Part | None:
    """The part of a turn from a character on; None where there is none."""
    spoken = turns(content)
    if not (0 <= turn < len(spoken) and 0 <= start < len(spoken[turn][1])):
        return None
    return _part(spoken[turn][1], turn, start, NEXT_PART)


def _part(words: str, turn: int, start: int, most: int) -> Part:
    end = min(len(words), start + most)
    return Part(plain(words[start:end]), turn, end, len(words))


def turns(content: Content) -> list[tuple[str, str]]:
    """A text or chat as pairs: the name of the speaker ("" for plain text), and the words."""
    if isinstance(content, str):
        return [("", content)]
    return [(speaker(message), message.text) for message in content]


def speaker(message: Message) -> str:
    """Whose turn it is, with the name where one is given."""
    return f"{ROLES[message.role]} ({message.name})" if message.name else ROLES[message.role]


_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Control characters except tab and line feed, characters that turn the reading direction, and invisible ones."""
# Two responses can look the same and differ in such a character, and one that turns the reading direction can make
# a text seem to say something else than it does. Annotators must see what the model wrote.


def _visible(match: re.Match[str]) -> str:
    return f"\u27e8U+{ord(match[0]):04X}\u27e9"
