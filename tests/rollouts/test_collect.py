"""What an iteration learns from: dynamic sampling, greedy baselines, and prompts that come in turn."""

from collections import Counter
from dataclasses import replace

import pytest

from plaudit.algorithms.grpo import DAPO, GRPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.config.sections import SamplingSection
from plaudit.errors import RewardError
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.rewards.combine import WeightedReward
from plaudit.rollouts.collect import Clock, Collected, Collector, describe, scored, told_apart
from plaudit.runtime import Runtime, TokenPrompt


class Echo:
    """Response k to a prompt is the token 10 + k; the greedy one is 99."""

    def generate(self, prompts, n, sampling, *, seed, iteration):
        def one(group, prompt, k):
            token = 99 if sampling.top_k == 1 else 10 + k
            return Rollout.single(prompt.prompt, group, prompt.ids, (token,), (-0.5,), str(token), "stop")

        return [one(group, prompt, k) for group, prompt in enumerate(prompts) for k in range(n)]


def mixed(rollouts):
    """Responses to prompts with an even number differ in reward; to others they do not."""
    even = [int(r.prompt.id.split("#")[0][1:]) % 2 == 0 for r in rollouts]
    return [RewardResult(float(r.response_ids[0] if e else 7.0)) for r, e in zip(rollouts, even, strict=True)]


def collector(algorithm, prompts=8, per_round=4, reward=mixed):
    runtime = Runtime(Echo(), None, None, reward)
    data = [TokenPrompt(Prompt(f"p{i}", "x"), (1, 2)) for i in range(prompts)]
    return Collector(algorithm, runtime, data, SamplingSection(max_new_tokens=5), per_round, seed=0)


def test_every_prompt_comes_once_a_pass_and_then_again_under_another_id():
    found = collector(GRPO(group_size=2), prompts=3, per_round=4)
    first = [r.prompt.id for r in found.collect(0, Clock()).kept[::2]]
    assert sorted(first[:3]) == ["p0", "p1", "p2"] and first[3].endswith("#2")
    second = [r.prompt.id for r in found.collect(1, Clock()).kept[::2]]
    assert {first[3].removesuffix("#2"), *second[:2]} == {"p0", "p1", "p2"} and found.used == 8


def test_dynamic_sampling_fills_the_batch_with_groups_that_teach_something():
    found = collector(DAPO(group_size=2, sampling_rounds=9), prompts=40)
    collected = found.collect(0, Clock())
    groups = Counter(r.group_id for r in collected.kept)
    assert len(groups) == 4 and set(groups.values()) == {2}
    assert all(int(r.prompt.id[1:]) % 2 == 0 for r in collected.kept)
    by_group = {r.group_id: r.prompt.id for r in collected.sampled}
    assert len(by_group) == len(set(by_group.values())), "a group is one prompt, over all rounds"
    rounds = collected.metrics["dyn/rounds"]
    assert rounds > 1 and found.used == 4 * rounds == len(collected.sampled) / 2
    kept = len({r.prompt.id for r in collected.sampled if int(r.prompt.id[1:]) % 2 == 0})
    assert collected.metrics["dyn/kept_share"] == pytest.approx(kept / found.used)
    assert collected.metrics["dyn/reward_mean"] == pytest.approx(10.5)
    assert describe(collected.sampled)["reward/mean"] < 10.5, "the reward that is reported is not filtered"


def test_rounds_are_capped_and_nothing_may_be_kept():
    same = collector(
        DAPO(group_size=2, sampling_rounds=3), reward=lambda rollouts: [RewardResult(1.0)] * len(rollouts)
    )
    collected = same.collect(0, Clock())
    assert collected.metrics["dyn/rounds"] == 3 and collected.metrics["dyn/kept_share"] == 0
    assert collected.kept == [] and len(collected.sampled) == 24
    assert "dyn/reward_mean" not in collected.metrics, "of nothing there is no mean"


def test_without_dynamic_sampling_there_is_one_round_and_no_word_of_it():
    collected = collector(GRPO(group_size=2)).collect(0, Clock())
    assert collected.metrics == {} and len(collected.kept) == 8


def test_the_greedy_response_goes_to_every_row_of_its_group():
    collected = collector(REINFORCE(baseline="greedy", group_size=3)).collect(0, Clock())
    batch = collected.batch(0, length_limit=5)
    expected = [99.0 if int(r.prompt.id[1:]) % 2 == 0 else 7.0 for r in collected.kept]
    assert batch.greedy_rewards.tolist() == expected and not batch.greedy_truncated.any()
    assert len(collected.sampled) == 12, "it is not learned from"
    assert batch.length_limits.tolist() == [5] * 12
    assert collector(REINFORCE(), 8).collect(0, Clock()).batch(0, 5).greedy_rewards is None


def test_many_failed_rewards_stop_the_run():
    def broken(rollouts):
        return [RewardResult(None, error="nan")] * len(rollouts)

    with pytest.raises(RewardError, match="nan"):
        collector(GRPO(), reward=broken).collect(0, Clock())


def test_told_apart_counts_over_rounds():
    seen = Counter()
    prompts = [TokenPrompt(Prompt("a", "x"), (1,))]
    names = [told_apart(prompts, seen)[0].prompt.id for _ in range(3)]
    assert names == ["a", "a#2", "a#3"]


def test_a_clock_adds_up():
    clock = Clock()
    clock.lap("time/generate")
    first = clock.laps["time/generate"]
    clock.lap("time/generate")
    assert clock.laps["time/generate"] >= first and list(clock.laps) == ["time/generate"]


def test_a_prompt_that_comes_again_keeps_its_own_limit_of_tokens():
    prompt = TokenPrompt(Prompt("p", "x"), (1, 2), max_new_tokens=3)
    first, again = told_apart([prompt, prompt], Counter())
    assert first == prompt and again.prompt.id == "p#2" and again.max_new_tokens == 3


HUGE = (1e300, -1e39, 2.0**24 + 2, -float(2**25))


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("how", ["plain", "weighted", "of an environment"])
def test_a_finite_but_huge_reward_is_an_error_of_its_row(huge, how):
    """The first of eight responses; by itself, as a sum of two weighted halves, or by what an environment adds."""
    value = {"plain": huge, "weighted": huge / 2, "of an environment": 1.0}[how]

    def one_is_huge(rollouts):
        return [RewardResult(value if i == 0 else float(i)) for i in range(len(rollouts))]

    one_is_huge.name = "mine"
    reward = WeightedReward([(one_is_huge, 1.0), (one_is_huge, 1.0)]) if how == "weighted" else one_is_huge
    drawn = Echo().generate([TokenPrompt(Prompt("p0", "x"), (1, 2))], 8, SamplingSection(), seed=0, iteration=0)
    if how == "of an environment":
        drawn[0] = replace(drawn[0], environment_reward=huge)
    first, *others = scored(reward, drawn)
    assert first.reward is None and f"the reward is {huge:g}, beyond the 16,777,216" in first.reward_error
    assert all(abs(part) <= 2**24 for part in first.reward_parts.values())
    assert [r.reward for r in others] == [float(i) * (1 + (how == "weighted")) for i in range(1, 8)]
    assert not any(r.reward_error for r in others)
    rewards = Collected([first, *others], [first, *others]).batch(0, 5).rewards
    assert rewards.isnan().tolist() == [True] + [False] * 7, "which every algorithm leaves out"


def test_the_largest_reward_that_is_allowed_is_a_reward():
    drawn = Echo().generate([TokenPrompt(Prompt("p0", "x"), (1, 2))], 2, SamplingSection(), seed=0, iteration=0)
    assert [r.reward for r in scored(lambda rollouts: [RewardResult(2.0**24), RewardResult(-(2.0**24))], drawn)] == [
        2.0**24, -(2.0**24)
    ]  # fmt: skip


def test_many_huge_rewards_end_the_run_with_the_value():
    def half_huge(rollouts):
        return [RewardResult(1e300 if i % 2 else 1.0) for i in range(len(rollouts))]

    with pytest.raises(RewardError, match=r"4 of 8 rewards failed; the first: the reward is 1e\+300") as caught:
        collector(GRPO(group_size=2), reward=half_huge).collect(0, Clock())
    assert caught.value.cure
