"""Responses shown over time: the same held-out prompts, the same randomness, a changing policy."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.config.sections import DataSection, SamplingSection
from plaudit.data.chat import Encoded
from plaudit.data.fit import fit_prompt
from plaudit.records import Content, Demonstration, Preference, Prompt, Rating
from plaudit.runs.recorder import Recorder
from plaudit.runtime import OfflineRuntime, TokenPrompt


class Sampler:
    """Writes samples.jsonl for the first distinct prompts of some records.

    Args:
        runtime: what is sampled from.
        records: whose prompts are answered.
        count: how many of them.
        data: how long prompt and response may be together.
        sampling: how responses are drawn.
        seed: of the run.
        recorder: where they are kept.
    """

    def __init__(
        self,
        runtime: OfflineRuntime,
        records: Sequence[Demonstration | Preference | Rating],
        count: int,
        data: DataSection,
        sampling: SamplingSection,
        seed: int,
        recorder: Recorder,
    ) -> None:
        self.runtime, self.sampling, self.seed, self.recorder = runtime, sampling, seed, recorder
        chat = runtime.format.chat
        distinct = {chat.text(record.prompt): record for record in records}
        prompts = [Prompt(r.id, r.prompt) for r in list(distinct.values())[:count]]
        # At least half of max_length is left to the prompt, however long a response may be.
        room = max(data.max_length - sampling.max_new_tokens, data.max_length // 2)

        def encode(content: Content) -> tuple[Encoded]:
            return (chat.encode_prompt(content),)

        units = [fit_prompt(p.content, encode, room, "truncate_prompt").unit for p in prompts]
        twos = zip(prompts, units, strict=True)
        self.prompts = [TokenPrompt(p, tuple(unit[0].ids)) for p, unit in twos if unit is not None]

    def show(self, step: int) -> None:
        """Sample one response to each prompt. The same uniforms are used at every call."""
        generator, chat = self.runtime.generator, self.runtime.format.chat
        generator.publish(self.runtime.learner.weights(), step)
        # Iteration 0 at every step: what differs between two steps is the policy, not the luck of the draw.
        for rollout in generator.generate(self.prompts, 1, self.sampling, seed=self.seed, iteration=0):
            self.recorder.sample(
                step,
                {
                    "prompt_id": rollout.prompt.id,
                    "prompt": chat.text(rollout.prompt.content),
                    "response": rollout.response,
                    "finish_reason": rollout.finish_reason,
                },
            )
