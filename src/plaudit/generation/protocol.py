"""What every generator promises, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from plaudit.config.sections import SamplingSection
from plaudit.records import Prompt, Rollout

Progress = Callable[[int, int], None]
"""Called now and then with (responses finished, responses in all)."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt and its token ids, template and beginning-of-sequence token included."""

    prompt: Prompt
    ids: tuple[int, ...]


class Generator(Protocol):
    """Draws responses. A response depends on the weights, the seeds and its prompt, and on nothing else."""

    policy_version: int
    """Copied into every rollout; whoever changes the weights raises it."""

    def generate(
        self,
        prompts: Sequence[TokenPrompt],
        n: int,
        sampling: SamplingSection,
        *,
        seed: int,
        iteration: int,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """``n`` responses to each prompt; rollout ``i * n + k`` is response ``k`` to ``prompts[i]``.

        Args:
            prompts: ids must differ, because the seed of a response is made from the id of its prompt.
            n: responses per prompt; the rollouts of ``prompts[i]`` have ``group_id`` i.
            sampling: temperature, limits, stop texts.
            seed: the seed of the run.
            iteration: the same prompt gets other responses in another iteration.
            progress: told how many responses are finished.
        """
        ...
