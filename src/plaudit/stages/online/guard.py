"""What a run does on an alarm of reward hacking, as `on_alarm` says: only warn, stop, or go back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.errors import Ended
from plaudit.evaluation.alarms.alarm import Alarm
from plaudit.evaluation.alarms.hacking import HackingWatch
from plaudit.jobs.online import OnAlarm
from plaudit.runs.recorder import Recorder
from plaudit.stages.online.evaluation import Evaluator
from plaudit.training.online import OnlineLoop

MOST = 3
"""Times that a run goes back; after that it stops. Each time the KL weighs twice as much."""


class Guard:
    """Acts on the alarms of one run.

    Attributes:
        times: how often the run has gone back.
        acted: whether an alarm came that it had to act on.
    """

    def __init__(self, on_alarm: OnAlarm, evaluator: Evaluator, watch: HackingWatch, recorder: Recorder) -> None:
        self.on_alarm, self.evaluator, self.watch, self.recorder = on_alarm, evaluator, watch, recorder
        self.times, self.acted = 0, False
        if on_alarm != "warn" and not watch.has_gold:
            evaluator.is_calm = watch.is_calm

    def act(self, iteration: int, alarms: Sequence[Alarm], loop: OnlineLoop) -> None:
        """Do what was asked for on alarms of this iteration.

        Raises:
            Ended: the run stops here.
        """
        alarms = [alarm for alarm in alarms if not alarm.is_early]
        if not alarms or self.on_alarm == "warn":
            return
        self.acted = True
        kinds = ", ".join(alarm.kind for alarm in alarms)
        if self.on_alarm == "stop" or self.times >= MOST:
            again = f", after going back {self.times} times" if self.times else ""
            raise Ended(
                f"stopped on the alarm {kinds}{again}, as on_alarm = {self.on_alarm} says",
                how="alarm",
                kind="",
                where=f"iteration {iteration}",
                cure="read the samples and the page of the run; start again with another reward or a higher --kl-coef; "
                "or go on from the checkpoint that was saved now: --on-alarm warn --resume",
            )
        if iteration >= self.evaluator.job.iterations:
            return  # nothing would follow: the weights to hand out are chosen now in any case
        self.times += 1
        to = self.evaluator.go_back(iteration)
        coef = loop.hold_tighter()
        where = "the start" if to == 0 else f"iteration {to}"
        why = f"the alarm {kinds}: the policy goes on from the weights of {where}, with kl_coef {coef:g}"
        self.recorder.event("gone back", step=iteration, to=to, why=why)
        self.watch.calm_down()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"times": self.times, "acted": self.acted}

    def resume(self, state: dict[str, Any], loop: OnlineLoop) -> None:
        """Inverse of `state`; of an empty one nothing."""
        self.times, self.acted = state.get("times", 0), state.get("acted", False)
        for _ in range(self.times):
            loop.hold_tighter(restored=True)
