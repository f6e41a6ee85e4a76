"""The report card of a policy: before against after on the same held-out prompts, never the reward alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import DataError
from plaudit.runs.files import Row, merge_json, read_json, read_lines
from plaudit.statistics import figures as st

Figures = dict[str, Any]


def card(run_dir: Path) -> Figures:
    """Report card from evaluation.jsonl; merged into summary.json.

    Rows: ``{"step", "prompt_id", "k", "prompt", "response", "reward", "gold" (optional), "kl", "length",
    "finish_reason", "logprob", "ref_logprob"}``; log-probs are sums over the response in nats. The first step
    is "before"; "after" is the step named ``model_step`` in summary.json, or the last one. Rows of both are
    paired by ``prompt_id`` and ``k``; intervals are clustered by prompt.

    Returns:
        ``reward_mean``, ``reward_ci``, ``kl``, ``perplexity_ratio``, ``win_rate``, ``win_rate_ci``, and with
        ``_before`` / ``_difference`` what changed. The win rate is judged by the gold reward where there is
        one (``win_rate_judge``), because the reward that was trained on is no judge of itself. What the rows
        cannot give is ``None``.

    Raises:
        DataError: no rows.
    """
    run_dir = Path(run_dir)
    steps = by_step(read_lines(run_dir / "evaluation.jsonl"))
    if not steps:
        raise DataError(
            "no evaluated responses",
            where=str(run_dir / "evaluation.jsonl"),
            cure="train with held-out prompts: --eval-prompts above 0",
        )
    after_step = read_json(run_dir / "summary.json").get("model_step")
    if after_step not in steps:
        after_step = max(steps)
    after = steps[after_step]
    figures = {"evaluated_step": after_step} | _levels(after)
    if len(steps) > 1:
        before = steps[min(steps)]
        figures |= {f"{name}_before": value for name, value in _levels(before).items()}
        figures |= _changes(before, after)
    figures["curve"] = [_point(step, rows) for step, rows in sorted(steps.items())]
    clean: Figures = {name: None if _is_nan(value) else value for name, value in figures.items()}
    merge_json(run_dir / "summary.json", clean)
    return clean


def by_step(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows of each step. A resumed run may have written a row twice: the newer one counts."""
    newest = {(row["step"], row.get("prompt_id"), row.get("k", 0)): row for row in rows}
    steps: dict[int, list[Row]] = {}
    for row in newest.values():
        steps.setdefault(row["step"], []).append(row)
    return steps


def _levels(rows: Sequence[Row]) -> Figures:
    """What can be said of the responses of one step."""
    figures: Figures = {"n": len(rows), "prompts": len({row.get("prompt_id") for row in rows})}
    for name, field in (("reward", "reward"), ("gold", "gold"), ("kl", "kl"), ("length", "length")):
        values, prompts = _column(rows, field)
        if not values:
            continue
        estimate = st.bootstrap_mean(values, prompts)
        figures["kl" if name == "kl" else f"{name}_mean"] = estimate.mean
        figures[f"{name}_ci"] = list(estimate.interval)
    figures.setdefault("kl", None)
    finished = [row for row in rows if row.get("finish_reason")]
    if finished:
        figures["eos_rate"] = sum(row["finish_reason"] == "stop" for row in finished) / len(finished)
    texts = [str(row.get("response", "")) for row in rows]
    figures |= {"distinct_1": st.distinct(texts, 1), "distinct_2": st.distinct(texts, 2)}
    figures["distinct_responses"] = len(set(texts)) / len(texts)
    scored = [row for row in rows if row.get("reward") is not None and row.get("length") is not None]
    figures["reward_length_spearman"] = st.spearman(
        [row["reward"] for row in scored], [row["length"] for row in scored]
    )
    figures["reference_perplexity"] = _perplexity(rows)
    return {name: None if _is_nan(value) else value for name, value in figures.items()}


def _column(rows: Sequence[Row], field: str) -> tuple[list[float], list[Hashable]]:
    kept = [row for row in rows if row.get(field) is not None]
    return [float(row[field]) for row in kept], [row.get("prompt_id") for row in kept]


def _perplexity(rows: Sequence[Row]) -> float:
    """``exp(-sum log reference / tokens)``: how odd the reference finds these responses."""
    known = [row for row in rows if row.get("ref_logprob") is not None and row.get("length")]
    tokens = sum(row["length"] for row in known)
    if not tokens:
        return math.nan
    return math.exp(min(-sum(row["ref_logprob"] for row in known) / tokens, 700.0))


def _changes(before: Sequence[Row], after: Sequence[Row]) -> Figures:
    """Paired differences, win rate and perplexity ratio."""
    figures: Figures = {}
    for name in ("reward", "gold"):
        estimate = _paired(before, after, name)
        if estimate is not None:
            figures[f"{name}_difference"] = estimate.mean
            figures[f"{name}_difference_ci"] = list(estimate.interval)
    judge = "gold" if "gold_difference" in figures else "reward"
    wins = _win_rate(before, after, judge)
    figures |= {
        "win_rate": wins.mean,
        "win_rate_ci": list(wins.interval),
        "win_rate_judge": judge,
        "win_rate_pairs": wins.n,
    }
    if judge == "gold":
        figures["win_rate_by_reward"] = _win_rate(before, after, "reward").mean
    first, last = _perplexity(before), _perplexity(after)
    figures["perplexity_ratio"] = last / first if first else math.nan
    return figures


def _matched(
    before: Sequence[Row], after: Sequence[Row], field: str
) -> tuple[list[float], list[float], list[Hashable]]:
    """Both values of each (prompt, k) that has them."""
    old = {(row.get("prompt_id"), row.get("k", 0)): row.get(field) for row in before}
    pairs = [
        (float(value), float(row[field]), row.get("prompt_id"))
        for row in after
        if row.get(field) is not None
        and (value := old.get((row.get("prompt_id"), row.get("k", 0)))) is not None
    ]
    return [a for a, _, _ in pairs], [b for _, b, _ in pairs], [prompt for _, _, prompt in pairs]


def _paired(before: Sequence[Row], after: Sequence[Row], field: str) -> st.Estimate | None:
    old, new, prompts = _matched(before, after, field)
    return st.paired_bootstrap(old, new, prompts) if old else None


def _win_rate(before: Sequence[Row], after: Sequence[Row], field: str) -> st.Estimate:
    """Share of pairs in which the later response is better; ties count a half."""
    old, new, prompts = _matched(before, after, field)
    return st.share(st.outcomes([b - a for a, b in zip(old, new, strict=True)]), prompts)


def _point(step: int, rows: Sequence[Row]) -> Figures:
    """One point of the curve over KL."""
    point: Figures = {"step": step}
    for field in ("reward", "gold", "kl", "length"):
        values, _ = _column(rows, field)
        if values:
            point[field] = sum(values) / len(values)
    return point


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
