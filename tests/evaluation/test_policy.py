import json
import math

import pytest

from plaudit.errors import DataError
from plaudit.evaluation.kinds import policy, policy_warnings
from plaudit.evaluation.kinds.policy_card import card
from plaudit.evaluation.responses.wording import distinct
from plaudit.runs.reading import read_run


def row(step, prompt, reward, **more):
    length = more.pop("length", 10)
    base = {
        "step": step,
        "prompt_id": prompt,
        "k": 0,
        "prompt": "p",
        "response": "a b",
        "reward": reward,
        "kl": 0.0 if step == 0 else 2.0,
        "length": length,
        "finish_reason": "stop",
        "logprob": -20.0,
        "ref_logprob": -20.0 if step == 0 else -22.0,
    }
    return base | more


def write(run, rows):
    (run / "evaluation.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_the_page_says_how_well_the_reward_model_ranks():
    curve = [{"step": step, "gold": 0.1 * step, "reward": 0.2 * step} for step in range(5)]
    known = {"accuracy": 0.67, "accuracy_ci": [0.64, 0.7], "heldout_pairs": 1025}
    said = policy._bought({"curve": curve, "reward_models": [known]}).replace("\u202f", " ")
    assert "ranks 67 % (64 to 70 %) of 1025 held-out pairs as people did" in said
    assert "ranks" not in policy._bought({"curve": curve, "reward_models": []})


def test_figures_by_hand(tmp_path):
    write(
        tmp_path,
        [row(0, "a", 1.0), row(0, "b", 1.0), row(0, "c", 3.0)]
        + [row(5, "a", 2.0), row(5, "b", 1.0), row(5, "c", 2.0, finish_reason="length")],
    )
    figures = card(tmp_path)
    assert figures["reward_mean"] == pytest.approx(5 / 3)
    assert figures["reward_difference"] == pytest.approx(0.0)
    assert figures["win_rate"] == pytest.approx(0.5) and figures["win_rate_judge"] == "reward"
    assert figures["kl"] == 2.0 and figures["kl_before"] == 0.0
    assert figures["perplexity_ratio"] == pytest.approx(math.exp(0.2))
    assert figures["eos_rate"] == pytest.approx(2 / 3) and figures["eos_rate_before"] == 1.0
    assert json.loads((tmp_path / "summary.json").read_text())["win_rate"] == figures["win_rate"]


def test_the_coefficient_in_force_is_the_last_one_that_was_measured(tmp_path):
    write(tmp_path, [row(0, "a", 1.0), row(5, "a", 2.0)])
    assert "kl_coef_in_force" not in card(tmp_path)
    lines = [
        {"step": 1, "objective/kl_coef_in_force": 0.3},
        {"step": 2, "objective/kl_coef_in_force": 0.2},
        {"step": 3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert card(tmp_path)["kl_coef_in_force"] == 0.2


def test_gold_judges_where_it_exists(tmp_path, synthetic):
    # Over-optimisation: the reward rises, what it stands for falls.
    figures = card(synthetic["ppo"](tmp_path / "r", reward_gain=2.0, gold_gain=-1.0))
    assert figures["win_rate_judge"] == "gold"
    assert figures["win_rate_ci"][1] < 0.5 < figures["win_rate_by_reward"]
    assert figures["gold_difference_ci"][1] < 0 < figures["reward_difference_ci"][0]
    assert [point["step"] for point in figures["curve"]] == list(range(0, 41, 5))


def judged_rows(answers):
    """Start and end of twelve prompts; ``answers(prompt, step)``: the gold reward, or None where it failed."""
    rows = [row(step, f"p{i}", step, set="final") for step in (0, 5) for i in range(12)]
    for one in rows:
        value = answers(int(one["prompt_id"][1:]), one["step"])
        if value is not None:
            one["gold"] = value
    return rows


def carded(run, rows):
    (run / "summary.json").write_text('{"model_step": 5, "command": "ppo"}')
    write(run, rows)
    return card(run)


def test_a_gold_reward_that_answered_few_prompts_judges_those_alone(tmp_path):
    few = carded(tmp_path, judged_rows(lambda i, step: step + i / 10 if i < 4 else None))
    assert few["verdict"] == "too_few" and few["gold_difference_prompts"] == 4
    assert few["gold_error_share"] == pytest.approx(8 / 12)
    # It failed on other prompts at the start than at the end: levels and difference are of the prompts that have both.
    half = carded(tmp_path, judged_rows(lambda i, step: None if i == (0 if step else 11) else step + 10.0 * i))
    assert half["gold_mean"] - half["gold_mean_before"] == pytest.approx(half["gold_difference"]) == pytest.approx(5)
    assert half["gold_difference_prompts"] == 10 and half["verdict"] == "better"


def test_a_gold_reward_that_never_differs_has_looked_at_nothing(tmp_path):
    assert carded(tmp_path, judged_rows(lambda i, step: 1.0))["gold_constant"] is True
    missing = policy_warnings.unchecked(read_run(tmp_path))
    assert any("the same value for every response" in words for words in missing)
    assert carded(tmp_path, judged_rows(lambda i, step: float(i)))["gold_constant"] is False
    assert "gold_constant" not in carded(tmp_path, judged_rows(lambda i, step: None))


def test_a_reward_that_rose_is_no_good_news_where_an_alarm_doubts_it(tmp_path):
    rows = [row(step, f"p{i}", step + i / 10, set="final") for step in (0, 5) for i in range(12)]
    (tmp_path / "metrics.jsonl").write_text("")
    carded(tmp_path, rows)
    assert (policy.verdict(read_run(tmp_path)).tone, policy.verdict(read_run(tmp_path)).headline) == (
        "good", "The reward rose.")  # fmt: skip
    (tmp_path / "events.jsonl").write_text('{"event": "alarm", "kind": "stale", "step": 2, "message": "x"}\n')
    carded(tmp_path, rows)
    assert policy.verdict(read_run(tmp_path)).tone == "good", "that is about sampling"
    (tmp_path / "events.jsonl").write_text('{"event": "alarm", "kind": "phrase", "step": 2, "message": "x"}\n')
    carded(tmp_path, rows)
    doubted = policy.verdict(read_run(tmp_path))
    assert doubted.tone == "flat" and "there were alarms" in doubted.headline


def test_failed_rewards_and_rows_written_twice_do_not_count(tmp_path):
    write(
        tmp_path, [row(0, "a", 1.0), row(0, "b", None), row(5, "a", 9.0), row(5, "a", 3.0), row(5, "b", 4.0)]
    )
    figures = card(tmp_path)
    assert figures["reward_mean"] == pytest.approx(3.5)
    assert figures["reward_difference"] == pytest.approx(2.0) and figures["win_rate_pairs"] == 1


def test_the_saved_model_is_the_one_that_is_judged(tmp_path):
    write(tmp_path, [row(0, "a", 1.0), row(5, "a", 3.0), row(10, "a", -4.0)])
    assert card(tmp_path)["reward_mean"] == -4.0
    (tmp_path / "summary.json").write_text('{"model_step": 5}')
    assert card(tmp_path)["reward_mean"] == 3.0


def test_one_step_has_levels_but_no_changes(tmp_path):
    write(tmp_path, [row(0, "a", 1.0), row(0, "b", 2.0)])
    figures = card(tmp_path)
    assert figures["reward_mean"] == 1.5 and "win_rate" not in figures


def test_no_rows(tmp_path):
    with pytest.raises(DataError, match=r"evaluation\.jsonl"):
        card(tmp_path)


def test_distinct_edge_cases():
    assert math.isnan(distinct(["", "a"], 2))
    assert distinct(["a b c", "a b c"], 2) == 0.5
    assert distinct(["x " * 10 + "y"], 1, words=10) == 0.1
