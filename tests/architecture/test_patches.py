"""Tests replace what is public: a private name that a test patches could no longer be changed by whoever owns it."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def private_patches(tree: ast.AST) -> Iterator[str]:
    """Private names that are given to ``monkeypatch.setattr`` or ``delattr``, and as it is written."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("setattr", "delattr"):
            continue
        for word in node.args[:2]:
            if isinstance(word, ast.Constant) and str(word.value).rpartition(".")[2].startswith("_"):
                yield f"{node.lineno}: {ast.unparse(node)[:80]}"


def test_no_test_patches_a_private_name() -> None:
    patches = {
        f"{path.relative_to(TESTS)}:{patch}"
        for path in TESTS.rglob("*.py")
        for patch in private_patches(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert patches == set()


def test_the_search_finds_them() -> None:
    for code in ('m.setattr(rl, "_check", f)', 'm.setattr("a.b._c", f)', 'm.delattr(rl, "_x")'):
        assert list(private_patches(ast.parse(code)))
    assert not list(private_patches(ast.parse('m.setattr(rl, "check", f); m.setattr("a._b.c", f)')))
