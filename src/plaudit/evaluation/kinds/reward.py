"""Reward models: do they rank as people do, is it more than length, and do they know how sure they may be?"""

from __future__ import annotations

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.benchmarks.table import tables_below
from plaudit.evaluation.kinds.reward_card import card
from plaudit.evaluation.page import ENOUGH_PAIRS, INTERVAL, NOT_EVALUATED, Chart, Figure, Kind, Verdict
from plaudit.evaluation.words import number, percent, signed, span
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
    evidence = (
        f"The {INTERVAL} is {span(interval, 'percent')}, on {card.get('heldout_pairs')} held-out rows.{start} "
        f"{rule} would be right {percent(baseline)} of the time. "
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


def warnings(run: Run) -> list[str]:
    """No better than chance or length, a prompt that does not count, few pairs, scores that follow length."""
    card, messages = run.summary, []
    interval, over, swap = (card.get(n) for n in ("accuracy_ci", "over_length_baseline_ci", "prompt_swap_accuracy_ci"))
    if interval and interval[0] <= 0.5:
        messages.append(
            f"It may be a coin: the {INTERVAL} of its accuracy, {span(interval, 'percent')}, contains one half. A "
            "policy that is trained on it learns nothing, or something else."
        )
    elif over and over[0] is not None and over[0] <= 0:
        messages.append(
            f"It is not clearly better than a rule on length alone ({span(over, 'signed')} in accuracy): it may have "
            "learned no more than that."
        )
    if swap and swap[0] <= 0.5:
        messages.append(
            f"After another prompt it scores a response as high as after its own (own higher in "
            f"{percent(card.get('prompt_swap_accuracy'))}, {span(swap, 'percent')}): it may not read the prompt."
        )
    pairs, error, rho = card.get("heldout_pairs"), card.get("ece"), card.get("score_length_spearman")
    if pairs is not None and pairs < ENOUGH_PAIRS:
        messages.append(f"Only {pairs} held-out pairs: the interval is wide. Hold out more, or collect more.")
    if rho is not None and abs(rho) > 0.5:
        more = "more instead of better" if rho > 0 else "less instead of better"
        messages.append(f"Scores follow length (Spearman {signed(rho)}): a policy may learn to write {more}.")
    # With few pairs the calibration error of a perfect model is not small either: noise in each bin counts as error.
    if error is not None and error > 0.1 and (pairs or 0) >= ENOUGH_PAIRS:
        messages.append(
            f"It is badly calibrated (expected calibration error {number(error)}): do not trust its margins."
        )
    return messages


def unchecked(run: Run) -> list[str]:
    """Whether the prompt counts, and what labelled or rated rows cannot show."""
    card = run.summary
    if card.get("accuracy") is None:
        return ["everything (no held-out rows were scored)"]
    missing = []
    if card.get("prompt_swap_accuracy") is None:
        missing.append("whether it reads the prompt (there are no pairs with two different prompts)")
    if card.get("over_length_baseline_ci") is None:
        missing.append("whether it is better than a rule on length (the held-out rows are no pairs)")
    if (card.get("heldout_pairs") or 0) < ENOUGH_PAIRS or card.get("ece") is None:
        missing.append("its calibration (too few held-out pairs)")
    return missing


def figures(run: Run) -> list[Figure]:
    """Accuracy beside that of length alone, rank correlation, calibration."""
    card = run.summary
    if card.get("accuracy") is None:
        return []
    rule, baseline = _length_rule(card)
    return [
        Figure("Accuracy", percent(card["accuracy"]), span(card.get("accuracy_ci"), "percent")),
        Figure("Length alone", percent(baseline), rule.lower()),
        Figure(
            "Kendall’s τ", number(card.get("kendall_tau")), f"mean of {card.get('kendall_tau_lists')} lists"
        ),
        Figure("Calibration error", number(card.get("ece")), "0 is perfect"),
    ]


def panels(run: Run) -> list[Chart]:
    """Accuracy beside that of length alone, with intervals, and the reliability diagram."""
    card = run.summary
    if card.get("accuracy_ci") is None:
        return []
    dots = [charts.Dot("Reward model", card["accuracy"], *card["accuracy_ci"])]
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
    title = "Accuracy against length alone"
    svg = Markup(charts.intervals(title, dots, share=True, reference=0.5))
    items = [Chart(title, svg, caption=caption, wide=True)]
    if len(card.get("reliability") or []) > 1:
        svg = Markup(charts.reliability("Reliability of the reward model", card["reliability"]))
        caption = "Each dot is a group of pairs. On the dashed line the accuracy equals the confidence."
        items.append(Chart("Accuracy by confidence", svg, caption=caption, wide=True))
    return items


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
    headline=("accuracy", "accuracy_ci", "length_baseline_accuracy"),
    step="Reward model",
)
