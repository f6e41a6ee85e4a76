"""The contract of `plaudit.rollouts.environment.Environment`, kept by ours, an example's and a user's.

Another environment is one more entry of `ENVIRONMENTS`, with texts that a policy may write in it.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plaudit.config.sections import SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Message, Prompt, Rollout, Turn
from plaudit.rollouts.environment import Done, Environment, SingleTurn
from plaudit.rollouts.turns import TurnGenerator, load_environment
from plaudit.runtime import TokenPrompt

ROOT = Path(__file__).parents[2]
MINE = '''
import plaudit


class Guess:
    """A game in a chat: higher or lower, until the number in the row's columns is found."""

    max_turns, stop = 3, ()

    def reply(self, rollout):
        said, secret = int(rollout.final), rollout.prompt.columns["secret"]
        if said == secret:
            return plaudit.Done(reward=1.0)
        return [plaudit.Message("user", "higher" if said < secret else "lower")]
'''
ENVIRONMENTS: dict[str, tuple[str, list[str]]] = {
    "single": ("", ["anything", ""]),
    "calculator": (
        "go on",
        ["<calc>3+4</calc>", "<calc>1/0</calc>", "<calc>nonsense</calc>", "7", "", "<calc>"],
    ),
    "users": ("chat", ["3", "5", "7"]),
}
"""Name -> (kind of prompt, turns that a policy may write)."""
TOKENIZER = tiny_tokenizer(["go on higher lower 1 2 3 4 5 6 7 < > / calc result error"], 64)
CHAT = ChatFormat(TOKENIZER)


@pytest.fixture(params=sorted(ENVIRONMENTS))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Environment, Prompt, list[str]]:
    kind, texts = ENVIRONMENTS[request.param]
    content: Any = (Message("user", "go on"),) if kind == "chat" else "go on"
    asked = Prompt("p", content, columns={"secret": 5})
    if request.param == "single":
        return SingleTurn(), asked, texts
    if request.param == "calculator":
        return load_environment(f"{ROOT}/examples/calculator/calculator.py:Calculator"), asked, texts
    (tmp_path / "mine.py").write_text(MINE)
    return load_environment(f"{tmp_path / 'mine.py'}:Guess"), asked, texts


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"]) or (TOKENIZER.eos_token_id,)


def said(prompt: Prompt, text: str) -> Rollout:
    drawn = ids(text)
    start = CHAT.prompt_ids(prompt.content)
    return Rollout.single(prompt, 0, start, drawn, (-1.0,) * len(drawn), text, "stop")


def test_it_has_limits(case) -> None:
    environment, _, _ = case
    assert isinstance(environment, Environment)
    assert environment.max_turns >= 1 and isinstance(environment.stop, tuple)


def test_a_reply_can_be_tokenised_or_ends_the_rollout(case) -> None:
    environment, prompt, texts = case
    ended = 0
    for text in texts:
        reply = environment.reply(said(prompt, text))
        if isinstance(reply, Done):
            ended += 1
            assert reply.reward is None or isinstance(reply.reward, float)
        else:
            content = reply if isinstance(reply, str) else tuple(reply)
            assert CHAT.continuation(content, 5, chat=not isinstance(prompt.content, str))
    assert ended, "some turn ends every rollout, or no rollout would end by itself"


def test_equal_rollouts_get_equal_replies_in_any_order_and_nothing_is_changed(case) -> None:
    environment, prompt, texts = case
    rollouts = [said(prompt, text) for text in texts]
    before = pickle.dumps(rollouts)
    first = [environment.reply(rollout) for rollout in rollouts]
    again = [environment.reply(rollout) for rollout in reversed(rollouts)]
    assert again == first[::-1] and pickle.dumps(rollouts) == before


def test_what_was_said_earlier_may_count_and_a_long_rollout_is_answered_too(case) -> None:
    environment, prompt, texts = case
    rollout = said(prompt, texts[0])
    for number in range(1, 6):
        start, end = len(rollout.tokens), len(rollout.tokens) + 2
        author = "environment" if number % 2 else "policy"
        turn = Turn(author, start, end, texts[number % len(texts)])  # type: ignore[arg-type]
        rollout = replace(rollout, tokens=(*rollout.tokens, 4, 5), turns=(*rollout.turns, turn))
        if author == "policy":
            environment.reply(rollout)


class Reader:
    """Says the given texts, one a turn, and keeps the rows it was given."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.rows = texts, list[tuple[int, ...]]()

    def publish(self, weights: Any, version: int) -> None:
        """It has no weights."""

    def generate(
        self, prompts: list[TokenPrompt], n: int, sampling: Any, *, seed: int, iteration: int, progress=None
    ):
        made = []
        for prompt in prompts:
            text = self.texts[len(self.rows) % len(self.texts)]
            self.rows.append(prompt.ids)
            made.append(
                Rollout.single(
                    prompt.prompt, 0, prompt.ids, ids(text), (-1.0,) * len(ids(text)), text, "stop"
                )
            )
        return made


def test_it_runs_to_an_end_and_the_policy_reads_the_row_that_is_recorded(case) -> None:
    environment, prompt, texts = case
    reader = Reader(texts)
    tokens = TokenPrompt(prompt, tuple(CHAT.prompt_ids(prompt.content)))
    sampling = SamplingSection(max_new_tokens=500)
    (rollout,) = TurnGenerator(reader, environment, CHAT, 1000).generate(
        [tokens], 1, sampling, seed=0, iteration=0
    )
    assert rollout.error == "" and rollout.turns[-1].author == "policy"
    assert 1 <= len(rollout.policy_turns) <= environment.max_turns
    assert [rollout.tokens[: turn.start] for turn in rollout.policy_turns] == reader.rows
