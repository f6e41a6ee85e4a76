"""Best-of-n without training: what choosing is worth for each n, by the reward and by the gold reward.

The reward that chooses rises by construction, whatever it pays for. So only a gold reward, by which nothing is chosen,
can say that the best response is better than one sample.

Best-of-n in rounds trains a policy; such a run is evaluated as one, see `plaudit.evaluation.kinds.policy`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from plaudit.errors import DataError
from plaudit.evaluation import charts
from plaudit.evaluation.alarms import texts
from plaudit.evaluation.alarms.texts import ENOUGH_TEXTS, Texts
from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.page import INTERVAL, Chart, Figure, Kind, Tone, Verdict
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.functional.best_of_n import expected_best, kl_bound, win_rate_bound
from plaudit.runs.files import BEST, PAIRS, SUMMARY, Row, merge_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import mean_over, outcomes, share

DETECTORS = (texts.phrase, texts.surface, texts.length, texts.repetition)
"""What is looked for in the best responses against the worst."""
LOOK = "This may be what you want, or a weakness of the reward: read the samples"
BY_LENGTH = 0.5
"""Correlation within prompts, either way."""
FAILED, TIED, CUT = 0.01, 0.5, 0.05
"""Shares above which it is said: of failed responses, of prompts without a choice, of best responses cut off."""


def card(run_dir: Path) -> Row:
    """Report card from best.jsonl, merged into summary.json.

    Rows: ``{"prompt_id", "scores": [n], "lengths": [n], "best": index, "one_score"}`` and with a gold reward
    ``"gold_scores": [n], "one_gold"``. A score is the reward less the penalty for a missing end; None: it failed.

    Returns:
        ``reward_mean`` of one sample, ``reward_best``, ``reward_gain`` and its interval over prompts, the same for
        ``gold``; ``win_rate`` of the best against one further sample, and of ``gold_win_rate``; ``kl_bound`` and
        ``win_rate_bound``; ``curve``: the unbiased expectation for each n, with its KL bound. ``verdict`` by the gold
        reward ("better", "no_change", "worse" or "too_few"; None without one). ``gold_prompts``: with a value of the
        gold reward. ``failed_share`` and ``gold_failed_share`` of the responses; ``tied_share`` and
        ``gold_tied_share`` of the prompts: all responses are worth the same; ``cut_share`` of the best responses;
        ``length_correlation`` of reward and length among responses to the same prompt.

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
        values |= _worth(rows, name, field, one) | _health(rows, name, field)
    values |= {
        "kl_bound": kl_bound(n),
        "win_rate_bound": win_rate_bound(n),
        "length_best": fmean(row["lengths"][row["best"]] for row in rows),
        "length_mean": fmean(fmean(row["lengths"]) for row in rows),
        "length_correlation": _length_correlation(rows),
        "cut_share": fmean(row.get("finish_reason") == "length" for row in rows),
        "curve": [_point(rows, k) for k in _powers(n)],
    }
    values["verdict"] = judged(values)
    merge_json(run_dir / SUMMARY, values)
    return values


def judged(card: Row) -> str | None:
    """The verdict in one word, by the interval of the gold reward's gain; None without a gold reward."""
    gain = card.get("gold_gain_ci")
    if gain is None:
        return None
    if (card.get("gold_prompts") or card.get("prompts") or 0) < ENOUGH:
        return "too_few"
    return "better" if gain[0] > 0 else "worse" if gain[1] < 0 else "no_change"


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
        f"{name}_prompts": len(known),
        f"{prefix}win_rate": wins.value,
        f"{prefix}win_rate_ci": list(wins.interval),
    }


def _health(rows: Sequence[Row], name: str, field: str) -> dict[str, float]:
    """How often a reward failed, and on how many prompts it told no response from another."""
    scored = [row[field] for row in rows if row.get(field)]
    if not scored:
        return {}
    values = [value for scores in scored for value in scores]
    prefix = "" if name == "reward" else f"{name}_"
    return {
        f"{prefix}failed_share": fmean(value is None for value in values),
        f"{prefix}tied_share": fmean(len({value for value in scores if value is not None}) < 2 for scores in scored),
    }


def _length_correlation(rows: Sequence[Row]) -> float | None:
    """Of reward and tokens, among responses to the same prompt; None where one of the two never differs."""
    pairs: list[tuple[float, float]] = []
    for row in rows:
        known = [(s, length) for s, length in zip(row["scores"], row["lengths"], strict=True) if s is not None]
        means = [fmean(column) for column in zip(*known, strict=True)]
        pairs += [(score - means[0], length - means[1]) for score, length in known]
    scores, lengths = (sum(pair[side] ** 2 for pair in pairs) for side in (0, 1))
    return sum(s * length for s, length in pairs) / math.sqrt(scores * lengths) if scores * lengths > 0 else None


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
    """Whether the best response is better than one sample, by the gold reward; without one that is not known."""
    card = run.summary
    gain, interval, n = card.get("reward_gain"), card.get("reward_gain_ci"), card.get("n")
    if gain is None or interval is None:
        return Verdict("flat", "Not finished.", "No responses were compared yet.")
    rose = f"{signed(gain)} against one sample, {INTERVAL} {span(interval, 'signed')}"
    kl = f"at a KL of at most {number(card.get('kl_bound'))} nats"
    wins = f"{percent(card.get('win_rate'))} of the comparisons with one further sample by the reward"
    if card.get("gold_gain") is None:
        mend = "mend the gold reward, which gave no value"
        evidence = (
            f"Over {card.get('prompts')} prompts the reward is higher by {rose}, {kl}, and wins {wins}. It chose these "
            "responses, so this would be so whatever it pays for. It does not show that they are better; for that, "
            f"{mend if _gold_failed(card) else 'give a gold reward (--gold)'}, or let people compare them."
        )
        return Verdict("flat", f"The best of {n} has more of the reward that chose it.", evidence)
    found = judged(card)
    some = card.get("gold_prompts", card.get("prompts"))
    of_all = f" of {card.get('prompts')}" if some != card.get("prompts") else ""
    evidence = (
        f"Over {some}{of_all} prompts the gold reward, by which nothing was chosen, changed by "
        f"{signed(card['gold_gain'])} against one sample, {INTERVAL} {span(card['gold_gain_ci'], 'signed')}, {kl}. By "
        f"it the best wins {percent(card.get('gold_win_rate'))} of the comparisons with one further sample. The reward "
        f"that chose is higher by {rose}, and wins {wins}: that is so whatever it pays for."
    )
    if found == "too_few":
        evidence += f" With fewer than {ENOUGH} prompts no difference can be told from chance."
    headline: dict[str | None, tuple[Tone, str]] = {
        "better": ("good", f"The best of {n} is better than one sample."),
        "worse": ("bad", f"The best of {n} is worse than one sample."),
        "too_few": ("flat", "Too few prompts to say."),
    }
    tone, words = headline.get(found, ("flat", f"The best of {n} may be no better than one sample."))
    return Verdict(tone, words, evidence)


def warnings(run: Run) -> list[str]:
    """Signs that the reward pays for something else, and of what was not scored, most serious first."""
    card, messages = run.summary, []
    gold, reward = card.get("gold_gain_ci"), card.get("reward_gain_ci")
    if gold and reward and reward[0] > 0 and gold[1] < 0:
        messages.append(
            f"Over-optimised: choosing by the reward raised it ({signed(card.get('reward_gain'))}) and lowered the "
            f"gold reward ({signed(card.get('gold_gain'))}). More responses make it worse: mend the reward."
        )
    by_length = card.get("length_correlation")
    if by_length is not None and abs(by_length) > BY_LENGTH:
        messages.append(
            f"The reward goes by length: among responses to the same prompt its correlation with the number of tokens "
            f"is {signed(by_length)}. The best have {number(card.get('length_best'), 0)} tokens, one sample has "
            f"{number(card.get('length_mean'), 0)}."
        )
    best, worst = _best_and_worst(run)
    # Where the gold reward is clearly higher it has decided: then such a difference is what was wanted.
    if len(best) >= ENOUGH_TEXTS and judged(card) != "better":
        found = [words for detect in DETECTORS if (words := detect(worst, best))]
        messages += [f"{_of_the_worst(words)}. {LOOK}." for words in found]
    for name, label in (("", "reward"), ("gold_", "gold reward")):
        if (card.get(f"{name}failed_share") or 0.0) > FAILED:
            messages.append(f"The {label} failed on {percent(card[f'{name}failed_share'], 1)} of the responses.")
    if (card.get("tied_share") or 0.0) > TIED:
        messages.append(
            f"On {percent(card['tied_share'])} of the prompts all responses have the same reward, so that nothing was "
            "chosen there."
        )
    if (card.get("cut_share") or 0.0) > CUT:
        messages.append(f"{percent(card['cut_share'])} of the best responses were cut off at max_new_tokens.")
    return messages


def unchecked(run: Run) -> list[str]:
    """What needs a gold reward, or more prompts."""
    card, missing = run.summary, []
    if card.get("reward_gain") is None:
        return ["everything about its responses (none were compared)"]
    if card.get("gold_gain") is None:
        why = "the gold reward gave no value" if _gold_failed(card) else "there is no gold reward: --gold"
        missing.append(f"whether the best is better, or exploits the reward ({why})")
    elif card.get("gold_tied_share") == 1:
        missing.append("whether the best is better (the gold reward gave all responses to a prompt the same value)")
    if card.get("prompts", 0) < ENOUGH:
        missing.append(f"any change at all (fewer than {ENOUGH} prompts judge it)")
    if len(_best_and_worst(run)[0]) < ENOUGH_TEXTS:
        few = f"fewer than {ENOUGH_TEXTS} prompts had a best and a worst response"
        missing.append(f"what the reward pays for in the texts ({few})")
    return missing


def _gold_failed(card: Row) -> bool:
    """Whether there is a gold reward, and it gave no value at all."""
    return card.get("gold_failed_share") == 1


def _best_and_worst(run: Run) -> tuple[Texts, Texts]:
    """The best and the worst response to each prompt where they differ in the reward."""
    rows = read_lines(run.path / PAIRS)
    return Texts(tuple(row["chosen"] for row in rows)), Texts(tuple(row["rejected"] for row in rows))


def _of_the_worst(words: str) -> str:
    """What a detector says, which compares with the start of a run, of best and worst responses."""
    words = words.replace("at the start", "among the worst").replace("of the start", "of the worst")
    return f"Of the best responses: {words}"


def figures(run: Run) -> list[Figure]:
    """Reward of the best, wins against one sample, and the KL that it costs at most."""
    card, items = run.summary, []
    for name, label in (("gold", "Gold reward"), ("reward", "Reward")):
        if card.get(f"{name}_gain") is not None:
            note = f"of one sample {number(card[f'{name}_mean'])}; gain {span(card.get(f'{name}_gain_ci'), 'signed')}"
            items.append(Figure(f"{label} of the best", number(card[f"{name}_best"]), note))
    if card.get("win_rate") is not None:
        bound = f"by the reward; expected: at most {percent(card.get('win_rate_bound'))}"
        if card.get("gold_win_rate") is not None:
            wins = span(card.get("gold_win_rate_ci"), "percent")
            items.append(Figure("Wins by the gold reward", percent(card["gold_win_rate"]), wins))
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
    warnings=warnings,
    unchecked=unchecked,
    panels=panels,
    rows=BEST,
    computed="curve",
    headline=("reward_gain", "reward_gain_ci", "gold_gain", "gold_gain_ci", "win_rate", "win_rate_ci"),
)
