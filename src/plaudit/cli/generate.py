"""Responses of models to prompts, on the spot: what `plaudit compare` and `plaudit annotate` have in common."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.cli.parser import show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from plaudit.records import Comparison, Prompt


def add_sampling_flags(parser: ArgumentParser) -> None:
    """How responses are drawn."""
    parser.add_argument("--limit", type=int, default=0, help="only the first prompts (0: all)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the responses (default: 0.7)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest response (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of responses, order and intervals (default: 0)")


def write_responses(sources: Sequence[str], prompts: str, out: Path, given: Any) -> None:
    """Let the models answer the prompts, and write what they say with where it comes from.

    Args:
        sources: runs, model directories, hub names or GGUF files.
        prompts: a file or a hub name.
        out: .jsonl, .json or .parquet.
        given: the command line with the flags of `add_sampling_flags`.

    Raises:
        DataError: no prompt is left.
    """
    from plaudit.data.write import check_target, write_records
    from plaudit.stages.respond.compare import load_prompts

    check_target(out)
    asked = load_prompts(prompts, _tell, given.limit, pairs_of(given.field))
    made = _generate(sources, asked, given)
    if not made:
        raise _nothing(prompts)
    write_records(made, out)
    show(f"{out}: {len(made)} comparisons of {len(sources)} models")


def answered(given: Any) -> str:
    """The file that `plaudit annotate` asks about: FILE, or with --models what these say to the prompts in it.

    Responses that are there already are kept, so that the same command goes on where it stopped; only the prompts
    that have none yet (a larger --limit, a longer FILE) are answered, and their responses added to the file.

    Raises:
        ConfigError: no FILE, or the responses there are not those of these models and this sampling to these prompts.
        DataError: to every prompt all models gave the same response.
    """
    if not given.models:
        return str(given.file)
    if not given.file:
        raise ConfigError("--models needs prompts", where="command line", cure="name a file of prompts")
    out = Path(given.responses or f"{Path(given.file).name.split('.')[0]}.responses.jsonl")
    same = out.with_name(f"{out.name.split('.')[0]}.same.jsonl")
    from plaudit.data.load import load_records
    from plaudit.data.write import check_target, write_records
    from plaudit.records import Prompt
    from plaudit.stages.respond.compare import load_prompts

    check_target(out)
    prompts = load_prompts(given.file, _tell, fields=pairs_of(given.field))
    there = _there(given, out, {r.content for r in prompts}) if out.exists() else []
    tried = load_records(str(same)).records if there and same.exists() else ()
    known = {r.prompt for r in there} | {r.content for r in tried if isinstance(r, Prompt)}
    asked = prompts[: given.limit] if given.limit else prompts
    missing = [p for p in asked if p.content not in known]
    made: list[Comparison] = []
    if missing:
        least = 2 if given.task in ("pairwise", "ranking") else 1
        if there:
            show(
                f"{out}: responses to {len(there)} prompts are kept, {len(missing)} more prompts are answered now"
            )
        made = _generate(given.models, missing, given, samples=given.samples, least=least)
        if not there and not made:
            raise _nothing(given.file)
        said = {r.prompt for r in made}
        same.unlink(missing_ok=True)
        if unsaid := [*tried, *(p for p in missing if p.content not in said)]:
            write_records(unsaid, same)
        write_records([*there, *made], out)
    more = f" ({len(made)} new)" if there and made else ""
    state = "" if missing else f", which are there already; {CURE}"
    show(f"{out}: responses of {len(given.models)} models to {len(there) + len(made)} prompts{more}{state}")
    return str(out)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


CURE = "name another file with --responses, or remove this one to generate anew"


def _there(given: Any, out: Path, prompts: set[Any]) -> list[Comparison]:
    """The responses of an earlier call, if they are those of these models and this sampling to these prompts."""
    from plaudit.data.load import load_records
    from plaudit.records import Comparison

    there = [r for r in load_records(str(out)).records if isinstance(r, Comparison)]
    origin = _sampling(given).origin(given.samples, given.seed)
    wanted = [{"source": source, **origin} for source in given.models]
    found = [one for r in there for one in r.provenance]
    if any(one not in wanted for one in found) or any(one not in found for one in wanted):
        raise ConfigError("there are responses of other models or settings", where=str(out), cure=CURE)
    if any(r.prompt not in prompts for r in there):
        raise ConfigError(f"there are responses to prompts not in {given.file}", where=str(out), cure=CURE)
    return there


def _generate(
    sources: Sequence[str], prompts: Sequence[Prompt], given: Any, *, samples: int = 1, least: int = 2
) -> list[Comparison]:
    """What the models say to the prompts; says what is left out because all say the same."""
    from plaudit.stages.respond.compare import generate_comparisons

    made, left_out = generate_comparisons(
        sources,
        prompts,
        _sampling(given),
        samples=samples,
        least=least,
        seed=given.seed,
        tell=_tell,
    )
    for reason, count in left_out.items():
        show(f"  note  {count} {reason}")
    return made


def _nothing(prompts: str) -> DataError:
    cure = "raise --temperature, or compare models that differ"
    return DataError(
        "nothing to compare: to every prompt all models gave the same response", where=prompts, cure=cure
    )


def _sampling(given: Any) -> Any:
    from plaudit.config.load import load_section
    from plaudit.config.sections import SamplingSection

    chosen = {"temperature": given.temperature, "max_new_tokens": given.max_new_tokens}
    return load_section(SamplingSection, chosen)
