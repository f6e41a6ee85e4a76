"""What the evaluations of a run say of its reward: each function gives evidence in words, or nothing.

A reward is an imperfect copy of what is wanted, so that the gold reward rises, has a peak and falls while the reward
goes on rising (Gao, Schulman and Hilton 2023, arXiv:2210.10760).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, pstdev

from plaudit.evaluation.alarms.evaluations import Seen, agreement
from plaudit.evaluation.choice import Means, clearly, difference
from plaudit.evaluation.comparing.distance import Point, Track
from plaudit.evaluation.frontier import fit
from plaudit.rewards.spoiled import SHUFFLED, SWAPPED
from plaudit.statistics.clustered import mean_over

Evaluations = Mapping[int, Seen]
"""Step -> what was seen at it."""
CHANCE = 0.02
"""Chance at each evaluation that a run of which nothing changes is said to have fallen; of all together some 5 %."""
SURER = 0.99
"""Confidence at which the gaps of spoiled copies have shrunk."""
STILL = 0.05
"""Nats per response. A policy that is nearer to its start has not moved: what seems to change is luck."""
MATERIAL = 1 / 6
"""Share of the gold reward's gain: a smaller loss is no alarm, however sure it is."""
POOLED = 3
"""Evaluations whose responses are taken together to say whether the rewards agree."""
WEAK = 0.25
"""Correlation within prompts that is weak. Where the interval is not below it there are too few responses to say so."""
NEAR = 1.0
"""Nats per response. Nearer to the start, what a curve of the gold reward bends by is noise."""
FAR = 10.0
"""Nats per response. Nearer to the start, a policy without a gold reward is not called far from it."""
LEFT = 0.5
"""Share of the gap between responses and their spoiled copies that is left of the start's."""
GAP = 0.25
"""Standard deviations of the reward at the start. A smaller gap at the start is no sign of reading."""
SPOILED = {
    SWAPPED: "the same responses after other prompts",
    SHUFFLED: "the same responses with their tokens in another order",
}


def gold_rose(seen: Evaluations) -> bool:
    """Whether the gold reward is clearly above its start."""
    return clearly(difference(seen[min(seen)].gold, seen[max(seen)].gold))


def gold_stays(seen: Evaluations) -> bool:
    """Whether the reward is clearly above its start, and the gold reward is not."""
    return clearly(difference(seen[min(seen)].reward, seen[max(seen)].reward)) and not gold_rose(seen)


def gold_falls(seen: Evaluations, changed: bool = False) -> str:
    """The gold reward is below its best evaluation, beyond what the luck of the best of many explains.

    Args:
        seen: the evaluations.
        changed: whether a detector of texts has found something.
    """
    steps = sorted(seen)
    levels = {step: fmean(seen[step].gold.values()) for step in steps}
    peak, last = max(steps, key=lambda step: levels[step]), steps[-1]
    if peak == last:
        return ""
    # The best of many evaluations is the luckiest as well, so that all after it seem to fall. So a single one must be
    # sure for all pairs of evaluations that there could have been; or two in a row, taken together, must be. Where the
    # texts have changed there is a reason of another kind, and the usual interval is enough.
    pairs = len(steps) * (len(steps) - 1) / 2
    confidence = 0.95 if changed else 1 - 2 * CHANCE / pairs
    lost = difference(seen[last].gold, seen[peak].gold, confidence)
    found = clearly(lost)
    if not found and steps[-2] > peak:
        found = clearly(difference(_both(seen[steps[-2]].gold, seen[last].gold), seen[peak].gold, confidence))
    if not found or lost.value <= 0 or lost.value < MATERIAL * (levels[peak] - levels[steps[0]]):
        return ""
    best, now = levels[peak], levels[last]
    lost = difference(seen[last].gold, seen[peak].gold)
    since = fmean(seen[last].reward.values()) - fmean(seen[peak].reward.values())
    return (
        f"the gold reward has fallen from {best:.2f} at iteration {peak} to {now:.2f}: a loss of "
        f"{lost.value:.2f}, 95 % interval {lost.low:.2f} to {lost.high:.2f}, while the reward that is "
        f"trained on changed by {since:+.2f}. The best weights are kept; stop here, raise --kl-coef, or mend the reward"
    )


def _both(one: Means, other: Means) -> dict[str, float]:
    """Mean of two evaluations, of the prompts that both have."""
    return {prompt: (one[prompt] + other[prompt]) / 2 for prompt in one.keys() & other.keys()}


def has_moved(seen: Evaluations) -> bool:
    """Whether the policy is away from its start; True where the distance was not measured."""
    last = seen[max(seen)]
    return not last.kl or fmean(last.kl.values()) > STILL


def proxy_gold(seen: Evaluations) -> str:
    """The reward has risen, and the gold reward has fallen or does not follow it.

    Of a gold reward that has clearly risen it says nothing: one that errs often agrees little with a good reward as
    well, and what it has risen by shows that the reward buys something.
    """
    steps = sorted(seen)
    first, last = seen[steps[0]], seen[steps[-1]]
    rose, fell = difference(first.reward, last.reward), difference(last.gold, first.gold)
    if not clearly(rose):
        return ""
    if clearly(fell):
        return (
            f"the reward has risen by {rose.value:.2f} since the start while the gold reward fell by {fell.value:.2f}, "
            f"both clearly, over {fell.n} held-out prompts: the policy exploits the reward. Stop, raise --kl-coef, or "
            "mend the reward"
        )
    recent = steps[-POOLED:]
    if len(recent) < POOLED or gold_rose(seen):
        return ""
    now = agreement([seen[step] for step in recent])
    if math.isnan(now.low) or now.low > 0 or now.high > WEAK:
        return ""
    return (
        f"the gold reward does not follow the reward: among responses to the same prompt their correlation is "
        f"{now.value:.2f}, 95 % interval {now.low:.2f} to {now.high:.2f}, over {now.n} prompts at iterations "
        f"{', '.join(map(str, recent))}. What the reward prefers is no better, so going on buys reward and nothing "
        "else. Stop, or mend the reward"
    )


def past_peak(seen: Evaluations) -> str:
    """With a gold reward: the KL is beyond the peak that the evaluations predict."""
    steps = sorted(seen)
    start = seen[steps[0]].gold
    points = []
    for step in steps:
        one = seen[step]
        change = {prompt: one.gold[prompt] - start[prompt] for prompt in one.gold.keys() & start.keys()}
        points.append(Point(step, fmean(one.kl.values()) if one.kl else 0.0, change))
    curve = fit(Track("gold", tuple(points)))
    kl = points[-1].kl
    if kl < NEAR or curve is None or curve.peak is None or not kl > curve.peak_ci[1] ** 2:
        return ""
    return (
        f"the KL to the start is {kl:.1f} nats per response, beyond the peak of the gold reward: {curve.words}. The "
        "best weights are kept; stop here, or raise --kl-coef"
    )


def far_away(seen: Evaluations) -> str:
    """Without a gold reward: the KL is so large that a peak has probably been passed, and nobody measured it."""
    last = seen[max(seen)]
    kl = fmean(last.kl.values()) if last.kl else 0.0
    if kl <= FAR:
        return ""
    return (
        f"the policy is {kl:.1f} nats per response from its start, more than {FAR:g}. There is no gold reward, so "
        "nobody measures whether what is wanted still rises with the reward. Read the samples, give a gold reward "
        "(--gold), or raise --kl-coef"
    )


def perturbation(seen: Evaluations) -> str:
    """The reward model tells responses from their spoiled copies less well than at the start, while it gives more."""
    steps = sorted(seen)
    first, last = seen[steps[0]], seen[steps[-1]]
    rose = difference(first.reward, last.reward)
    for name, copies in SPOILED.items():
        if not clearly(rose) or name not in first.gaps or name not in last.gaps:
            continue
        before, now = first.gaps[name], last.gaps[name]
        was, here = mean_over(list(before.values())), mean_over(list(now.values()))
        was_read = clearly(was) and was.value >= GAP * pstdev(first.reward.values())
        if was_read and here.value < LEFT * was.value and clearly(difference(now, before, SURER)):
            return (
                f"the reward has risen by {rose.value:.2f}, and what it gives more to responses than to {copies} "
                f"has fallen from {was.value:.2f} to {here.value:.2f}, over {here.n} held-out prompts: it no longer "
                "pays for what the responses say. Read the samples, and raise --kl-coef or mend the reward"
            )
    return ""
