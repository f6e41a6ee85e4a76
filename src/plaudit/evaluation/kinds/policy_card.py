"""The report card of a policy: what evaluation.jsonl says of the weights that were handed out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import DataError
from plaudit.evaluation.choice import ENOUGH, difference, means_of
from plaudit.evaluation.responses.compared import ends
from plaudit.evaluation.responses.distance import distance, perplexity
from plaudit.evaluation.responses.forgetting import forgetting
from plaudit.evaluation.responses.refusals import safety
from plaudit.evaluation.responses.winning import by_judge, by_reward
from plaudit.evaluation.responses.wording import diversity, wording
from plaudit.runs.files import (
    EVALUATION,
    EVENTS,
    FORGETTING,
    JUDGED,
    METRICS,
    RED_TEAM,
    SUMMARY,
    Row,
    merge_json,
    read_json,
    read_lines,
)
from plaudit.runs.reading import standing
from plaudit.statistics.clustered import mean_over
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.ranking import spearman

REWARDS = (("gold", "Gold reward"), ("reward", "Reward"))
"""Prefix of the figures of each reward, and its name on the page."""


def card(run_dir: Path) -> Row:
    """Report card from evaluation.jsonl; merged into summary.json.

    Rows: ``{"step", "set", "seed", "prompt_id", "k", "prompt", "response", "reward", "gold" (optional), "kl", "length",
    "finish_reason", "logprob", "ref_logprob"}``; log-probs are sums over the response in nats. Rows of the set "final"
    judge: of prompts by which nothing was chosen. Their first step is "before"; "after" is the step named
    ``model_step`` in summary.json. Rows of the set "selection" make the curve. Rows of the first release have no set:
    there the same rows chose and judge. Intervals are over prompts, the two sides paired by prompt.

    Returns:
        ``verdict`` ("better", "no_change", "worse" or "too_few"; None where nothing has judged the weights),
        ``reward_mean``, ``reward_ci``, ``kl``, ``perplexity_ratio``, ``win_rate``, ``win_rate_ci``, and with
        ``_before`` / ``_difference`` what changed; ``gold_start``, ``gold_model``, ``gold_peak`` with ``_ci``, and
        ``gold_peak_step`` (``reward_...`` likewise). The win rate is judged by the gold reward where there is
        one (``win_rate_judge``): the reward that was trained on rises also where the responses only please it.
        Beside these stand what `plaudit.evaluation.responses` measures: of the same rows how it wins at equal length,
        how far it went and how it writes; of the files of an evaluation after the run (judged.jsonl, forgetting.jsonl,
        red_team.jsonl) what a judge of pairs says, what it has forgotten and what it refuses.
        ``alarms`` are those of events.jsonl that still stand, ``early`` where nothing was lost yet. What the rows
        cannot give is ``None``. ``kl_coef_in_force`` is that of the last iteration that has one, and not there where
        none has. ``prompts_in_training``, ``prompts_in_choice``: how many of the judging prompts it was trained on, and
        how many have chosen its weights; ``judged_apart`` where that is none of them.

    Raises:
        DataError: no rows.
    """
    run_dir = Path(run_dir)
    rows = newest(read_lines(run_dir / EVALUATION))
    if not rows:
        raise DataError(
            "no evaluated responses", where=str(run_dir / EVALUATION),
            cure="train with held-out prompts: --eval-prompts above 0",
        )  # fmt: skip
    divided = any("set" in row for row in rows)
    steps = _by_step([row for row in rows if row.get("set") == "final"] if divided else rows)
    watched = _by_step([row for row in rows if row.get("set") == "selection"] if divided else rows)
    summary = read_json(run_dir / SUMMARY)
    # The weights that were saved are those of the best evaluation, which need not be the last one.
    after_step = summary.get("model_step")
    if after_step not in steps:
        after_step = None if divided else max(steps)
    values: Row = {"evaluated_step": after_step} | _known(rows, summary)
    if after_step is None:
        values |= _levels(watched[max(watched)]) if watched else {}
    else:
        before, after = _with_gold_on_both(steps[min(steps)], steps[after_step])
        values |= _levels(after)
        if len(steps) > 1 or divided:
            values |= {f"{name}_before": value for name, value in _levels(before).items()}
            values |= _changes(before, after)
            values |= wording(before, steps[after_step]) | distance(before, steps[after_step])
        values |= _levels_of_rewards(steps, after_step, summary.get("peak_step"))
    values |= _of_gold(rows) | {"chosen_by": len({row.get("prompt_id") for some in watched.values() for row in some})}
    values["curve"] = [_point(step, rows) for step, rows in sorted(watched.items())]
    values["verdict"] = judged(values)
    values |= _measured_beside(run_dir) | _in_force(read_lines(run_dir / METRICS))
    values["alarms"] = _alarms(read_lines(run_dir / EVENTS))
    clean: Row = {name: None if _is_nan(value) else value for name, value in values.items()}
    merge_json(run_dir / SUMMARY, clean)
    return clean


def _measured_beside(run_dir: Path) -> Row:
    """What an evaluation after the run measures besides its responses; nothing of it in a run itself."""
    judgements = read_lines(run_dir / JUDGED)
    values = by_judge(judgements) if judgements else {}
    return values | forgetting(read_lines(run_dir / FORGETTING)) | safety(read_lines(run_dir / RED_TEAM))


def _alarms(events: Sequence[Row]) -> list[Row]:
    alarms = [row for row in standing(events) if row.get("event") == "alarm" and row.get("kind")]
    return [{"kind": row["kind"], "step": row.get("step"), "early": bool(row.get("early"))} for row in alarms]


def _known(rows: Sequence[Row], summary: Row) -> Row:
    """Of the prompts that judge: how many it was trained on, and how many have chosen its weights; None: unknown."""
    sides = {name: {row.get("prompt_id") for row in rows if row.get("set") == name} for name in ("final", "selection")}
    # A single held-out prompt is on both sides. A run holds its own prompts apart; `evaluate_again` takes any.
    known = {"in_training": 0, "in_choice": len(sides["final"] & sides["selection"])} | summary.get("known_prompts", {})
    apart = any("set" in row for row in rows) and set(known.values()) == {0}
    return {"judged_apart": apart} | {f"prompts_{name}": count for name, count in known.items()}


def newest(rows: Sequence[Row]) -> list[Row]:
    """The rows of evaluation.jsonl, each once: a resumed run may have written a row twice, and the later one counts."""
    found = {(row.get("set"), row["step"], row.get("prompt_id"), row.get("k", 0)): row for row in rows}
    return list(found.values())


def _by_step(rows: Sequence[Row]) -> dict[int, list[Row]]:
    steps: dict[int, list[Row]] = {}
    for row in rows:
        steps.setdefault(row["step"], []).append(row)
    return steps


def _of_gold(rows: Sequence[Row]) -> Row:
    """How often the gold reward failed, and whether it tells responses apart; nothing where there is none."""
    asked = [row["gold"] for row in rows if "gold" in row]
    if not asked:
        return {}
    known = [value for value in asked if value is not None]
    # Runs of before wrote no "gold" where it failed, so the share is of all rows.
    return {"gold_error_share": 1 - len(known) / len(rows), "gold_constant": len(set(known)) == 1 < len(known)}


def _with_gold_on_both(before: Sequence[Row], after: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows of two steps; the gold values only of prompts that have one on both sides, so that levels compare."""
    both = means_of(before, "gold").keys() & means_of(after, "gold").keys()
    if before is after or not both:
        return before, after
    first, second = (
        [row if str(row.get("prompt_id")) in both else row | {"gold": None} for row in rows] for rows in (before, after)
    )
    return first, second


def _levels_of_rewards(steps: Mapping[int, Sequence[Row]], model: int, peak: int | None) -> Row:
    """``gold_start``, ``gold_peak``, ``gold_model`` and the same of the reward, with intervals over prompts."""
    at = {"start": min(steps), "model": model, "peak": peak if peak is not None and peak in steps else model}
    values: Row = {}
    for name, _ in REWARDS:
        for when, step in at.items():
            means = means_of(steps[step], name)
            if means:
                estimate = mean_over(list(means.values()))
                values |= {f"{name}_{when}": estimate.value, f"{name}_{when}_ci": ends(estimate)}
                values |= {f"{name}_peak_step": at["peak"]}
    return values


def judged(card: Row) -> str | None:
    """The verdict in one word, by the paired interval of the gold reward, or of the reward where there is no gold."""
    judge = "gold" if card.get("gold_difference") is not None else "reward"
    if card.get(f"{judge}_difference") is None:
        return None
    if card.get("evaluated_step") == 0:
        return "no_change"  # put back to its start: nothing was gained, and nothing is compared
    interval = card.get(f"{judge}_difference_ci")
    if compared(card, judge) < ENOUGH or interval is None:
        return "too_few"
    return "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "no_change"


def compared(card: Row, judge: str) -> int:
    """Prompts on which a reward has judged both sides; a gold reward may have failed on the others."""
    return int(card.get(f"{judge}_difference_prompts") or card.get("prompts") or 0)


def _in_force(rows: Sequence[Row]) -> Row:
    """The KL coefficient in units of the reward, as it was at the end of training."""
    known = [value for row in rows if (value := row.get("objective/kl_coef_in_force")) is not None]
    return {"kl_coef_in_force": known[-1]} if known else {}


def _levels(rows: Sequence[Row]) -> Row:
    """Levels of one step: rewards, KL and length with intervals, endings, diversity, perplexity."""
    values: Row = {"n": len(rows), "prompts": len({row.get("prompt_id") for row in rows})}
    for name, field in (("reward", "reward"), ("gold", "gold"), ("kl", "kl"), ("length", "length")):
        column, prompts = _column(rows, field)
        if not column:
            continue
        estimate = mean_over(column, prompts)
        values["kl" if name == "kl" else f"{name}_mean"] = estimate.value
        values[f"{name}_ci"] = ends(estimate)
    values.setdefault("kl", None)
    finished = [row for row in rows if row.get("finish_reason")]
    if finished:
        values["eos_rate"] = sum(row["finish_reason"] == "stop" for row in finished) / len(finished)
    values |= diversity(rows)
    scored = [row for row in rows if row.get("reward") is not None and row.get("length") is not None]
    values["reward_length_spearman"] = spearman(
        [row["reward"] for row in scored], [row["length"] for row in scored]
    )
    values["reference_perplexity"] = perplexity(rows, "ref_logprob")
    return {name: None if _is_nan(value) else value for name, value in values.items()}


def _column(rows: Sequence[Row], field: str) -> tuple[list[float], list[Hashable]]:
    kept = [row for row in rows if row.get(field) is not None]
    return [float(row[field]) for row in kept], [row.get("prompt_id") for row in kept]


def _changes(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Paired differences, win rate and perplexity ratio."""
    values: Row = {}
    for name in ("reward", "gold"):
        estimate = _paired(before, after, name)
        if estimate is not None:
            values[f"{name}_difference"] = estimate.value
            values[f"{name}_difference_ci"] = ends(estimate)
            values[f"{name}_difference_prompts"] = estimate.n
    judge = "gold" if "gold_difference" in values else "reward"
    values |= by_reward(before, after, judge) | {"win_rate_judge": judge}
    if judge == "gold" and "reward_difference" in values:
        values["win_rate_by_reward"] = by_reward(before, after, "reward")["win_rate"]
    first, last = (perplexity(rows, "ref_logprob") for rows in (before, after))
    values["perplexity_ratio"] = last / first if first else math.nan
    return values


def _paired(before: Sequence[Row], after: Sequence[Row], field: str) -> Estimate | None:
    """The change of a column, prompt by prompt; None where no prompt has it on both sides."""
    old, new = means_of(before, field), means_of(after, field)
    return difference(old, new) if old.keys() & new.keys() else None


def _point(step: int, rows: Sequence[Row]) -> Row:
    """One point of the curve over KL."""
    point: Row = {"step": step}
    for field in ("reward", "gold", "kl", "length"):
        column, _ = _column(rows, field)
        if column:
            point[field] = sum(column) / len(column)
    return point


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
