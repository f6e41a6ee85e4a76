"""The console while a run goes: a bar with the time left, and one plain line on how learning goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn


class ConsoleTracker:
    """On a terminal a live bar; elsewhere (a file, CI) a line per tenth of the run. Alarms are always shown.

    Args:
        command: what runs; shown in front of the line.
        console: where to print; the default is stdout.
    """

    def __init__(self, command: str, console: Console | None = None) -> None:
        self._command = command
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._total, self._unit = 0, "step"
        self._first: dict[str, float] = {}
        self._now: dict[str, float] = {}
        self._clock: tuple[int, float] | None = None
        self._tenth = -1
        self._progress: Progress | None = None

    def expect(self, total: int, unit: str) -> None:
        """Set where the bar ends."""
        self._total, self._unit = total, unit
        if not self._console.is_terminal or self._progress is not None:
            return
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[line]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[eta]}", style="dim"),
            console=self._console,
        )
        self._progress.start()
        self._progress.add_task("", total=total, line=self._command, eta="")

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Move the bar and say how learning goes."""
        for name, value in values.items():
            if value is None:
                continue
            self._first.setdefault(name, value)
            self._now[name] = value
        if self._clock is None:
            self._clock = (step, time.monotonic())
        # The values as they are, not means of some steps: the page of the run has the same, and so have its files.
        line = " · ".join([self._position(step), *learning(self._first, self._now)])
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=step, line=escape(line), eta=self._time_left(step))
        elif self._is_due(step):
            left = self._time_left(step)
            self._print(f"{self._command}: {line}" + (f" · {left}" if left else ""))

    def start(self, values: Mapping[str, float]) -> None:
        """What the line compares with, whatever the first step says."""
        self._first |= values

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """Samples are too long for a status line."""

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Alarms, resumptions, iterations without a step and trackers that failed are shown as they happen."""
        if kind == "resumed":
            self._print(f"{self._command}: resumed after {self._unit} {fields.get('step')}")
        elif kind == "rolled back":
            put_back = f"put back to {self._unit} {fields.get('step')}"
            self._print(f"{self._command}: {put_back}: {fields.get('why')}", style="yellow")
        elif kind == "gone back":
            at = f"went back at {self._unit} {fields.get('step')}"
            self._print(f"{self._command}: {at}: {fields.get('why')}", style="yellow")
        elif kind == "alarm":
            words = fields.get("message") or ", ".join(str(value) for value in fields.values())
            early = "early " if fields.get("early") else ""
            self._print(f"{self._command}: {early}alarm: {words}", style="yellow")
        elif kind in ("tracker failed", "no step", "caution"):
            self._print(f"{self._command}: {fields.get('message')}", style="yellow")

    def rewind(self, step: int) -> int:
        """Forget the values: they may be of steps that are done again."""
        self._first.clear()
        self._now.clear()
        self._clock = None
        self._tenth = -1
        return 0

    def close(self) -> None:
        """Leave the last state of the bar on the screen."""
        if self._progress is not None:
            self._progress.stop()

    def _print(self, line: str, style: str = "") -> None:
        # A terminal or a log file may not be able to show every character (ASCII in a container, say), and printing
        # it would raise: such characters are replaced.
        encoding = self._console.encoding or "utf-8"
        shown = line.encode(encoding, "replace").decode(encoding)
        self._console.print(escape(shown), style=style or None)

    def _position(self, step: int) -> str:
        return f"{self._unit} {step}/{self._total}" if self._total else f"{self._unit} {step}"

    def _is_due(self, step: int) -> bool:
        tenth = step * 10 // self._total if self._total else step // 10
        due = tenth > self._tenth
        self._tenth = max(self._tenth, tenth)
        return due

    def _time_left(self, step: int) -> str:
        # Measured from the first step that this process saw, not from step 0: a resumed run did not do the others.
        if self._clock is None or not self._total or step <= self._clock[0] or step >= self._total:
            return ""
        first, began = self._clock
        return duration((time.monotonic() - began) / (step - first) * (self._total - step)) + " left"


def duration(seconds: float) -> str:
    """A time span in words, rounded.

    >>> duration(42), duration(200), duration(8000)
    ('42 s', '3 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def learning(first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """What the figures say about learning, in words, most important first.

    Args:
        first: the value of each metric at the start of the run.
        now: its newest value; of held-out figures that of the last evaluation.

    >>> learning({"reward/mean": -0.1}, {"reward/mean": 0.35, "objective/kl": 3.1, "response/eos_rate": 0.98})
    ['reward +0.35 (was -0.10)', 'KL 3.1 nats', 'stops by itself 98 %']
    >>> learning({"loss": 2.31}, {"loss": 1.02, "reward_model/heldout_accuracy": 0.714})
    ['loss 2.31 → 1.02', 'held-out accuracy 71 %']
    >>> learning({"eval/gold_mean": 0.1}, {"reward/mean": 0.4, "eval/gold_mean": -0.2})
    ['reward +0.40', 'gold -0.20 (was +0.10)']
    """
    phrases = []
    if "reward/mean" in now:
        phrases.append(_moved("reward", first.get("reward/mean"), now["reward/mean"]))
    elif "loss" in now:
        was, loss = first.get("loss"), now["loss"]
        phrases.append("loss " + (f"{was:.2f} → " if was not in (None, loss) else "") + f"{loss:.2f}")
    if "eval/gold_mean" in now:
        phrases.append(_moved("gold", first.get("eval/gold_mean"), now["eval/gold_mean"]))
    templates = {
        "objective/kl": "KL {:.1f} nats",
        "response/length_mean": "length {:.0f}",
        "response/eos_rate": "stops by itself {:.0%}",
        "eval/loss": "held-out loss {:.2f}",
        "reward_model/heldout_accuracy": "held-out accuracy {:.0%}",
    }
    if "reward_model/heldout_accuracy" not in now:
        templates["reward_model/accuracy"] = "accuracy {:.0%}"
    shown = [template.format(now[name]) for name, template in templates.items() if name in now]
    return phrases + [text.replace("%", " %").replace("-0.0 ", "0.0 ") for text in shown]


def _moved(name: str, was: float | None, now: float) -> str:
    return f"{name} {now:+.2f}" + (f" (was {was:+.2f})" if was not in (None, now) else "")
