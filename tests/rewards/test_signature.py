"""What a function is given follows from the names of its parameters: ours, TRL's or verl's. Others are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import FunctionTable
from plaudit.records import Content, Message, Prompt, RewardResult, Rollout, Turn
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.function import FunctionReward, with_options
from plaudit.rewards.isolation import IsolatedReward

COLUMNS = ("level", "extra_info", "data_source")
CHAT = (Message("system", "Be brief."), Message("user", "Hi"))


def rollout(response: str, content: Content = "2+2=", group: int = 0, **columns: Any) -> Rollout:
    prompt = Prompt(f"p{group}", content, "4", columns)
    return Rollout.single(prompt, group, (1, 2), (3, 4), (-0.5, -0.25), response, "stop")


def seen(fn: Callable[..., Any], *rollouts: Rollout, columns: tuple[str, ...] = COLUMNS) -> Any:
    """What a function was called with; it must have scored every rollout."""
    calls: list[dict[str, Any]] = []

    @functools.wraps(fn)
    def remember(*positions: Any, **names: Any) -> Any:
        calls.append({**dict(enumerate(positions)), **names})
        return fn(*positions, **names)

    results = FunctionReward(remember, columns=columns)(list(rollouts))
    assert all(result.value is not None for result in results), [result.error for result in results]
    return calls if len(calls) > 1 else calls[0]


def test_completion_and_ground_truth_are_response_and_answer() -> None:
    def judge(completion: str, ground_truth: str) -> float:
        return float(completion == ground_truth)

    assert seen(judge, rollout("4")) == {"completion": "4", "ground_truth": "4"}
    assert FunctionReward(judge)([rollout("4"), rollout("5")])[1].value == 0.0


def test_trl_gets_its_columns_as_lists_and_everything_in_kwargs() -> None:
    def judge(prompts: list[str], completions: list[str], level: list[int], **kwargs: Any) -> list[float]:
        return [float(len(text) + n) for text, n in zip(completions, level, strict=True)]

    rows = [rollout("a", level=3), rollout("bc", level=1, extra_info={"x": 1})]
    assert seen(judge, *rows) == {
        "prompts": ["2+2=", "2+2="],
        "completions": ["a", "bc"],
        "completion_ids": [[3, 4], [3, 4]],
        "level": [3, 1],
        "extra_info": [None, {"x": 1}],
        "answer": ["4", "4"],
    }
    assert [r.value for r in FunctionReward(judge, columns=COLUMNS)(rows)] == [4.0, 3.0]


def test_trl_gets_chats_as_messages() -> None:
    def judge(prompts: Any, completions: Any, trainer_state: Any = None) -> list[float]:
        return [float(len(completion[-1]["content"])) for completion in completions]

    assert seen(judge, rollout("Hello", CHAT)) == {
        "prompts": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]],
        "completions": [[{"role": "assistant", "content": "Hello"}]],
    }


def test_none_of_a_trl_function_is_no_failure_in_a_sum() -> None:
    def only_long(completions: list[str]) -> list[float | None]:
        return [None if len(text) < 2 else 1.0 for text in completions]

    def length(response: str) -> float:
        return float(len(response))

    rows = [rollout("a"), rollout("bcd")]
    alone = FunctionReward(only_long)(rows)
    assert alone[0].value is None and alone[0].abstains and "returned None" in alone[0].error
    both = WeightedReward([(FunctionReward(only_long), 10.0), (FunctionReward(length), 1.0)])(rows)
    assert [result.value for result in both] == [1.0, 13.0]
    nobody = WeightedReward([(FunctionReward(only_long), 10.0), (FunctionReward(only_long), 1.0)])(rows)
    assert nobody[0].value is None and nobody[0].abstains and nobody[1].value == 11.0


def test_verl_is_called_one_response_at_a_time_and_may_return_a_dict() -> None:
    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
        return {"score": float(solution_str == ground_truth), "format": 0.5, "pred": solution_str}

    row = rollout("4", data_source="gsm8k", extra_info={"index": 7})
    assert seen(compute_score, row) == {
        "data_source": "gsm8k", "solution_str": "4", "ground_truth": "4", "extra_info": {"index": 7},
    }  # fmt: skip
    result = FunctionReward(compute_score)([row])[0]
    assert result == RewardResult(1.0, {"compute_score": 1.0, "format": 0.5})


def test_verl_data_say_the_truth_in_their_own_places() -> None:
    def judge(solution_str: str, ground_truth: str, extra_info: Any) -> float:
        return 1.0

    assert seen(judge, rollout("x", ground_truth="own"))["ground_truth"] == "own"
    nested = rollout("x", reward_model={"style": "rule", "ground_truth": "nested"})
    assert seen(judge, nested)["ground_truth"] == "nested"
    assert seen(judge, rollout("x", level=2))["extra_info"] == {"level": 2}


def test_verl_batches() -> None:
    def judge(data_sources: Any, solution_strs: Any, ground_truths: Any, extra_infos: Any) -> list[float]:
        return [1.0] * len(solution_strs)

    assert seen(judge, rollout("a", data_source="x"), rollout("b"))["data_sources"] == ["x", ""]


def test_any_column_is_a_name() -> None:
    def judge(response: str, level: int) -> float:
        return float(level)

    assert FunctionReward(judge, columns=COLUMNS)([rollout("a", level=3)])[0].value == 3.0
    with pytest.raises(ConfigError, match="asks for level") as caught:
        FunctionReward(judge, columns=("levels", "source"))
    assert "did you mean levels?" in caught.value.cure and "levels, source" in caught.value.cure


def test_a_function_of_a_group_is_called_for_each_prompt() -> None:
    calls: list[list[str]] = []

    def best(group: list[Rollout], responses: list[str]) -> list[float]:
        assert len({one.prompt.id for one in group}) == 1
        calls.append(responses)
        return [float(len(text) == max(map(len, responses))) for text in responses]

    rows = [rollout("a", group=0), rollout("bb", group=1), rollout("ccc", group=0), rollout("dddd", group=1)]
    assert [result.value for result in FunctionReward(best)(rows)] == [0.0, 0.0, 1.0, 1.0]
    assert calls == [["a", "ccc"], ["bb", "dddd"]]


def test_a_function_sees_all_turns() -> None:
    turns = (
        Turn("policy", 2, 3, "calc 2+2", "stop"),
        Turn("environment", 3, 4, (Message("tool", "4"),)),
        Turn("policy", 4, 5, "It is 4", "stop"),
    )
    several = Rollout(Prompt("p", CHAT, "4"), 0, (1, 2, 3, 4, 5), turns, (-0.5, -0.5), "stop")

    def judge(response: str, final: str, turns: list[dict[str, str]], rollout: Rollout) -> float:
        return float(sum(rollout.sampled))

    given = seen(judge, several)
    assert given["final"] == "It is 4" and given["response"] == "calc 2+2It is 4"
    assert given["turns"] == [
        {"role": "assistant", "content": "calc 2+2"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4"},
    ]
    assert FunctionReward(judge)([several])[0].value == 2.0


def takes_text(text: str, output: str) -> float:
    return 0.0


def takes_both(response: str, responses: list[str]) -> float:
    return 0.0


def takes_anything(*args: Any, **kwargs: Any) -> float:
    return 0.0


def takes_nothing() -> float:
    return 0.0


def takes_state(completions: list[str], trainer_state: Any) -> list[float]:
    return [0.0]


def takes_response_and_mood(response: str, mood: str, /) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (takes_text, r"takes_text\(text: 'str', output: 'str'\) -> 'float' asks for text, output"),
        (takes_both, "asks for responses, of a whole batch, and for response"),
        (takes_anything, "no parameter with a name"),
        (takes_nothing, "no parameter with a name"),
        (takes_state, "asks for trainer_state"),
        (takes_response_and_mood, "asks for mood"),
        (lambda x, y: 0.0, "asks for x, y"),
        (functools.partial(takes_text, "a"), "asks for output"),
        (dict.fromkeys, "asks for iterable"),
        (max, "cannot be seen"),
    ],
)
def test_what_no_name_fits_is_refused_before_a_call(fn: Callable[..., Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        FunctionReward(fn, columns=("level",), where="gold")
    assert caught.value.where == "gold" and "response" in caught.value.cure


def test_kinds_of_callables() -> None:
    def scaled(factor: float, response: str, answer: str = "none") -> float:
        return factor * len(response) if answer == "mine" else -1.0

    class Judge:
        def __init__(self, factor: float = 1.0) -> None:
            self.factor = factor

        def __call__(self, prompts: list[str], responses: list[str]) -> list[float]:
            return [self.factor * len(text) for text in responses]

    bound = functools.partial(scaled, 2.0, answer="mine")
    assert FunctionReward(bound)([rollout("abc")])[0] == RewardResult(6.0, {"scaled": 6.0}), (
        "what is bound stays"
    )
    assert (
        FunctionReward(Judge(3.0))([rollout("abc")])[0].value == 9.0
        and FunctionReward(Judge()).name == "Judge"
    )
    assert FunctionReward(with_options(Judge, {"factor": 4.0}))([rollout("abc")])[0].value == 12.0
    assert FunctionReward(lambda a, r: float(r == a))([rollout("4")])[0].value == 1.0, "initials go by name"

    def positional(answer: str, response: str, /) -> float:
        return float(answer == response)

    assert seen(positional, rollout("4")) == {0: "4", 1: "4"}


def test_a_reward_can_be_given_where_a_function_is() -> None:
    def length(response: str) -> float:
        return float(len(response))

    inner = WeightedReward([(FunctionReward(length), 2.0)], name="sum")
    outer = FunctionReward(inner)
    assert outer.name == "sum" and outer([rollout("abc")])[0] == RewardResult(6.0, {"length": 3.0})


def test_options_that_do_not_fit_are_refused() -> None:
    class Judge:
        def __init__(self, factor: float) -> None:
            pass

    class Mute:
        pass

    faults: list[tuple[Any, dict[str, Any], str]] = [
        (Judge, {}, "factor"),
        (Judge, {"facto": 1}, "facto"),
        (Mute, {}, "cannot be called"),
        (takes_text, {"x": 1}, "x"),
    ]
    for fn, options, what in faults:
        with pytest.raises(ConfigError, match=what):
            with_options(fn, options)


MINE = """
class Mine:
    name = "mine"

    def __init__(self, words=1):
        self.words = words

    def __call__(self, rollouts):
        return [{"score": self.words * r.prompt.columns["level"], "logprob": sum(r.logprobs)} for r in rollouts]

def scaled(response, factor=1.0):
    return factor * len(response)

def wrong(text, output):
    return 0.0
"""


def test_a_class_of_the_user_works_in_its_own_process(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    reward = IsolatedReward(FunctionTable(path=f"{file}:Mine", options={"words": 2}))
    assert reward.name == "mine"
    result = reward([rollout("a", level=3)])[0]
    assert result == RewardResult(6.0, {"mine": 6.0, "logprob": -0.75})
    scaled = IsolatedReward(FunctionTable(path=f"{file}:scaled", options={"factor": 3.0}, name="three"))
    assert scaled([rollout("ab")])[0] == RewardResult(6.0, {"three": 6.0})
    with pytest.raises(ConfigError, match=r"wrong\(text, output\) asks for text, output") as caught:
        IsolatedReward(FunctionTable(path=f"{file}:wrong"), columns=("level",), where="gold")
    assert caught.value.where == "gold" and "columns of the data: level" in caught.value.cure


def test_a_module_that_moved_is_found_by_its_old_name() -> None:
    reward = IsolatedReward(FunctionTable(path="plaudit.data.reviews:true_score"))
    assert reward.name == "true_score"
    reward.close()
