"""Responses spoiled in known ways: a reward that still reads them likes the spoiled ones less."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from plaudit.records import Rollout, Turn
from plaudit.rewards.classifier import ClassifierReward
from plaudit.rewards.combine import EnsembleReward, WeightedReward
from plaudit.rewards.model import ModelReward
from plaudit.runtime import Reward

SWAPPED, SHUFFLED = "gap_swapped", "gap_shuffled"
"""What a response has more than itself after another prompt, and than its own tokens in another order."""


def models_of(reward: Reward) -> Reward | None:
    """The part of a reward that models give, which may be asked again and again; None where no model takes part.

    Functions and servers of other people are not asked for what nobody needs scored: a call may cost money.
    """
    if isinstance(reward, (ModelReward, EnsembleReward, ClassifierReward)):
        return reward
    if isinstance(reward, WeightedReward):
        parts = [(model, weight) for part, weight in reward.parts if weight and (model := models_of(part))]
        return WeightedReward(parts) if parts else None
    return None


def gaps(reward: Reward, rollouts: Sequence[Rollout]) -> list[dict[str, float]]:
    """For each scored rollout, how much more its models give it than its spoiled copies.

    Empty for one of several turns, for one that could not be scored, and for all of them where no model takes part or
    all prompts are the same.
    """
    model = models_of(reward)
    found: list[dict[str, float]] = [{} for _ in rollouts]
    single = [i for i, rollout in enumerate(rollouts) if len(rollout.turns) == 1 and not rollout.error]
    if model is None or not single:
        return found
    plain = [rollouts[i] for i in single]
    # What has been scored is scored again only where something else than the models has its part in it.
    known = model is reward and all(rollout.environment_reward is None for rollout in plain)
    whole = [rollout.reward for rollout in plain] if known else [result.value for result in model(plain)]
    for name, copies in ((SWAPPED, swapped(plain)), (SHUFFLED, shuffled(plain))):
        values = [result.value for result in model(copies)] if copies else []
        for i, own, value in zip(single, whole, values, strict=False):
            if own is not None and value is not None:
                found[i][name] = own - value
    return found


def swapped(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Each response after the next prompt that is another one; none where all prompts are the same."""
    copies = []
    for i, rollout in enumerate(rollouts):
        others = (*rollouts[i + 1 :], *rollouts[:i])
        other = next((one for one in others if one.prompt.content != rollout.prompt.content), None)
        if other is None:
            return []
        copy = _with(rollout, other.prompt_ids, rollout.response_ids, rollout.response)
        copies.append(replace(copy, prompt=other.prompt))
    return copies


def shuffled(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Each response with its tokens, and its words, in another order; the last token, which may end it, stays last."""
    copies = []
    for rollout in rollouts:
        draw = random.Random(f"shuffled/{rollout.prompt.id}")
        ids, words = list(rollout.response_ids[:-1]), rollout.response.split()
        draw.shuffle(ids)
        draw.shuffle(words)
        copies.append(_with(rollout, rollout.prompt_ids, (*ids, *rollout.response_ids[-1:]), " ".join(words)))
    return copies


def _with(rollout: Rollout, prompt_ids: Sequence[int], response_ids: Sequence[int], response: str) -> Rollout:
    tokens = (*prompt_ids, *response_ids)
    turn = Turn("policy", len(prompt_ids), len(tokens), response, rollout.finish_reason)
    return replace(rollout, tokens=tokens, turns=(turn,))
