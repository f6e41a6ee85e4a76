"""Texts as HTML: no text takes long, and ordinary ones are rendered."""

import time

import pytest

pytest.importorskip("markdown_it", reason="the annotation app's packages: pip install 'plaudit[annotate]'")

from plaudit.annotate import markup
from plaudit.annotate.markup import COLOUR_SECONDS, MOST_RENDERED, RENDER_SECONDS, markdown

LONG = 60_000


@pytest.mark.parametrize("said", ["![", "[", "[a](", "*a_", "<", "&", "\n|-", "[a]: b\n", "- a\n\n"])
def test_no_text_takes_long(said: str) -> None:
    began = time.thread_time()
    markdown.__wrapped__(said * (LONG // len(said)))
    assert time.thread_time() - began < 4 * RENDER_SECONDS


@pytest.mark.parametrize("said", ["![", "[", "[a](", "*a_", "<", "&", "\n|-", "[a]: b\n", "- a\n\n"])
def test_a_text_whose_time_is_over_is_shown_as_it_is(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "RENDER_SECONDS", 1e-3)  # no machine is done within it
    assert markdown.__wrapped__(said * (LONG // len(said))).startswith('<pre class="plain"')


def test_code_that_takes_long_to_colour_is_left_plain() -> None:
    began = time.thread_time()
    code = "(" * (markup.MOST_COLOURED - 1)
    shown = markdown.__wrapped__(f"**so**\n\n```python\n{code}\n```\n" * 4)
    assert time.thread_time() - began < 4 * RENDER_SECONDS
    assert "<strong>so</strong>" in shown and code in shown
    assert COLOUR_SECONDS < RENDER_SECONDS


def test_ordinary_texts_are_rendered() -> None:
    shown = markdown("Use *it*:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef f(): return 1\n```\n")
    assert "<em>it</em>" in shown and "<td>1</td>" in shown and 'class="hl-k' in shown
    assert markdown("a " * (MOST_RENDERED // 2 + 1)).startswith('<pre class="plain"')


def test_time_begins_anew_with_every_text() -> None:
    markdown.__wrapped__("[" * LONG)  # takes all of its time
    assert "<em>short</em>" in markdown.__wrapped__("a *short* one")
