"""Responses of several models to the same prompts, in an order drawn at random: what annotators compare blind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.config.sections import SamplingSection
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import MOST_RESPONSES
from plaudit.records import Comparison, Prompt
from plaudit.rollouts.endpoint import Endpoint, endpoint_of, is_endpoint
from plaudit.stages.respond.policy import TrainedPolicy
from plaudit.statistics.resampling import uniform


def generate_comparisons(
    sources: Sequence[str],
    prompts: Sequence[Prompt],
    sampling: SamplingSection,
    *,
    samples: int = 1,
    least: int = 2,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Comparison], dict[str, int]]:
    """One comparison for each prompt, with ``samples`` responses of each model.

    The order of the responses is a function of seed and prompt, so it says nothing about the models. Each
    response keeps in ``provenance`` where it came from and how it was sampled.

    Args:
        sources: run directories, model directories, hub names or GGUF files; or endpoints, ``judge:MODEL@ADDRESS`` or
            the table of a judge on one line.
        prompts: ids must differ.
        sampling: the same for all models.
        samples: responses of each model; of those that are the same, one is kept.
        least: fewest responses of a comparison, all of them the same being as good as one.
        seed: of the responses and their order.
        tell: told which model is at work.

    Returns:
        The comparisons, and what was left out, counted by reason: a prompt to which all gave the same
        response has nothing to compare.

    Raises:
        ConfigError: fewer responses than ``least`` to a prompt, more than nine, or a source named twice; or an endpoint
            that is not there.
        ModelError: a source that cannot be loaded.
        RewardError: an endpoint that does not answer a fifth of the prompts or more.
    """
    names = model_names(sources, samples, least)
    origin = sampling.origin(samples, seed)
    said: list[list[_Said]] = [[] for _ in prompts]
    unanswered: set[str] = set()
    for name, source in zip(names, sources, strict=True):
        tell(f"{name}: {len(prompts) * samples} responses")
        answer = _by_endpoint if is_endpoint(source) else _by_model
        drawn = answer(source, prompts, sampling, samples, seed)
        for i, own in enumerate(said):
            given = [text for text in drawn[i * samples : (i + 1) * samples] if text is not None]
            unanswered.update([prompts[i].id] * (len(given) < samples))
            # A byte-level model can say NUL, which no reader of data takes.
            texts = dict.fromkeys(text.replace("\x00", "\ufffd") for text in given)
            own += [_Said(text, name, k, {"source": source, **origin}) for k, text in enumerate(texts)]
    comparisons = []
    for prompt, own in zip(prompts, said, strict=True):
        if len({one.text for one in own}) < min(least, 2):
            continue
        comparisons.append(_turned(prompt, own, seed))
    missing = len(unanswered - {one.id for one in comparisons})
    left_out = {
        "prompts to which all models gave the same response": len(prompts) - len(comparisons) - missing,
        "prompts that an endpoint did not answer": missing,
    }
    return comparisons, {reason: count for reason, count in left_out.items() if count}


def _by_model(
    source: str, prompts: Sequence[Prompt], sampling: SamplingSection, samples: int, seed: int
) -> list[str | None]:
    return [r.response for r in TrainedPolicy(source).respond_all(prompts, sampling, n=samples, seed=seed)]


def _by_endpoint(
    source: str, prompts: Sequence[Prompt], sampling: SamplingSection, samples: int, seed: int
) -> list[str | None]:
    """Of an endpoint; None where it gave none. What it wrote is kept in the table's file, and not asked for again."""
    written = Endpoint(source).write(prompts, sampling, samples, seed)
    return [None if one.error else one.text for one in written]


def _turned(prompt: Prompt, said: Sequence[_Said], seed: int) -> Comparison:
    """What was said, in an order that tells nothing about the models."""
    order = sorted(said, key=lambda one: uniform(seed, "order", prompt.id, one.name, one.number))
    return Comparison(
        prompt.id,
        prompt.content,
        responses=tuple(one.text for one in order),
        models=tuple(one.name for one in order),
        provenance=tuple(one.origin for one in order),
    )


class _Said(NamedTuple):
    text: str
    name: str
    number: int
    """Among the responses of the same model to the same prompt."""
    origin: dict[str, Any]


def model_names(sources: Sequence[str], samples: int = 1, least: int = 2) -> list[str]:
    """A short name for each source: the last part of its path, or all of it where that is not unique.

    Raises:
        ConfigError: fewer responses than ``least`` to a prompt, more than nine, or a source named twice.

    >>> model_names(["runs/ppo", "runs/sft/"]), model_names(["a/model", "b/model"])
    (['ppo', 'sft'], ['a/model', 'b/model'])
    """
    if not least <= len(sources) * samples <= MOST_RESPONSES or len(set(sources)) < len(sources):
        several = f" with {samples} responses of each" if samples != 1 else ""
        raise ConfigError(
            f"a comparison is of {least} to {MOST_RESPONSES} responses of different models, "
            f"found {', '.join(sources) or 'none'}{several}",
            where="command line",
            cure="name each run once: plaudit compare runs/sft runs/ppo --prompts FILE --out pairs.jsonl",
        )
    whole = [source if is_endpoint(source) else str(Path(source)) for source in sources]
    short = [endpoint_of(source).model if is_endpoint(source) else Path(source).name for source in sources]
    return short if len(set(short)) == len(short) else whole


def load_prompts(
    source: str, tell: Callable[[str], None], limit: int = 0, fields: Mapping[str, str] | None = None
) -> list[Prompt]:
    """The prompts of any data; ``tell`` is told what was noticed in them.

    Raises:
        DataError: they cannot be read, or there are none.
    """
    loaded = load_records(source, "prompt", fields=fields)
    for note in loaded.notes:
        tell(f"note: {note}")
    found = [r for r in loaded.records if isinstance(r, Prompt)]
    if not found:
        raise DataError("there are no prompts in it", where=source, cure="give a file of prompts")
    return found[:limit] if limit else found
