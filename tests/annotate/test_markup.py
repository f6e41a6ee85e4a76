"""Texts as HTML: no text takes long, and ordinary ones are rendered."""

import itertools
import time
from typing import Any

import pytest

pytest.importorskip("markdown_it", reason="the annotation app's packages: pip install 'plaudit[annotate]'")

from pygments.lexers import get_lexer_by_name

from plaudit.annotate.pages import markup
from plaudit.annotate.pages.markup import COLOUR_SECONDS, MOST_RENDERED, RENDER_SECONDS, markdown

LONG = 60_000


@pytest.mark.parametrize("said", ["![", "[", "[a](", "*a_", "<", "&", "\n|-", "[a]: b\n", "- a\n\n"])
def test_no_text_takes_long(said: str) -> None:
    began = time.thread_time()
    markdown.__wrapped__(said * (LONG // len(said)))
    assert time.thread_time() - began < 60, "some would take hours"


@pytest.mark.parametrize("said", ["![", "[", "[a](", "*a_", "<", "&", "\n|-", "[a]: b\n", "- a\n\n"])
def test_a_text_whose_time_is_over_is_shown_as_it_is(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "RENDER_SECONDS", 1e-3)  # no machine is done within it
    assert markdown.__wrapped__(said * (LONG // len(said))).startswith('<pre class="plain"')


def clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Every look at the clock finds it ``step`` seconds later, however fast the machine is."""
    looks = itertools.count()
    monkeypatch.setattr(markup.time, "thread_time", lambda: step * next(looks))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes."""
    clock(monkeypatch, 0.0)


def test_code_that_takes_long_to_colour_is_left_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 1e-4)  # a thousand tokens are all that can be coloured
    code = "(" * (markup.MOST_COLOURED - 1)
    shown = markdown.__wrapped__(f"**so**\n\n```python\n{code}\n```\n" * 4)
    assert "<strong>so</strong>" in shown and code in shown
    assert COLOUR_SECONDS < RENDER_SECONDS


def test_ordinary_texts_are_rendered(still: None) -> None:
    shown = markdown("Use *it*:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef f(): return 1\n```\n")
    assert "<em>it</em>" in shown and "<td>1</td>" in shown and 'class="hl-k' in shown
    assert markdown("a " * (MOST_RENDERED // 2 + 1)).startswith('<pre class="plain"')


def test_time_begins_anew_with_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 1e-3)
    markdown.__wrapped__("[" * LONG)  # takes all of its time
    assert "<em>short</em>" in markdown.__wrapped__("a *short* one")


def test_markdown_is_rendered_and_cleaned(still: None) -> None:
    shown = str(
        markup.markdown(
            "**b** <script>x</script> ![i](http://e/x.png) [l](javascript:x) [m](http://e)\n\n```python\nx = 1\n```"
        )
    )
    assert "<strong>b</strong>" in shown and "&lt;script&gt;" in shown and "hl-" in shown
    assert "<img" not in shown and 'href="javascript' not in shown
    assert 'rel="noopener noreferrer nofollow"' in shown
    assert "\u27e8U+202E\u27e9" in str(markup.markdown("a\u202eb")), "text cannot be turned round unseen"


def test_code_is_coloured_however_slowly_its_language_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def slow(language: str) -> Any:
        clock[0] += 10.0
        return get_lexer_by_name(language)

    monkeypatch.setattr(markup.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(markup, "get_lexer_by_name", slow)
    assert "hl-" in str(markup.markdown("```kotlin\nval x = 1 // slow to load\n```\n\n**after it**"))
    assert "<strong>" in str(markup.markdown("```Kotlin\nval x = 2\n```\n\n**after it**"))


def test_a_text_can_load_eight_languages(still: None) -> None:
    names = ["python", "c", "java", "rust", "go", "ruby", "perl", "lua", "bash", "no-such-language"]
    shown = str(markup.markdown("\n\n".join(f"```{name}\nif (1) 'a'\n```" for name in [*names, *names])))
    blocks = shown.split("<pre")[1:]
    assert ["hl-" in block for block in blocks] == ([True] * 8 + [False] * 2) * 2


def test_a_language_is_made_ready_once_for_all_blocks_of_a_text(
    still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        markup, "get_lexer_by_name", lambda name: made.append(name) or get_lexer_by_name(name)
    )
    shown = markdown.__wrapped__("```python\n1\n```\n\n```Python\n2\n```\n\n```c\n3\n```\n" * 20)
    assert shown.count("hl-") == 60
    assert sorted(made) == ["c", "python"]


def test_the_time_of_a_text_can_end_in_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """When blocks are coloured the parser, which looks at the clock, has ended."""
    clock, block = [0.0], "```python\n1\n```\n\n"

    def slow(*given: Any) -> str:
        clock[0] += RENDER_SECONDS / 10
        return "<span>coloured</span>"

    monkeypatch.setattr(markup.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(markup, "format_tokens", slow)
    assert markdown.__wrapped__(block * 8).count("coloured") == 8
    assert markdown.__wrapped__(block * 100).startswith('<pre class="plain"')
    assert clock[0] < 3 * RENDER_SECONDS
