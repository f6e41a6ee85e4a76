"""Can a reward be trusted with this: it varies, it does not fail, it is fast, and it likes what everybody would."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

from plaudit.data.chat import ChatFormat
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import DataError
from plaudit.records import Content, Preference, Prompt, RewardResult, Rollout, Turn
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.remote.http import HttpReward
from plaudit.rewards.remote.judge import JudgeReward
from plaudit.rewards.spoiled import shuffled, swapped
from plaudit.rollouts.collect import judged
from plaudit.runtime import Reward
from plaudit.stages.doctor.part import Part, shortened
from plaudit.statistics.intervals import wilson

COIN = 0.5
LOOP = 3
"""Tokens, and words, that a copy repeats to its end."""
SAME_GROUPS = 0.5
"""Share of prompts whose responses are all worth the same, beyond which it is said."""
LABEL = 12


@dataclass(frozen=True, slots=True)
class Contest:
    """How often one kind of response was given more than another."""

    better: str
    worse: str
    wins: float
    """A tie is half a win."""
    ties: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share that is won, 95 %."""
        return wilson(self.wins, self.of)

    @property
    def is_blind(self) -> bool:
        """Whether the reward gave both the same each time."""
        return self.ties == self.of

    def __str__(self) -> str:
        if self.is_blind:
            return f"{self.better} and {self.worse}: the same reward, {self.of} of {self.of} times"
        low, high = self.interval
        return (
            f"{self.better} over {self.worse}: {self.wins:g} of {self.of} "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        )


def examine_reward(
    reward: Reward, rollouts: Sequence[Rollout], pairs: Sequence[tuple[Rollout, Rollout]], chat: ChatFormat,
    role: str = "reward",
) -> Part:  # fmt: skip
    """What a reward makes of real responses, of spoiled copies of them, and of pairs that people decided.

    Args:
        reward: any.
        rollouts: as the policy drew them, several to a prompt; at least one.
        pairs: chosen and rejected of the data.
        chat: of the policy; for the end of an empty response.
        role: what the reward is called.
    """
    began = time.perf_counter()
    results = judged(reward, rollouts)
    seconds = (time.perf_counter() - began) / len(rollouts)
    values = [result.value for result in results if result.value is not None]
    failed = [result for result in results if result.value is None]
    figures: dict[str, Any] = {
        "responses": len(rollouts), "failed": len(failed), "seconds_per_response": seconds,
        "mean": fmean(values) if values else None, "std": pstdev(values) if values else None,
    }  # fmt: skip
    lines = [f"{'responses':<{LABEL}}{len(rollouts)}, {1e3 * seconds:.3g} ms each, {len(failed)} failed"]
    warnings = list(_failures(failed, len(rollouts)))
    if values:
        lines.append(
            f"{'values':<{LABEL}}mean {fmean(values):.3g}, deviation {pstdev(values):.3g}, "
            f"{min(values):.3g} to {max(values):.3g}"
        )
        figures["groups_all_same"] = same = _all_same(rollouts, results)
        warnings += _flat(values, same)
    contests = list(_contests(reward, rollouts, results, chat)) if values and not _is_remote(reward) else []
    if pairs and not _is_remote(reward):
        contests += _decided(reward, pairs)
    lines += [f"{'prefers' if not i else '':<{LABEL}}{contest}" for i, contest in enumerate(contests)]
    if _is_remote(reward):
        lines.append(f"{'':<{LABEL}}no copies and no pairs: each would be a request, and may cost money")
    figures["contests"] = [_figures(contest) for contest in contests]
    warnings += [text for contest in contests for text in _suspicious(contest)]
    return Part(role, figures, lines, [f"{role}: {warning}" for warning in warnings])


def _failures(failed: Sequence[RewardResult], of: int) -> Iterator[str]:
    if failed:
        why = shortened(failed[0].error, 160)
        yield f"{len(failed)} of {of} responses could not be scored; the first: {why}. A run ends at more than a fifth"


def _all_same(rollouts: Sequence[Rollout], results: Sequence[RewardResult]) -> float | None:
    """Share of prompts whose responses differ and are worth the same; None where each has one response."""
    groups: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for rollout, result in zip(rollouts, results, strict=True):
        if result.value is not None:
            groups[rollout.prompt.id].append((rollout.response, result.value))
    several = [group for group in groups.values() if len({text for text, _ in group}) > 1]
    return fmean(len({value for _, value in group}) == 1 for group in several) if several else None


def _flat(values: Sequence[float], same: float | None) -> Iterator[str]:
    if len(values) > 1 and pstdev(values) == 0:
        yield (
            f"every response was given {values[0]:g}: nothing can be learned from that. Look at the reward, at "
            "max_new_tokens (are all responses cut?), and at the prompts"
        )
    elif same is not None and same > SAME_GROUPS:
        yield (
            f"for {same:.0%} of the prompts all responses are worth the same: methods that compare the responses to "
            "a prompt (grpo, rloo, online-dpo) learn nothing from those; a larger --group-size helps where differences "
            "are rare"
        )


def _is_remote(reward: Reward) -> bool:
    """Whether a server is asked: a call may cost money, and copies are nothing that a user wants to pay for."""
    if isinstance(reward, WeightedReward):
        return any(_is_remote(part) for part, _ in reward.parts)
    return isinstance(reward, (HttpReward, JudgeReward))


def _contests(
    reward: Reward, rollouts: Sequence[Rollout], results: Sequence[RewardResult], chat: ChatFormat
) -> Iterator[Contest]:
    """Real responses against copies that anybody would find worse; only responses of one turn."""
    kept = [
        (rollout, result.value)
        for rollout, result in zip(rollouts, results, strict=True)
        if result.value is not None and len(rollout.turns) == 1 and rollout.response.strip()
    ]
    plain = [rollout for rollout, _ in kept]
    own = [value for _, value in kept]
    ways: dict[str, Callable[[Sequence[Rollout]], list[Rollout]]] = {
        "nothing": lambda some: [_with(r, chat.end_ids[:1], "", "stop") for r in some],
        "its first words repeated": lambda some: [_looped(r) for r in some],
        "its words shuffled": shuffled,
        "it after another prompt": swapped,
    }
    for name, spoil in ways.items():
        copies = spoil(plain) if plain else []
        if copies:
            values = [result.value for result in reward(copies)]
            yield from _contest("a real response", name, own, values)


def _decided(reward: Reward, pairs: Sequence[tuple[Rollout, Rollout]]) -> Iterator[Contest]:
    first, second = ([result.value for result in reward([pair[i] for pair in pairs])] for i in (0, 1))
    yield from _contest("chosen", "rejected", first, second)


def _contest(
    better: str, worse: str, first: Sequence[float | None], second: Sequence[float | None]
) -> Iterator[Contest]:
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if both:
        ties = sum(a == b for a, b in both)
        yield Contest(better, worse, sum(a > b for a, b in both) + ties / 2, ties, len(both))


def _looped(rollout: Rollout) -> Rollout:
    """A response whose first tokens, and words, are repeated until it is as long as it was."""
    ids, words = rollout.response_ids, rollout.response.split()
    end = ids[-1:] if rollout.finish_reason == "stop" else ()
    body = ids[: len(ids) - len(end)] or ids
    looped = [body[i % min(LOOP, len(body))] for i in range(len(body))]
    text = " ".join(words[i % min(LOOP, len(words))] for i in range(len(words)))
    return _with(rollout, (*looped, *end), text, rollout.finish_reason)


def _with(rollout: Rollout, ids: Sequence[int], text: str, finish: Any) -> Rollout:
    tokens = (*rollout.prompt_ids, *ids)
    turn = Turn("policy", len(rollout.prompt_ids), len(tokens), text, finish)
    logprobs = (0.0,) * len(ids)
    return replace(rollout, tokens=tokens, turns=(turn,), logprobs=logprobs, finish_reason=finish)


def _figures(contest: Contest) -> dict[str, Any]:
    return {
        "better": contest.better, "worse": contest.worse, "wins": contest.wins, "ties": contest.ties,
        "of": contest.of, "share_ci": list(contest.interval),
    }  # fmt: skip


def _suspicious(contest: Contest) -> Iterator[str]:
    if contest.is_blind and contest.better == "chosen":
        yield "chosen and rejected responses of the data are worth the same to it"
    elif not contest.is_blind and contest.interval[1] < COIN:
        yield (
            f"it likes {contest.worse} more than {contest.better}, {contest.of - contest.wins:g} of {contest.of} times:"
            " a policy would learn just that. Look at its report card (`plaudit evaluate reward`), or change it"
        )
    elif contest.better == "chosen" and contest.interval[0] <= COIN:
        yield (
            f"it prefers the chosen response {contest.wins:g} of {contest.of} times, which may be chance; "
            "`plaudit evaluate reward` judges it on more"
        )


def rollouts_of(pairs: Sequence[Preference], chat: ChatFormat, longest: int) -> list[tuple[Rollout, Rollout]]:
    """Chosen and rejected responses as a policy would have drawn them; pairs that are too long are left out."""
    found = []
    for pair in pairs:
        try:
            both = [_rollout(pair.id, pair.prompt, text, chat) for text in (pair.chosen, pair.rejected)]
        except DataError:  # the template refuses it; who trains on it says so
            continue
        if max(len(rollout.tokens) for rollout in both) <= longest:
            found.append((both[0], both[1]))
    return found


def _rollout(identity: str, prompt: Content, response: Content, chat: ChatFormat) -> Rollout:
    row = chat.encode(prompt, response)
    ids = row.ids[row.prompt_length :]
    return Rollout.single(
        Prompt(identity, prompt), 0, row.ids[: row.prompt_length], ids, [0.0] * len(ids), plain_text(response), "stop"
    )


def first_rewards(metrics: Mapping[str, float], seconds: float) -> tuple[dict[str, float], str]:
    """Of the first iteration of a run: the figures of its rewards, and what to be wary of; empty where nothing is.

    Args:
        metrics: of the iteration.
        seconds: that its rewards took.
    """
    failed = metrics.get("reward/error_share", 0.0)
    figures = {
        "mean": metrics["reward/mean"], "std": metrics["reward/std"], "failed_share": failed, "seconds": seconds,
    }  # fmt: skip
    if metrics["reward/std"] == 0:
        return figures, (
            f"every response of the first iteration was given {metrics['reward/mean']:g}: nothing can be learned from "
            "that. `plaudit doctor` with the same settings looks at the reward"
        )
    if failed:
        return figures, f"{failed:.0%} of the responses of the first iteration could not be scored"
    return figures, ""
