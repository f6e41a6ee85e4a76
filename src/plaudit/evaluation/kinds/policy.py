"""Policies trained with a reward: before against after on the same held-out prompts, never the training reward alone.

Where there is a gold reward (a second reward that is never trained on) it decides, because the reward that was trained
on also rises where the policy only exploits its errors (Gao et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from plaudit.errors import DataError
from plaudit.evaluation import charts
from plaudit.evaluation.kinds.policy_warnings import warnings
from plaudit.evaluation.page import INTERVAL, Chart, Figure, Kind, Verdict
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import EVALUATION, METRICS, SUMMARY, Row, merge_json, read_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import bootstrap_mean, outcomes, paired_bootstrap, share
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.ranking import spearman

REWARDS = (("gold", "Gold reward"), ("reward", "Reward"))
"""Prefix of the figures of each reward, and its name on the page."""


def card(run_dir: Path) -> Row:
    """Report card from evaluation.jsonl; merged into summary.json.

    Rows: ``{"step", "prompt_id", "k", "prompt", "response", "reward", "gold" (optional), "kl", "length",
    "finish_reason", "logprob", "ref_logprob"}``; log-probs are sums over the response in nats. The first step
    is "before"; "after" is the step named ``model_step`` in summary.json, or the last one. Rows of both are
    paired by ``prompt_id`` and ``k``; intervals are clustered by prompt.

    Returns:
        ``reward_mean``, ``reward_ci``, ``kl``, ``perplexity_ratio``, ``win_rate``, ``win_rate_ci``, and with
        ``_before`` / ``_difference`` what changed. The win rate is judged by the gold reward where there is
        one (``win_rate_judge``): the reward that was trained on rises also where the responses only please it.
        What the rows cannot give is ``None``. ``kl_coef_in_force`` is that of the last iteration that has one
        (docs/why/kl-in-force.md), and not there where no iteration has.

    Raises:
        DataError: no rows.
    """
    run_dir = Path(run_dir)
    steps = _by_step(read_lines(run_dir / EVALUATION))
    if not steps:
        raise DataError(
            "no evaluated responses",
            where=str(run_dir / EVALUATION),
            cure="train with held-out prompts: --eval-prompts above 0",
        )
    # The weights that were saved are those of the best evaluation, which need not be the last one.
    after_step = read_json(run_dir / SUMMARY).get("model_step")
    if after_step not in steps:
        after_step = max(steps)
    after = steps[after_step]
    values = {"evaluated_step": after_step} | _levels(after)
    if len(steps) > 1:
        before = steps[min(steps)]
        values |= {f"{name}_before": value for name, value in _levels(before).items()}
        values |= _changes(before, after)
    values["curve"] = [_point(step, rows) for step, rows in sorted(steps.items())]
    values |= _in_force(read_lines(run_dir / METRICS))
    clean: Row = {name: None if _is_nan(value) else value for name, value in values.items()}
    merge_json(run_dir / SUMMARY, clean)
    return clean


def _in_force(rows: Sequence[Row]) -> Row:
    """The KL coefficient in units of the reward, as it was at the end of training."""
    known = [value for row in rows if (value := row.get("objective/kl_coef_in_force")) is not None]
    return {"kl_coef_in_force": known[-1]} if known else {}


def _by_step(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows of each step. A resumed run may have written a row twice: the later one in the file counts."""
    newest = {(row["step"], row.get("prompt_id"), row.get("k", 0)): row for row in rows}
    steps: dict[int, list[Row]] = {}
    for row in newest.values():
        steps.setdefault(row["step"], []).append(row)
    return steps


def _levels(rows: Sequence[Row]) -> Row:
    """Levels of one step: rewards, KL and length with intervals, endings, diversity, perplexity."""
    values: Row = {"n": len(rows), "prompts": len({row.get("prompt_id") for row in rows})}
    for name, field in (("reward", "reward"), ("gold", "gold"), ("kl", "kl"), ("length", "length")):
        column, prompts = _column(rows, field)
        if not column:
            continue
        estimate = bootstrap_mean(column, prompts)
        values["kl" if name == "kl" else f"{name}_mean"] = estimate.value
        values[f"{name}_ci"] = list(estimate.interval)
    values.setdefault("kl", None)
    finished = [row for row in rows if row.get("finish_reason")]
    if finished:
        values["eos_rate"] = sum(row["finish_reason"] == "stop" for row in finished) / len(finished)
    texts = [str(row.get("response", "")) for row in rows]
    values |= {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2)}
    values["distinct_responses"] = len(set(texts)) / len(texts)
    scored = [row for row in rows if row.get("reward") is not None and row.get("length") is not None]
    values["reward_length_spearman"] = spearman(
        [row["reward"] for row in scored], [row["length"] for row in scored]
    )
    values["reference_perplexity"] = _perplexity(rows)
    return {name: None if _is_nan(value) else value for name, value in values.items()}


def _column(rows: Sequence[Row], field: str) -> tuple[list[float], list[Hashable]]:
    kept = [row for row in rows if row.get(field) is not None]
    return [float(row[field]) for row in kept], [row.get("prompt_id") for row in kept]


def _perplexity(rows: Sequence[Row]) -> float:
    """``exp(-sum log reference / tokens)`` over the responses; nan where the rows do not have what it takes."""
    known = [row for row in rows if row.get("ref_logprob") is not None and row.get("length")]
    tokens = sum(row["length"] for row in known)
    if not tokens:
        return math.nan
    # The bound keeps exp from overflowing where the reference gives a response practically no probability.
    return math.exp(min(-sum(row["ref_logprob"] for row in known) / tokens, 700.0))


def _changes(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Paired differences, win rate and perplexity ratio."""
    values: Row = {}
    for name in ("reward", "gold"):
        estimate = _paired(before, after, name)
        if estimate is not None:
            values[f"{name}_difference"] = estimate.value
            values[f"{name}_difference_ci"] = list(estimate.interval)
    judge = "gold" if "gold_difference" in values else "reward"
    wins = _win_rate(before, after, judge)
    values |= {
        "win_rate": wins.value,
        "win_rate_ci": list(wins.interval),
        "win_rate_judge": judge,
        "win_rate_pairs": wins.rows,
    }
    if judge == "gold":
        values["win_rate_by_reward"] = _win_rate(before, after, "reward").value
    first, last = _perplexity(before), _perplexity(after)
    values["perplexity_ratio"] = last / first if first else math.nan
    return values


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


def _paired(before: Sequence[Row], after: Sequence[Row], field: str) -> Estimate | None:
    old, new, prompts = _matched(before, after, field)
    return paired_bootstrap(old, new, prompts) if old else None


def _win_rate(before: Sequence[Row], after: Sequence[Row], field: str) -> Estimate:
    """Share of pairs in which the later response is better; ties count a half."""
    old, new, prompts = _matched(before, after, field)
    return share(outcomes([b - a for a, b in zip(old, new, strict=True)]), prompts)


def _point(step: int, rows: Sequence[Row]) -> Row:
    """One point of the curve over KL."""
    point: Row = {"step": step}
    for field in ("reward", "gold", "kl", "length"):
        column, _ = _column(rows, field)
        if column:
            point[field] = sum(column) / len(column)
    return point


def distinct(texts: Sequence[str], n: int, words: int = 50) -> float:
    """Distinct n-grams over all n-grams of the texts, each cut to ``words`` words; NaN without any.

    >>> distinct(["a b a b"], 1), round(distinct(["a b a b"], 2), 3)
    (0.5, 0.667)
    """
    # Longer texts repeat more, whatever their quality: cut to one length, texts before and after can be compared.
    grams: list[tuple[str, ...]] = []
    for text in texts:
        parts = text.split()[:words]
        grams += [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def verdict(run: Run) -> Verdict:
    """Whether the interval of the paired difference lies above or below 0, by the gold reward where there is one."""
    card = run.summary
    judge = "gold" if card.get("gold_difference") is not None else "reward"
    difference, interval = card.get(f"{judge}_difference"), card.get(f"{judge}_difference_ci")
    if difference is None or interval is None:
        if not run.metrics:
            return Verdict("flat", "Nothing was trained yet.", "The run has recorded no iteration.")
        moved = f"from {signed(run.start('reward/mean'))} to {signed(run.end('reward/mean'))}"
        return Verdict(
            "flat",
            "Not evaluated on held-out prompts.",
            f"In training the reward went {moved}; without held-out prompts this does not show that it got better.",
        )
    if card.get("evaluated_step") == 0:
        why = next((str(e.get("why", "")) for e in run.events if e.get("event") == "rolled back"), "")
        return Verdict("bad", "It was put back to where it started.", f"No evaluation was better: {why}.")
    evidence = _evidence(run, judge)
    if interval[0] > 0:
        return Verdict("good", "It got better." if judge == "gold" else "The reward rose.", evidence)
    if interval[1] < 0:
        return Verdict("bad", "It got worse." if judge == "gold" else "The reward fell.", evidence)
    return Verdict("flat", "No clear change.", evidence)


def _evidence(run: Run, judge: str) -> str:
    card = run.summary
    name = {"gold": "gold reward, on which it was never trained,", "reward": "reward"}[judge]
    before, after = number(card.get(f"{judge}_mean_before")), number(card.get(f"{judge}_mean"))
    change = signed(card.get(f"{judge}_difference"))
    interval = span(card.get(f"{judge}_difference_ci"), "signed")
    wins, wins_interval = percent(card.get("win_rate")), span(card.get("win_rate_ci"), "percent")
    kl = f", at a KL of {number(card['kl'], 1)} nats per response" if card.get("kl") is not None else ""
    text = (
        f"On {card.get('prompts')} held-out prompts the {name} went from {before} to {after}: {change}, "
        f"{INTERVAL} {interval}. Against its own start it wins {wins} of the comparisons ({wins_interval}){kl}."
    )
    if judge == "reward":
        text += (
            " This is the reward it was trained on: it shows that learning works. It does not show that the "
            "responses are better; for that, give a gold reward, or let people compare them."
        )
    return text


def training(run: Run) -> Verdict:
    """What training did: a chapter of its own on the page of several runs."""
    climb = f"{signed(run.start('reward/mean'))} to {signed(run.end('reward/mean'))}"
    kl = number(run.end("objective/kl"), 1)
    evidence = (
        f"In training the reward went from {climb}; the KL to its start reached {kl} nats per response."
    )
    # Flat whatever the reward did: that it rises in training shows that the optimizer works, and no more.
    return Verdict("flat", "It was trained on the reward.", evidence)


def figures(run: Run) -> list[Figure]:
    """Rewards, win rate and KL on held-out prompts; the training reward where nothing was evaluated."""
    card = run.summary
    if "evaluated_step" not in card:
        return [
            Figure(
                "Reward",
                signed(run.end("reward/mean")),
                f"was {signed(run.start('reward/mean'))}, in training",
            )
        ]
    items = []
    for name, label in REWARDS:
        if card.get(f"{name}_mean") is None:
            continue
        moved = span(card.get(f"{name}_difference_ci"), "signed")
        note = f"was {number(card.get(f'{name}_mean_before'))}; change {moved}" if moved else ""
        items.append(Figure(label, number(card[f"{name}_mean"]), note))
    if card.get("win_rate") is not None:
        items.append(
            Figure("Wins against its start", percent(card["win_rate"]), span(card["win_rate_ci"], "percent"))
        )
    if card.get("kl") is not None:
        items.append(
            Figure("KL to the start", number(card["kl"], 1), f"nats; {span(card.get('kl_ci'), digits=1)}")
        )
    if card.get("kl_coef_in_force") is not None:
        items.append(
            Figure("KL coefficient in force", number(card["kl_coef_in_force"], 3), "in units of the reward")
        )
    return items + _text_figures(card)


def _text_figures(card: Row) -> list[Figure]:
    """Figures of the responses themselves, each with what it was before."""
    items = []
    for name, label, say in (
        ("length_mean", "Length in tokens", partial(number, digits=1)),
        ("eos_rate", "Stops by itself", percent),
        ("distinct_2", "Distinct word pairs", percent),
    ):
        if card.get(name) is not None:
            before = card.get(f"{name}_before")
            items.append(Figure(label, say(card[name]), f"was {say(before)}" if before is not None else ""))
    if card.get("perplexity_ratio") is not None:
        items.append(
            Figure("Perplexity ratio", number(card["perplexity_ratio"]), "by the reference; 1 is unchanged")
        )
    return items


def panels(run: Run) -> list[Chart]:
    """Levels before and after with intervals, and the rewards over the KL to the start."""
    card, items = run.summary, []
    dots = []
    for name, label in REWARDS:
        if card.get(f"{name}_difference_ci"):
            low, high = card[f"{name}_ci_before"]
            dots.append(charts.Dot(f"{label} before", card[f"{name}_mean_before"], low, high, strong=False))
            dots.append(charts.Dot("after", card[f"{name}_mean"], *card[f"{name}_ci"]))
    if dots:
        svg = Markup(charts.intervals("Before and after", dots))
        caption = (
            "Means over held-out prompts, 95 % intervals. The change is taken prompt by prompt, so its interval is "
            "usually narrower than these."
        )
        items.append(Chart("Before and after, with intervals", svg, caption=caption, wide=True))
    points = [point for point in card.get("curve", []) if point.get("kl") is not None and "reward" in point]
    if len(points) > 2:
        gold = all("gold" in point for point in points)
        legend = (("accent", "gold reward"), ("second", "reward")) if gold else (("second", "reward"),)
        caption = "Each point is an evaluation. Where the gold reward turns down, training has gone too far."
        svg = Markup(charts.frontier("Reward over KL", points))
        items.append(Chart("Reward over distance", svg, caption=caption, legend=legend, wide=True))
    return items


def brief(run: Run) -> str:
    """From what to what the reward went in training."""
    return f"reward {signed(run.start('reward/mean'))} → {signed(run.end('reward/mean'))}"


POLICY = Kind(
    name="policy",
    title="Reinforcement learning",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    panels=panels,
    training=training,
    rows=EVALUATION,
    computed="evaluated_step",
    curves=(
        "reward/mean",
        "objective/kl",
        "policy/entropy",
        "response/length_mean",
        "response/eos_rate",
        "policy/clip_fraction",
        "critic/explained_variance",
        "objective/kl_coef_in_force",
        "reward/std",
    ),
    headline=("reward_difference", "gold_difference", "gold_difference_ci", "win_rate", "win_rate_ci", "kl"),
    unit="iteration",
)
