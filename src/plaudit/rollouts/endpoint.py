"""A model at an endpoint of chat completions as the source of responses: it answers, and nothing of it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plaudit.config.sections import SamplingSection
from plaudit.data.reading.transcripts import as_messages, plain_text
from plaudit.errors import ConfigError, RewardError
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.jobs.reward_texts import parse
from plaudit.records import FinishReason, Message, Prompt, Rollout, to_json
from plaudit.rewards.remote.answers import Spent
from plaudit.rewards.remote.chat import Judge, Written
from plaudit.runtime import Progress, TokenPrompt, Weights

ENDPOINT = "a source of responses"
MOST_FAILED = 0.2
"""Share of its responses that an endpoint may not give."""


def is_endpoint(source: str) -> bool:
    """Whether a source is asked over HTTP, and not loaded."""
    return source.startswith(("judge:", "{"))


def endpoint_of(source: str) -> JudgeTable:
    """The table of an endpoint.

    Raises:
        ConfigError: it is that of something else.
    """
    table = parse(source, ENDPOINT)
    if isinstance(table, JudgeTable):
        return table
    cure = "write judge:MODEL@ADDRESS, or the table of a judge on one line"
    raise ConfigError(f"{source} is a {table.kind}, which writes no responses", where=ENDPOINT, cure=cure)


class Endpoint:
    """A model that is asked for responses; a `plaudit.runtime.Generator` with weights of its own, which nobody sees.

    What it wrote is kept in the table's file by content, so that the same prompt with the same sampling, seed and
    number is asked for once, by whatever command; it counts for the table's ``cost_limit``.

    Args:
        source: ``judge:MODEL@ADDRESS``, or the table of a judge on one line.

    Raises:
        ConfigError: no endpoint, it is not there, or it takes no key.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._judge = Judge(endpoint_of(source), where=ENDPOINT)
        self._judge.models()  # an endpoint that is not there is an error before the first prompt

    @property
    def spent(self) -> Spent:
        """What all replies in its file took."""
        return self._judge.answers.spent

    def write(self, prompts: Sequence[Prompt], sampling: SamplingSection, n: int, seed: int) -> list[Written]:
        """``n`` responses to each prompt, those to one prompt one after the other.

        Raises:
            RewardError: it gave less than four fifths of them.
        """
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        options |= {"stop": list(sampling.stop)} if sampling.stop else {}
        for name, all_of_it in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
            value = getattr(sampling, name)
            options |= {name: value} if value != all_of_it else {}
        chats = [[_turn(turn) for turn in as_messages(prompt.content, "user")] for prompt in prompts]
        written = self._judge.write_all(chats, [f"{seed}.{k}" for k in range(n)], options)
        failed = [one.error for one in written if one.error]
        if len(failed) > MOST_FAILED * len(written):
            raise RewardError(
                f"it gave {len(written) - len(failed)} of {len(written)} responses; it {failed[0]}",
                where=self._source,
                cure="mend that, and run this again: what was answered is kept, and not asked twice",
            )
        # NUL is a character that no reader of data takes.
        return [replace(one, text=one.text.replace("\x00", "\ufffd")) for one in written]

    def publish(self, weights: Weights, version: int) -> None:
        """An endpoint takes no weights."""

    def generate(
        self, prompts: Sequence[TokenPrompt], n: int, sampling: SamplingSection, *, seed: int, iteration: int,
        progress: Progress | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """As of `Generator`. No endpoint tells its tokens: a row holds the bytes of the texts in UTF-8, without
        log-probs. A response that it did not give has an error, and fails."""
        written = self.write([each.prompt for each in prompts], sampling, n, seed)
        return [_rollout(prompts[i // n].prompt, i // n, one) for i, one in enumerate(written)]


def _rollout(prompt: Prompt, group: int, written: Written) -> Rollout:
    asked, given = (tuple(text.encode(errors="surrogatepass")) for text in (plain_text(prompt.content), written.text))
    finish: FinishReason = "abort" if written.error else "length" if written.finish == "length" else "stop"
    rollout = Rollout.single(prompt, group, asked, given, (), written.text, finish)
    return replace(rollout, error=f"the endpoint {written.error}" if written.error else "")


def _turn(message: Message) -> dict[str, Any]:
    """A turn as an endpoint takes it."""
    turn: dict[str, Any] = to_json(message)
    return {key: value for key, value in turn.items() if key not in ("train", "tools")}
