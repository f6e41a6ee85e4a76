"""What both sides do: the same token rows, the same response lengths, the same number of optimizer steps.

Written once as JSON and read by every worker. Standard library only, because a worker may run in an environment that
has either TRL or Plaudit, not both.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Task = Literal["sft", "rm", "dpo", "grpo", "rloo", "ppo", "ppo_trunk"]
Lengths = Literal["varied", "fixed"]
OFFLINE = ("sft", "rm", "dpo")
TASKS: tuple[Task, ...] = ("sft", "rm", "dpo", "grpo", "rloo", "ppo", "ppo_trunk")
PPO = ("ppo", "ppo_trunk")
"""With a critic apart on both sides; and with Plaudit's on the policy's trunk, beside TRL's apart."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one step."""

    rows: int
    """Demonstrations, pairs, or prompts of one optimizer step (one iteration online)."""
    group: int = 1
    """Responses to each prompt."""
    prompt: tuple[int, int] = (16, 64)
    """Shortest and longest prompt where lengths vary, in tokens."""
    response: tuple[int, int] = (4, 64)
    """The same of responses, end token included."""
    fixed: tuple[int, int] = (40, 64)
    """Prompt and response where lengths are fixed."""


def shape_of(task: Task, model: str) -> Shape:
    """8 rows a step offline; 4 prompts x 8 responses for GRPO and RLOO; 32 responses for PPO, 8 for a larger model."""
    if task in OFFLINE:
        return Shape(8)
    if task in PPO:
        return Shape(32 if model in ("tiny", "micro") else 8)
    return Shape(4, 8)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data. ``text`` is the prompt's text, which encodes to ``prompt``."""

    text: str
    prompt: list[int]
    chosen: list[int]
    """A response with its end token; the demonstration of SFT."""
    rejected: list[int]
    chosen_text: str
    rejected_text: str
    lengths: list[int]
    """Forced lengths of the responses that are sampled, one for each of the group."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Work for one pair of sides."""

    task: Task
    model: str
    """Directory with weights and tokenizer."""
    lengths: Lengths
    steps: int
    per_step: int
    """Rows of one step; step k has rows k * per_step ..."""
    group: int
    max_new_tokens: int
    rows: list[Row]
    device: str = "cpu"
    seed: int = 0

    def step_rows(self, step: int) -> list[Row]:
        """The rows of the 0-based step."""
        return self.rows[step * self.per_step : (step + 1) * self.per_step]

    def tokens(self, step: int) -> int:
        """Real tokens trained on (offline), or response tokens sampled and trained on (online)."""
        rows = self.step_rows(step)
        if self.task == "sft":
            return sum(len(r.prompt) + len(r.chosen) for r in rows)
        if self.task in OFFLINE:
            return sum(2 * len(r.prompt) + len(r.chosen) + len(r.rejected) for r in rows)
        return sum(sum(r.lengths) for r in rows)

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Plan:
        """Inverse of `save`."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Plan(**(fields | {"rows": [Row(**row) for row in fields["rows"]]}))


@dataclass(frozen=True, slots=True)
class Words:
    """Words that are one token each, with the space before them: any row of them reads back as it was written."""

    ids: Sequence[int]
    texts: Sequence[str]
    opening: Sequence[int]
    """What the tokenizer puts before every text."""
    end: int


def make_plan(
    task: Task, model: Path, words: Words, shape: Shape, *, lengths: Lengths, steps: int, device: str = "cpu"
) -> Plan:
    """Random rows, the same for the same arguments."""
    draw = random.Random(f"{task} {lengths}")

    def length(bounds: tuple[int, int], fixed: int) -> int:
        return fixed if lengths == "fixed" else draw.randint(*bounds)

    def text(count: int) -> tuple[list[int], str]:
        chosen = [draw.randrange(len(words.ids)) for _ in range(count)]
        return [words.ids[i] for i in chosen], "".join(words.texts[i] for i in chosen)

    def row() -> Row:
        prompt, written = text(length(shape.prompt, shape.fixed[0]) - len(words.opening))
        chosen, chosen_text = text(length(shape.response, shape.fixed[1]) - 1)
        rejected, rejected_text = text(length(shape.response, shape.fixed[1]) - 1)
        forced = [length(shape.response, shape.fixed[1]) for _ in range(shape.group)]
        return Row(
            written, [*words.opening, *prompt], [*chosen, words.end], [*rejected, words.end], chosen_text,
            rejected_text, forced,
        )  # fmt: skip

    longest = shape.fixed[1] if lengths == "fixed" else shape.response[1]
    rows = [row() for _ in range(steps * shape.rows)]
    return Plan(task, str(model), lengths, steps, shape.rows, shape.group, longest, rows, device)
