"""The figures of a scored benchmark file: the table of its scores with intervals, and what length alone would reach."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.data.benchmarks.names import TITLES
from plaudit.errors import DataError
from plaudit.evaluation.benchmarks.rules import BEST_OF_ALL, RULES, Point, Rule, Score, styles_beaten
from plaudit.runs.files import BENCHMARK, SUMMARY, Row, merge_json, read_lines
from plaudit.statistics.clustered import weighted_difference, weighted_share
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.ranking import expected_best_of

NAMED = 12
"""Unknown subsets that are named; of more only their number is."""
STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Responses among which the best one is taken."""


Strata = Mapping[str, Sequence[Point]]
"""Stratum -> its points."""


class Weighted(NamedTuple):
    """The points of one score, each with its weight in it."""

    points: list[Point]
    weights: list[float]


def card(run_dir: Path) -> dict[str, Any]:
    """Figures of a scored benchmark file, see `figures`; merged into summary.json, and returned with what is there.

    Raises:
        DataError: see `figures`.
    """
    return merge_json(Path(run_dir) / SUMMARY, figures(run_dir))


def figures(run_dir: Path) -> dict[str, Any]:
    """Figures from benchmark.jsonl, which has a line for each prompt of the file.

    A line has ``{"benchmark", "id", "prompt_id", "subset", "scores": [...], "lengths": [...], "correct": [...]}``, one
    entry for each response, and ``"groups"`` and ``"pairs"``; or, of a prompt that was not scored, ``"left_out"`` with
    the reason.

    Returns:
        ``benchmark_score`` and its interval, the score as the benchmark defines it, None where nothing of the benchmark
        is there; ``benchmark_table``, a row for each section and subset; ``benchmark_missing``, sections that are not
        there, and ``benchmark_unknown``, subsets that are not the benchmark's; ``benchmark_left_out`` by reason;
        ``benchmark_length_score``, what the better rule on length alone reaches, and ``benchmark_over_length`` with its
        interval; ``benchmark_chance``.

    Raises:
        DataError: no benchmark.jsonl, or lines without scores.
    """
    path = Path(run_dir) / BENCHMARK
    rows = read_lines(path)
    if not rows:
        raise DataError(
            "no scores of a benchmark",
            where=str(path),
            cure="score a file: plaudit evaluate reward RUN --dataset FILE",
        )
    _check(rows, path)
    name = rows[0]["benchmark"]
    rule, scored = RULES[name], [row for row in rows if not row.get("left_out")]
    points = _strata(rule.points(scored))
    lines = rule.scores({stratum: len(each) for stratum, each in points.items()}) if points else []
    by_length, word = _by_length(rule, scored, lines)
    missing_rows = [row for row in rows if row.get("left_out")]
    unknown = sorted({row["subset"] for row in rows if not rule.known(row["subset"])})
    there = {line.name for line in lines if line.level == "section"}
    overall = lines[0] if lines and lines[0].level == "overall" else None
    return {
        "benchmark": name,
        "benchmark_title": TITLES[name],
        **_overall(overall, points, by_length),
        "benchmark_length_rule": word,
        "benchmark_prompts": len({row["prompt_id"] for row in scored}),
        "benchmark_rows": len(scored),
        "benchmark_left_out": dict(Counter(row["left_out"] for row in missing_rows)),
        "benchmark_missing": [section for section in rule.sections if section not in there],
        "benchmark_unknown": unknown[:NAMED] + [f"{len(unknown) - NAMED} more"] * (len(unknown) > NAMED),
        "benchmark_table": [_table_row(line, points, by_length, missing_rows) for line in lines],
    } | _extras(name, scored)


def _check(rows: Sequence[Row], path: Path) -> None:
    for number, row in enumerate(rows, 1):
        scores = row.get("scores")
        if row.get("benchmark") not in RULES:
            raise DataError(
                f"no benchmark is called {row.get('benchmark')!r}",
                where=f"{path}:{number}",
                cure="score the file again",
            )
        if not row.get("left_out") and (not scores or None in scores):
            raise DataError(
                "the line has no finite scores",
                where=f"{path}:{number}",
                cure="score the file again; scores that are not finite point to diverged training",
            )


def _strata(points: Sequence[Point]) -> Strata:
    strata: dict[str, list[Point]] = {}
    for point in points:
        strata.setdefault(point.stratum, []).append(point)
    return strata


def _by_length(rule: Rule, rows: Sequence[Row], lines: Sequence[Score]) -> tuple[Strata, str]:
    """The points of the rule on length that reaches more, and its name."""
    if not lines:
        return {}, ""
    found = []
    for word, sign in (("longest", 1), ("shortest", -1)):
        points = _strata(rule.points([row | {"scores": [sign * n for n in row["lengths"]]} for row in rows]))
        found.append((_estimate(lines[0], points).value, points, word))
    _, points, word = max(found, key=lambda each: each[0])
    return points, word


def _weighted(line: Score, points: Strata) -> Weighted:
    own = [point for stratum in line.weights for point in points[stratum]]
    return Weighted(own, [line.weights[point.stratum] / len(points[point.stratum]) for point in own])


def _estimate(line: Score, points: Strata) -> Estimate:
    own, weights = _weighted(line, points)
    values, strata, clusters = [p.value for p in own], [p.stratum for p in own], [p.cluster for p in own]
    return weighted_share(values, weights, strata, clusters)


def _chance(line: Score, points: Strata) -> float:
    own, weights = _weighted(line, points)
    return sum(point.chance * weight for point, weight in zip(own, weights, strict=True))


def _overall(line: Score | None, points: Strata, by_length: Strata) -> dict[str, Any]:
    """The score of the benchmark, and how far it is above that of length alone."""
    if line is None:
        return {"benchmark_score": None, "benchmark_score_ci": None}
    estimate = _estimate(line, points)
    own, weights = _weighted(line, points)
    lengths = _weighted(line, by_length).points
    over = weighted_difference(
        [p.value for p in lengths], [p.value for p in own], weights, [p.stratum for p in own], [p.cluster for p in own]
    )
    return {
        "benchmark_score": estimate.value,
        "benchmark_score_ci": list(estimate.interval),
        "benchmark_chance": _chance(line, points),
        "benchmark_length_score": _estimate(line, by_length).value,
        "benchmark_over_length": over.value,
        "benchmark_over_length_ci": None if math.isnan(over.low) else list(over.interval),
    }


def _table_row(
    line: Score, points: Strata, by_length: Strata, left_out: Sequence[Row]
) -> dict[str, Any]:
    estimate = _estimate(line, points)
    own = _weighted(line, points).points
    lost = sum(_is_in(row, line) for row in left_out)
    return {
        "name": line.name,
        "level": line.level,
        "n": len({point.row for point in own}),
        "prompts": estimate.n,
        "score": estimate.value,
        "score_ci": list(estimate.interval),
        "length_score": _estimate(line, by_length).value,
        "chance": _chance(line, points),
        "counts": line.counts,
        "left_out": lost,
    }


def _is_in(row: Row, line: Score) -> bool:
    """Whether a prompt that was left out would have been in a line of the table."""
    groups = row.get("groups") or ()

    def holds(stratum: str) -> bool:
        subset, _, part = stratum.partition(": ")
        inside = not part or not groups or part in (*groups, BEST_OF_ALL)
        return stratum in groups or (subset == row["subset"] and inside)

    return line.level == "overall" or any(map(holds, line.weights))


def _extras(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Of RM-Bench the matrix of styles, of PPE correctness the curve of the best of k."""
    if name == "rm-bench" and rows:
        matrices = [styles_beaten(row) for row in rows]
        mean = [[sum(m[i][j] for m in matrices) / len(matrices) for j in range(3)] for i in range(3)]
        return {"benchmark_styles": mean}
    if name == "ppe-correctness" and rows:
        return {"benchmark_best_of_k": _curve(rows)}
    return {}


def _curve(rows: Sequence[Row]) -> list[dict[str, float]]:
    """The share of right answers among the best of k by the model, and by one that knows them (PPE, figure 2)."""
    steps = [k for k in STEPS if k <= min(len(row["scores"]) for row in rows)]

    def mean(k: int, of: str) -> float:
        return sum(expected_best_of(row[of], [float(right) for right in row["correct"]], k) for row in rows) / len(rows)

    return [{"k": k, "score": mean(k, "scores"), "most": mean(k, "correct")} for k in steps]
