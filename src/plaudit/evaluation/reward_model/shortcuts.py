"""Has a reward model learned more than length and words, and does it read what it scores?"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.evaluation.reward_model.breakdown import ends
from plaudit.runs.files import Row
from plaudit.statistics.clustered import Clusters, Floats, mean_over, outcomes, paired_difference, share
from plaudit.statistics.ranking import correlation_over, spearman

WAYS = {
    "swapped": "after another prompt",
    "shuffled": "its tokens in another order",
    "truncated": "only its first half",
    "doubled": "written twice",
    "suffix": "a friendly sentence added",
    "unended": "without its end",
}
"""How a response is spoiled, in words."""
SIDES = ("chosen", "rejected")


def length_rule(rows: Sequence[Row], right: Floats, prompts: Clusters) -> Row:
    """What the rule "the longer one is better" reaches, and how scores follow length."""
    gaps = [row["chosen_score"] - row["rejected_score"] for row in rows]
    longer = [float(row["chosen_length"] - row["rejected_length"]) for row in rows]
    baseline = share(outcomes(longer), prompts)
    # People often prefer the longer response, so a model can be right without having read it. Where they prefer
    # the shorter one, "take the shorter" is the rule to beat.
    rule = longer if baseline.value >= 0.5 else [-gap for gap in longer]
    advantage = paired_difference(outcomes(rule), right, prompts)
    scores, lengths = ([row[f"{side}_{name}"] for row in rows for side in SIDES] for name in ("score", "length"))
    within = correlation_over(gaps, longer, prompts, centred=False)
    partial = correlation_over(gaps, longer, prompts)
    return {
        "length_baseline_accuracy": baseline.value,
        "length_baseline_accuracy_ci": list(baseline.interval),
        "over_length_baseline": advantage.value,
        "over_length_baseline_ci": list(advantage.interval),
        "score_length_spearman": spearman(scores, lengths),
        "score_length_within": within.value,
        "score_length_within_ci": ends(within),
        "score_length_partial": partial.value,
        "score_length_partial_ci": ends(partial),
    } | _where("shorter", [-gap for gap in longer], right, prompts) | _where("longer", longer, right, prompts)


def _where(word: str, gaps: Floats, right: Floats, prompts: Clusters) -> Row:
    """Accuracy on the pairs whose chosen response is the shorter or the longer one."""
    which = [i for i, gap in enumerate(gaps) if gap > 0]
    accuracy = share([right[i] for i in which], [prompts[i] for i in which])
    name = f"accuracy_where_chosen_is_{word}"
    if not which:
        return {name: None}
    return {name: accuracy.value, f"{name}_ci": list(accuracy.interval), f"{name}_n": len(which)}


def words_rule(gaps: Sequence[float | None], right: Floats, prompts: Clusters) -> Row:
    """What a bag of words reaches that was fitted on the training rows; {} where there is none.

    Args:
        gaps: of each row, how much more its words speak for the chosen response.
    """
    known = [gap for gap in gaps if gap is not None]
    if len(known) < len(gaps) or not known:
        return {}
    found = outcomes(known)
    accuracy, advantage = share(found, prompts), paired_difference(found, right, prompts)
    return {
        "words_baseline_accuracy": accuracy.value,
        "words_baseline_accuracy_ci": list(accuracy.interval),
        "over_words_baseline": advantage.value,
        "over_words_baseline_ci": ends(advantage),
    }


def spoiled(rows: Sequence[Row]) -> Row:
    """What spoiling a response in each way does to its score.

    Args:
        rows: ``{"prompt_id", "how", "own_score", "score", "other_score"}``; see spoiled.jsonl.

    Returns:
        ``spoiled``: for each way ``change`` (mean, in units of the raw score), ``above_itself`` (share of the spoiled
        responses that score higher than they do whole, ties one half) and ``above_rejected`` (share that still score
        higher than the worst response to the prompt), each with its interval and n.
    """
    found = []
    for way in dict.fromkeys(row["how"] for row in rows):
        of_way = [row for row in rows if row["how"] == way]
        prompts = [row["prompt_id"] for row in of_way]
        change = mean_over([row["score"] - row["own_score"] for row in of_way], prompts)
        itself = share(outcomes([row["score"] - row["own_score"] for row in of_way]), prompts)
        two = [row for row in of_way if row.get("other_score") is not None]
        over = share(outcomes([row["score"] - row["other_score"] for row in two]), [row["prompt_id"] for row in two])
        found.append({
            "how": way,
            "change": change.value,
            "change_ci": ends(change),
            "above_itself": itself.value,
            "above_itself_ci": list(itself.interval),
            "above_rejected": over.value if two else None,
            "above_rejected_ci": list(over.interval) if two else None,
            "n": len(of_way),
        })  # fmt: skip
    return ({"spoiled": found} if found else {}) | _swapped(found)


def _swapped(found: Sequence[Row]) -> Row:
    """Share of the responses that score higher after their own prompt than after another: does the prompt count?"""
    swapped = next((row for row in found if row["how"] == "swapped"), None)
    if swapped is None:
        return {}
    low, high = swapped["above_itself_ci"]
    return {"prompt_swap_accuracy": 1 - swapped["above_itself"], "prompt_swap_accuracy_ci": [1 - high, 1 - low]}


def of_swaps(rows: Sequence[Row]) -> list[Row]:
    """Rows of swaps.jsonl, which earlier versions wrote, as rows of spoiled.jsonl."""
    return [
        {"prompt_id": row["prompt_id"], "how": "swapped", "own_score": row["own_score"], "score": row["other_score"]}
        for row in rows
    ]
