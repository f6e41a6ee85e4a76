"""What a reward function is given: the names of its parameters say it, in our words, in TRL's or in verl's.

    f(prompt, response)                                          ours, one response a call
    f(prompts, responses)                                        ours, the whole batch
    f(group)                                                     ours, the rollouts of one prompt a call
    f(prompts, completions, completion_ids, **columns)           TRL
    f(data_source, solution_str, ground_truth, extra_info)       verl; its batches with plurals

Any column of the data is a name as well. A parameter that no name fits and that has no default is refused before the
run starts, because a guess by position gives a function the wrong texts without an error.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError
from plaudit.records import Content, Rollout, to_json

Shape = Literal["response", "batch", "group"]
"""What one call scores."""


def messages_of(content: Content) -> list[dict[str, Any]]:
    """Content as a chat; a plain text is one message of the user."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    return [to_json(message) for message in content]


def turns_of(rollout: Rollout) -> list[dict[str, Any]]:
    """What follows the prompt, as messages: the policy's are the assistant's, an environment's have their role."""
    messages: list[dict[str, Any]] = []
    for turn in rollout.turns:
        policy = turn.author == "policy"
        messages += [{"role": "assistant", "content": turn.text}] if policy else messages_of(turn.content)
    return messages


def _answer(rollout: Rollout) -> Any:
    return (
        rollout.prompt.answer if rollout.prompt.answer is not None else rollout.prompt.columns.get("answer")
    )


def _ground_truth(rollout: Rollout) -> Any:
    """The column of that name, or where verl keeps it, or the answer."""
    columns = rollout.prompt.columns
    nested = columns.get("reward_model")
    if "ground_truth" in columns:
        return columns["ground_truth"]
    return (
        nested["ground_truth"]
        if isinstance(nested, Mapping) and "ground_truth" in nested
        else _answer(rollout)
    )


def _chat_or_text(
    rollout: Rollout, messages: Callable[[Rollout], Any], text: Callable[[Rollout], str]
) -> Any:
    """As TRL does: where the prompt is a chat, prompt and completion are lists of messages; else they are texts."""
    return text(rollout) if isinstance(rollout.prompt.content, str) else messages(rollout)


Reader = Callable[[Rollout], Any]
ONE: dict[str, Reader] = {
    "prompt": lambda r: plain_text(r.prompt.content),
    "messages": lambda r: messages_of(r.prompt.content),
    "response": lambda r: r.response,
    "final": lambda r: r.final,
    "turns": turns_of,
    "answer": _answer,
    "finish_reason": lambda r: r.finish_reason,
    "prompt_ids": lambda r: list(r.prompt_ids),
    "response_ids": lambda r: list(r.response_ids),
    "rollout": lambda r: r,
    "completion": lambda r: r.response,
    "solution_str": lambda r: r.response,
    "ground_truth": _ground_truth,
    "data_source": lambda r: r.prompt.columns.get("data_source", ""),
    "extra_info": lambda r: r.prompt.columns.get("extra_info", dict(r.prompt.columns)),
}
"""Name of a parameter of a function of one response -> its value."""
MANY: dict[str, Reader] = {
    "prompts": ONE["prompt"],
    "messages": ONE["messages"],
    "responses": ONE["response"],
    "finals": ONE["final"],
    "turns": ONE["turns"],
    "answers": ONE["answer"],
    "finish_reasons": ONE["finish_reason"],
    "prompt_ids": ONE["prompt_ids"],
    "response_ids": ONE["response_ids"],
    "rollouts": ONE["rollout"],
    "group": ONE["rollout"],
    "completions": lambda r: _chat_or_text(r, turns_of, ONE["response"]),
    "completion_ids": ONE["response_ids"],
    "answer": ONE["answer"],  # TRL passes columns under their own names, as lists
    "ground_truth": ONE["ground_truth"],
    "solution_strs": ONE["solution_str"],
    "ground_truths": ONE["ground_truth"],
    "data_sources": ONE["data_source"],
    "extra_infos": ONE["extra_info"],
}
"""Name of a parameter of a function of several responses -> the value of each."""
BATCHES = {"prompts", "responses", "finals", "rollouts", "group", "completions", "solution_strs", "answers"}
"""Names that only a function of several responses has."""
SCORED = {"response", "final", "rollout", "completion", "solution_str"}
"""Names that only a function of one response has."""
INITIALS = {"p": "prompt", "r": "response", "a": "answer"}
"""What ``lambda p, r: ...`` means; in a lambda only, where short names are the custom."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function is called."""

    shape: Shape
    by_name: Mapping[str, str]
    """Parameter -> the name whose value it gets."""
    by_position: tuple[str, ...] = ()
    """Names of the values of parameters that cannot be passed by name."""
    rest: bool = False
    """There is a ``**kwargs``: it gets the columns, and what TRL always passes."""

    @property
    def wanted(self) -> set[str]:
        """The names whose values are passed."""
        return {*self.by_name.values(), *self.by_position}

    @property
    def abstains(self) -> bool:
        """Whether None means "this reward is not for this response", as it does in TRL."""
        return "completions" in self.wanted

    def arguments(self, rollouts: Sequence[Rollout]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the call that scores ``rollouts``; exactly one for a function of one response."""
        positions = [self._value(name, rollouts) for name in self.by_position]
        names = {parameter: self._value(name, rollouts) for parameter, name in self.by_name.items()}
        if self.rest:
            further = dict.fromkeys(column for rollout in rollouts for column in rollout.prompt.columns)
            if any(rollout.prompt.answer is not None for rollout in rollouts):
                further["answer"] = None
            if self.abstains:
                further |= dict.fromkeys(("prompts", "completion_ids"))
            names |= {name: self._value(name, rollouts) for name in further if name not in names}
        return positions, names

    def _value(self, name: str, rollouts: Sequence[Rollout]) -> Any:
        known = ONE if self.shape == "response" else MANY
        read = known.get(name) or (lambda rollout: rollout.prompt.columns.get(name))
        if name == "prompts" and self.abstains:
            values = [_chat_or_text(r, ONE["messages"], ONE["prompt"]) for r in rollouts]
        else:
            values = [read(rollout) for rollout in rollouts]
        return values[0] if self.shape == "response" else values


def read_signature(
    fn: Callable[..., Any], name: str, columns: Collection[str], where: str = "reward"
) -> Signature:
    """How a function wants to be called.

    Args:
        fn: function, lambda, ``functools.partial``, or an object that can be called. What a partial has bound stays.
        name: what errors call it.
        columns: further columns of the data.
        where: the config key, for errors.

    Raises:
        ConfigError: parameters that nothing can fill, or that cannot be seen.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        raise ConfigError(
            f"the parameters of the reward {name} cannot be seen",
            where=where,
            cure="write a function around it: def reward(prompt, response): ...",
        ) from None
    # What a partial has bound is the choice of who wrote it, and a column of the same name must not undo it.
    bound = set(fn.keywords) if isinstance(fn, functools.partial) else set()
    plain = [
        p
        for p in signature.parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in bound
    ]
    rest = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    aliases = INITIALS if name == "<lambda>" else {}
    names = {p.name: aliases.get(p.name, p.name) for p in plain}
    shape = _shape(set(names.values()))
    known = {*(ONE if shape == "response" else MANY), *columns}
    strange = [p.name for p in plain if p.default is p.empty and names[p.name] not in known]
    both = sorted(BATCHES & set(names.values())), sorted(SCORED & set(names.values()))
    if strange or all(both) or not any(names[p.name] in known for p in plain):
        raise ConfigError(
            f"the reward function {name}{signature} {_fault(strange, both)}",
            where=where,
            cure=_cure(strange, shape, known - set(columns), columns),
        )
    # Without a name they can only be given as the first arguments, so the run of them ends at one that nothing fits.
    by_position = []
    for p in plain:
        if p.kind is not p.POSITIONAL_ONLY or names[p.name] not in known:
            break
        by_position.append(names[p.name])
    by_name = {
        p.name: names[p.name] for p in plain if p.kind is not p.POSITIONAL_ONLY and names[p.name] in known
    }
    return Signature(shape, by_name, tuple(by_position), rest)


def _shape(names: set[str]) -> Shape:
    if "group" in names:
        return "group"
    return "batch" if names & BATCHES else "response"


def _fault(strange: Sequence[str], both: tuple[list[str], list[str]]) -> str:
    if all(both):
        return f"asks for {both[0][0]}, of a whole batch, and for {both[1][0]}, of one response"
    if strange:
        return f"asks for {', '.join(strange)}, and nothing has that name"
    return "has no parameter with a name that says what to give it"


def _cure(strange: Iterable[str], shape: Shape, names: Collection[str], columns: Collection[str]) -> str:
    near = [
        close[0] for each in strange if (close := difflib.get_close_matches(each, [*names, *columns], n=1))
    ]
    meant = f"did you mean {', '.join(near)}? " if near else ""
    own = [name for name in (ONE if shape == "response" else MANY) if name in names]
    other = "responses, for a whole batch" if shape == "response" else "response, for one at a time"
    rows = (
        f"columns of the data: {', '.join(sorted(columns))}"
        if columns
        else "the data have no further columns"
    )
    return (
        f"{meant}Names are {', '.join(own)} (or {other}); {rows}. Give any other parameter a default; "
        "a decorator must keep the signature (functools.wraps)"
    )
