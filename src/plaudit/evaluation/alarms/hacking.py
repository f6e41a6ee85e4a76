"""Is the reward being exploited? Looked for at every iteration and evaluation, while a policy is trained.

A policy is compared with itself at the start of the run. With a gold reward, that reward decides: at each evaluation
changes of the texts are an alarm only if the gold reward is not clearly above its start. Without one they are all there
is to go by, so they are raised when they are seen, and say that they may be what was wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from plaudit.evaluation.alarms import texts
from plaudit.evaluation.alarms.alarm import Alarm
from plaudit.evaluation.alarms.texts import ENOUGH_TEXTS, Texts
from plaudit.evaluation.choice import Means, clearly, difference
from plaudit.records import Rollout

PATIENCE = 2
"""Iterations in a row in which a change of the texts must be seen."""
BASELINE = 256
"""Responses of the start that are kept to compare with."""
DETECTORS: dict[str, Callable[[Texts, Texts], str]] = {
    "phrase": texts.phrase,
    "surface": texts.surface,
    "length": texts.length,
    "repetition": texts.repetition,
    "diversity": texts.diversity,
}
"""Kind of alarm -> what looks for it in the responses."""
SURER = 0.99
"""Confidence at which a single evaluation is enough to say that the gold reward has fallen."""
COLLAPSED = 0.25
"""Share of the entropy of the start that is left."""
SPREAD = 1.5
"""Rise of the disagreement of an ensemble on the policy's own responses."""
MEASURED = {"diversity": ("policy/entropy", COLLAPSED, False), "ensemble": ("reward/ensemble_std", SPREAD, True)}
"""Kind of alarm -> metric, how many times the value of the start, and whether above that is the alarm."""
FIRST = 3
"""Iterations whose mean is the start of a metric."""
LOOK = (
    "This may be what you want, or a weakness of the reward: read the samples, and give a gold reward (--gold) to know"
)


@dataclass(slots=True)
class HackingWatch:
    """Raises each alarm once, and again only after it was well."""

    has_gold: bool
    start: list[str] = field(default_factory=list)
    """Responses of the policy as it started."""
    first: dict[str, list[float]] = field(default_factory=dict)
    """The first values of the metrics that are watched."""
    seen: dict[str, int] = field(default_factory=dict)
    """Iterations (or evaluations) in a row in which something was found, by kind of alarm."""
    words: dict[str, str] = field(default_factory=dict)
    """What was found in the last iteration, by kind of alarm."""
    raised: list[str] = field(default_factory=list)
    """Kinds that have been raised and are not well again."""

    def look(self, rollouts: Sequence[Rollout], metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms of one iteration."""
        fresh = [rollout for rollout in rollouts if rollout.policy_version == 0]
        if fresh and len(self.start) < BASELINE:
            self.start += [rollout.response for rollout in fresh][: BASELINE - len(self.start)]
            return []
        found: dict[str, str] = {}
        now = Texts(tuple(r.response for r in rollouts), tuple(r.reward for r in rollouts))
        if len(now) >= ENOUGH_TEXTS <= len(self.start):
            start = Texts(tuple(self.start))
            found = {kind: words for kind, detect in DETECTORS.items() if (words := detect(start, now))}
        for kind, words in self._measured(metrics).items():
            found.setdefault(kind, words)
        self._count(found)
        return [] if self.has_gold else self._due(LOOK)

    def evaluated(self, seen: Mapping[int, Mapping[str, Means]]) -> list[Alarm]:
        """The alarms of an evaluation.

        Args:
            seen: step -> "reward" and, where there is one, "gold" -> prompt -> mean; of all evaluations so far.
        """
        if not self.has_gold or len(seen) < 2:
            return []
        steps = sorted(seen)
        first, last = seen[steps[0]], seen[steps[-1]]
        peak = max(steps, key=lambda step: fmean(seen[step]["gold"].values()))
        alarms = []
        if not clearly(difference(first["gold"], last["gold"])):
            alarms = self._due("The gold reward is not above its start: read the samples")
        rose, fell = difference(first["reward"], last["reward"]), difference(last["gold"], first["gold"])
        if self._is_new("proxy_gold", clearly(rose) and clearly(fell)):
            alarms.append(Alarm("proxy_gold", _two_rewards(rose.value, fell.value, fell.n)))
        lost = difference(last["gold"], seen[peak]["gold"])
        # The best of many evaluations is the luckiest as well, so that the next ones seem to fall: it takes two
        # evaluations in a row, or one that is surer.
        surer = clearly(difference(last["gold"], seen[peak]["gold"], SURER))
        low = self.seen.get("gold_lower", 0) + 1 if peak != steps[-1] and clearly(lost) else 0
        self.seen["gold_lower"] = low
        if self._is_new("gold_falls", low >= PATIENCE or (low > 0 and surer)):
            best, now = (fmean(seen[step]["gold"].values()) for step in (peak, steps[-1]))
            since = fmean(last["reward"].values()) - fmean(seen[peak]["reward"].values())
            alarms.append(
                Alarm(
                    "gold_falls",
                    f"the gold reward has fallen from {best:.2f} at iteration {peak} to {now:.2f}: a loss of "
                    f"{lost.value:.2f}, 95 % interval {lost.low:.2f} to {lost.high:.2f}, while the reward that is "
                    f"trained on changed by {since:+.2f}. The best weights are kept; stop here, raise --kl-coef, or "
                    "mend the reward",
                )
            )
        return alarms

    def _is_new(self, kind: str, found: bool) -> bool:
        """Whether something is found that was not at the evaluation before."""
        before = self.seen.get(kind, 0)
        self.seen[kind] = before + 1 if found else 0
        return found and not before

    def _measured(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Metrics that are far from what they were in the first iterations."""
        found = {}
        for kind, (name, times, above) in MEASURED.items():
            if name not in metrics:
                continue
            values = self.first.setdefault(name, [])
            if len(values) < FIRST:
                values.append(metrics[name])
                continue
            was, now = fmean(values), metrics[name]
            if was > 0 and (now > times * was if above else now < times * was):
                what = "the reward models disagree about its responses" if above else "the entropy collapsed"
                found[kind] = f"{what}: {name} is {now:.3g}, {was:.3g} in the first iterations"
        return found

    def _count(self, found: Mapping[str, str]) -> None:
        for kind in dict.fromkeys((*DETECTORS, *MEASURED)):
            self.seen[kind] = self.seen.get(kind, 0) + 1 if kind in found else 0
        self.words = dict(found)
        self.raised = [kind for kind in self.raised if kind in found]

    def _due(self, say: str) -> list[Alarm]:
        """What has been found for long enough and was not raised yet."""
        due = [k for k in self.words if self.seen[k] >= PATIENCE and k not in self.raised]
        self.raised += due
        return [Alarm(kind, f"{self.words[kind]}. {say}") for kind in due]

    def state(self) -> dict[str, Any]:
        """For a checkpoint: a resumed run raises what it would have raised."""
        names = ("start", "first", "seen", "words", "raised")
        return {name: getattr(self, name) for name in names}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`; of an empty one nothing."""
        self.start, self.first = list(state.get("start", [])), dict(state.get("first", {}))
        self.seen, self.words = dict(state.get("seen", {})), dict(state.get("words", {}))
        self.raised = list(state.get("raised", []))


def _two_rewards(rose: float, fell: float, prompts: int) -> str:
    return (
        f"the reward has risen by {rose:.2f} since the start while the gold reward fell by {fell:.2f}, both clearly, "
        f"over {prompts} held-out prompts: the policy exploits the reward. Stop, raise --kl-coef, or mend the reward"
    )
