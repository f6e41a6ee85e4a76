"""Functions as rewards: what they are given, what counts as an error, how they are found."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plaudit.errors import ConfigError
from plaudit.records import Content, Message, Prompt, RewardResult, Rollout
from plaudit.rewards.function import FunctionReward, load_function


def rollout(response: str, content: Content = "Say it.", answer: str | None = None) -> Rollout:
    prompt = Prompt("p", content, answer)
    return Rollout.single(prompt, 0, (1, 2), (3,), (-0.5,), response, "stop")


def test_the_inputs_follow_the_parameter_names() -> None:
    chat = (Message("system", "Be brief."), Message("user", "Hi"))
    seen: dict[str, Any] = {}

    def judge(response: str, messages: list[dict[str, str]], answer: str, prompt: str) -> float:
        seen.update(response=response, messages=messages, answer=answer, prompt=prompt)
        return 1.0

    assert FunctionReward(judge)([rollout("Hello", chat, "Hello")])[0].value == 1.0
    assert seen == {
        "response": "Hello",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "answer": "Hello",
        "prompt": "System: Be brief.\n\nHuman: Hi",
    }


def test_other_names_are_taken_by_position() -> None:
    assert FunctionReward(lambda p, r: len(p) + len(r))([rollout("abc", "xy")])[0].value == 5.0
    assert FunctionReward(lambda p, r, a: float(r == a))([rollout("4", "2+2", "4")])[0].value == 1.0


def test_a_response_alone_is_enough_and_defaults_stay() -> None:
    def judge(response: str, factor: float = 2.0) -> float:
        return factor * len(response)

    result = FunctionReward(judge, "size")([rollout("abc")])[0]
    assert result.value == 6.0 and result.parts == {"size": 6.0}


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_batch_function_is_called_once(kind: Any) -> None:
    calls = []

    def judge(prompts: list[str], responses: list[str]) -> Any:
        calls.append((prompts, responses))
        return kind([float(len(r)) for r in responses])

    results = FunctionReward(judge)([rollout("a"), rollout("bcd")])
    assert [r.value for r in results] == [1.0, 3.0]
    assert calls == [(["Say it.", "Say it."], ["a", "bcd"])]


@pytest.mark.parametrize(
    "bad",
    [None, float("nan"), float("inf"), -float("inf"), "1.0", [1.0, 2.0], torch.zeros(2), object(), 1j,
     Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")],
)  # fmt: skip
def test_what_is_not_a_finite_number_is_an_error_and_never_zero(bad: Any) -> None:
    single = FunctionReward(lambda p, r: bad, "mine")([rollout("a")])[0]

    def judge(responses: list[str]) -> list[Any]:
        return [bad, 2.0]

    batch = FunctionReward(judge, "mine")([rollout("a"), rollout("b")])
    for result in (single, batch[0]):
        assert result.value is None and "mine returned" in result.error
    assert batch[1].value == 2.0


@pytest.mark.parametrize(
    "good",
    [2, True, np.float32(1.5), np.int64(3), np.bool_(True), np.array(2.5), torch.tensor(0.25), torch.tensor([4]),
     Decimal("7.25"), Fraction(1, 4), np.array(Decimal("0.5"))],
)  # fmt: skip
def test_numbers_of_any_library_are_numbers(good: Any) -> None:
    assert FunctionReward(lambda p, r: good)([rollout("a")])[0].value == float(good)


def test_parts_of_any_library_are_numbers() -> None:
    given = RewardResult(Decimal("1.5"), {"a": np.float32(0.5), "b": Decimal("2")})  # type: ignore[arg-type, dict-item]
    [result] = FunctionReward(lambda p, r: given)([rollout("a")])
    assert result == RewardResult(1.5, {"a": 0.5, "b": 2.0})
    assert all(type(part) is float for part in result.parts.values())
    [scored] = FunctionReward(lambda p, r: {"score": Decimal("1"), "tone": Decimal("0.5")}, "mine")([rollout("a")])
    assert scored.parts == {"mine": 1.0, "tone": 0.5}


def test_an_exception_costs_its_own_rollout_only() -> None:
    def judge(response: str) -> float:
        if response == "exit":
            raise SystemExit(3)
        return 1 / len(response)

    results = FunctionReward(judge)([rollout("ab"), rollout(""), rollout("exit")])
    assert [r.value for r in results] == [0.5, None, None]
    assert "ZeroDivisionError: division by zero (test_function.py:" in results[1].error
    assert "SystemExit: 3" in results[2].error


def test_a_batch_function_that_raises_or_miscounts_fails_every_row() -> None:
    def broken(responses: list[str]) -> list[float]:
        raise KeyError("x")

    def short(responses: list[str]) -> list[float]:
        return [1.0]

    for fn, reason in ((broken, "KeyError"), (short, "1 values for 2 responses")):
        results = FunctionReward(fn)([rollout("a"), rollout("b")])
        assert [r.value for r in results] == [None, None] and reason in results[1].error


def test_ctrl_c_is_not_swallowed() -> None:
    def judge(response: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(judge)([rollout("a")])


def test_parameters_that_cannot_be_filled_are_refused() -> None:
    def judge(response: str, temperature: float) -> float:
        return temperature

    with pytest.raises(ConfigError, match="judge.*temperature"):
        FunctionReward(judge)


def test_functions_are_found_in_files_and_modules(tmp_path: Path) -> None:
    file = tmp_path / "my_reward.py"
    file.write_text("def good(response):\n    return float(len(response))\n\nscale = 3\n")
    assert load_function(f"{file}:good")("abc") == 3.0
    assert load_function("math:hypot")(3, 4) == 5.0
    assert load_function("json:JSONDecoder.decode").__name__ == "decode"


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("no_colon.py", "does not name a function"),
        ("{dir}/my_rewards.py:good", r"there is no file .*(.|\n)*did you mean .*my_reward.py"),
        ("{dir}/my_reward.py:god", r"has no 'god'(.|\n)*did you mean .*my_reward.py:good"),
        ("{dir}/my_reward.py:Lenght", r"did you mean .*my_reward.py:Length"),
        ("{dir}/my_reward.py:scale", "is of type int, and no function"),
        ("{dir}/broken.py:good", r"SyntaxError(.|\n)*broken.py:1"),
        ("{dir}/raising.py:good", r"ValueError: too late(.|\n)*raising.py:2"),
        ("no_such_module_here:fn", r"no module 'no_such_module_here'(.|\n)*file.py:function"),
        ("math:hypott", "did you mean|has no 'hypott'"),
    ],
)
def test_what_cannot_be_found_says_so_with_a_cure(tmp_path: Path, spec: str, what: str) -> None:
    (tmp_path / "my_reward.py").write_text("class Length: ...\ndef good(response):\n    return 1.0\n\nscale = 3\n")
    (tmp_path / "broken.py").write_text("def good(:\n")
    (tmp_path / "raising.py").write_text("\nraise ValueError('too late')\n")
    with pytest.raises(ConfigError) as caught:
        load_function(spec.format(dir=tmp_path))
    assert re.search(what, str(caught.value)), str(caught.value)
    assert caught.value.cure
