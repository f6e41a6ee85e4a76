"""Texts of models and people as safe HTML. Every text is hostile until it went through here.

Markdown is rendered without raw HTML and without images (an image would tell its server who is reading), then cleaned
once more by an independent sanitiser; code is coloured by class names only, because the pages allow no inline style.

Parsers take time that grows with the square of some texts (a long row of "[", say), and what models write is no more
trusted in this than in the rest. A text has a fraction of a second of processor time to be rendered, looked at before
every token of it; then it is shown as it is.
"""

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

from plaudit.records import Content

MOST_COLOURED = 10_000
MOST_RENDERED = 65_536
RENDER_SECONDS = 0.25
"""Of one text. Ordinary prose of 64 KiB takes about that long."""
COLOUR_SECONDS = 0.1
"""Of that, for all the code of a text."""
MOST_LANGUAGES = 8
"""Coloured in one text; the code of others is shown without colours."""
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
    """The time of a text is over."""


@dataclass
class _Spent:
    """What one text has used of what it may. Times are the thread's own: other threads' work is not counted."""

    began: float
    coloured: float = 0.0
    lexers: dict[str, Lexer] = field(default_factory=dict)

    def check(self) -> None:
        if time.thread_time() - self.began > RENDER_SECONDS:
            raise _TooSlow

    def lexer(self, language: str) -> Lexer | None:
        """None for unknown languages and for one more than a text may have. The first use of a language in a process
        loads it (up to 0.3 s for some): that is not the text's time, but a text cannot have them all loaded."""
        name = language.lower()
        if name not in _LANGUAGES or (name not in self.lexers and len(self.lexers) == MOST_LANGUAGES):
            return None
        if name not in self.lexers:  # kept: making one takes some languages milliseconds, in every block
            asked = time.thread_time()
            self.lexers[name] = get_lexer_by_name(name)
            self.began += time.thread_time() - asked
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


_SPENT: ContextVar[_Spent] = ContextVar("spent")
_FORMATTER = HtmlFormatter(nowrap=True, classprefix="hl-")
_LANGUAGES = frozenset(
    alias.lower() for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases
)


def _in_time(state: Any, *given: Any) -> bool:
    """A rule of the parser that matches nothing, and is asked before all others."""
    _SPENT.get().check()
    return False


def _coloured(code: str, language: str, attributes: str) -> str:
    spent = _SPENT.get()
    spent.check()  # the parser's rules are not asked any more: a text may have thousands of blocks
    lexer = spent.lexer(language) if language and len(code) <= MOST_COLOURED else None
    if lexer is None:
        return html.escape(code)
    try:
        return spent.colour(code, lexer)
    except _TooSlow:
        return html.escape(code)


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": 20, "highlight": _coloured}
    made = MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")
    made.inline.ruler.before("text", "in_time", _in_time)
    made.block.ruler.before(
        "table", "in_time", _in_time, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    return made


_MARKDOWN = _parser()
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@lru_cache(maxsize=2048)
def markdown(text: str) -> Markup:
    """Markdown as HTML; texts that are very long, or take very long, as they are."""
    if len(text) > MOST_RENDERED:
        return plain(text)
    _SPENT.set(_Spent(time.thread_time()))
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
    """The characters as they are, controls made visible."""
    return Markup('<pre class="plain" tabindex="0">{}</pre>').format(_HIDDEN.sub(_visible, text))


def turns(content: Content) -> list[tuple[str, str]]:
    """A text or chat as pairs of a speaker's name ("" for plain text) and what was said."""
    if isinstance(content, str):
        return [("", content)]
    return [(ROLES[message.role], message.content) for message in content]


_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Controls (but tab and line feed), and what turns the reading direction or cannot be seen."""


def _visible(found: re.Match[str]) -> str:
    return f"\u27e8U+{ord(found[0]):04X}\u27e9"
