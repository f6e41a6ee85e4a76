"""A trained language model to talk to: prompts in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plaudit import backends
from plaudit.config.sections import SamplingSection
from plaudit.records import Content, Prompt, Rollout
from plaudit.runtime import TokenPrompt


class TrainedPolicy:
    """A language model to sample from.

    Args:
        source: run directory, model directory, hub name, or GGUF file.

    Raises:
        ModelError: nothing there that can be loaded.
    """

    def __init__(self, source: str | Path) -> None:
        inside = Path(source) / "model"
        name = str(inside if inside.is_dir() else source)
        self._generator, self._chat = backends.open_policy(name)
        self.has_template = self._chat.uses_template
        """Whether it was made for conversations; otherwise it goes on from a text."""

    def respond(self, content: Content, sampling: SamplingSection, *, seed: int = 0, turn: int = 0) -> str:
        """One response, as text. The same seed, turn and content give the same one."""
        tokens = TokenPrompt(Prompt("prompt", content), tuple(self._chat.prompt_ids(content)))
        return self._generator.generate([tokens], 1, sampling, seed=seed, iteration=turn)[0].response

    def respond_all(
        self, prompts: Sequence[Prompt], sampling: SamplingSection, *, n: int = 1, seed: int = 0
    ) -> list[Rollout]:
        """``n`` responses to each prompt, generated side by side; those of one prompt come one after the other.

        The ids of the prompts must differ."""
        tokens = [TokenPrompt(prompt, tuple(self._chat.prompt_ids(prompt.content))) for prompt in prompts]
        return self._generator.generate(tokens, n, sampling, seed=seed, iteration=0)
