"""Generation over turns: the policy writes, an environment replies, and so on until one of them is done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace

from plaudit.awaited import awaiting
from plaudit.config.sections import SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import ConfigError
from plaudit.records import Content, Message, Rollout, Turn
from plaudit.rewards.function import load_function
from plaudit.rollouts.environment import Done, Environment
from plaudit.runtime import Generator, Progress, TokenPrompt, Weights


class TurnGenerator:
    """A generator whose rollouts go on for as long as an environment replies.

    All unfinished rollouts take their next turn in one call of the generator inside. Each continues its own row, so a
    row is exactly what the policy saw when it sampled, and training scores the same row.

    Args:
        generator: draws each turn.
        environment: what follows a turn.
        chat: turns replies into tokens.
        row_limit: most tokens of a row: prompt, what the policy wrote and what the environment wrote.
    """

    def __init__(
        self, generator: Generator, environment: Environment, chat: ChatFormat, row_limit: int
    ) -> None:
        self._generator, self._environment = generator, environment
        self._chat, self._row_limit = chat, row_limit

    def publish(self, weights: Weights, version: int) -> None:
        """See `Generator.publish`."""
        self._generator.publish(weights, version)

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
        """See `Generator.generate`. ``max_new_tokens`` limits what the policy samples in all turns of a rollout.

        The first turn is the call that would be made without an environment, to the last bit.
        """
        if self._environment.stop:
            sampling = sampling.model_copy(update={"stop": (*sampling.stop, *self._environment.stop)})
        first = self._generator.generate(
            prompts, n, sampling, seed=seed, iteration=iteration, progress=progress
        )
        special = sampling.text == "whole"
        rollouts = [self._with_stop_text(r, special) for r in first]
        # The first turn is at least min_new_tokens long, so that no later one has to be.
        sampling = sampling.model_copy(update={"min_new_tokens": 0})
        running = list(range(len(rollouts)))
        for turn in range(1, self._environment.max_turns + 1):
            for i in running:
                rollouts[i] = self._answered(rollouts[i], sampling.max_new_tokens)
            running = [i for i in running if rollouts[i].turns[-1].author == "environment"]
            if not running:
                break
            following = [self._continued(rollouts[i], i % n, turn, sampling.max_new_tokens) for i in running]
            drawn = self._generator.generate(following, 1, sampling, seed=seed, iteration=iteration)
            for i, more in zip(running, drawn, strict=True):
                rollouts[i] = _joined(rollouts[i], self._with_stop_text(more, special))
        return rollouts

    def _answered(self, rollout: Rollout, most: int) -> Rollout:
        """The rollout with the environment's turn at its end, or as it is once it has ended.

        Args:
            most: tokens that the policy may sample in all turns.
        """
        if rollout.finish_reason != "stop":
            return rollout  # the turn was cut off: a tool that is given half a call could only guess
        try:
            with awaiting(f"the reply of the environment {type(self._environment).__name__}"):
                reply = self._environment.reply(rollout)
            if isinstance(reply, Done):
                return _ended(rollout, reply)
            content = _content(reply)
            chat = not isinstance(rollout.prompt.content, str)
            ids = self._chat.continuation(content, rollout.tokens, chat=chat)
        except (
            Exception
        ) as error:  # an environment is the user's own code: one failed call does not end a run
            why = f"{type(self._environment).__name__} failed: {type(error).__name__}: {error}"
            return replace(rollout, finish_reason="abort", error=why)
        end = len(rollout.tokens) + len(ids)
        room = min(most - len(rollout.response_ids), self._row_limit - end)
        if room < 1 or len(rollout.policy_turns) >= self._environment.max_turns:
            # The row ends with the policy's turn: tokens that nothing follows would be read for no purpose.
            return replace(rollout, finish_reason="length")
        turn = Turn("environment", len(rollout.tokens), end, content)
        return replace(rollout, tokens=(*rollout.tokens, *ids), turns=(*rollout.turns, turn))

    def _continued(self, rollout: Rollout, k: int, turn: int, most: int) -> TokenPrompt:
        """The row so far as a prompt of its own, with the tokens that are left of the budgets.

        The seed of a sample is made from the id of its prompt. This id says which response to which prompt goes on, and
        in which turn, so a turn has randomness of its own that depends neither on the other rollouts of the call nor on
        how often a run was interrupted.
        """
        room = min(most - len(rollout.response_ids), self._row_limit - len(rollout.tokens))
        prompt = replace(rollout.prompt, id=f"{rollout.prompt.id}@{k}.{turn}")
        return TokenPrompt(prompt, rollout.tokens, room)

    def _with_stop_text(self, rollout: Rollout, special: bool) -> Rollout:
        """The text of the one turn of a rollout with the stop text of the environment that ended it.

        A generator cuts stop texts off; but the end of a call belongs to the call. ``special``: texts show special
        tokens.
        """
        (turn,) = rollout.turns
        if turn.finish_reason != "stop" or not self._environment.stop:
            return rollout
        beyond = self._chat.decode(rollout.response_ids, rollout.prompt_ids, special=special).removeprefix(turn.text)
        stop = next((text for text in self._environment.stop if text and beyond.startswith(text)), "")
        return replace(rollout, turns=(replace(turn, content=turn.text + stop),))


def _joined(rollout: Rollout, more: Rollout) -> Rollout:
    """A rollout with one more turn of the policy."""
    assert more.prompt_ids == rollout.tokens, "the generator continues the row that it was given"
    return replace(
        rollout,
        tokens=more.tokens,
        turns=(*rollout.turns, *more.turns),
        logprobs=(*rollout.logprobs, *more.logprobs),
        finish_reason=more.finish_reason,
        policy_version=min(rollout.policy_version, more.policy_version),
    )


def _ended(rollout: Rollout, done: Done) -> Rollout:
    if done.reward is None:
        return rollout
    if not math.isfinite(done.reward):
        raise ValueError(f"the reward {done.reward} is not a finite number")
    return replace(rollout, environment_reward=float(done.reward))


def _content(reply: object) -> Content:
    """A reply as a text or as messages; messages may be dicts with role and content."""
    if isinstance(reply, str):
        return reply
    if isinstance(reply, Sequence) and reply:
        turns = [Message.of(m) if isinstance(m, dict) else m for m in reply]
        if all(isinstance(turn, Message) and isinstance(turn.content, str) for turn in turns):
            return tuple(turns)
    raise TypeError(f"a reply is a text, messages or Done, not {reply!r:.80}")


def load_environment(spec: str) -> Environment:
    """The environment that ``path/file.py:Class`` or ``module:Class`` names.

    The code is run as it is: load only code you trust.

    Raises:
        ConfigError: no such file or name, or something that is no environment.
    """
    made = load_function(spec, where="environment")
    try:
        return check_environment(made(), spec)
    except TypeError as error:
        raise ConfigError(
            f"{spec} cannot be made without arguments: {error}",
            where="environment",
            cure="give the parameters of the class defaults, or name a function that makes the environment",
        ) from error


def check_environment(value: object, name: str) -> Environment:
    """The value, if it is an environment.

    Raises:
        ConfigError: it is none, in words that say what it lacks.
    """
    why = "needs max_turns of 1 or more, and stop as a tuple of texts"
    if inspect.isclass(value):  # it has the members of an environment, and its reply would lack self
        why = f"is a class; give an object of it, {value.__name__}()"
    elif isinstance(value, Environment):
        stop: object = value.stop  # a lone text would be taken for a tuple of its letters
        if inspect.iscoroutinefunction(value.reply):
            why = "needs a reply that is a plain def, since nothing awaits it"
        elif value.max_turns >= 1 and isinstance(stop, (tuple, list)):
            return value
    else:
        why = (
            f"lacks {', '.join(part for part in ('max_turns', 'stop', 'reply') if not hasattr(value, part))}"
        )
    raise ConfigError(
        f"{name} is no environment: it {why}",
        where="environment",
        cure="write a class with max_turns, stop and reply(rollout); see docs/howto/environments.md",
    )
