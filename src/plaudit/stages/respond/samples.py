"""Responses shown over time: the same held-out prompts, the same randomness, a changing policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.data.chat import ChatFormat
from plaudit.data.fit import fit_length
from plaudit.generation.native import NativeGenerator
from plaudit.models.policy import Policy
from plaudit.records import Demonstration, Prompt
from plaudit.runs.recorder import Recorder
from plaudit.runtime import TokenPrompt


class Sampler:
    """Writes samples.jsonl for the first distinct prompts of some records."""

    def __init__(
        self,
        policy: Policy,
        tokenizer: Any,
        chat: ChatFormat,
        records: Sequence[Demonstration],
        job: Any,
        recorder: Recorder,
    ) -> None:
        distinct = {chat.text(record.prompt): record for record in records}
        chosen = list(distinct.values())[: job.log.samples]
        self.prompts = [Prompt(r.id, r.prompt) for r in chosen]
        # At least half of max_length is left to the prompt, however long a response may be.
        room = max(job.data.max_length - job.sampling.max_new_tokens, job.data.max_length // 2)
        fitted = [fit_length(chat.encode_prompt(p.content), room, "truncate_prompt") for p in self.prompts]
        twos = zip(self.prompts, fitted, strict=True)
        self.tokenised = [TokenPrompt(p, tuple(row.ids)) for p, row in twos if row is not None]
        graphs = job.compute.cuda_graphs
        self.generator = NativeGenerator(policy.lm, tokenizer, chat.end_ids, cuda_graphs=graphs)
        self.chat, self.job, self.recorder = chat, job, recorder

    def show(self, step: int) -> None:
        """Sample one response to each prompt. The same uniforms are used at every call."""
        rollouts = self.generator.generate(
            self.tokenised, 1, self.job.sampling, seed=self.job.seed, iteration=0
        )
        for rollout in rollouts:
            self.recorder.sample(
                step,
                {
                    "prompt_id": rollout.prompt.id,
                    "prompt": self.chat.text(rollout.prompt.content),
                    "response": rollout.response,
                    "finish_reason": rollout.finish_reason,
                },
            )
