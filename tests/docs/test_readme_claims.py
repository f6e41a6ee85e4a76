"""What README says is done about known problems: each point names the tests that hold it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADING = "## Known problems of RLHF, and what is done about them"
HELD_BY = {
    "The end token": [
        "tests/models/test_invariants.py::test_pad_token_equal_to_end_token_changes_nothing",
        "tests/numerics/test_invariants_by_architecture.py::test_padding_with_the_end_token_changes_no_score",
        "tests/functional/test_advantages.py::test_v6_score_on_the_end_token_not_one_after",
    ],
    "Log-probs": ["tests/stages/online/test_rl.py::test_ratio_is_one_at_the_first_minibatch"],
    "Means are taken over the whole optimizer step": [
        "tests/numerics/test_invariants_by_architecture.py::test_microbatches_add_up_to_the_gradient_of_the_step",
        "tests/algorithms/test_reward_model.py::test_splitting_a_step_changes_nothing",
    ],
    "A reward that fails": [
        "tests/algorithms/test_ppo.py::test_a_failed_reward_takes_part_in_nothing",
        "tests/algorithms/test_online_methods.py::test_a_failed_reward_takes_part_in_nothing",
        "tests/rewards/test_model.py::test_a_fifth_may_fail_and_no_more",
        "tests/rollouts/test_collect.py::test_many_failed_rewards_stop_the_run",
    ],
    "Stopping is safe": [
        "tests/cli/test_main.py::test_sigterm_is_a_clean_stop",
        "tests/cli/test_preference_commands.py::test_a_stopped_run_exits_with_75_and_resumes",
        "tests/stages/online/test_rl.py::test_resumed_equals_uninterrupted_bit_for_bit",
    ],
    "A peak that was lost": [
        "tests/stages/online/test_rl.py::test_a_lost_peak_is_handed_out_even_where_the_end_is_above_the_start",
        "tests/evaluation/test_choice.py::test_a_run_without_effect_is_rarely_called_better_and_a_lost_peak_is_found",
    ],
    "Reward hacking": [
        "tests/learning/test_hacked.py",
        "tests/evaluation/test_hacking.py::test_a_phrase_is_named_by_the_time_it_is_in_60_of_150",
        "tests/evaluation/test_hacking.py::test_a_reward_that_counts_words_or_length_is_named_at_once",
        "tests/stages/online/test_guard.py::test_stop_hands_out_the_weights_before_the_alarm",
    ],
    "Random numbers are counter-based": [
        "tests/generation/test_sampling.py::test_every_part_of_the_key_changes_the_seed",
        "tests/contracts/test_generator.py::test_a_response_depends_on_weights_seeds_and_its_prompt_alone",
    ],
}
ELSEWHERE = {
    "on 64 prompts\nthat no stage has trained on and that took no part in choosing the weights": [
        "tests/e2e/test_quickstart.py::test_the_policy_is_judged_on_prompts_that_no_stage_has_trained_on"
    ],
    "Imports only go down": ["tests/architecture/test_house.py"],
    "[The tutorial](docs/tutorial/README.md) covers all stages, offline, with code that runs in CI": [
        "tests/docs/test_tutorial.py"
    ],
}
"""A sentence of README -> the tests that hold it."""


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_each_point_about_a_known_problem_names_its_tests():
    section = readme().partition(HEADING)[2].partition("\n## ")[0].partition("\nMore:")[0]
    points = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
    assert points == list(HELD_BY), "a point without a test, or a test whose point is gone"
    assert section.count("\n- ") == len(points), "each point begins with what it is about"


@pytest.mark.parametrize("claim", ELSEWHERE)
def test_the_sentences_stand_in_readme(claim):
    assert claim in readme()


@pytest.mark.parametrize("name", [name for names in (HELD_BY | ELSEWHERE).values() for name in names])
def test_the_tests_are_there(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in names if function else any(each.startswith("test_") for each in names)


def test_the_table_against_trl_is_the_one_of_the_page_of_speed():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if "one trunk" not in row]
    matches = [re.match(r"\|.*?\| (tiny|SmolLM2) \|.*?\*\*(\d\.\d\d)\*\*", row) for row in rows]
    measured = [match.groups() for match in matches if match]
    for model, name in (("tiny model", "tiny"), ("SmolLM2-135M", "SmolLM2")):
        row = re.search(rf"^\| {model} \|(.*)\|$", readme(), re.MULTILINE)
        assert row, model
        said = [float(cell) for cell in row[1].split("|")]
        assert len(said) == 6
        assert said == [round(float(ratio), 1) for at, ratio in measured if at == name]


def test_the_five_seeds_are_those_of_the_page_of_results():
    rows = re.findall(r"^\| (\d) \| (-?\d\.\d+) \| (\d\.\d+) \| \+(\d\.\d+) \[\+(\d\.\d+), \+(\d\.\d+)\]", readme(),
                      re.MULTILINE)  # fmt: skip
    assert [row[0] for row in rows] == list("01234")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for seed, before, after, gain, low, high in rows:
        # Each figure is rounded for itself.
        assert float(after) - float(before) == pytest.approx(float(gain), abs=0.011), seed
        assert float(low) < float(gain) < float(high)
        assert gain in page, seed
    assert "excludes zero for 5 of 5 seeds" in readme() and all(float(row[4]) > 0 for row in rows)
