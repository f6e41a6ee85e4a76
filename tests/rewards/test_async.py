"""Async reward functions are awaited, several at a time and no more than that. Events say so, and no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plaudit.jobs.reward_tables import FunctionTable
from plaudit.records import Prompt, Rollout
from plaudit.rewards.function import FunctionReward
from plaudit.rewards.isolation import IsolatedReward

TOGETHER = """
import asyncio, time

inside = 0
most = 0
full = asyncio.Event()

async def together(response):
    # Three must be inside at once, or this waits for ever: one after another could never finish.
    global inside, most
    inside += 1
    most = max(most, inside)
    if inside == 3:
        full.set()
    await full.wait()
    inside -= 1
    return float(most)

async def some(response):
    if response == "slow": await asyncio.Event().wait()
    if response == "bad": raise ValueError("no")
    if response == "exit": raise SystemExit(3)
    return 1.0

async def batch(responses):
    await asyncio.sleep(0)
    return [float(len(text)) for text in responses]

async def group(group):
    await asyncio.sleep(0)
    return [float(len(group))] * len(group)

async def blocks(response):
    while True: pass

class Client:
    loop = None
    async def __call__(self, response):
        # A client that is kept between calls belongs to one loop.
        loop = asyncio.get_running_loop()
        assert Client.loop in (None, loop), "another loop"
        Client.loop = loop
        return 1.0

def hidden(response):
    return some(response)
"""


def rollouts(*responses: str) -> list[Rollout]:
    prompts = [Prompt(str(i // 2), "say") for i in range(len(responses))]
    return [
        Rollout.single(p, i // 2, (1,), (2,), (0.0,), r, "stop")
        for i, (p, r) in enumerate(zip(prompts, responses, strict=True))
    ]


@pytest.fixture(params=["here", "isolated"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """A maker of rewards from the functions above, in this process or in one of their own."""
    file = tmp_path / "mine.py"
    file.write_text(TOGETHER)
    namespace: dict[str, Any] = {}
    exec(compile(TOGETHER, str(file), "exec"), namespace)  # noqa: S102

    def reward(name: str, *, timeout: float = 600.0, concurrency: int = 16) -> Any:
        if request.param == "isolated":
            return IsolatedReward(
                FunctionTable(path=f"{file}:{name}", timeout=timeout, concurrency=concurrency)
            )
        fn = namespace[name]
        return FunctionReward(fn() if isinstance(fn, type) else fn, timeout=timeout, concurrency=concurrency)

    return reward


def test_as_many_wait_at_the_same_time_as_may(make: Callable[..., Any]) -> None:
    results = make("together", concurrency=3)(rollouts(*"abcdefgh"))
    assert max(result.value for result in results) == 3.0, "three at once, and never a fourth"


def test_a_fault_or_a_slow_call_costs_its_own_rollout(make: Callable[..., Any]) -> None:
    results = make("some", timeout=2.0)(rollouts("fine", "slow", "bad", "exit", "fine"))
    assert [result.value for result in results] == [1.0, None, None, None, 1.0]
    assert "more than 2 s" in results[1].error and "ValueError: no" in results[2].error
    assert "SystemExit: 3" in results[3].error


def test_batches_and_groups_are_awaited(make: Callable[..., Any]) -> None:
    assert [result.value for result in make("batch")(rollouts("a", "bc"))] == [1.0, 2.0]
    assert [result.value for result in make("group")(rollouts(*"abc"))] == [2.0, 2.0, 1.0]


def test_calls_share_one_loop_and_objects_may_be_async(make: Callable[..., Any]) -> None:
    reward = make("Client")
    assert [reward(rollouts("a"))[0].error for _ in range(2)] == ["", ""]


def test_a_plain_function_may_return_something_to_await(make: Callable[..., Any]) -> None:
    assert make("hidden")(rollouts("fine"))[0].value == 1.0


def test_inside_a_running_loop() -> None:
    async def judge(response: str) -> float:
        return float(len(response))

    async def notebook() -> Any:
        return FunctionReward(judge)(rollouts("abc"))[0].value

    assert asyncio.run(notebook()) == 3.0


def test_a_coroutine_that_never_gives_the_loop_back_ends_with_its_process(
    tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TOGETHER)
    monkeypatch.setattr("plaudit.rewards.isolation.SLACK", 0.1)
    reward = IsolatedReward(FunctionTable(path=f"{file}:blocks", timeout=0.1))
    results = reward(rollouts("a", "b"))
    assert [result.value for result in results] == [None, None] and "took more than 0.3 s" in results[0].error
