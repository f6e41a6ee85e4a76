"""An algorithm and a job have types of ours wherever they are passed on: `Any` there hides what a stage relies on."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src" / "plaudit"
OURS = ("algorithm", "algorithms", "job", "jobs")


def untyped(tree: ast.AST) -> Iterator[int]:
    """Lines of arguments, fields and variables of these names whose annotation is `Any`, or a container of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            name, annotation = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign):
            name, annotation = getattr(node.target, "id", getattr(node.target, "attr", "")), node.annotation
        else:
            continue
        if name in OURS and annotation is not None:
            names = [n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)]
            text = [n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant)]
            if "Any" in names or any(isinstance(t, str) and "Any" in t for t in text):
                yield node.lineno


def test_no_algorithm_and_no_job_is_any() -> None:
    lines = {
        f"{path.relative_to(SOURCES)}:{line}"
        for path in SOURCES.rglob("*.py")
        for line in untyped(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert lines == set()


@pytest.mark.parametrize(
    "code",
    [
        "def f(algorithm: Any): ...",
        "def f(*, job: Any | None = None): ...",
        "class C:\n    algorithm: Any = None",
        "class C:\n    def __init__(self):\n        self.job: Any = 1",
        "def f(algorithms: Sequence[Any]): ...",
        'def f(job: "Any"): ...',
    ],
)
def test_the_count_sees(code: str) -> None:
    assert list(untyped(ast.parse(code)))


def test_the_count_lets_types_pass() -> None:
    assert not list(untyped(ast.parse("def f(job: Job, algorithm: OfflineAlgorithm[Batch], rows: Any): ...")))
