"""What a round asks: pairs of responses of the current policy, of which some are chosen; and what it learns from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from plaudit.data.load import load_records
from plaudit.data.split import epoch_order, split_by_prompt
from plaudit.data.write import row_of
from plaudit.errors import DataError
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.reward_tables import on_one_line
from plaudit.loop.judge import ANSWERS
from plaudit.preferences.sampling import random_order
from plaudit.records import Comparison, Preference, Prompt
from plaudit.rollouts.endpoint import endpoint_of, is_endpoint
from plaudit.runs.files import write_lines
from plaudit.stages.respond.ask import ask_next
from plaudit.stages.respond.compare import generate_comparisons
from plaudit.statistics.resampling import uniform

SPARE = 1.25
"""Prompts for each pair wanted: to some prompts a policy gives the same response twice, and there is no pair."""
ROUND = re.compile(r"r(\d+)-")
"""What the id of every comparison begins with: the round that it was asked in."""


def prefix(number: int) -> str:
    """What ids of a round begin with."""
    return f"r{number}-"


def round_of(name: str) -> int:
    """The round that an id says; 0 where it says none."""
    found = ROUND.match(name)
    return int(found[1]) if found else 0


def sizes(job: LoopJob) -> tuple[int, int]:
    """Comparisons of a round that are trained on, and that are held out."""
    heldout = round(job.comparisons * job.data.eval_fraction)
    if job.data.eval_fraction > 0 and job.comparisons > 1:
        heldout = max(heldout, 1)
    return job.comparisons - heldout, heldout


def is_active(job: LoopJob, number: int) -> bool:
    """Whether a reward model chooses what is asked: there is none in the first round."""
    return job.choose != "random" and number > 1


def _wanted(job: LoopJob, number: int, side: int) -> int:
    """Prompts that a round samples for, of those that are trained on (side 0) or held out (1)."""
    pairs = sizes(job)[side]
    if side == 0 and is_active(job, number):
        pairs *= job.candidates
    return math.ceil(pairs * SPARE)


def prompts_of(job: LoopJob, prompts: Sequence[Prompt], number: int) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of a round, to train on and held out, each with an id of its own in the whole loop.

    All prompts are gone through, in an order drawn anew for each pass, before one comes again.

    Args:
        job: the settings; the split is that of every stage with the same seed and share.
        prompts: all of them.
        number: of the round, from 1.
    """
    both = split_by_prompt(prompts, job.data.eval_fraction, job.seed)
    taken: list[list[Prompt]] = []
    for side, pool in enumerate(both):
        first = sum(_wanted(job, earlier, side) for earlier in range(1, number))
        places = range(first, first + _wanted(job, number, side)) if pool else range(0)
        seed = 2 * job.seed + side
        rows = [pool[epoch_order(len(pool), seed, place // len(pool))[place % len(pool)]] for place in places]
        name = prefix(number) + ("h" if side else "t")
        taken.append([replace(prompt, id=f"{name}{i}-{prompt.id}") for i, prompt in enumerate(rows)])
    return taken[0], taken[1]


def sample(
    job: LoopJob, policy: str, prompts: Sequence[Prompt], target: Path, tell: Callable[[str], None]
) -> tuple[int, int]:
    """Let the policy respond twice to each prompt, or once beside another source; and write what can be compared.

    With k further sources a prompt in k + 1 has two responses of the policy, and one for each source has one of both.

    Returns:
        Pairs written, and prompts to which both responses were the same.
    """
    if not prompts:
        write_lines(target, [])
        return 0, 0
    beside = [_kept_here(job, source) for source in job.beside]
    shares = [[policy], *([policy, source] for source in beside)]
    made: dict[str, Comparison] = {}
    for i, sources in enumerate(shares):
        part = prompts[i :: len(shares)]
        samples = 3 - len(sources)
        if not part:
            continue
        found, _ = generate_comparisons(sources, part, job.sampling, samples=samples, seed=job.seed, tell=tell)
        made |= {one.id: one for one in found}
    rows = [made[prompt.id] for prompt in prompts if prompt.id in made]
    write_lines(target, map(row_of, rows))
    return len(rows), len(prompts) - len(rows)


def _kept_here(job: LoopJob, source: str) -> str:
    """A source whose replies are kept in the loop's directory, unless its table says where."""
    if not is_endpoint(source):
        return source
    table = endpoint_of(source)
    here = {} if "cache" in table.model_fields_set else {"cache": str(Path(job.out) / ANSWERS)}
    return on_one_line(table.model_copy(update=here))


def choose(job: LoopJob, number: int, rewards: Sequence[str], train: Path, heldout: Path) -> list[Comparison]:
    """The comparisons that are asked in a round, in random order.

    Held-out comparisons are drawn by chance whatever the choice of the others is: were they those that a reward model
    is unsure of, its accuracy on them could be compared with nothing.

    Args:
        rewards: the reward model of the round before, or its members.
        train, heldout: files of candidates.

    Raises:
        DataError: no pair at all.
    """
    asked: list[Comparison] = []
    for file, wanted in zip((train, heldout), sizes(job), strict=True):
        rows = comparisons_in(file)
        if not rows:
            continue
        if file == train and is_active(job, number):
            # Without the choice of pairs that differ from each other: of so few candidates it would leave out a quarter
            # and take the strangest of the rest, whatever the reward models say (docs/why/loop.md). Prompts differ.
            priorities = ask_next(str(file), rewards, job.choose, seed=job.seed + number)
            order = sorted(priorities, key=lambda key: -priorities[key])
        else:
            order = random_order([row.id for row in rows], seed=job.seed + number)
        chosen = set(order[:wanted])
        asked += [row for row in rows if row.id in chosen]
    if not asked:
        raise DataError(
            "to every prompt the policy gave the same response twice, so there is nothing to compare", where=str(train),
            cure="raise [sampling] temperature, or give more prompts",
        )  # fmt: skip
    place = {key: i for i, key in enumerate(random_order([row.id for row in asked], seed=job.seed))}
    return sorted(asked, key=lambda row: place[row.id])


def comparisons_in(file: Path) -> list[Comparison]:
    """The comparisons of a file that the loop wrote; it may be empty."""
    return [r for r in _records(file) if isinstance(r, Comparison)]


def preferences_in(file: Path) -> list[Preference]:
    """The preferences of a file that the loop wrote; it may be empty, or not there."""
    return [r for r in _records(file) if isinstance(r, Preference)]


def _records(file: Path) -> Sequence[object]:
    return load_records(str(file)).records if file.is_file() and file.stat().st_size else ()


def mixed(job: LoopJob, rounds: Sequence[Sequence[Preference]]) -> tuple[list[Preference], dict[str, int]]:
    """What a reward model learns from: the new comparisons, a share of the old ones, and all that are held out.

    Which rows are held out is a function of their prompts, so a reward model that splits these rows by the same seed
    and share holds out the same ones.

    Args:
        rounds: the preferences of each round, in their order; the last are the new ones.

    Returns:
        The rows, and how many are new, old, held out, and left out by the share.
    """
    every = [row for one in rounds for row in one]
    train, heldout = split_by_prompt(every, job.data.eval_fraction, job.seed)
    newest = {row.id for row in rounds[-1]}
    # A number of its own for each row and round: with a share of one half not the same half is left out for ever.
    kept = [
        row for row in train
        if row.id in newest or uniform(job.seed, "old", len(rounds), row.id) < job.old_share
    ]  # fmt: skip
    new = sum(row.id in newest for row in kept)
    figures = {"new": new, "old": len(kept) - new, "heldout": len(heldout), "left_out": len(train) - len(kept)}
    ids = {row.id for row in (*kept, *heldout)}
    return [row for row in every if row.id in ids], figures
