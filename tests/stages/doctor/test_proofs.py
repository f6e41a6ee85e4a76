"""The proof of a template, and the sanity of a reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from plaudit.data.chat import ChatFormat
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Demonstration, Message, Preference, Prompt, RewardResult, Rollout
from plaudit.runtime import TextFormat
from plaudit.stages.doctor.part import WIDTH
from plaudit.stages.doctor.rewards import examine_reward, first_rewards, rollouts_of
from plaudit.stages.doctor.steps import speed
from plaudit.stages.doctor.template import Example, examine_template
from plaudit.stages.encode import demonstration_encoder

WORDS = [" red blue green warm cold good bad big"]
CHAT = (Message("user", " red blue"),)


def text_of(template: str | None = None, stop: Any = ()) -> TextFormat:
    tokenizer = tiny_tokenizer(WORDS)
    if template is not None:
        tokenizer.chat_template = template
    return TextFormat(tokenizer, ChatFormat(tokenizer, "auto", stop), None)


def row_of(text: TextFormat, response: str = " good", prompt: Any = CHAT) -> Example:
    [row] = demonstration_encoder(text.chat, False)(Demonstration("d", prompt, response))
    return Example(prompt, row)


def test_a_template_that_is_right() -> None:
    text = text_of()
    part = examine_template(text, [row_of(text), row_of(text, " bad big")])
    assert part.warnings == []
    assert part.figures["template_end_stops"] and part.figures["end_ids"] == [3]
    assert part.figures["prompts_as_apply_chat_template"] == part.figures["prompts_compared"] == 2
    shown = "\n".join(part.lines)
    assert "<s><|user|> red blue</s><|assistant|>" in shown
    assert "trained     2 of 8 tokens\n             good</s>" in shown
    assert "a response stops at </s> (token 3)" in shown
    assert all(len(line) <= WIDTH for line in part.lines)


def test_a_template_that_writes_no_end_is_warned_of() -> None:
    text = text_of("{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
                   "{% if add_generation_prompt %}<|assistant|>{% endif %}")  # fmt: skip
    part = examine_template(text, [row_of(text)])
    assert not part.figures["template_end_stops"]
    assert any("the chat template writes nothing, which is none of the ends" in w for w in part.warnings)


def test_rows_without_an_end_that_is_trained_are_counted() -> None:
    text = text_of()
    example = row_of(text)
    example.row.mask[-1] = False
    part = examine_template(text, [example, row_of(text)])
    assert part.figures["rows_without_trained_end"] == 1
    assert any("1 of 2 rows do not end with an end token" in w for w in part.warnings)


def test_prompts_that_differ_from_the_tokenizers_own_are_counted() -> None:
    text = text_of()
    example = row_of(text)
    cut = row_of(text)
    del cut.row.ids[1], cut.row.mask[1]
    part = examine_template(text, [example, cut])
    assert (part.figures["prompts_as_apply_chat_template"], part.figures["prompts_compared"]) == (1, 2)
    assert any("1 of 2 prompts differ" in w for w in part.warnings)


def test_two_beginnings_are_seen() -> None:
    text = text_of()
    example = row_of(text)
    example.row.ids.insert(0, 2)
    example.row.mask.insert(0, False)
    assert any("begin with <s> twice" in w for w in examine_template(text, [example]).warnings)


def test_a_text_is_continued_as_it_stands() -> None:
    text = text_of()
    part = examine_template(text, [row_of(text, prompt=" red")])
    assert "continued as they stand" in part.lines[0] and "template_end_stops" not in part.figures


def rollout(i: int, k: int, response: str, finish: Any = "stop") -> Rollout:
    prompt = Prompt(f"p{i}", f" red {i}")
    ids = [10 + len(word) for word in response.split()] + ([3] if finish == "stop" else [])
    return Rollout.single(prompt, i, (4, 5 + i), ids, [0.0] * len(ids), response, finish)


def scoring(function: Callable[[str], float | None]) -> Any:
    def reward(rollouts: Sequence[Rollout]) -> list[RewardResult]:
        values = [function(r.response) for r in rollouts]
        return [RewardResult(v, error="" if v is not None else "it broke\x1b[2J") for v in values]

    return reward


DRAWN = [
    rollout(i, k, " good" * (1 + (i + k) % 3) + " red blue warm cold", "length" if k else "stop")
    for i in range(12)
    for k in (0, 1)
]
CHATS = text_of().chat


def won(part: Any, worse: str) -> tuple[float, int]:
    [contest] = [c for c in part.figures["contests"] if c["worse"] == worse]
    return contest["wins"], contest["of"]


def test_a_sane_reward() -> None:
    reward = scoring(lambda text: len(set(text.split())) + text.count("good") / 10)
    part = examine_reward(reward, DRAWN, [], CHATS)
    assert part.warnings == []
    assert part.figures["failed"] == 0 and part.figures["std"] > 0
    assert won(part, "nothing") == (24, 24)
    assert won(part, "its first words repeated") == (24, 24)
    assert all(len(line) <= WIDTH + 4 for line in part.lines)


def test_one_value_for_all_is_warned_of() -> None:
    part = examine_reward(scoring(lambda text: 0.5), DRAWN, [], CHATS)
    assert any("every response was given 0.5: nothing can be learned" in w for w in part.warnings)
    assert part.figures["groups_all_same"] == 1.0


def test_a_reward_that_likes_nothing_better_is_warned_of() -> None:
    part = examine_reward(scoring(lambda text: -float(len(text))), DRAWN, [], CHATS)
    assert won(part, "nothing") == (0, 24)
    assert any("it likes nothing more than a real response, 24 of 24 times" in w for w in part.warnings)


def test_failures_are_counted_and_their_reason_is_harmless() -> None:
    reward = scoring(lambda text: None if text.startswith(" good red") else 1.0 * len(text))
    part = examine_reward(reward, DRAWN, [], CHATS)
    assert part.figures["failed"] == 8
    [warning] = [w for w in part.warnings if "could not be scored" in w]
    assert "8 of 24" in warning and "it broke\\x1b[2J" in warning


def test_chosen_against_rejected() -> None:
    pairs = [Preference(f"c{i}", CHAT, " good good", " bad") for i in range(20)]
    both = rollouts_of(pairs, CHATS, 100)
    assert len(both) == 20 and both[0][0].response == " good good" and both[0][0].response_ids[-1] == 3
    assert rollouts_of(pairs, CHATS, 5) == []
    part = examine_reward(scoring(lambda text: float(len(text))), DRAWN, both, CHATS)
    assert won(part, "rejected") == (20, 20)
    part = examine_reward(scoring(lambda text: -float(len(text))), DRAWN, both, CHATS)
    assert any("it likes rejected more than chosen, 20 of 20 times" in w for w in part.warnings)


def test_the_first_rewards_of_a_run() -> None:
    metrics = {"reward/mean": 1.0, "reward/std": 0.0, "reward/error_share": 0.0}
    figures, caution = first_rewards(metrics, 2.0)
    assert figures == {"mean": 1.0, "std": 0.0, "failed_share": 0.0, "seconds": 2.0}
    assert "every response of the first iteration was given 1" in caution
    assert first_rewards(metrics | {"reward/std": 1.0}, 0.0)[1] == ""
    assert "10% of the responses" in first_rewards(metrics | {"reward/std": 1.0, "reward/error_share": 0.1}, 0.0)[1]


def test_time_by_hand() -> None:
    step = {"seconds": 2.0, "sampled": 100.0, "sampling": 0.5, "trained": 300.0, "training": 1.5}
    part = speed([step | {"seconds": 60.0}, step, step], 50, "iteration", scale=4.0, evaluation=100.0)
    assert part.figures["seconds_per_iteration"] == 8.0, "the first one is left out"
    assert part.figures["seconds_in_all"] == 500.0
    assert part.figures["sampling_tokens_per_second"] == pytest.approx(200)
    assert part.figures["training_tokens_per_second"] == pytest.approx(200)
    assert "about 8 min for 50 iterations" in "\n".join(part.lines) and part.figures["estimate"]
