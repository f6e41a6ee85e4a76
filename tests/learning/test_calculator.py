"""A tiny model learns with GRPO to call a tool. The optimum is known: always call, and every answer is right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "calculator"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_learns_to_call_the_calculator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script adds its own folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before, after = load("main").main(tmp_path)
    assert 0.3 < before["called"] < 0.7 and before["right"] < 0.7, "imitation calls every second time"
    assert after["called"] > 0.95 and after["right"] > 0.9, "guessing is right once in nineteen times"


@pytest.mark.parametrize(
    ("text", "value"), [("3+4", 7), (" 2*(3 + 4) ", 14), ("-3.5*2", -7.0), ("7/2", 3.5), ("1-2-3", -4)]
)
def test_the_calculator(text: str, value: float) -> None:
    assert load("calculator").calculate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "1/0", "9" * 101, "9**9**9", "9999999999*9999999999", "1e400", "__import__('os')", "'a'*9", "True", "a",
     "(" * 99, "1;2", "1\x00", "[1]", "1 if 2 else 3", "5%3"],
)  # fmt: skip
def test_the_calculator_works_out_nothing_else(text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        load("calculator").calculate(text)
