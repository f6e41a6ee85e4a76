"""Is the reward being exploited? Looked for at every iteration and evaluation, while a policy is trained.

A policy is compared with itself at the start of the run. With a gold reward, that reward decides: at each evaluation
changes of the texts are an alarm only if the gold reward is not clearly above its start, and one to act on only if the
reward is. Without one they are all there is to go by, so they are raised when they are seen, and say that they may be
what was wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from plaudit.evaluation.alarms import overoptimised as over
from plaudit.evaluation.alarms import texts
from plaudit.evaluation.alarms.alarm import Alarm
from plaudit.evaluation.alarms.evaluations import Seen
from plaudit.evaluation.alarms.texts import ENOUGH_TEXTS, Texts
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
OF_REWARD: dict[str, Callable[[Texts], str]] = {
    "paid_length": texts.paid_by_length, "paid_words": texts.words_paid_for
}  # fmt: skip
"""Kind of alarm -> what looks for it in the rewards of all responses that are at hand. One iteration is enough, and the
first that finds something is enough: a reward of length goes by the count of common words as well."""
LOOKS = 24
"""Iterations in which it is looked for. Later the responses are alike, and few words explain what differs still, also
of a reward that reads."""
WINDOW = 48
"""Responses that are looked at together where an iteration has fewer."""
TOGETHER = 3
"""Iterations whose responses, with those of the start, say what the reward pays for."""
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

PAID = "The gold reward will tell whether that is what you want"


@dataclass(slots=True)
class HackingWatch:
    """Raises each alarm once, and again only after it was well."""

    has_gold: bool
    start: list[str] = field(default_factory=list)
    """Responses of the policy as it started."""
    start_rewards: list[float | None] = field(default_factory=list)
    """The reward of each of them."""
    looks: int = 0
    """Iterations whose responses were compared with the start."""
    recent: list[tuple[str, float | None]] = field(default_factory=list)
    """The newest responses and their rewards."""
    first: dict[str, list[float]] = field(default_factory=dict)
    """The first values of the metrics that are watched."""
    seen: dict[str, int] = field(default_factory=dict)
    """Iterations (or evaluations) in a row in which something was found, by kind of alarm."""
    words: dict[str, str] = field(default_factory=dict)
    """What was found in the last iteration, by kind of alarm."""
    raised: list[str] = field(default_factory=list)
    """Kinds that have been raised and are not well again."""
    early: list[str] = field(default_factory=list)
    """Kinds of which the same is so, and that were raised before the reward had risen."""

    def look(self, rollouts: Sequence[Rollout], metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms of one iteration."""
        fresh = [rollout for rollout in rollouts if rollout.policy_version == 0]
        if len(self.start) < ENOUGH_TEXTS:  # small batches: the first iterations stand for the start
            fresh = list(rollouts)
        if fresh and len(self.start) < BASELINE:
            room = BASELINE - len(self.start)
            self.start += [rollout.response for rollout in fresh][:room]
            self.start_rewards += [rollout.reward for rollout in fresh][:room]
            return []
        found: dict[str, str] = {}
        at_once: dict[str, str] = {}
        now = self._newest(rollouts)
        if len(now) >= ENOUGH_TEXTS:
            start = Texts(tuple(self.start), tuple(self.start_rewards))
            found = {kind: words for kind, detect in DETECTORS.items() if (words := detect(start, now))}
            known = start.and_then(_texts(self.recent))
            self.looks += 1
            paid = ((kind, detect(known)) for kind, detect in OF_REWARD.items() if self.looks <= LOOKS)
            at_once = dict(itertools.islice(((kind, words) for kind, words in paid if words), 1))
        for kind, words in self._measured(metrics).items():
            found.setdefault(kind, words)
        self._count(found | at_once, at_once)
        # What a reward pays for is so whatever the gold reward does, and is told at once; by itself it is no loss.
        return self._due(PAID, is_early=True, of=OF_REWARD) if self.has_gold else self._due(LOOK)

    def _newest(self, rollouts: Sequence[Rollout]) -> Texts:
        """The responses of an iteration; of a small one with those of the iterations before it."""
        self.recent += [(rollout.response, rollout.reward) for rollout in rollouts]
        self.recent = self.recent[-max(WINDOW, TOGETHER * len(rollouts)) :]
        return _texts(self.recent[-max(WINDOW, len(rollouts)) :])

    def evaluated(self, seen: Mapping[int, Seen]) -> list[Alarm]:
        """The alarms of an evaluation; ``seen``: all of them so far, by step."""
        if self.has_gold:  # one at which the gold reward failed says nothing of it
            seen = {step: one for step, one in seen.items() if one.gold} if seen and seen[max(seen)].gold else {}
        if len(seen) < 2 or not over.has_moved(seen):
            return []
        alarms = []
        if self.has_gold and over.gold_stays(seen):
            alarms = self._due("The reward has risen, and the gold reward is not above its start: read the samples")
        elif self.has_gold and not over.gold_rose(seen):
            alarms = self._due("The gold reward is not above its start yet: read the samples", is_early=True)
        changed = any(count >= PATIENCE for kind, count in self.seen.items() if kind in self.words)
        found = {"perturbation": over.perturbation(seen)}
        if self.has_gold:
            found["gold_falls"] = over.gold_falls(seen, changed)
            found["proxy_gold"] = over.proxy_gold(seen)
            found["kl_peak"] = over.past_peak(seen)
        else:
            found["kl_peak"] = over.far_away(seen)
        return alarms + [Alarm(kind, words) for kind, words in found.items() if self._is_new(kind, bool(words))]

    def is_calm(self, seen: Mapping[int, Seen]) -> bool:
        """Whether nothing is found in the responses of the last iteration, and in the evaluations without gold."""
        return not (self.words or over.perturbation(seen) or over.far_away(seen))

    def calm_down(self) -> None:
        """The policy has other weights now: what was found in a row is not so any more."""
        self.seen, self.words, self.raised, self.early, self.recent = {}, {}, [], [], []

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

    def _count(self, found: Mapping[str, str], at_once: Collection[str]) -> None:
        for kind in dict.fromkeys((*DETECTORS, *OF_REWARD, *MEASURED)):
            self.seen[kind] = self.seen.get(kind, 0) + 1 if kind in found else 0
            if kind in at_once:
                self.seen[kind] = max(self.seen[kind], PATIENCE)
        self.words = dict(found)
        self.raised = [kind for kind in self.raised if kind in found]
        self.early = [kind for kind in self.early if kind in found]

    def _due(self, say: str, *, is_early: bool = False, of: Collection[str] = ()) -> list[Alarm]:
        """What has been found for long enough and was not raised yet; what was raised early is raised once more."""
        known = self.raised + self.early if is_early else self.raised
        due = [k for k in self.words if self.seen[k] >= PATIENCE and k not in known and (not of or k in of)]
        (self.early if is_early else self.raised).extend(due)
        return [Alarm(kind, f"{self.words[kind]}. {say}", is_early) for kind in due]

    def state(self) -> dict[str, Any]:
        """For a checkpoint: a resumed run raises what it would have raised."""
        names = ("start", "start_rewards", "looks", "recent", "first", "seen", "words", "raised", "early")
        return {name: getattr(self, name) for name in names}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`; of an empty one nothing."""
        self.start, self.first = list(state.get("start", [])), dict(state.get("first", {}))
        self.start_rewards = list(state.get("start_rewards", []))  # none in checkpoints of an earlier version
        self.looks = int(state.get("looks", LOOKS))
        self.recent = [(str(text), reward) for text, reward in state.get("recent", [])]
        self.seen, self.words = dict(state.get("seen", {})), dict(state.get("words", {}))
        self.raised, self.early = list(state.get("raised", [])), list(state.get("early", []))


def _texts(rows: Sequence[tuple[str, float | None]]) -> Texts:
    return Texts(tuple(text for text, _ in rows), tuple(reward for _, reward in rows))
