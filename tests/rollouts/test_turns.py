"""Turns of a policy and an environment over one row: what is called, what is recorded, and what ends a rollout."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from plaudit.config.sections import SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.data.collate import collate_rollouts
from plaudit.errors import ConfigError, RewardError
from plaudit.generation.native import NativeGenerator
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Message, Prompt, RewardResult, Rollout
from plaudit.rollouts.collect import describe, judged, scored
from plaudit.rollouts.environment import Done, SingleTurn
from plaudit.rollouts.turns import TurnGenerator, check_environment, load_environment
from plaudit.runtime import TokenPrompt

WORDS = "ask tell red blue green one two three four go on"
TOKENIZER = tiny_tokenizer([" ".join(f"{word} {word}" for word in WORDS.split())], 64)
CHAT = ChatFormat(TOKENIZER)
END = TOKENIZER.eos_token_id
SAMPLING = SamplingSection(max_new_tokens=12)


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


class Scripted:
    """Says the next line of each prompt's script, and an end token after it; "+" at its end: cut off instead."""

    policy_version = 3

    def __init__(self, **scripts: list[str]) -> None:
        self.scripts, self.calls = scripts, list[tuple[list[TokenPrompt], int, SamplingSection]]()

    def generate(self, prompts, n, sampling, *, seed, iteration, progress=None):
        self.calls.append((list(prompts), n, sampling))
        return [self._say(p, group, k) for group, p in enumerate(prompts) for k in range(n)]

    def _say(self, prompt: TokenPrompt, group: int, k: int) -> Rollout:
        name, _, turn = prompt.prompt.id.partition("@")
        said = self.scripts[name][int(turn.partition(".")[2] or 0)]
        cut = said.endswith("+")
        drawn = ids(said.removesuffix("+")) + (() if cut else (END,))
        logprobs = tuple(-0.1 * (i + 1) for i in range(len(drawn)))
        finish = "length" if cut else "stop"
        made = Rollout.single(
            prompt.prompt, group, prompt.ids, drawn, logprobs, said.removesuffix("+"), finish
        )
        return replace(made, policy_version=self.policy_version)


@dataclass
class Colours:
    """Replies " red" to whatever asks, and is done otherwise, with a reward if one is set."""

    max_turns: int = 3
    stop: tuple[str, ...] = ()
    reward: float | None = None
    says: Any = " red"

    def reply(self, rollout: Rollout):
        return self.says if "ask" in rollout.turns[-1].text else Done(self.reward)


def prompt(name: str = "p", content: Any = "go on") -> TokenPrompt:
    return TokenPrompt(Prompt(name, content), tuple(CHAT.prompt_ids(content)))


def play(generator, environment, *prompts, n=1, sampling=SAMPLING, row_limit=64):
    turns = TurnGenerator(generator, environment, CHAT, row_limit)
    return turns.generate(prompts or (prompt(),), n, sampling, seed=0, iteration=2)


def test_a_row_is_prompt_call_reply_and_answer() -> None:
    (rollout,) = play(Scripted(p=["ask", " blue"]), Colours(reward=2.0))
    start = prompt().ids
    assert rollout.tokens == (*start, *ids("ask"), END, *ids(" red"), *ids(" blue"), END)
    assert rollout.sampled == (*[False] * len(start), True, True, False, True, True)
    assert [(t.author, t.text, t.finish_reason) for t in rollout.turns] == [
        ("policy", "ask", "stop"), ("environment", " red", None), ("policy", " blue", "stop"),
    ]  # fmt: skip
    assert rollout.prompt_ids == start and rollout.prompt == prompt().prompt
    assert rollout.response_ids == (*ids("ask"), END, *ids(" blue"), END)
    assert rollout.logprobs == (-0.1, -0.2, -0.1, -0.2)
    assert rollout.response == "ask blue" and rollout.final == " blue"
    assert rollout.conversation() == ("go onask red", " blue")
    assert rollout.finish_reason == "stop" and rollout.policy_version == 3
    assert rollout.environment_reward == 2.0


def test_all_unfinished_rollouts_go_on_in_one_call_with_seeds_of_their_own() -> None:
    generator = Scripted(a=["ask", "ask", " one"], b=[" two"], c=["ask", " three"])
    rollouts = play(generator, Colours(), prompt("a"), prompt("b"), prompt("c"), n=2)
    assert [[p.prompt.id for p in prompts] for prompts, _, _ in generator.calls] == [
        ["a", "b", "c"],
        ["a@0.1", "a@1.1", "c@0.1", "c@1.1"],
        ["a@0.2", "a@1.2"],
    ]
    assert [n for _, n, _ in generator.calls] == [2, 1, 1]
    assert [len(r.policy_turns) for r in rollouts] == [3, 3, 1, 1, 2, 2]
    assert [r.group_id for r in rollouts] == [0, 0, 1, 1, 2, 2]
    assert [r.prompt.id for r in rollouts] == ["a", "a", "b", "b", "c", "c"]


def test_max_new_tokens_limits_what_the_policy_samples_in_all_turns() -> None:
    generator = Scripted(p=["ask", "ask", " one"])
    play(generator, Colours(), sampling=SamplingSection(max_new_tokens=5, min_new_tokens=2))
    assert [prompts[0].max_new_tokens for prompts, _, _ in generator.calls] == [0, 3, 1]
    assert [sampling.min_new_tokens for _, _, sampling in generator.calls] == [2, 0, 0]
    (spent,) = play(Scripted(p=["ask", " one"]), Colours(), sampling=SamplingSection(max_new_tokens=2))
    assert spent.finish_reason == "length" and len(spent.turns) == 1, "no token is left for an answer"


def test_the_row_limit_counts_what_the_environment_writes() -> None:
    start = len(prompt().ids)
    generator = Scripted(p=["ask", " one"])
    play(generator, Colours(), row_limit=start + 2 + 1 + 4)
    assert generator.calls[1][0][0].max_new_tokens == 4
    (cut,) = play(Scripted(p=["ask", " one"]), Colours(), row_limit=start + 2 + 1)
    assert cut.finish_reason == "length" and len(cut.tokens) == start + 2, "the row ends with the policy's turn"


def test_more_turns_than_allowed_and_cut_turns_end_a_rollout() -> None:
    (rollout,) = play(Scripted(p=["ask"] * 5), Colours(max_turns=2))
    assert rollout.finish_reason == "length" and len(rollout.policy_turns) == 2
    (rollout,) = play(Scripted(p=["ask+", " one"]), Colours(reward=1.0))
    assert rollout.finish_reason == "length" and len(rollout.turns) == 1
    assert rollout.environment_reward is None, "half a call is not shown to the environment"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (3, "TypeError: a reply is a text"),
        ([], "TypeError"),
        ([Message("user", "red")], "a text prompt was answered with turns"),
        (Done(math.nan), "ValueError: the reward nan"),
    ],
)
def test_a_wrong_reply_aborts_one_rollout(says: Any, why: str) -> None:
    good, bad = play(
        Scripted(a=[" one"], b=["ask", " two"]), Colours(says=says), prompt("a"), prompt("b")
    )
    assert good.finish_reason == "stop" and good.error == ""
    assert bad.finish_reason == "abort" and why in bad.error and "Colours" in bad.error


def test_an_environment_that_fails_ends_its_rollouts_and_not_the_run() -> None:
    class Broken(Colours):
        def reply(self, rollout):
            if "ask" in rollout.response:
                raise OSError("no such server")
            return Done()

    names = [f"p{i}" for i in range(6)]
    scripts = {name: [" one"] for name in names} | {"p1": ["ask"]}
    rollouts = play(Scripted(**scripts), Broken(), *map(prompt, names))
    seen: list[Rollout] = []

    def reward(some):
        seen.extend(some)
        return [RewardResult(1.0)] * len(some)

    rewarded = scored(reward, rollouts)
    assert [r.reward for r in rewarded] == [1.0, None, 1.0, 1.0, 1.0, 1.0] and len(seen) == 5
    metrics = describe(rewarded)
    assert metrics["response/aborted_share"] == pytest.approx(1 / 6)
    assert metrics["reward/error_share"] == pytest.approx(1 / 6)
    assert [r.value for r in judged(reward, rollouts)] == [1.0, None, 1.0, 1.0, 1.0, 1.0]
    with pytest.raises(RewardError, match="no such server"):
        scored(reward, rollouts[1:3])


def test_what_the_environment_gives_is_added_to_the_reward() -> None:
    def reward(rollouts):
        return [RewardResult(1.0, {"mine": 1.0}) for _ in rollouts]

    (one,) = scored(reward, play(Scripted(p=["one"]), Colours(reward=-0.25)))
    assert one.reward == 0.75 and one.reward_parts == {"mine": 1.0, "environment": -0.25}
    (one,) = scored(reward, play(Scripted(p=["one"]), Colours()))
    assert one.reward == 1.0 and one.reward_parts == {"mine": 1.0}


def test_metrics_of_turns_are_there_only_where_there_are_turns() -> None:
    one, two = play(Scripted(a=["one"], b=["ask", " two"]), Colours(), prompt("a"), prompt("b"))
    one, two = replace(one, reward=1.0), replace(two, reward=1.0)
    plain, mixed = describe([one]), describe([one, two])
    assert "response/turns_mean" not in plain
    assert mixed["response/turns_mean"] == 1.5 and mixed["response/environment_tokens_mean"] == 0.5
    assert mixed["response/length_mean"] == 3.0, "2 and 4 sampled tokens"


# A chat


def test_a_reply_in_a_chat_goes_through_the_template() -> None:
    asked = (Message("user", "go"),)
    environment = Colours(says=[{"role": "tool", "content": "red"}, Message("user", "on")])
    (rollout,) = play(Scripted(p=["ask", "blue"]), environment, prompt(content=asked))
    said = (*asked, Message("assistant", "ask"), Message("tool", "red"), Message("user", "on"))
    assert rollout.tokens == tuple(CHAT.encode(said, "blue").ids), "as a data set of such chats is encoded"
    assert rollout.turns[1].content == said[2:] and rollout.conversation() == (said, "blue")
    (text,) = play(Scripted(p=["ask", "blue"]), Colours(says="red"), prompt(content=asked))
    assert text.conversation()[0] == (*asked, Message("assistant", "ask"), Message("user", "red"))


# The engine itself


@pytest.fixture(scope="module")
def lm() -> Any:
    return tiny_lm("llama", TOKENIZER, hidden=32, layers=2, seed=3, scale=0.5)


def engine(lm: Any) -> NativeGenerator:
    return NativeGenerator(lm, TOKENIZER, CHAT.end_ids, rows=5)


class Replies(Colours):
    """Replies after every turn; how much depends on what was said."""

    def reply(self, rollout):
        if len(rollout.policy_turns) == 3:
            return Done()
        return " red" * (1 + len(rollout.turns[-1].text) % 3)


def test_without_replies_it_is_the_generator_itself(lm: Any) -> None:
    some = [prompt(f"p{i}", text) for i, text in enumerate(["go", "go on", "tell one"])]
    arguments = {"n": 3, "sampling": SAMPLING, "seed": 5, "iteration": 1}
    plain = engine(lm).generate(some, **arguments)
    assert TurnGenerator(engine(lm), SingleTurn(), CHAT, 64).generate(some, **arguments) == plain
    first = TurnGenerator(engine(lm), Replies(), CHAT, 64).generate(some, **arguments)
    for a, b in zip(plain, first, strict=True):
        assert b.tokens[: len(a.tokens)] == a.tokens and b.logprobs[: len(a.logprobs)] == a.logprobs
    assert max(len(r.policy_turns) for r in first) > 1, "turn 0 is compared with rollouts that went on"


@torch.no_grad()
def test_what_was_recorded_over_gaps_is_what_one_pass_over_the_row_gives(lm: Any) -> None:
    some = [prompt(f"p{i}", text) for i, text in enumerate(["go", "go on", "tell one"])]
    sampling = SamplingSection(max_new_tokens=30)
    rollouts = play(engine(lm), Replies(), *some, n=6, sampling=sampling, row_limit=80)
    assert sum(len(r.policy_turns) > 1 for r in rollouts) > 3
    batch = collate_rollouts(rollouts, 0)
    logits = lm(input_ids=batch.tokens, attention_mask=batch.attention_mask.long()).logits
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    mask = batch.response_mask[:, 1:]
    assert mask.sum() == sum(len(r.response_ids) for r in rollouts)
    torch.testing.assert_close(batch.sampled_logprobs[:, 1:][mask], logprobs[mask], rtol=0, atol=1e-5)
    assert not batch.sampled_logprobs[~batch.response_mask].any()


def test_a_rollout_does_not_depend_on_its_company(lm: Any) -> None:
    some = [prompt(f"p{i}", text) for i, text in enumerate(["go", "go on", "tell one", "ask"])]
    together = play(engine(lm), Replies(), *some, n=2)
    for i, one in enumerate(some):
        alone = play(engine(lm), Replies(), one, n=2)
        assert [r.tokens for r in alone] == [r.tokens for r in together[2 * i : 2 * i + 2]]


def test_a_stop_text_of_the_environment_ends_a_turn_and_stays_in_its_text(lm: Any) -> None:
    environment = Colours(stop=(" two",))
    some = [prompt(f"p{i}", "go") for i in range(40)]
    rollouts = play(engine(lm), environment, *some, sampling=SamplingSection(max_new_tokens=6))
    stopped = [r.turns[0] for r in rollouts if r.response_ids[-1] == ids(" two")[0]]
    assert len(stopped) > 2 and all(t.text.endswith(" two") for t in stopped)
    assert not any(" two" in t.text[:-4] for r in rollouts for t in r.policy_turns)


# Naming one

SOURCE = """
class Good:
    max_turns, stop = 2, ()
    def reply(self, rollout):
        return "more"

class NeedsMore(Good):
    def __init__(self, server): ...

class NoReply:
    max_turns, stop = 2, ()

class LoneStop(Good):
    stop = "</calc>"
"""


def test_an_environment_by_name(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    assert load_environment(f"{file}:Good").max_turns == 2
    for name, why in (("NeedsMore", "server"), ("NoReply", "lacks reply"), ("LoneStop", "tuple"), ("Gone", "Gone")):
        with pytest.raises(ConfigError, match=why) as raised:
            load_environment(f"{file}:{name}")
        assert "environment" in raised.value.where
    with pytest.raises(ConfigError, match="lacks max_turns, stop, reply"):
        check_environment(3, "3")


def test_an_async_reply_and_a_class_are_refused_before_the_run() -> None:
    class Waits:
        max_turns, stop = 2, ()

        async def reply(self, rollout: Rollout) -> Done:
            return Done()

    with pytest.raises(ConfigError, match="plain def"):
        check_environment(Waits(), "Waits")
    with pytest.raises(ConfigError, match=r"give an object of it, Waits\(\)"):
        check_environment(Waits, "environment")
