"""Comparing models by blind judgements: win rates and Bradley-Terry strengths, with intervals over prompts."""

# Judgements of one prompt are not independent: people agree because they read the same two responses. Counting each of
# them would make the intervals too narrow, so a prompt counts once, with the mean over its judgements.

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from plaudit.errors import DataError
from plaudit.preferences.quality import PositionBias, binomial_test
from plaudit.records import Content, Judgement, to_json
from plaudit.statistics import bradley_terry
from plaudit.statistics.intervals import Estimate, counted
from plaudit.statistics.resampling import DRAWS, Array, percentile, resample


@dataclass(frozen=True, slots=True)
class Standing:
    """A model among the others."""

    model: str
    strength: Estimate
    """Bradley-Terry strength in logits, with mean 0 over the models that were compared; ``n`` is the number of prompts.
    The interval is a percentile bootstrap over prompts."""
    judgements: int


@dataclass(frozen=True, slots=True)
class Versus:
    """One model against another."""

    model: str
    other: str
    win_rate: Estimate
    """Of ``model``, a tie counting one half: mean over prompts, with Wilson's interval; ``n`` counts prompts."""
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class Standings:
    """The outcome of a comparison."""

    models: tuple[Standing, ...]
    """The strongest first."""
    versus: tuple[Versus, ...]
    """Every two models that were compared, the stronger one first."""
    position: PositionBias
    """Whether the response shown first (``response_a``) wins more often; ties are left out."""
    prompts: int
    judgements: int
    annotators: int
    notes: tuple[str, ...]
    """What was left out, and what limits the figures."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; an undefined figure is null."""
        return _finite(to_json(self))


def compare(judgements: Sequence[Judgement], *, seed: int = 0, draws: int = DRAWS) -> Standings:
    """Win rates, strengths and position bias of two models or more.

    Args:
        judgements: with ``model_a`` and ``model_b``; ``response_a`` is the one that was shown first.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        DataError: no judgement names two different models.
    """
    usable = [j for j in judgements if j.model_a and j.model_b and j.model_a != j.model_b]
    if not usable:
        raise DataError(
            f"none of the {len(judgements)} judgements says which two models it is about",
            cure="give judgements with model_a and model_b, as `plaudit annotate export` writes them",
        )
    names = sorted({name for j in usable for name in (j.model_a, j.model_b)})
    tables = _tables(usable, names)
    strengths = bradley_terry.fit(tables.sum(0))
    order = sorted(range(len(names)), key=lambda i: (-strengths[i], names[i]))
    weights = resample(np.ones(len(tables)), seed=seed, draws=draws)
    again = bradley_terry.fit(np.einsum("dp,pij->dij", weights, tables))
    met = (tables + tables.swapaxes(1, 2)).sum(2) > 0
    models = tuple(
        Standing(
            names[i],
            percentile(float(strengths[i]), again[:, i], int(met[:, i].sum())),
            sum(names[i] in (j.model_a, j.model_b) for j in usable),
        )
        for i in order
    )
    pairs = combinations([names[i] for i in order], 2)
    return Standings(
        models=models,
        versus=tuple(v for one, other in pairs if (v := versus(usable, one, other)).win_rate.n),
        position=_position(usable),
        prompts=len(tables),
        judgements=len(usable),
        annotators=len({j.annotator for j in usable if j.annotator}),
        notes=_notes(judgements, usable, tables.sum(0)),
    )


def versus(judgements: Sequence[Judgement], model: str, other: str) -> Versus:
    """How often ``model`` beats ``other``; judgements of other models do not count."""
    by_prompt: dict[Content, list[float]] = defaultdict(list)
    for j in judgements:
        if {j.model_a, j.model_b} == {model, other}:
            by_prompt[j.prompt].append(_score(j) if j.model_a == model else 1 - _score(j))
    every = [score for scores in by_prompt.values() for score in scores]
    shares = [sum(scores) / len(scores) for scores in by_prompt.values()]
    return Versus(
        model, other, counted(sum(shares), len(shares)), every.count(1.0), every.count(0.5), every.count(0.0)
    )


def _score(j: Judgement) -> float:
    """The score of ``response_a``: 1 for a win, 0.5 for a tie, 0 for a loss."""
    # Of two identical responses neither is better: a vote for one of them says something about places, not models.
    return 0.5 if j.strength == 0 or j.response_a == j.response_b else float(j.strength < 0)


def _tables(judgements: Sequence[Judgement], names: Sequence[str]) -> Array:
    """Wins of row over column for each prompt, [prompts, models, models]: two models share one win for each prompt."""
    at = {name: i for i, name in enumerate(names)}
    prompts: dict[Content, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for j in judgements:
        a, b = at[j.model_a], at[j.model_b]
        score = _score(j) if a < b else 1 - _score(j)
        prompts[j.prompt][min(a, b), max(a, b)].append(score)
    tables = np.zeros((len(prompts), len(names), len(names)))
    for table, games in zip(tables, prompts.values(), strict=True):
        for (i, k), scores in games.items():
            table[i, k] = sum(scores) / len(scores)
            table[k, i] = 1 - table[i, k]
    return tables


def _position(judgements: Sequence[Judgement]) -> PositionBias:
    """The bias for the response shown first, over pairs of responses in one order."""
    # Judgements of the same two responses in the same order count once, as their majority: annotators who saw the same
    # order agree because of the responses, and that is no evidence of a bias.
    sums: dict[tuple[Content, Content, Content], int] = defaultdict(int)
    for j in judgements:
        sums[j.prompt, j.response_a, j.response_b] += (j.strength < 0) - (j.strength > 0)
    first, decided = sum(s > 0 for s in sums.values()), sum(s != 0 for s in sums.values())
    return PositionBias(counted(first, decided), binomial_test(first, decided))


def _notes(every: Sequence[Judgement], usable: Sequence[Judgement], wins: Array) -> tuple[str, ...]:
    notes = []
    if len(usable) < len(every):
        notes.append(f"{len(every) - len(usable)} judgements without two different models, left out")
    alike = sum(j.strength != 0 and j.response_a == j.response_b for j in usable)
    if alike:
        notes.append(f"{alike} judgements prefer one of two responses that are the same: counted as ties")
    groups = bradley_terry.connected(wins + wins.T)
    if len(groups) > 1:
        notes.append(
            f"{len(groups)} groups of models were never compared with each other:"
            " strengths can be compared within a group only"
        )
    position = _position(usable)
    if position.p_value < 0.05:
        notes.append(
            f"the response shown first won {position.first.value:.0%} of decided pairs (p = {position.p_value:.2g}):"
            " if the order was random, the place decides as well; if not, it may stand for the models"
        )
    return tuple(notes)


def as_text(standings: Standings) -> str:
    """The standings as plain tables."""
    width = max(len(s.model) for s in standings.models)
    people = f"{standings.annotators} annotator{'s' if standings.annotators != 1 else ''}"
    lines = [f"{standings.judgements} judgements of {standings.prompts} prompts by {people}", ""]
    lines.append(f"{'model':<{width}}  strength (logits), 95 %        judgements")
    for s in standings.models:
        lines.append(f"{s.model:<{width}}  {_cell(s.strength):<30}  {s.judgements:>10}")
    both = max(len(f"{v.model} over {v.other}") for v in standings.versus)
    lines += ["", f"{'':<{both}}  win rate, 95 %                 won / tied / lost   prompts"]
    for v in standings.versus:
        counts = f"{v.wins} / {v.ties} / {v.losses}"
        name = f"{v.model} over {v.other}"
        lines.append(f"{name:<{both}}  {_cell(v.win_rate):<30} {counts:<18} {v.win_rate.n:>8}")
    first, p_value = standings.position.first, standings.position.p_value
    lines += ["", f"shown first won {_cell(first)}, p = {p_value:.2g}"]
    return "\n".join([*lines, *(f"note  {note}" for note in standings.notes)])


def _cell(figure: Estimate) -> str:
    if math.isnan(figure.value):
        return "undefined"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
