"""Which kind a run is, and the verdicts of kinds that no other test of this folder makes."""

import json
import random

import pytest

from plaudit.evaluation import kinds
from plaudit.evaluation.report import write_report
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.reading import read_run


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def a_run(path, command="", metrics=(), **rows):
    write(path / "metrics.jsonl", metrics)
    for name, content in rows.items():
        write(path / f"{name}.jsonl", content)
    if command:
        (path / "summary.json").write_text(json.dumps({"command": command}))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_has_only_begun_is_of_the_kind_of_its_command(tmp_path, command):
    kind = kinds.kind_of(read_run(a_run(tmp_path / "r", command)))
    assert kind.name == ("policy" if command == "best-of-n" else COMMANDS[command].kind)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("preferences", "preference"),
        ("evaluation", "policy"),
        ("best", "best_of_n"),
        ("heldout", "reward"),
        ("benchmark", "benchmark"),
    ],
)
def test_the_rows_tell_the_kind_of_a_run_with_an_algorithm_of_ones_own(tmp_path, file, name):
    assert kinds.kind_of(read_run(a_run(tmp_path / "r", "mine", **{file: []}))).name == name


def test_without_rows_the_metrics_tell(tmp_path):
    rewarded = a_run(tmp_path / "a", "mine", [{"step": 1, "reward/mean": 1.0}])
    assert kinds.kind_of(read_run(rewarded)).name == "policy"
    assert kinds.kind_of(read_run(a_run(tmp_path / "b", "mine", [{"step": 1, "loss": 1.0}]))).name == "sft"


def test_best_of_n_in_rounds_is_a_policy_and_answers_alone_are_not(tmp_path):
    assert kinds.kind_of(read_run(a_run(tmp_path / "a", "best-of-n", evaluation=[]))).name == "policy"
    assert kinds.kind_of(read_run(a_run(tmp_path / "b", "best-of-n", best=[]))).name == "best_of_n"


def test_figures_that_are_missing_are_computed_and_those_there_are_kept(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    accuracy = kinds.load_run(run).summary["accuracy"]
    assert json.loads((run / "summary.json").read_text())["accuracy"] == accuracy
    (run / "summary.json").write_text(json.dumps({"command": "reward", "accuracy": 0.123}))
    assert kinds.load_run(run).summary == {"command": "reward", "accuracy": 0.123}


def preference_rows(right, *, rows=120, loss=0.5):
    """Held-out pairs before and after training, of which the share ``right`` is ranked right in the end."""
    after = [float(i < right * rows) for i in range(rows)]
    random.Random(0).shuffle(after)
    return [
        {
            "step": step,
            "id": f"r{i}",
            "prompt_id": f"p{i}",
            "loss": (loss if step else 0.69) + 0.01 * (i % 3),
            "rewards/accuracies": hit if step else 0.5,
            "rewards/chosen": 0.1 * step,
            "rewards/rejected": 0.0,
            "logps/chosen": -20.0,
            "logps/rejected": -21.0,
        }
        for step in (0, 30)
        for i, hit in enumerate(after)
    ]


@pytest.mark.parametrize(
    ("right", "tone", "words"),
    [
        (0.8, "good", "80"),
        (0.5, "flat", "learned something, and may rank no better than chance"),
        (0.2, "bad", "the wrong way round"),
    ],
)
def test_preferences_are_judged_against_the_model_as_it_started(tmp_path, right, tone, words):
    run = kinds.load_run(a_run(tmp_path / "r", "dpo", preferences=preference_rows(right)))
    said = kinds.verdict(run)
    assert (said.tone, words in said.headline) == (tone, True)
    assert "0.700 to 0.510: −0.190" in said.evidence and "120 held-out rows" in said.evidence
    assert kinds.warnings(run) == []


def test_overfitting_to_preferences_is_warned_of(tmp_path):
    trained = [{"step": s, "rewards/accuracies": 0.99} for s in range(1, 31)]
    path = a_run(tmp_path / "r", "dpo", trained, preferences=preference_rows(0.6, rows=50, loss=0.9))
    few, rose, gap = kinds.warnings(kinds.load_run(path))
    assert few.startswith("Only 50 held-out rows") and "rose from 0.700 to 0.910" in rose and "60" in gap


@pytest.mark.parametrize(("loss", "headline"), [(0.6899, "nothing clear"), (0.75, "got worse"), (0.6, "80")])
def test_a_model_that_has_learned_next_to_nothing_is_not_said_to_rank_as_people_did(tmp_path, loss, headline):
    """The accuracy of the log-probabilities is 80 % in all three; so it may be before the first step."""
    run = kinds.load_run(a_run(tmp_path / "r", "dpo", preferences=preference_rows(0.8, loss=loss)))
    assert headline in kinds.verdict(run).headline
    change = run.summary["heldout_loss_difference"]
    assert change == pytest.approx(loss - 0.69) and run.summary["margin_difference"] == pytest.approx(3.0)


def best_rows(gold):
    rng = random.Random(1)
    rows = []
    for i in range(60):
        scores = [rng.gauss(0, 1) for _ in range(8)]
        rows.append(
            {
                "prompt_id": f"p{i}",
                "scores": scores,
                "gold_scores": [gold * score + rng.gauss(0, 0.5) for score in scores],
                "lengths": [10] * 8,
                "best": scores.index(max(scores)),
                "one_score": rng.gauss(0, 1),
                "one_gold": rng.gauss(0, 1),
            }
        )
    return rows


@pytest.mark.parametrize(
    ("gold", "headline"),
    [
        (1.0, "The best of 8 is better than one sample."),
        (0.0, "The best of 8 may be no better than one sample."),
    ],
)
def test_the_gold_reward_decides_whether_choosing_was_worth_it(tmp_path, gold, headline):
    """The reward that chose rises in both cases; only the gold reward can tell them apart."""
    path = a_run(tmp_path / "r", "best-of-n", best=best_rows(gold))
    run = kinds.load_run(path)
    assert run.summary["reward_gain_ci"][0] > 1
    assert kinds.verdict(run).headline == headline
    page = write_report(path).read_text("utf-8")
    assert headline in page and "Gold reward of the best of n" in page
