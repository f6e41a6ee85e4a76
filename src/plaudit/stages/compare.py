"""Responses of several models to the same prompts, in an order drawn at random: what annotators compare blind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from plaudit.config.sections import SamplingSection
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.resampling import uniform
from plaudit.records import Comparison, Prompt, to_json
from plaudit.stages.respond import TrainedPolicy


def generate_comparisons(
    sources: Sequence[str],
    prompts: Sequence[Prompt],
    sampling: SamplingSection,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Comparison], dict[str, int]]:
    """One comparison for each prompt, with one response of each model.

    The order of the responses is a function of seed and prompt, so it says nothing about the models. Each
    response keeps in ``provenance`` where it came from and how it was sampled.

    Args:
        sources: two to nine run directories, model directories, hub names or GGUF files.
        prompts: ids must differ.
        sampling: the same for all models.
        seed: of the responses and their order.
        tell: told which model is at work.

    Returns:
        The comparisons, and what was left out, counted by reason: a prompt to which all gave the same
        response has nothing to compare.

    Raises:
        ConfigError: fewer than two sources, more than nine, or the same one twice.
        ModelError: a source that cannot be loaded.
    """
    names = model_names(sources)
    said: list[list[str]] = []
    for name, source in zip(names, sources, strict=True):
        tell(f"{name}: {len(prompts)} responses")
        said.append([r.response for r in TrainedPolicy(source).respond_all(prompts, sampling, seed=seed)])
    drawn = to_json(sampling.model_dump())
    comparisons = []
    for i, prompt in enumerate(prompts):
        texts = [responses[i] for responses in said]
        if len(set(texts)) == 1:
            continue
        order = sorted(range(len(names)), key=lambda k: uniform(seed, "order", prompt.id, names[k]))
        origins = tuple({"source": sources[k], "sampling": drawn, "seed": seed} for k in order)
        comparisons.append(
            Comparison(
                prompt.id,
                prompt.content,
                tuple(texts[k] for k in order),
                tuple(names[k] for k in order),
                origins,
            )
        )
    same = len(prompts) - len(comparisons)
    return comparisons, {"prompts to which all models gave the same response": same} if same else {}


def model_names(sources: Sequence[str]) -> list[str]:
    """A short name for each source: the last part of its path, or all of it where that is not unique.

    Raises:
        ConfigError: fewer than two sources, more than nine, or the same one twice.

    >>> model_names(["runs/ppo", "runs/sft/"]), model_names(["a/model", "b/model"])
    (['ppo', 'sft'], ['a/model', 'b/model'])
    """
    if not 2 <= len(sources) <= 9 or len(set(sources)) < len(sources):
        raise ConfigError(
            f"a comparison is of two to nine different models, found {', '.join(sources) or 'none'}",
            where="command line",
            cure="name each run once: plaudit compare runs/sft runs/ppo --prompts FILE --out pairs.jsonl",
        )
    short = [Path(source).name for source in sources]
    return short if len(set(short)) == len(short) else [str(Path(source)) for source in sources]


def load_prompts(source: str, limit: int = 0) -> list[Prompt]:
    """The prompts of any data.

    Raises:
        DataError: they cannot be read, or there are none.
    """
    found = [r for r in load_records(source, "prompt").records if isinstance(r, Prompt)]
    if not found:
        raise DataError("there are no prompts in it", where=source, cure="give a file of prompts")
    return found[:limit] if limit else found
