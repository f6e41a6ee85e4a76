"""Held-out responses spoiled in known ways, the words of a response alone, and the epoch that is handed out."""

import json
import random
from types import SimpleNamespace

import pytest
import torch

from plaudit.config.sections import CheckpointSection, DataSection, OptimizerSection
from plaudit.data.chat import Encoded
from plaudit.evaluation.kinds import load_run, warnings
from plaudit.evaluation.kinds.reward_card import card
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.reward.epochs import Epochs
from plaudit.stages.reward.evaluate import score_dataset
from plaudit.stages.reward.scores import heldout_loss
from plaudit.stages.reward.spoiled import Parts, spoil
from plaudit.stages.reward.train import run_reward

WORDS = ("red", "blue", "green", "warm", "cold", "good", "bad", "big")
SIDES = DataSection(eval_fraction=0.5)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_tokens_of_a_response_without_what_stands_around_it():
    row = Encoded([1, 5, 6, 2, 7, 8, 3, 9], [False] * 4 + [True] * 4, 4)
    assert Parts.of(row, frozenset({2, 3, 9})) == Parts([1, 5, 6, 2], [7, 8], [3, 9])
    # An encoder's separators stand before the response, behind the prompt.
    assert Parts.of(Encoded([0, 5, 2, 2, 7, 2], [False] * 2 + [True] * 4, 2), frozenset({0, 2})) == Parts(
        [0, 5, 2, 2], [7], [2]
    )
    assert Parts.of(Encoded([1, 7, 3, 8, 3], [False] + [True] * 4, 1), frozenset({3})) is None, "two turns"
    assert Parts.of(Encoded([1, 3], [False, True], 1), frozenset({3})) is None, "no words"


def test_each_way_of_spoiling_by_hand():
    found = spoil(Parts([1], [5, 6, 7, 4], [3]), "p", [9, 9], frozenset({4}))
    mixed = found.pop("shuffled")
    assert mixed != [1, 5, 6, 7, 4, 3] and sorted(mixed) == [1, 3, 4, 5, 6, 7] and (mixed[0], mixed[-1]) == (1, 3)
    assert found == {
        "truncated": [1, 5, 6, 3],
        "doubled": [1, 5, 6, 7, 4, 5, 6, 7, 4, 3],
        "suffix": [1, 5, 6, 7, 4, 9, 9, 3],
        "unended": [1, 5, 6, 7, 4],
    }
    open_end = spoil(Parts([1], [5, 6, 4], []), "p", [9], frozenset({4}))
    assert open_end["unended"] == [1, 5, 6], "without an end token the full stop is the end"
    assert "unended" not in spoil(Parts([1], [5, 6], []), "p", [9], frozenset({4})), "nothing to take away"
    assert set(spoil(Parts([1], [5], [3]), "p", [], frozenset())) == {"truncated", "doubled", "unended"}


def test_what_a_model_says_of_spoiled_responses_is_written_and_summed_up(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "run", epochs=1, data=SIDES, optimizer=OptimizerSection(lr=1e-2)))
    lines = read_lines(run / "spoiled.jsonl")
    held: dict[str, list[tuple[float, float]]] = {}
    for row in read_lines(run / "heldout.jsonl"):
        held.setdefault(row["prompt_id"], []).append((row["chosen_score"], row["rejected_score"]))
    assert {line["how"] for line in lines} == {"swapped", "truncated", "doubled", "suffix", "unended"}, (
        "two equal words cannot be shuffled"
    )
    for line in lines:
        # Of the first pair of the prompt.
        assert (line["own_score"], line["other_score"]) == pytest.approx(held[line["prompt_id"]][0], abs=1e-5)
    found = card(run)
    assert {row["how"] for row in found["spoiled"]} == {line["how"] for line in lines}
    assert 0 <= found["prompt_swap_accuracy"] <= 1


def test_words_are_fitted_on_training_rows_and_judged_beside_the_model(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "run", data=SIDES))
    held = read_lines(run / "heldout.jsonl")
    assert all(row["chosen_words"] > row["rejected_words"] for row in held)
    found = card(run)
    assert found["words_baseline_accuracy"] == 1.0 and found["over_words_baseline"] == found["accuracy"] - 1.0
    weights = read_json(run / "words.json")["weights"]
    assert weights["good"] > 0 > weights["bad"]
    again = score_dataset(run, world.preferences)
    assert card(again)["words_baseline_accuracy"] == 1.0


def test_labels_and_rankings_have_a_bag_of_words_too(world, tmp_path):
    pairs = [(w, v) for w in ("good", "bad") for v in ("red", "blue", "big", "cold", "warm", "green")]
    texts = [{"text": f"say {w} {v} {u}", "label": int(w == "good")} for w, v in pairs for u in ("red", "big")]
    run = run_reward(world.reward(tmp_path / "l", dataset=written(tmp_path / "labels.jsonl", texts), data=SIDES))
    assert card(run)["words_baseline_accuracy"] == 1.0
    lists = [
        {"prompt": f"say {w} {v}", "responses": [" good good", " good", " bad"], "ranks": [1, 2, 3], "category": w}
        for w in WORDS[:4] for v in WORDS
    ]  # fmt: skip
    run = run_reward(world.reward(tmp_path / "r", dataset=written(tmp_path / "ranked.jsonl", lists), data=SIDES))
    found = card(run)
    assert found["words_baseline_accuracy"] == 1.0
    assert {row["group"] for row in found["accuracy_by_category"]} <= set(WORDS[:4])


def noise(path):
    """Which of two responses is chosen is drawn, so whatever a second epoch learns is wrong elsewhere."""
    rows, draw = [], random.Random(0)
    for i in range(128):
        two = [f" {WORDS[i % 8]} {WORDS[(i * 3) % 8]}", f" {WORDS[(i * 5 + 1) % 8]} {WORDS[(i + 3) % 8]}"]
        flip = draw.randrange(2)
        asked = f"say {WORDS[i % 8]} {WORDS[i // 8 % 8]} {WORDS[i // 64]}"
        rows.append({"prompt": asked, "chosen": two[flip], "rejected": two[1 - flip]})
    return written(path, rows)


def test_the_epoch_with_the_smallest_held_out_loss_is_handed_out_and_judged_on_other_rows(world, tmp_path, capsys):
    rates = {"epochs": 5, "data": SIDES, "optimizer": OptimizerSection(lr=3e-2)}
    run = run_reward(world.reward(tmp_path / "run", dataset=noise(tmp_path / "noise.jsonl"), **rates))
    summary, losses = read_json(run / "summary.json"), read_json(run / "summary.json")["epoch_losses"]
    best = losses.index(min(losses)) + 1
    assert len(losses) == 5 and summary["epoch_kept"] == best < 5, "noise is overfitted"
    steps = [row for row in read_lines(run / "metrics.jsonl") if "eval/loss" in row]
    assert [row["eval/loss"] for row in steps] == pytest.approx(losses)
    assert summary["model_step"] == steps[best - 1]["step"] and summary["judged_apart"] is True
    told = warnings(load_run(run))
    assert any("the epoch with the lowest held-out loss is kept: it was" in warning for warning in told), told
    rows = next(e for e in read_lines(run / "events.jsonl") if e["event"] == "started")
    assert rows and "choose the epoch" in capsys.readouterr().out
    # The weights are those of that epoch: a run that ends there judges the same rows alike, but for its schedule.
    held = read_lines(run / "heldout.jsonl")
    assert heldout_loss(held) < 2 * max(losses) and len(held) < 50


def test_a_resumed_run_hands_out_the_same_epoch(world, tmp_path):
    data = noise(tmp_path / "noise.jsonl")
    settings = {"dataset": data, "epochs": 4, "data": SIDES, "optimizer": OptimizerSection(lr=3e-2)}
    whole = run_reward(world.reward(tmp_path / "whole", **settings))

    def stop(step, metrics, rollouts):
        if step == 20:
            raise KeyboardInterrupt

    often = {"checkpoint": CheckpointSection(every=6)}
    with pytest.raises(KeyboardInterrupt):
        run_reward(world.reward(tmp_path / "cut", **settings, **often), on_iteration=stop)
    often = {"checkpoint": CheckpointSection(every=6, resume=True)}
    cut = run_reward(world.reward(tmp_path / "cut", **settings, **often))
    first, second = (read_json(run / "summary.json") for run in (whole, cut))
    assert first["epoch_losses"] == second["epoch_losses"] and first["epoch_kept"] == second["epoch_kept"]
    assert read_lines(whole / "heldout.jsonl") == read_lines(cut / "heldout.jsonl")


def test_few_held_out_rows_choose_and_judge_and_that_is_said(world, tmp_path, capsys):
    run = run_reward(world.reward(tmp_path / "run", epochs=2))
    assert "choose the epoch and judge it" in capsys.readouterr().out
    assert read_json(run / "summary.json")["judged_apart"] is False
    card(run)
    assert any("chosen by the same held-out rows" in warning for warning in warnings(load_run(run)))


def test_an_ensemble_has_spoiled_responses_and_says_how_far_its_members_agree(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "rms", members=2, data=SIDES))
    found = card(run)
    assert 0 <= found["ensemble_agreement"] <= 1 and found["spoiled"]
    assert all(len(row["members"]) == 2 for row in read_lines(run / "heldout.jsonl"))


def test_the_probe_says_how_far_it_is(world, tmp_path, capsys):
    run_reward(world.reward(tmp_path / "run", head_init="probe"))
    assert "rows read" in capsys.readouterr().out


def test_overfitted_is_said_only_where_the_rows_of_the_last_epoch_have_clearly_lost(world, tmp_path, capsys):
    rates = {"epochs": 4, "data": SIDES, "optimizer": OptimizerSection(lr=3e-2)}
    run = run_reward(world.reward(tmp_path / "run", dataset=noise(tmp_path / "noise.jsonl"), **rates))
    summary = read_json(run / "summary.json")
    [event] = [row for row in read_lines(run / "events.jsonl") if row["event"] == "rolled back"]
    low, high = summary["epoch_rise_ci"]
    assert summary["epoch_rise"] == pytest.approx(summary["epoch_losses"][-1] - min(summary["epoch_losses"]))
    assert low < summary["epoch_rise"] < high
    assert ("later epochs overfitted" in event["why"]) == (low > 0) and "interval" in event["why"]


@pytest.mark.parametrize(("steady", "words"), [(True, "later epochs overfitted"), (False, "no later one was better")])
def test_the_same_rise_is_overfitting_on_rows_that_agree_and_chance_on_rows_that_do_not(world, tmp_path, steady, words):
    # By hand: 40 rows, one a prompt, of loss 0.3 + i / 100; after the second epoch each has lost 0.1, or every other
    # one 1.2 while the rest gained 1.0. The mean rise is 0.1 both times, its interval +-0 and +-0.36.
    told, lines = [], [[{"prompt_id": str(i), "rating": 0.0, "targets": [0.0]} for i in range(40)] for _ in range(2)]
    for i in range(40):
        loss = 2.0 + i / 100
        lines[0][i]["score"] = loss**0.5
        lines[1][i]["score"] = (loss + (0.1 if steady else (1.2 if i % 2 else -1.0))) ** 0.5
    session = SimpleNamespace(
        run=tmp_path, total=2,
        recorder=SimpleNamespace(summary=told.append, event=lambda name, **fields: told.append(fields)),
    )  # fmt: skip
    learner = SimpleNamespace(
        weights=lambda: SimpleNamespace(tensors=lambda: {"w": torch.zeros(1)}), put_back=lambda tensors: None
    )
    scored = iter(lines)
    epochs = Epochs(session, learner, 1, lambda: next(scored), ())
    for step in (1, 2):
        epochs.after(step, 0)
    assert epochs.rise.value == pytest.approx(0.1) and epochs.rise.n == 40
    again = Epochs(session, learner, 1, list, ())
    again.resume(json.loads(json.dumps(epochs.state())))
    assert (again.rise, again.best_rows, again.losses) == (epochs.rise, epochs.best_rows, epochs.losses)
    epochs.finish()
    assert [fields["why"].startswith(words) for fields in told if "why" in fields] == [True]
