"""Does a reward model know how sure it may be? Its probabilities, the temperature that mends them, and its start."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.evaluation.choice import ENOUGH, divide, verdict_on_loss
from plaudit.evaluation.reward_model.breakdown import ends
from plaudit.runs.files import Row
from plaudit.statistics.calibration import ece, fit_temperature, pair_nll, reliability
from plaudit.statistics.clustered import Clusters, Floats, mean_over, outcomes, paired_difference, share


def probabilities(differences: Floats, prompts: Clusters) -> Row:
    """Loss, calibration error, reliability diagram, and temperature."""
    bins = reliability(differences, clusters=prompts)
    losses = mean_over([pair_nll([gap]) for gap in differences], prompts)
    return {
        "nll": pair_nll(differences),
        "nll_ci": ends(losses),
        "ece": ece(bins),
        "reliability": [
            {"confidence": b.confidence, "accuracy": b.accuracy, "accuracy_ci": [b.low, b.high], "n": b.n} for b in bins
        ],
    } | tempered(differences, prompts)


def tempered(differences: Floats, prompts: Clusters) -> Row:
    """The temperature, and the loss with it on rows by which it was not fitted; {} with fewer than 20 prompts.

    The prompts are divided in halves, and the rows of each are judged with the temperature of the other.
    """
    names = list(dict.fromkeys(map(str, prompts)))
    if len(names) < 2 * ENOUGH:
        return {}
    first = set(divide(names, str)[0])
    sides = [
        [i for i, prompt in enumerate(prompts) if (str(prompt) in first) is side] for side in (True, False)
    ]
    after = [0.0] * len(differences)
    for own, other in (sides, sides[::-1]):
        temperature = fit_temperature([differences[i] for i in other])
        for i in own:
            after[i] = pair_nll([differences[i] / temperature])
    before = [pair_nll([gap]) for gap in differences]
    change = paired_difference(before, after, prompts)
    return {
        "temperature": fit_temperature(differences),
        "nll_tempered": sum(after) / len(after),
        "nll_tempered_difference": change.value,
        "nll_tempered_difference_ci": ends(change),
    }


def against_start(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Loss and margin of the pairs by the model as it started, and what changed, pair by pair; over prompts."""
    if [row["id"] for row in before] != [row["id"] for row in after]:
        return {}  # scored on other data than it was trained beside, or a run of the first release
    old, new = ([row["chosen_score"] - row["rejected_score"] for row in rows] for rows in (before, after))
    prompts = [row.get("prompt_id", row["id"]) for row in after]
    lost, losses = ([pair_nll([gap]) for gap in gaps] for gaps in (old, new))
    loss, margin = paired_difference(lost, losses, prompts), paired_difference(old, new, prompts)
    return {
        "heldout_loss": sum(losses) / len(new),
        "heldout_loss_before": sum(lost) / len(old),
        "heldout_loss_difference": loss.value,
        "heldout_loss_difference_ci": list(loss.interval),
        "accuracy_before": share(outcomes(old), prompts).value,
        "margin_difference": margin.value,
        "margin_difference_ci": list(margin.interval),
        "verdict": verdict_on_loss(loss),
    }
