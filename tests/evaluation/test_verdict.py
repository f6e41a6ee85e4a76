import json
import math

import pytest

from plaudit.evaluation.kinds import load_run, verdict, warnings


def read(path):
    run = load_run(path)
    return verdict(run), warnings(run)


def test_gold_that_rose_is_called_better_and_nothing_is_suspicious(tmp_path, synthetic):
    said, found = read(synthetic["ppo"](tmp_path / "r"))
    assert (said.tone, said.headline) == ("good", "It got better.")
    assert "64 held-out prompts" in said.evidence and "KL of 4.7 nats" in said.evidence
    assert found == []


def test_over_optimisation_is_called_worse_with_every_sign_of_it(tmp_path, synthetic):
    said, found = read(synthetic["ppo"](tmp_path / "r", gold_gain=-0.8, reward_gain=2.5, kl=14, growth=2.1))
    assert (said.tone, said.headline) == ("bad", "It got worse.")
    assert found[0].startswith("Over-optimised")
    assert any("KL is 13" in w for w in found) and any("2.0 times as long" in w for w in found)


def test_a_difference_within_noise_is_no_success(tmp_path, synthetic):
    said, _ = read(synthetic["ppo"](tmp_path / "r", gold_gain=0.0))
    assert (said.tone, said.headline) == ("flat", "No clear change.")


def test_without_gold_the_page_does_not_claim_improvement(tmp_path, synthetic):
    said, _ = read(synthetic["ppo"](tmp_path / "r", gold=False))
    assert said.headline == "The reward rose." and "It does not show that the responses are better" in said.evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eos_rate": 0.5}, "end by themselves"),
        ({"eos_rate": 0.0}, "No response ends by itself"),
        ({"perplexity_ratio": 2.0}, "gibberish"),
        ({"perplexity_ratio": 0.4}, "bland"),
        ({"distinct_2": 0.1, "distinct_2_before": 0.5}, "Diversity fell"),
        ({"reward_length_spearman": 0.7, "reward_length_spearman_before": 0.1}, "follows length"),
    ],
)
def test_each_detector_fires(tmp_path, synthetic, change, words):
    run = synthetic["ppo"](tmp_path / "r")
    load_run(run)
    summary = json.loads((run / "summary.json").read_text()) | change
    (run / "summary.json").write_text(json.dumps(summary))
    (found,) = read(run)[1]
    assert words in found


def test_curves_have_detectors_too(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "r")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows[-6:]:
        row |= {"policy/entropy": 0.1, "policy/clip_fraction": 0.6, "critic/explained_variance": -0.5}
        row |= {"reward/error_share": 0.1}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = " ".join(read(run)[1])
    for words in ("Entropy collapsed", "60", "critic predicts worse than a constant", "reward failed on"):
        assert words in found


def test_alarms_and_an_unfinished_run_are_said(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "r")
    lines = (run / "events.jsonl").read_text().splitlines()
    alarm = json.dumps({"time": 1.76e9, "event": "alarm", "message": "KL 12 nats"})
    stop = json.dumps({"time": 1.76e9, "event": "stopped", "reason": "TRAINING: the KL exploded"})
    (run / "events.jsonl").write_text("\n".join([*lines[:-1], alarm, alarm, stop]) + "\n")
    found = read(run)[1]
    assert found == ["The run did not finish: TRAINING: the KL exploded", "During the run: KL 12 nats"]


def test_an_early_alarm_is_called_early_and_what_became_of_it_is_said(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "r")
    rows = [
        {"time": 1.76e9, "event": "alarm", "step": step, "kind": kind, "message": f"{kind} changed"} | more
        for step, kind, more in ((5, "length", {"early": True}), (9, "surface", {}))
    ]
    lines = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text("\n".join([*lines[:-1], *map(json.dumps, rows), lines[-1]]) + "\n")
    early = "Early in the run, at iteration 5, when nothing was lost yet: length changed"
    late = "During the run: surface changed"
    assert read(run)[1] == [late, f"{early}. In the end the gold reward was clearly above its start"]
    alarms = json.loads((run / "summary.json").read_text())["alarms"]
    assert [(a["kind"], a["early"]) for a in alarms] == [("length", True), ("surface", False)]
    worse = synthetic["ppo"](tmp_path / "w", gold_gain=-1.0)
    (worse / "events.jsonl").write_text((run / "events.jsonl").read_text())
    assert read(worse)[1][-2:] == [late, early]


def test_a_policy_put_back_to_its_start_is_no_success(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "r", gold_gain=-1.0)
    event = {"time": 1.76e9, "event": "rolled back", "step": 0, "why": "gold ended below its start"}
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    (run / "summary.json").write_text('{"command": "ppo", "model_step": 0}')
    said, found = read(run)
    assert said.headline == "It was put back to where it started." and "gold ended below" in said.evidence
    assert found[0].startswith("Put back to iteration 0")
    assert json.loads((run / "summary.json").read_text())["win_rate"] == 0.5


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ([-0.23, 0.37], "was −0.38 there and −0.44 after iteration 40, no clear difference (95\u202f% interval −0.23"),
        ([0.01, 0.11], "by iteration 40 the gold on the other held-out prompts had fallen from −0.38 to −0.44."),
    ],
)
def test_a_peak_has_fallen_only_where_the_interval_says_so(tmp_path, synthetic, interval, words):
    run = synthetic["ppo"](tmp_path / "r")
    facts = {"model_step": 20, "peak_step": 20, "end_step": 40, "peak_over_end_ci": interval}
    summary = {"command": "ppo", "peak_selection": -0.38, "end_selection": -0.44} | facts
    (run / "summary.json").write_text(json.dumps(summary))
    assert words in read(run)[0].evidence


def test_reward_models(tmp_path, synthetic):
    said, found = read(synthetic["reward"](tmp_path / "good"))
    assert said.tone == "good" and "as the annotators did" in said.headline and found == []
    said, _ = read(synthetic["reward"](tmp_path / "coin", skill=0.0))
    assert said.headline == "It may rank no better than chance."
    _, found = read(synthetic["reward"](tmp_path / "few", pairs=40))
    assert "Only 40 held-out pairs" in found[0]


def test_a_reward_model_that_only_knows_length_is_found_out(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    rows = [json.loads(line) for line in (run / "heldout.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        longer, shorter = (20, 10) if i % 4 else (10, 20)
        row |= {
            "chosen_length": longer,
            "rejected_length": shorter,
            "chosen_score": longer,
            "rejected_score": shorter,
        }
    (run / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, found = read(run)
    assert said.tone == "flat" and "so might length alone" in said.headline
    assert any("Scores follow length" in w for w in found)


def test_sft(tmp_path, synthetic):
    said, found = read(synthetic["sft"](tmp_path / "r"))
    assert said.headline == "It learned to imitate." and "96 held-out" in said.evidence and found == []
    assert "went from 3.40 to 1.08 nats per token: −2.320" in said.evidence
    summary = json.loads((tmp_path / "r" / "summary.json").read_text()) | {"heldout_loss": 2.5}
    (tmp_path / "r" / "summary.json").write_text(json.dumps(summary))
    assert "Overfitting" in read(tmp_path / "r")[1][0]


@pytest.mark.parametrize(
    ("after", "rows", "headline", "tone"),
    [
        (3.399, 96, "It learned nothing clear.", "flat"),
        (3.9, 96, "It imitates worse than before.", "bad"),
        (1.0, 9, "Too few held-out rows to say.", "flat"),
        (3.0, 96, "It learned to imitate.", "good"),
    ],
)
def test_sft_is_judged_on_held_out_rows_whatever_its_training_batches_say(
    tmp_path, synthetic, after, rows, headline, tone
):
    run = synthetic["sft"](tmp_path / "r")
    lines = [
        {"step": s, "id": f"d{i}", "prompt_id": f"p{i}", "loss": 10 * (loss + 0.001 * (i % 5)), "tokens": 10}
        for s, loss in ((0, 3.4), (3, after))
        for i in range(rows)
    ]
    (run / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": {3.4 + 0.1 * s}}}\n' for s in (1, 2, 3)))
    said, _ = read(run)
    assert (said.headline, said.tone) == (headline, tone)
    assert "training batches went from 3.50 to 3.70" in said.evidence


def test_sft_without_held_out_rows_is_not_judged(tmp_path, synthetic):
    run = synthetic["sft"](tmp_path / "r")
    (run / "heldout.jsonl").unlink()
    said, _ = read(run)
    assert (said.headline, said.tone) == ("Trained, and not judged.", "flat")


def test_a_reward_model_that_does_not_read_the_prompt_is_warned_of(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    swaps = [{"prompt_id": f"p{i}", "own_score": float(i % 100 < 46), "other_score": 0.5} for i in range(200)]
    (run / "swaps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in swaps))
    _, found = read(run)
    assert "After another prompt it scores a response as high" in found[0] and "46" in found[0]
    _, coin = read(synthetic["reward"](tmp_path / "coin", skill=0.0))
    assert coin[0].startswith("It may be a coin")


def test_a_reward_model_is_compared_with_itself_before_training(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    rows = [json.loads(line) for line in (run / "heldout.jsonl").read_text().splitlines()]
    start = [row | {"chosen_score": 0.0, "rejected_score": 0.0} for row in rows]
    (run / "heldout_start.jsonl").write_text("".join(json.dumps(row) + "\n" for row in start))
    said, _ = read(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["heldout_loss_before"] == pytest.approx(math.log(2)) and summary["accuracy_before"] == 0.5
    assert summary["verdict"] == "better" and summary["heldout_loss_difference_ci"][1] < 0
    assert "Before training it ranked 50" in said.evidence and "from 0.693 to" in said.evidence


def test_the_rule_to_beat_is_the_better_one_of_longer_and_shorter(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "shorter_is_better")
    rows = [json.loads(line) for line in (run / "heldout.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"chosen_length": 10 if i % 10 else 20, "rejected_length": 15}
    (run / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, _ = read(run)
    assert "so might length alone" in said.headline
    assert "Always taking the shorter one would be right 90" in said.evidence


def test_what_the_reward_bought_stands_beside_the_gold_reward(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "r")
    rows = [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()]
    gold = {0: 0.0, 5: 0.7, 10: 0.98, 15: 1.02, 20: 1.0, 25: 0.97, 30: 1.03, 35: 0.99, 40: 1.0}
    for row in rows:
        row |= {"gold": gold[row["step"]] + 0.01 * (row["k"] % 2), "reward": row["step"] / 20}
    (run / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, _ = read(run)
    assert "the reward changed by +2.00 and the gold reward by +1.00." in said.evidence
    assert "Since iteration 10 the gold reward has been level, and the reward has risen by +1.50 more." in said.evidence
    said, _ = read(synthetic["ppo"](tmp_path / "none", gold=False))
    assert "second reward that training never sees" not in said.evidence
