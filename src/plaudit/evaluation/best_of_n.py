"""The report card of best-of-n: what choosing is worth for each n, to the reward and to a second judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.errors import DataError
from plaudit.evaluation import policy
from plaudit.functional.best_of_n import expected_best, kl_bound, win_rate_bound
from plaudit.runs.files import Row, merge_json, read_lines
from plaudit.statistics import figures as st


def card(run_dir: Path) -> dict[str, Any]:
    """Report card from best.jsonl, merged into summary.json; that of the policy for a run that was fine-tuned.

    Rows: ``{"prompt_id", "scores": [n], "lengths": [n], "best": index, "one_score"}`` and with a second judge
    ``"gold_scores": [n], "one_gold"``. A score is the reward less the penalty for a missing end; None: it failed.

    Returns:
        ``reward_mean`` of one sample, ``reward_best``, ``reward_gain`` and its interval over prompts, the same for
        ``gold``; ``win_rate`` of the best against one further sample, and of ``gold_win_rate``; ``kl_bound`` and
        ``win_rate_bound``; ``curve``: the unbiased expectation for each n, with its KL bound.

    Raises:
        DataError: no rows.
    """
    run_dir = Path(run_dir)
    if (run_dir / "evaluation.jsonl").is_file():
        return policy.card(run_dir)
    rows = read_lines(run_dir / "best.jsonl")
    if not rows:
        raise DataError(
            "no prompt was answered",
            where=str(run_dir / "best.jsonl"),
            cure="look for failed rewards in the run",
        )
    n = max(len(row["scores"]) for row in rows)
    figures: dict[str, Any] = {"n": n, "prompts": len(rows)}
    for name, field, one in (("reward", "scores", "one_score"), ("gold", "gold_scores", "one_gold")):
        figures |= _worth(rows, name, field, one)
    figures |= {
        "kl_bound": kl_bound(n),
        "win_rate_bound": win_rate_bound(n),
        "length_best": fmean(row["lengths"][row["best"]] for row in rows),
        "length_mean": fmean(fmean(row["lengths"]) for row in rows),
        "curve": [_point(rows, k) for k in _steps(n)],
    }
    merge_json(run_dir / "summary.json", figures)
    return figures


def _worth(rows: Sequence[Row], name: str, field: str, one: str) -> dict[str, Any]:
    """Level, gain and wins by one judge; nothing where it did not judge."""
    known = [row for row in rows if row.get(field) and row[field][row["best"]] is not None]
    if not known:
        return {}
    best = [row[field][row["best"]] for row in known]
    mean = [fmean(value for value in row[field] if value is not None) for row in known]
    gain = st.bootstrap_mean([b - m for b, m in zip(best, mean, strict=True)])
    against = [(b, row[one]) for b, row in zip(best, known, strict=True) if row.get(one) is not None]
    wins = st.share(st.outcomes([b - other for b, other in against]))
    prefix = "" if name == "reward" else f"{name}_"
    return {
        f"{name}_mean": fmean(mean),
        f"{name}_best": fmean(best),
        f"{name}_gain": gain.mean,
        f"{name}_gain_ci": list(gain.interval),
        f"{prefix}win_rate": wins.mean,
        f"{prefix}win_rate_ci": list(wins.interval),
    }


def _steps(n: int) -> list[int]:
    """1, 2, 4 ... and n."""
    return sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})


def _point(rows: Sequence[Row], k: int) -> dict[str, float]:
    """The expected worth of the best of k, over the prompts with at least so many scored responses."""
    scored = []
    for row in rows:
        judged = row.get("gold_scores") or [None] * len(row["scores"])
        pairs = [(s, g) for s, g in zip(row["scores"], judged, strict=True) if s is not None]
        if len(pairs) >= k:
            scored.append(pairs)
    point: dict[str, float] = {"n": k, "kl_bound": kl_bound(k)}
    if scored:
        point["reward"] = fmean(expected_best([s for s, _ in pairs], k) for pairs in scored)
    gold = [pairs for pairs in scored if all(g is not None for _, g in pairs)]
    if gold:
        point["gold"] = fmean(expected_best([s for s, _ in p], k, [g for _, g in p]) for p in gold)
    return point
