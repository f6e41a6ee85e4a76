"""Responses of models to prompts, on the spot: what `plaudit compare` and `plaudit annotate` have in common."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.cli.parser import show
from plaudit.errors import ConfigError, DataError


def add_sampling_flags(parser: ArgumentParser) -> None:
    """How responses are drawn."""
    parser.add_argument("--limit", type=int, default=0, help="only the first prompts (0: all)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the responses (default: 0.7)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest response (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of responses, order and intervals (default: 0)")


def write_responses(
    sources: Sequence[str], prompts: str, out: Path, given: Any, *, samples: int = 1, least: int = 2
) -> None:
    """Let the models answer the prompts, and write what they say with where it comes from.

    Args:
        sources: runs, model directories, hub names or GGUF files.
        prompts: a file or a hub name.
        out: .jsonl, .json or .parquet.
        given: the command line with the flags of `add_sampling_flags`.
        samples: responses of each model.
        least: fewest responses to a prompt.

    Raises:
        DataError: no prompt is left.
    """
    from plaudit.data.write import write_records
    from plaudit.stages.compare import generate_comparisons, load_prompts

    made, left_out = generate_comparisons(
        sources,
        load_prompts(prompts, given.limit),
        _sampling(given),
        samples=samples,
        least=least,
        seed=given.seed,
        tell=lambda text: print(text, file=sys.stderr),
    )
    if not made:
        raise DataError(
            f"nothing to compare: {json.dumps(left_out)[1:-1]}",
            where=prompts,
            cure="raise --temperature, or compare models that differ",
        )
    write_records(made, out)
    show(f"{out}: {len(made)} comparisons of {len(sources)} models")
    for reason, count in left_out.items():
        show(f"  note  {count} {reason}")


def answered(given: Any) -> str:
    """The file that `plaudit annotate` asks about: FILE, or with --models what these say to the prompts in it.

    Responses that are there already are asked about again, so that the same command goes on where it stopped.

    Raises:
        ConfigError: no FILE, or the responses there are not those of these models and this sampling to these prompts.
    """
    if not given.models:
        return str(given.file)
    if not given.file:
        raise ConfigError("--models needs prompts", where="command line", cure="name a file of prompts")
    out = Path(given.responses or f"{Path(given.file).name.split('.')[0]}.responses.jsonl")
    if not out.exists():
        least = 2 if given.task in ("pairwise", "ranking") else 1
        write_responses(given.models, given.file, out, given, samples=given.samples, least=least)
        return str(out)
    from plaudit.data.load import load_records
    from plaudit.records import Comparison

    there = [r for r in load_records(str(out)).records if isinstance(r, Comparison)]
    asked = {getattr(r, "content", None) for r in load_records(given.file, "prompt").records}
    origin = _sampling(given).origin(given.samples, given.seed)
    wanted = [{"source": source, **origin} for source in given.models]
    found = [one for r in there for one in r.provenance]
    cure = "name another file with --responses, or remove this one to generate anew"
    if any(one not in wanted for one in found) or any(one not in found for one in wanted):
        raise ConfigError("there are responses of other models or settings", where=str(out), cure=cure)
    if any(r.prompt not in asked for r in there):
        raise ConfigError(f"there are responses to prompts not in {given.file}", where=str(out), cure=cure)
    show(f"{out}: responses of {len(given.models)} models to {len(there)} prompts are there already; {cure}")
    return str(out)


def _sampling(given: Any) -> Any:
    from plaudit.config.sections import SamplingSection

    return SamplingSection(temperature=given.temperature, max_new_tokens=given.max_new_tokens)
