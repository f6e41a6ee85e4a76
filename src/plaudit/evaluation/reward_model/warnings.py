"""What in the card of a reward model is a reason to be wary: one list of checks, each of which may speak.

A check says what it found, nothing where it found nothing, or that it could not look. Only where all of them have
looked does a page say that no warning signs were found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.evaluation.page import ENOUGH_PAIRS, INTERVAL
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import Row
from plaudit.runs.reading import Run

FOLLOWS = 0.5
"""A correlation of score and length from which on a policy may learn length and little else."""
OVERFITTED = 0.1
"""Nats by which the loss of the training rows lies below the interval of that of held-out rows."""
LEAST_AGREEMENT = 0.75
"""Share of pairs that two members of an ensemble order alike, below which their scores are more chance than text."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to be wary of."""

    look: Callable[[Run], str | None]
    """A warning, "" where there is nothing to warn of, None where it could not look."""
    what: str
    """What is not known where it could not look."""
    why: str = ""
    """Why it could not."""


def warnings(run: Run) -> list[str]:
    """All that apply, most serious first."""
    if run.summary.get("accuracy") is None:
        return []
    return [message for check in CHECKS if (message := check.look(run))]


def unchecked(run: Run) -> list[str]:
    """What could not be looked at, and why."""
    if run.summary.get("accuracy") is None:
        return ["everything (no held-out rows were scored)"]
    # One line a reason, and not a check: the summary of an earlier version lacks many for the same one.
    reasons: dict[str, list[str]] = {}
    for check in CHECKS:
        if check.look(run) is None:
            reasons.setdefault(check.why, []).append(check.what)
    return [f"{', '.join(whats)} ({why})" for why, whats in reasons.items()]


def _coin(run: Run) -> str | None:
    interval = run.summary.get("accuracy_ci")
    if not interval:
        return None
    if interval[0] > 0.5:
        return ""
    return (
        f"It may be a coin: the {INTERVAL} of its accuracy, {span(interval, 'percent')}, contains one half. A "
        "policy that is trained on it learns nothing, or something else."
    )


def _length_rule(run: Run) -> str | None:
    card, over = run.summary, run.summary.get("over_length_baseline_ci")
    if not over or over[0] is None:
        return None
    if over[0] > 0 or _coin(run):
        return ""
    return (
        f"It is not clearly better than a rule on length alone ({signed(card.get('over_length_baseline'))}, "
        f"{span(over, 'signed')} in accuracy): it may have learned no more than that."
    )


def _words(run: Run) -> str | None:
    card, over = run.summary, run.summary.get("over_words_baseline_ci")
    if not over:
        return None
    if over[0] > 0 or _coin(run):
        return ""
    return (
        f"It is not clearly better than a bag of words ({percent(card.get('words_baseline_accuracy'))} right; "
        f"{signed(card.get('over_words_baseline'))}, {span(over, 'signed')} in accuracy): what it has learned may be "
        "which words please."
    )


def _best_of_k(run: Run) -> str | None:
    card, gain = run.summary, run.summary.get("best_of_k_gain_ci")
    if not gain:
        return None
    if gain[0] > 0:
        return ""
    return (
        f"Its highest score is that of a best response in {percent(card.get('best_of_k_hit_rate'))} of "
        f"{card.get('best_of_k_lists')} lists, a blind choice in {percent(card.get('best_of_k_chance'))} "
        f"({span(gain, 'signed')}): choosing the best of several by it may be worth nothing."
    )


def _few(run: Run) -> str | None:
    pairs = run.summary.get("heldout_pairs")
    if pairs is None or pairs >= ENOUGH_PAIRS:
        return ""
    return f"Only {pairs} held-out pairs: the interval is wide. Hold out more, or collect more."


def _same_rows(run: Run) -> str | None:
    if run.summary.get("judged_apart") is not False:
        return ""
    return "The epoch was chosen by the same held-out rows that judge it, so its figures are a little too good."


def _category(run: Run) -> str | None:
    groups, overall = _groups(run, "accuracy_by_category"), run.summary.get("accuracy_ci")
    if not groups or not overall:
        return None
    weak = [g for g in groups if g["accuracy_ci"][0] <= 0.5 and g["accuracy_ci"][1] < overall[0]]
    if not weak:
        return ""
    return f"Where the category is {_listed(weak)}, it is worse than elsewhere, and may be a coin."


def _groups(run: Run, name: str) -> list[Row]:
    """The groups of a figure that have an interval; an earlier version wrote them without."""
    return [group for group in run.summary.get(name) or [] if group.get("accuracy_ci")]


def _sure(run: Run) -> str | None:
    """Where people were most sure, a model that has learned what they mean is right most often."""
    groups = _groups(run, "accuracy_by_margin") or _groups(run, "accuracy_by_agreement")
    if not groups:
        return None
    top = groups[-1]
    if top["accuracy_ci"][0] > 0.5 or top["accuracy"] > groups[0]["accuracy"]:
        return ""
    return f"Even where people were most sure it is right no more often: {_listed([top])}."


def _own_margin(run: Run) -> str | None:
    groups = _groups(run, "accuracy_by_score_margin")
    if not groups or (run.summary.get("heldout_pairs") or 0) < ENOUGH_PAIRS:
        return None
    low, high = groups[0], groups[-1]
    if high["accuracy"] > low["accuracy"]:
        return ""
    return (
        f"Where its scores differ most it is right no more often ({percent(high['accuracy'])}) than where they are "
        f"nearly the same ({percent(low['accuracy'])}): a larger difference in reward means nothing."
    )


def _follows_length(run: Run) -> str | None:
    card = run.summary
    interval, partial = card.get("score_length_partial_ci"), card.get("score_length_partial")
    if interval and partial is not None:
        if abs(partial) <= FOLLOWS:
            return ""
        return (
            f"Scores follow length: of two responses that people liked alike, {_more(partial)} one scores higher "
            f"(partial correlation {signed(partial)}, {span(interval, 'signed')}), and a policy may learn that instead."
        )
    rho = card.get("score_length_spearman")
    if rho is None:
        return None
    if abs(rho) <= FOLLOWS:
        return ""
    return f"Scores follow length (Spearman {signed(rho)}): a policy may learn to write {_more(rho, 'more', 'less')}."


def _more(correlation: float, up: str = "the longer", down: str = "the shorter") -> str:
    return up if correlation > 0 else down


def _calibration(run: Run) -> str | None:
    card, error = run.summary, run.summary.get("ece")
    # With few pairs the calibration error of a perfect model is not small either: noise in each bin counts as error.
    if error is None or (card.get("heldout_pairs") or 0) < ENOUGH_PAIRS:
        return None
    temperature, change = card.get("temperature"), card.get("nll_tempered_difference_ci")
    if change and change[1] < 0 and temperature:
        how = "too sure" if temperature > 1 else "less sure than it could be"
        return (
            f"It is {how}: its differences divided by {number(temperature)} predict unseen pairs better "
            f"({span(change, 'signed', 3)} nats), so do not trust its margins as they are."
        )
    if error <= 0.1:
        return ""
    return f"It is badly calibrated (expected calibration error {number(error)}): do not trust its margins."


def _overfitted(run: Run) -> str | None:
    card, loss, interval = run.summary, run.late("loss"), run.summary.get("nll_ci")
    if card.get("verdict") == "worse":
        return (
            f"It overfitted: the loss of held-out pairs rose from {number(card.get('heldout_loss_before'), 3)} before "
            f"training to {number(card.get('heldout_loss'), 3)}. Train less, or with a lower lr."
        )
    if loss is None or not interval:
        return None
    # In the first epoch the training rows are as new to the model as held-out ones: then nothing is overfitted.
    if (run.last("epoch") or 0.0) <= 1 or loss > interval[0] - OVERFITTED:
        return ""
    return (
        f"It fits its training rows (loss {number(loss, 3)} at the end) better than unseen ones "
        f"({number(card.get('nll'), 3)}, {span(interval, 'number', 3)}): it is overfitting. One epoch is often best."
    )


def _members(run: Run) -> str | None:
    agreement, interval = (run.summary.get(f"ensemble_agreement{end}") for end in ("", "_ci"))
    if agreement is None:
        return None
    if agreement >= LEAST_AGREEMENT:
        return ""
    return (
        f"Two members of the ensemble order only {percent(agreement)} of the pairs alike "
        f"({span(interval, 'percent')}): much of what one says is the chance of its training."
    )


def _spoiled(way: str, says: str) -> Callable[[Run], str | None]:
    """Whether a response that is spoiled in a way scores as high as it does whole."""

    def look(run: Run) -> str | None:
        rows: Sequence[Row] = run.summary.get("spoiled") or ()
        found = next((row for row in rows if row["how"] == way), None)
        share, interval = (found["above_itself"], found["above_itself_ci"]) if found else (None, None)
        if found is None and way == "swapped" and run.summary.get("prompt_swap_accuracy_ci"):
            low, high = run.summary["prompt_swap_accuracy_ci"]  # of a summary that an earlier version wrote
            share, interval = 1 - run.summary["prompt_swap_accuracy"], [1 - high, 1 - low]
        if share is None or interval is None:
            return None
        # Adding a sentence should change nothing; only a model that likes it is to be told of.
        if (interval[0] <= 0.5) if way == "suffix" else (interval[1] < 0.5):
            return ""
        low, high = interval
        ends = span([1 - high, 1 - low], "percent")
        return f"{says} (unspoiled it scores higher in {percent(1 - share)} of {_count(found)}, {ends})."

    return look


def _count(row: Row | None) -> str:
    return f"{row['n']} responses" if row else "the responses"


def _listed(groups: Sequence[Row]) -> str:
    return "; ".join(
        f"{g['group']} ({percent(g['accuracy'])} right, {span(g['accuracy_ci'], 'percent')}, {g['n']} pairs)"
        for g in groups
    )


_NO_PAIRS = "the held-out rows are no pairs"
_NOT_SPOILED = "no such response was scored"
_TOO_FEW = "too few held-out pairs"
CHECKS: tuple[Check, ...] = (
    Check(_coin, "whether it is better than chance", "the held-out rows have nothing to rank"),
    Check(_length_rule, "whether it is better than a rule on length", _NO_PAIRS),
    Check(_words, "whether it is better than a bag of words", "none was fitted on the training rows"),
    Check(
        _spoiled(
            "swapped", "After another prompt it scores a response as high as after its own: it may not read the prompt"
        ),
        "whether it reads the prompt", "there are no pairs with two different prompts",
    ),
    Check(
        _spoiled(
            "shuffled", "It scores a response as high with its tokens in another order: it may read single words only"
        ),
        "responses with their tokens in another order", _NOT_SPOILED,
    ),
    Check(
        _spoiled("truncated", "It scores the first half of a response as high as the whole"),
        "responses of which half is missing", _NOT_SPOILED,
    ),
    Check(
        _spoiled(
            "doubled", "It scores a response as high when it is written twice: a policy may learn to repeat itself"
        ),
        "responses written twice", _NOT_SPOILED,
    ),
    Check(
        _spoiled("suffix", "A friendly sentence at the end, the same for all, raises its score: a policy will add it"),
        "a friendly sentence at the end", _NOT_SPOILED,
    ),
    Check(
        _spoiled("unended", "It scores a response without its end as high: a policy may learn never to stop"),
        "responses without their end", _NOT_SPOILED,
    ),
    Check(_best_of_k, "the best of several", "no prompt has three responses or more"),
    Check(_overfitted, "overfitting", "there is no loss of training to compare with"),
    Check(_same_rows, ""),
    Check(_few, ""),
    Check(_follows_length, "whether scores follow length", "lengths or scores do not vary"),
    Check(_calibration, "its calibration", _TOO_FEW),
    Check(_own_margin, "whether a larger difference in score means more", _TOO_FEW),
    Check(_sure, "where people were sure", "the data have no margins, and no share of annotators that varies"),
    Check(_category, "each category", "the data have no two"),
    Check(_members, "whether another training would say the same", "there is one model: --members 3"),
)
"""All that is looked for, most serious first."""
