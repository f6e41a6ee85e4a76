"""The source speaks plainly: reasons beside hard code, and the field's terms instead of private ones."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "plaudit"
OTHER_TOOLS = SOURCE / "config" / "foreign.py"
"""Lists the names that other tools use, so as to answer them with ours."""
LEAST_COMMENTS = 15  # lines of comments per 1 000 lines of source

# Words that the house does not use, as they are searched for, and what is written instead. Only docstrings, comments
# and texts are searched; a word joins this list once the tree is free of it.
BANNED = {
    r"\blaws?\b": "next-token distribution, or distribution",
    r"\bgolden\b": "gold reward",
    r"\bconvict": "say what follows from the count",
    r"\bis dear\b": "expensive",
    r"\bin peace\b": "say what happens",
    r"\bactor\b(?!-critic)|\bactor-(?!critic)": "policy",
    r"\bref_policy\b": "reference",
    r"\bvalue_net\b": "critic",
    r"\bnum_generations\b": "group_size",
    r"\bepisodes?\b|\btrajector": "rollout, response or experience",
    r"\b(second|gold|held-out) judge\b": "gold reward; a judge is a model that is asked",
    r"\bteach(es)? nothing\b": "has no gradient, no signal",
    r"\bworker groups?\b": "learner, generator, runtime",
}

TEXTS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def words(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every comment, docstring and string, f-strings included."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in TEXTS:
            yield from enumerate(token.string.splitlines(), token.start[0])


def banned_words(source: str) -> list[tuple[int, str]]:
    """Line and cure of every banned word."""
    return [
        (line, f"{text.strip()!r}: write {cure}")
        for line, text in words(source)
        for word, cure in BANNED.items()
        if re.search(word, text, re.IGNORECASE)
    ]


def comment_share(sources: list[str]) -> float:
    """Lines that are comments, per 1 000 lines."""
    lines = [line for source in sources for line in source.splitlines()]
    return 1000 * sum(line.lstrip().startswith("#") for line in lines) / len(lines)


def test_hard_code_has_reasons() -> None:
    sources = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    assert comment_share(sources) >= LEAST_COMMENTS


def test_comments_are_counted_by_line() -> None:
    assert comment_share(["# why\nx = 1  # not a line of its own\n    # why\ny = 2\n"]) == 500


def test_no_banned_words() -> None:
    assert [
        f"{path.relative_to(SOURCE)}:{line} {text}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != OTHER_TOOLS
        for line, text in banned_words(path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        '"""The law of large numbers."""',
        "x = 1  # the Laws of\n",
        'x = f"{y} is the golden one"',
        'def f():\n    """Short.\n\n    One vote convicts nobody.\n    """',
    ],
)
def test_banned_words_are_noticed(source: str) -> None:
    assert len(banned_words(source)) == 1


def test_names_and_longer_words_are_not_banned() -> None:
    assert banned_words("lawful = golden + actor\n# an actor-critic, marigoldens, lawn\n") == []
