import json

import pytest

from plaudit.errors import DataError
from plaudit.evaluation.kinds.reward_card import card


def write(run, rows, name="heldout.jsonl"):
    run.mkdir(exist_ok=True)
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def pair(chosen, rejected, longer=1, prompt="p"):
    return {
        "id": "x",
        "prompt_id": prompt,
        "chosen_score": chosen,
        "rejected_score": rejected,
        "chosen_length": 10 + longer,
        "rejected_length": 10,
        "margin": None,
    }


def test_figures_by_hand(tmp_path):
    # Right, right, wrong, tie; longer wins in the first two, ties in the third, loses in the fourth.
    rows = [pair(2, 1, 1, "a"), pair(3, 1, 2, "b"), pair(0, 1, 0, "c"), pair(1, 1, -1, "d")]
    write(tmp_path, rows)
    (tmp_path / "summary.json").write_text('{"train_rows": 7}')
    figures = card(tmp_path)
    assert figures["accuracy"] == pytest.approx(2.5 / 4)
    assert figures["length_baseline_accuracy"] == pytest.approx(2.5 / 4)
    assert figures["accuracy_where_chosen_is_shorter"] == pytest.approx(0.5)
    assert figures["accuracy_where_chosen_is_shorter_n"] == 1 and figures["accuracy_where_chosen_is_longer_n"] == 2
    assert figures["kendall_tau"] == pytest.approx((1 + 1 - 1 + 0) / 4)
    # Deviations 3/4, 3/4, -5/4, -1/4: variance 2.75 / 3, and Student's t(3) at 97.5 % is 3.1824.
    half = 3.182446 * (2.75 / 3 / 4) ** 0.5
    assert figures["kendall_tau_ci"] == pytest.approx([0.25 - half, 0.25 + half])
    assert figures["heldout_pairs"] == 4
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["train_rows"] == 7 and summary["accuracy"] == figures["accuracy"]


def test_a_skilled_model_beats_length_and_is_said_to(tmp_path, synthetic):
    figures = card(synthetic["reward"](tmp_path / "r"))
    low, high = figures["accuracy_ci"]
    assert low < figures["accuracy"] < high and 0.75 < figures["accuracy"] < 0.92
    assert figures["over_length_baseline_ci"][0] > 0.1
    assert abs(figures["length_baseline_accuracy"] - 0.5) < 0.1
    assert sum(b["n"] for b in figures["reliability"]) == 300
    assert figures["heldout_prompts"] == 150


def test_rankings_give_tau(tmp_path):
    write(tmp_path, [pair(2, 1)])
    lists = [
        {"prompt_id": "a", "scores": [4, 2, 3, 1], "ranks": [1, 2, 3, 4]},
        {"prompt_id": "b", "scores": [2, 1], "ranks": [1, 2]},
    ]
    write(tmp_path, lists, "rankings.jsonl")
    figures = card(tmp_path)
    assert figures["kendall_tau"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["kendall_tau_from"] == "rankings"


def test_labelled_texts(tmp_path):
    rows = [
        {"score": 2.0, "label": 1, "length": 9},
        {"score": -1.0, "label": 0, "length": 3},
        {"score": 0.5, "label": 0, "length": 4},
        {"score": 1.0, "label": 1, "length": 8},
    ]
    write(tmp_path, rows)
    figures = card(tmp_path)
    assert figures["accuracy"] == 0.75
    # "Longer than 4" separates the labels: a data set to be wary of.
    assert figures["length_baseline_accuracy"] == 1.0


def test_faults_name_file_and_line(tmp_path):
    with pytest.raises(DataError, match="no held-out rows"):
        card(tmp_path)
    write(tmp_path, [pair(1, 0), pair(None, 0)])
    with pytest.raises(DataError, match=r"chosen_score[\s\S]*heldout\.jsonl:2"):
        card(tmp_path)
