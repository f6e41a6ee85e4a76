"""Reward models on a published benchmark: what they reach by its own rule, beside chance and length alone."""

from __future__ import annotations

from markupsafe import Markup

from plaudit.data.benchmarks.names import NO_WINNER
from plaudit.evaluation import charts
from plaudit.evaluation.benchmarks.card import card
from plaudit.evaluation.benchmarks.table import own_table
from plaudit.evaluation.page import ENOUGH_PAIRS, INTERVAL, Chart, Figure, Kind, Verdict
from plaudit.evaluation.words import percent, signed, span
from plaudit.runs.files import BENCHMARK as ROWS
from plaudit.runs.reading import Run


def verdict(run: Run) -> Verdict:
    """Whether the score is above chance, and above what a rule on length alone reaches."""
    figures = run.summary
    score, interval = figures.get("benchmark_score"), figures.get("benchmark_score_ci")
    title, missing = figures.get("benchmark_title"), figures.get("benchmark_missing") or []
    if score is None or interval is None:
        evidence = "What is in the file is scored by itself: no section of the benchmark could be."
        return Verdict("flat", f"It has no score on {title}.", evidence)
    evidence = (
        f"The {INTERVAL} is {span(interval, 'percent')}, over {figures['benchmark_prompts']} prompts. Scores without "
        f"meaning would reach {percent(figures['benchmark_chance'])}, and always taking the "
        f"{figures['benchmark_length_rule']} response {percent(figures['benchmark_length_score'])}."
    )
    if votes := figures["benchmark_left_out"].get(NO_WINNER):
        evidence += f" {votes} votes without a winner do not count."
    if missing:
        evidence += f" It is the mean of what is there: {', '.join(missing)} {_is_are(missing)} not in the file."
    over = figures.get("benchmark_over_length_ci")
    if figures["benchmark_prompts"] < ENOUGH_PAIRS:
        return Verdict("flat", "Too few prompts to say.", f"It scores {percent(score, 1)} on {title}. {evidence}")
    if interval[0] <= figures["benchmark_chance"]:
        return Verdict("bad", f"It may choose no better than chance on {title}.", evidence)
    if over is not None and over[0] <= 0:
        return Verdict("flat", f"It scores {percent(score, 1)} on {title}, but so might length alone.", evidence)
    return Verdict("good", f"It scores {percent(score, 1)} on {title}.", evidence)


def _is_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def warnings(run: Run) -> list[str]:
    """What keeps the score from being compared with published ones, and signs that it says little."""
    figures, messages = run.summary, []
    missing, unknown = figures.get("benchmark_missing"), figures.get("benchmark_unknown")
    left_out = {why: n for why, n in (figures.get("benchmark_left_out") or {}).items() if why != NO_WINNER}
    if missing:
        messages.append(
            f"Not the whole benchmark: {', '.join(missing)} {_is_are(missing)} missing. Published scores are over all."
        )
    if unknown:
        messages.append(
            f"Subsets that the benchmark does not have, scored by themselves and not part of its score: "
            f"{', '.join(unknown)}."
        )
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        messages.append(f"Rows were left out, because a response is too long: {reasons}. Published scores have them.")
    if cut := figures.get("benchmark_cut"):
        messages.append(f"Prompts were cut to fit the model's length: {cut}. Published scores are of whole prompts.")
    interval, chance = figures.get("benchmark_score_ci"), figures.get("benchmark_chance")
    over = figures.get("benchmark_over_length_ci")
    if interval and interval[0] <= chance:
        messages.append(f"Its {INTERVAL} contains chance, {percent(chance)}.")
    elif over and over[0] <= 0:
        messages.append(f"It is not clearly better than a rule on length alone ({span(over, 'signed')}).")
    return messages


def figures(run: Run) -> list[Figure]:
    """The score beside that of length alone, and the sections."""
    summary = run.summary
    if summary.get("benchmark_score") is None:
        return []
    sections = [row for row in summary["benchmark_table"] if row["level"] == "section"]
    return [
        Figure("Score", percent(summary["benchmark_score"], 1), span(summary["benchmark_score_ci"], "percent")),
        Figure(
            "Length alone",
            percent(summary["benchmark_length_score"], 1),
            f"the {summary['benchmark_length_rule']} response; {signed(summary['benchmark_over_length'])} above it",
        ),
        *(Figure(row["name"], percent(row["score"], 1), span(row["score_ci"], "percent")) for row in sections),
    ]


def panels(run: Run) -> list[Chart]:
    """The score and its sections with intervals."""
    rows = [row for row in run.summary.get("benchmark_table") or [] if row["level"] != "subset"]
    if not rows:
        return []
    dots = []
    for row in rows:
        low, high = row["score_ci"]
        dots.append(charts.Dot(row["name"], row["score"], low, high, strong=row["level"] == "overall"))
    chances = {round(row["chance"], 3) for row in rows}
    reference = chances.pop() if len(chances) == 1 else None
    svg = Markup(charts.intervals("Scores by section", dots, share=True, reference=reference))
    caption = "95 % intervals, over prompts." + (" The dashed line is chance." if reference is not None else "")
    return [Chart("Score by section", svg, caption=caption, wide=True)]


def brief(run: Run) -> str:
    """The score."""
    return f"{percent(run.summary.get('benchmark_score'), 1)} on {run.summary.get('benchmark_title')}"


BENCHMARK = Kind(
    name="benchmark",
    title="Reward model on a benchmark",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    panels=panels,
    tables=own_table,
    rows=ROWS,
    computed="benchmark_table",
    headline=("benchmark_score", "benchmark_score_ci"),
    step="Benchmark",
)
