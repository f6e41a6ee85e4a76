"""One list of warnings for reward models: each check can speak, and all is well only where each has looked."""

import pytest

from plaudit.evaluation.kinds.reward_card import card
from plaudit.evaluation.page import ENOUGH_PAIRS
from plaudit.evaluation.reward_model.shortcuts import WAYS
from plaudit.evaluation.reward_model.warnings import CHECKS, unchecked, warnings
from plaudit.runs.reading import Run, read_run


def group(name, accuracy, low, high):
    return {"group": name, "accuracy": accuracy, "accuracy_ci": [low, high], "n": 80}


def spoilt(**above):
    ends = {"below": [0.0, 0.1], "alike": [0.4, 0.6], "above": [0.8, 1.0]}
    return [
        {"how": way, "above_itself": 0.5, "n": 128}
        | {"above_itself_ci": ends[above.get(way, "alike" if way == "suffix" else "below")]}
        for way in WAYS
    ]


HEALTHY = {
    "accuracy": 0.8, "accuracy_ci": [0.75, 0.85], "heldout_pairs": 400, "judged_apart": True,
    "over_length_baseline": 0.2, "over_length_baseline_ci": [0.1, 0.3],
    "words_baseline_accuracy": 0.6, "over_words_baseline": 0.2, "over_words_baseline_ci": [0.1, 0.3],
    "best_of_k_hit_rate": 0.6, "best_of_k_chance": 0.3, "best_of_k_lists": 50, "best_of_k_gain_ci": [0.1, 0.4],
    "spoiled": spoilt(), "score_length_partial": 0.1, "score_length_partial_ci": [0.0, 0.2],
    "ece": 0.02, "temperature": 1.0, "nll_tempered_difference_ci": [-0.01, 0.01], "nll": 0.5, "nll_ci": [0.45, 0.55],
    "accuracy_by_score_margin": [group("0 to 1", 0.6, 0.5, 0.7), group("1 to 2", 0.9, 0.8, 1.0)],
    "accuracy_by_margin": [group("0", 0.6, 0.5, 0.7), group("2", 0.9, 0.8, 1.0)],
    "accuracy_by_category": [group("chat", 0.8, 0.7, 0.9), group("code", 0.78, 0.7, 0.85)],
    "ensemble_agreement": 0.9, "ensemble_agreement_ci": [0.85, 0.95],
}  # fmt: skip
TROUBLES = [
    ({"accuracy_ci": [0.45, 0.85]}, "may be a coin"),
    ({"over_length_baseline_ci": [-0.1, 0.3]}, "rule on length alone"),
    ({"over_words_baseline_ci": [-0.1, 0.3]}, "bag of words"),
    ({"best_of_k_gain_ci": [-0.1, 0.3]}, "best of several"),
    ({"spoiled": spoilt(swapped="alike")}, "may not read the prompt"),
    ({"spoiled": spoilt(shuffled="alike")}, "tokens in another order"),
    ({"spoiled": spoilt(truncated="alike")}, "first half of a response"),
    ({"spoiled": spoilt(doubled="above")}, "written twice"),
    ({"spoiled": spoilt(suffix="above")}, "friendly sentence"),
    ({"spoiled": spoilt(unended="alike")}, "without its end"),
    ({"verdict": "worse", "heldout_loss_before": 0.69, "heldout_loss": 0.9}, "overfitted"),
    ({"nll_ci": [0.9, 1.1], "nll": 1.0}, "overfitting"),
    ({"judged_apart": False}, "chosen by the same held-out rows"),
    ({"heldout_pairs": ENOUGH_PAIRS - 1}, "Only 99 held-out pairs"),
    ({"score_length_partial": 0.7}, "Scores follow length"),
    ({"score_length_partial": -0.7}, "the shorter one scores higher"),
    ({"ece": 0.2}, "badly calibrated"),
    ({"temperature": 2.0, "nll_tempered_difference_ci": [-0.2, -0.1]}, "too sure"),
    ({"temperature": 0.5, "nll_tempered_difference_ci": [-0.2, -0.1]}, "less sure"),
    ({"accuracy_by_score_margin": [group("0", 0.8, 0.7, 0.9), group("1", 0.7, 0.6, 0.8)]}, "right no more often"),
    ({"accuracy_by_margin": [group("0", 0.6, 0.5, 0.7), group("2", 0.55, 0.4, 0.7)]}, "people were most sure"),
    ({"accuracy_by_category": [group("chat", 0.9, 0.8, 1.0), group("code", 0.4, 0.3, 0.5)]}, "category is code (40"),
    ({"ensemble_agreement": 0.6, "ensemble_agreement_ci": [0.5, 0.7]}, "members of the ensemble"),
]


def run_of(tmp_path, changes, epoch=2.0):
    metrics = [{"step": 1, "loss": 0.5, "epoch": epoch}]
    return Run(tmp_path, "reward", metrics, [], [], HEALTHY | changes, [], [])


def test_nothing_is_said_of_a_healthy_model_in_which_everything_was_looked_at(tmp_path):
    run = run_of(tmp_path, {})
    assert warnings(run) == [] and unchecked(run) == []


@pytest.mark.parametrize(("changes", "words"), TROUBLES, ids=[words for _, words in TROUBLES])
def test_each_check_speaks(tmp_path, changes, words):
    found = warnings(run_of(tmp_path, changes))
    assert any(words in message for message in found), found
    assert len(found) == 1 or words.startswith("Only")


def test_every_check_is_tried_here(tmp_path):
    spoke = {
        check.look for check in CHECKS for changes, _ in TROUBLES if check.look(run_of(tmp_path, changes))
    }
    assert spoke == {check.look for check in CHECKS}


@pytest.mark.parametrize("name", [
    "over_length_baseline_ci", "over_words_baseline_ci", "best_of_k_gain_ci", "spoiled", "nll_ci",
    "score_length_partial_ci", "ece", "accuracy_by_score_margin", "accuracy_by_margin", "accuracy_by_category",
    "ensemble_agreement",
])  # fmt: skip
def test_what_could_not_be_looked_at_is_named(tmp_path, name):
    run = run_of(tmp_path, {name: None})
    assert warnings(run) == [] and unchecked(run)


def test_in_the_first_epoch_nothing_is_overfitted(tmp_path):
    changes = {"nll_ci": [0.9, 1.1], "nll": 1.0}
    assert warnings(run_of(tmp_path, changes, epoch=1.0)) == []


def test_without_held_out_rows_nothing_is_known(tmp_path):
    run = run_of(tmp_path, {"accuracy": None})
    assert warnings(run) == [] and unchecked(run) == ["everything (no held-out rows were scored)"]


def test_a_run_names_what_its_rows_cannot_show(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    card(run)
    missing = " ".join(unchecked(read_run(run)))
    for words in ("reads the prompt", "bag of words", "--members 3", "three responses", "category", "people were"):
        assert words in missing
    assert "calibration" not in missing and "length" not in missing


def test_groups_that_an_earlier_version_wrote_without_intervals_are_no_error(tmp_path):
    old = [{"low": 1.0, "high": 1.0, "accuracy": 0.6, "n": 479}, {"low": 2.0, "high": 2.0, "accuracy": 0.5, "n": 546}]
    run = run_of(tmp_path, {"accuracy_by_margin": old, "accuracy_by_category": old, "accuracy_by_score_margin": old})
    assert warnings(run) == []
    assert len(unchecked(run)) == 3
