"""Rewards of one's own. Each function is named on the command line as file and function:

    plaudit ppo --reward examples/custom_reward.py:brief_and_warm --policy MODEL --dataset prompts.jsonl

or, with a weight and beside another reward, in a config:

    [[reward]]
    kind = "model"
    path = "runs/reward"

    [[reward]]
    kind = "function"
    path = "examples/custom_reward.py:brief_and_warm"
    weight = 0.3

or handed over in Python: ``plaudit.train(plaudit.PPO(), reward=brief_and_warm, ...)``. What a function is given
depends on the names of its parameters; what it returns must be a finite number. An exception counts as a failed
reward (the response is left out), never as a 0.
"""

from __future__ import annotations

WARM = frozenset("good great lovely warm kind excellent delicious wonderful".split())
COLD = frozenset("bad awful cold rude stale terrible horrible".split())


def brief_and_warm(prompt: str, response: str) -> float:
    """Warm words count 1, cold ones -1; every word beyond twenty costs a tenth."""
    words = [word.strip(".,!?").lower() for word in response.split()]
    warmth = sum((word in WARM) - (word in COLD) for word in words)
    return warmth - 0.1 * max(0, len(words) - 20)


def right_answer(response: str, answer: str | None) -> float:
    """1 if the known answer of the prompt (field ``answer`` of the data) occurs in the response."""
    if answer is None:
        raise ValueError("this reward needs prompts with an answer")
    return float(answer.casefold() in response.casefold())


def different_from_each_other(prompts: list[str], responses: list[str]) -> list[float]:
    """A whole batch at once, because the plural names ask for it: what everybody says is worth less."""
    openings = [" ".join(text.split()[:3]).casefold() for text in responses]
    return [1.0 / openings.count(opening) for opening in openings]
