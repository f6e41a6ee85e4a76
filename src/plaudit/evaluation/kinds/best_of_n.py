"""Best-of-n without training: what choosing is worth for each n, by the reward and by the gold reward.

Best-of-n in rounds trains a policy; such a run is evaluated as one, see `plaudit.evaluation.kinds.policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from plaudit.errors import DataError
from plaudit.evaluation import charts
from plaudit.evaluation.page import INTERVAL, Chart, Figure, Kind, Verdict
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.functional.best_of_n import expected_best, kl_bound, win_rate_bound
from plaudit.runs.files import BEST, SUMMARY, Row, merge_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import mean_over, outcomes, share


def card(run_dir: Path) -> Row:
    """Report card from best.jsonl, merged into summary.json.

    Rows: ``{"prompt_id", "scores": [n], "lengths": [n], "best": index, "one_score"}`` and with a gold reward
    ``"gold_scores": [n], "one_gold"``. A score is the reward less the penalty for a missing end; None: it failed.

    Returns:
        ``reward_mean`` of one sample, ``reward_best``, ``reward_gain`` and its interval over prompts, the same for
        ``gold``; ``win_rate`` of the best against one further sample, and of ``gold_win_rate``; ``kl_bound`` and
        ``win_rate_bound``; ``curve``: the unbiased expectation for each n, with its KL bound.

    Raises:
        DataError: no rows.
    """
    run_dir = Path(run_dir)
    rows = read_lines(run_dir / BEST)
    if not rows:
        raise DataError(
            "no prompt was answered",
            where=str(run_dir / BEST),
            cure="look for failed rewards in the run",
        )
    n = max(len(row["scores"]) for row in rows)
    values: dict[str, Any] = {"n": n, "prompts": len(rows)}
    for name, field, one in (("reward", "scores", "one_score"), ("gold", "gold_scores", "one_gold")):
        values |= _worth(rows, name, field, one)
    values |= {
        "kl_bound": kl_bound(n),
        "win_rate_bound": win_rate_bound(n),
        "length_best": fmean(row["lengths"][row["best"]] for row in rows),
        "length_mean": fmean(fmean(row["lengths"]) for row in rows),
        "curve": [_point(rows, k) for k in _powers(n)],
    }
    merge_json(run_dir / SUMMARY, values)
    return values


def _worth(rows: Sequence[Row], name: str, field: str, one: str) -> dict[str, Any]:
    """Level, gain and wins by one reward; nothing where it gave no score."""
    known = [row for row in rows if row.get(field) and row[field][row["best"]] is not None]
    if not known:
        return {}
    best = [row[field][row["best"]] for row in known]
    mean = [fmean(value for value in row[field] if value is not None) for row in known]
    gain = mean_over([b - m for b, m in zip(best, mean, strict=True)])
    # The opponent is a sample that took no part in the choice: against one of the n, the best would win by
    # construction (it is one of them, and the highest).
    against = [(b, row[one]) for b, row in zip(best, known, strict=True) if row.get(one) is not None]
    wins = share(outcomes([b - other for b, other in against]))
    prefix = "" if name == "reward" else f"{name}_"
    return {
        f"{name}_mean": fmean(mean),
        f"{name}_best": fmean(best),
        f"{name}_gain": gain.value,
        f"{name}_gain_ci": list(gain.interval),
        f"{prefix}win_rate": wins.value,
        f"{prefix}win_rate_ci": list(wins.interval),
    }


def _powers(n: int) -> list[int]:
    """1, 2, 4 ... and n."""
    return sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})


def _point(rows: Sequence[Row], k: int) -> dict[str, float]:
    """The expected reward of the best of k, over the prompts with at least so many scored responses."""
    scored = []
    for row in rows:
        gold_scores = row.get("gold_scores") or [None] * len(row["scores"])
        pairs = [(s, g) for s, g in zip(row["scores"], gold_scores, strict=True) if s is not None]
        if len(pairs) >= k:
            scored.append(pairs)
    point: dict[str, float] = {"n": k, "kl_bound": kl_bound(k)}
    if scored:
        point["reward"] = fmean(expected_best([s for s, _ in pairs], k) for pairs in scored)
    gold = [pairs for pairs in scored if all(g is not None for _, g in pairs)]
    if gold:
        point["gold"] = fmean(expected_best([s for s, _ in p], k, [g for _, g in p]) for p in gold)
    return point


def verdict(run: Run) -> Verdict:
    """Whether the gain against one sample is positive, by the gold reward where there is one."""
    card = run.summary
    # The reward that chooses gains by construction; a reward that did not choose shows whether it chose well.
    name = "gold" if card.get("gold_gain") is not None else "reward"
    words = "gold reward" if name == "gold" else "reward"
    gain, interval, n = card.get(f"{name}_gain"), card.get(f"{name}_gain_ci"), card.get("n")
    if gain is None or interval is None:
        return Verdict("flat", "Not finished.", "No responses were compared yet.")
    evidence = (
        f"Over {card.get('prompts')} prompts the {words} rose by {signed(gain)} against one sample, {INTERVAL} "
        f"{span(interval, 'signed')}, at a KL of at most {number(card.get('kl_bound'))} nats. "
        f"It wins {percent(card.get('win_rate'))} of the comparisons with one sample by the reward."
    )
    if interval[0] > 0:
        return Verdict("good", f"The best of {n} is better than one sample.", evidence)
    return Verdict("flat", f"The best of {n} may be no better than one sample.", evidence)


def figures(run: Run) -> list[Figure]:
    """Reward of the best, wins against one sample, and the KL that it costs at most."""
    card, items = run.summary, []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        if card.get(f"{name}_gain") is not None:
            note = f"of one sample {number(card[f'{name}_mean'])}; gain {span(card.get(f'{name}_gain_ci'), 'signed')}"
            items.append(Figure(f"{label} of the best", number(card[f"{name}_best"]), note))
    if card.get("win_rate") is not None:
        bound = f"expected: at most {percent(card.get('win_rate_bound'))}"
        items += [
            Figure("Wins against one sample", percent(card["win_rate"]), bound),
            Figure("KL, at most", number(card.get("kl_bound")), "nats per response"),
        ]
    return items


def panels(run: Run) -> list[Chart]:
    """The expected reward for each n: one curve for each reward."""
    points, items = run.summary.get("curve") or [], []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        known = [point for point in points if point.get(name) is not None]
        if len(known) > 1:
            series = [charts.Series([p["n"] for p in known], [p[name] for p in known], sparse=True)]
            svg = Markup(charts.line(f"{label} of the best of n", series, x_label="n"))
            caption = "The expectation for each n, computed from all samples at once; chosen by the reward."
            items.append(Chart(f"{label} of the best of n", svg, caption=caption))
    return items


def brief(run: Run) -> str:
    """The gain of the reward."""
    return f"{signed(run.summary.get('reward_gain'))} by the best of {run.summary.get('n')}"


BEST_OF_N = Kind(
    name="best_of_n",
    title="Best of n",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    panels=panels,
    rows=BEST,
    computed="curve",
)
