"""Texts of models and people as safe HTML. Every text is hostile until it went through here.

Markdown is rendered without raw HTML and without images (an image would tell its server who is reading), then cleaned
once more by an independent sanitiser; code is coloured by class names only, because the pages allow no inline style.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from plaudit.records import Content

MOST_COLOURED = 20_000
MOST_RENDERED = 200_000
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


def _coloured(code: str, language: str, attributes: str) -> str:
    plain = html.escape(code)
    if not language or len(code) > MOST_COLOURED:
        return plain
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return plain
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="hl-")))


_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20, "highlight": _coloured})
    .enable(["table", "strikethrough"])
    .disable("image")
)


_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@lru_cache(maxsize=2048)
def markdown(text: str) -> Markup:
    """Markdown as HTML; very long texts as they are."""
    if len(text) > MOST_RENDERED:
        return plain(text)
    rendered = _MARKDOWN.render(_BIDI.sub(lambda m: f"\u27e8U+{ord(m[0]):04X}\u27e9", text))
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
    shown = "".join(_visible(c) for c in text)
    return Markup('<pre class="plain" tabindex="0">{}</pre>').format(shown)


def turns(content: Content) -> list[tuple[str, str]]:
    """A text or chat as pairs of a speaker's name ("" for plain text) and what was said."""
    if isinstance(content, str):
        return [("", content)]
    return [(ROLES[message.role], message.content) for message in content]


def _visible(character: str) -> str:
    """Characters that turn the reading direction or cannot be seen are shown as what they are."""
    number = ord(character)
    if character in "\n\t" or (number >= 32 and number not in HIDDEN and not 0xD800 <= number <= 0xDFFF):
        return character
    return f"\u27e8U+{number:04X}\u27e9"


HIDDEN = frozenset([0x7F, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
