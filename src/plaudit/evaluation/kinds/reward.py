"""Reward models: do they rank as people do, is it more than length, and do they know how sure they may be?"""

from __future__ import annotations

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.benchmarks.table import tables_below
from plaudit.evaluation.kinds.reward_card import card
from plaudit.evaluation.page import INTERVAL, NOT_EVALUATED, Chart, Figure, Kind, Verdict
from plaudit.evaluation.reward_model.shortcuts import WAYS
from plaudit.evaluation.reward_model.warnings import unchecked, warnings
from plaudit.evaluation.words import number, percent, span
from plaudit.runs.files import HELDOUT, Row
from plaudit.runs.reading import Run


def verdict(run: Run) -> Verdict:
    """Whether the accuracy is above one half, and above what the length alone reaches."""
    card = run.summary
    accuracy, interval = card.get("accuracy"), card.get("accuracy_ci")
    if accuracy is None or interval is None:
        return NOT_EVALUATED
    rule, baseline = _length_rule(card)
    start = ""
    if card.get("heldout_loss_before") is not None:
        change = span(card.get("heldout_loss_difference_ci"), "signed", 3)
        start = (
            f" Before training it ranked {percent(card.get('accuracy_before'))} right; the held-out loss went from "
            f"{number(card['heldout_loss_before'], 3)} to {number(card.get('heldout_loss'), 3)}"
            f"{f' ({change})' if change else ''}."
        )
    words = ""
    if card.get("words_baseline_accuracy") is not None:
        words = f", a bag of words fitted on the training rows {percent(card['words_baseline_accuracy'])}"
    evidence = (
        f"The {INTERVAL} is {span(interval, 'percent')}, on {card.get('heldout_pairs')} held-out rows.{start} "
        f"{rule} would be right {percent(baseline)} of the time{words}. "
        f"Kendall’s τ is {number(card.get('kendall_tau'))}."
    )
    over = card.get("over_length_baseline_ci")
    if card.get("verdict") == "too_few":
        return Verdict("flat", "Too few held-out pairs to say.", evidence)
    if interval[0] <= 0.5:
        return Verdict("bad", "It may rank no better than chance.", evidence)
    if over is not None and over[0] <= 0:
        return Verdict("flat", f"It ranks {percent(accuracy)} right, but so might length alone.", evidence)
    return Verdict("good", f"It ranks {percent(accuracy)} of unseen pairs as the annotators did.", evidence)


def _length_rule(card: Row) -> tuple[str, float | None]:
    """The rule on length alone that does best on the held-out rows, in words, and its accuracy."""
    accuracy = card.get("length_baseline_accuracy")
    if card.get("kendall_tau_from") == "labels" or accuracy is None:
        return "The best rule on length", accuracy
    if accuracy >= 0.5:
        return "Always taking the longer one", accuracy
    return "Always taking the shorter one", 1 - accuracy


def figures(run: Run) -> list[Figure]:
    """Accuracy beside that of words and length alone, the best of several, rank correlation, calibration."""
    card = run.summary
    if card.get("accuracy") is None:
        return []
    rule, baseline = _length_rule(card)
    items = [
        Figure("Accuracy", percent(card["accuracy"]), span(card.get("accuracy_ci"), "percent")),
        Figure("Length alone", percent(baseline), rule.lower()),
    ]
    if card.get("words_baseline_accuracy") is not None:
        over = span(card.get("over_words_baseline_ci"), "signed")
        items.insert(1, Figure("Words alone", percent(card["words_baseline_accuracy"]), f"the model over it: {over}"))
    if card.get("best_of_k_hit_rate") is not None:
        blind = f"by chance {percent(card.get('best_of_k_chance'))}; {card.get('best_of_k_lists')} lists"
        items.append(Figure("Best of K", percent(card["best_of_k_hit_rate"]), blind))
    tau = f"{span(card.get('kendall_tau_ci'))}; {card.get('kendall_tau_lists')} lists".removeprefix("; ")
    items.append(Figure("Kendall’s τ", number(card.get("kendall_tau")), tau))
    temperature = card.get("temperature")
    note = f"0 is perfect; temperature {number(temperature)}" if temperature else "0 is perfect"
    return [*items, Figure("Calibration error", number(card.get("ece")), note)]


def panels(run: Run) -> list[Chart]:
    """Accuracy beside simpler rules and by group, the reliability diagram, and what spoiling a response does."""
    card = run.summary
    if card.get("accuracy_ci") is None:
        return []
    return [_against_rules(card), *_by_group(card), *_reliability(card), *_spoiled(card)]


def _against_rules(card: Row) -> Chart:
    dots = [charts.Dot("Reward model", card["accuracy"], *card["accuracy_ci"])]
    if card.get("words_baseline_accuracy_ci"):
        words, (low, high) = card["words_baseline_accuracy"], card["words_baseline_accuracy_ci"]
        dots.append(charts.Dot("Bag of words", words, low, high, strong=False))
    if card.get("length_baseline_accuracy_ci"):
        longer, (low, high) = card["length_baseline_accuracy"], card["length_baseline_accuracy_ci"]
        dots.append(
            charts.Dot("Take the longer", longer, low, high, strong=False)
            if longer >= 0.5
            else charts.Dot("Take the shorter", 1 - longer, 1 - high, 1 - low, strong=False)
        )
    caption = "Share of held-out pairs ranked right, with 95 % intervals. The dashed line is chance."
    if card.get("accuracy_where_chosen_is_shorter") is not None:
        caption += (
            f" Where the shorter one is better: {percent(card['accuracy_where_chosen_is_shorter'])} right."
        )
    title = "Accuracy against words and length alone"
    return Chart(title, Markup(charts.intervals(title, dots, share=True, reference=0.5)), caption=caption, wide=True)


GROUPS = (
    ("accuracy_by_category", "Accuracy by category", "As the data name it; n is the number of pairs."),
    ("accuracy_by_margin", "Accuracy by human margin", "By how much better people found the chosen response."),
    ("accuracy_by_agreement", "Accuracy by agreement", "By the share of annotators who chose it."),
    ("accuracy_by_score_margin", "Accuracy by score margin", "By the difference of the two scores."),
    ("accuracy_by_members", "Accuracy by members", "Of the ensemble, where all order a pair alike, and where not."),
)
LONGEST = 22
"""Characters of the name of a group in a chart."""


def _by_group(card: Row) -> list[Chart]:
    items = []
    for name, title, caption in GROUPS:
        groups = card.get(name) or []
        # Rows of the first release have no intervals.
        dots = [
            charts.Dot(f"{_short(g['group'])} · n {g['n']}", g["accuracy"], *g["accuracy_ci"])
            for g in groups
            if g.get("accuracy_ci")
        ]
        if len(dots) > 1:
            svg = Markup(charts.intervals(title, dots, share=True, reference=0.5))
            items.append(Chart(title, svg, caption=caption, wide=True))
    return items


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _reliability(card: Row) -> list[Chart]:
    bins = card.get("reliability") or []
    if len(bins) < 2:
        return []
    title = "Accuracy by confidence"
    caption = "Each dot is a group of pairs. On the dashed line the accuracy equals the confidence."
    if card.get("temperature"):
        change = span(card.get("nll_tempered_difference_ci"), "signed", 3)
        caption += (
            f" The temperature is {number(card['temperature'])}; with that of the other half of the prompts the loss "
            f"goes from {number(card.get('nll'), 3)} to {number(card.get('nll_tempered'), 3)} ({change})."
        )
    svg = Markup(charts.reliability("Reliability of the reward model", bins))
    return [Chart(title, svg, caption=caption, wide=True)]


def _spoiled(card: Row) -> list[Chart]:
    rows = card.get("spoiled") or []
    if not rows:
        return []
    title = "Spoiled responses"
    dots = [charts.Dot(f"{_way(r)} · n {r['n']}", r["above_itself"], *r["above_itself_ci"]) for r in rows]
    below = [f"{_way(r)} {percent(r['above_rejected'])}" for r in rows if r.get("above_rejected") is not None]
    caption = "Share of the responses that score higher spoiled than as they were; at 50 % it makes no difference."
    caption += f" Still above the worst response to the prompt: {', '.join(below)}." if below else ""
    return [Chart(title, Markup(charts.intervals(title, dots, share=True, reference=0.5)), caption=caption, wide=True)]


def _way(row: Row) -> str:
    return WAYS.get(str(row["how"]), str(row["how"]))


def brief(run: Run) -> str:
    """How many pairs it ranks right."""
    return f"{percent(run.summary.get('accuracy'))} ranked right"


REWARD = Kind(
    name="reward",
    title="Reward model",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    unchecked=unchecked,
    panels=panels,
    tables=tables_below,
    rows=HELDOUT,
    computed="accuracy",
    curves=("loss", "reward_model/accuracy", "reward_model/margin"),
    headline=("accuracy", "accuracy_ci", "words_baseline_accuracy", "length_baseline_accuracy"),
    step="Reward model",
)
