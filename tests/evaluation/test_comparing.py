"""Several runs on one page: at equal KL, grouped by settings, and never with the headline of one of them."""

import json
from pathlib import Path

import pytest

from plaudit.cli.main import main
from plaudit.evaluation.comparing import distance
from plaudit.evaluation.comparing.page import headline, sections
from plaudit.evaluation.comparing.trials import differing, groups_of, trials_in, trials_of
from plaudit.evaluation.kinds.policy_card import card as policy_card
from plaudit.evaluation.report import write_comparison, write_report

from .conftest import make_quickstart, make_reward, make_rl, make_sft, write_lines


def trial(folder: Path, name: str, *, seed: int = 0, kl_coef: float = 0.05, **options) -> Path:
    run = make_rl(folder / name, **options)
    (run / "config.toml").write_text(
        f'seed = {seed}  # command line\nout = "{name}"\n\n[algorithm]\nkl_coef = {kl_coef}  # command line\n'
    )
    return run


def failed(run: Path, why: str = "TrainingError: the gradients are not finite") -> Path:
    events = run / "events.jsonl"
    events.write_text(events.read_text().replace('"reason": "finished"', f'"reason": "{why}"'))
    return run


def evaluations(folder: Path, rows: list[tuple[int, str, float, float]], **more) -> distance.Track:
    """Rows are (step, prompt, kl, gold)."""
    names = ("step", "prompt_id", "kl", "gold")
    write_lines(folder / "evaluation.jsonl", [dict(zip(names, row, strict=True)) | more for row in rows])
    return distance.track_of(folder, "gold")


def test_the_change_at_a_kl_lies_on_the_line_between_two_evaluations(tmp_path):
    track = evaluations(
        tmp_path,
        [(0, "a", 0.0, 1.0), (0, "b", 0.0, 3.0), (5, "a", 1.0, 2.0), (5, "b", 3.0, 3.0),
         (9, "a", 4.0, 4.0), (9, "b", 4.0, 2.0)],
    )  # fmt: skip
    assert [point.kl for point in track.points] == [0.0, 2.0, 4.0] and track.reach == 4.0
    # Half way from KL 2 (changes +1 and 0) to KL 4 (+3 and -1).
    assert track.at(3.0) == {"a": 2.0, "b": -0.5}
    assert track.at(2.0) == {"a": 1.0, "b": 0.0}
    assert track.at(4.5) is None


def test_samples_of_a_prompt_are_averaged_and_prompts_kept_for_the_end_left_out(tmp_path):
    rows = [
        {"step": step, "prompt_id": "a", "k": k, "kl": kl, "gold": gold, "set": "selection"}
        for step, k, kl, gold in ((0, 0, 0.0, 0.0), (0, 1, 0.0, 2.0), (4, 0, 1.0, 3.0), (4, 1, 3.0, 5.0))
    ]
    final = {"step": 4, "prompt_id": "z", "k": 0, "kl": 50.0, "gold": 99.0, "set": "final"}
    write_lines(tmp_path / "evaluation.jsonl", [*rows, final])
    track = distance.track_of(tmp_path, "gold")
    assert track.reach == 2.0 and track.at(2.0) == {"a": 3.0}


def test_the_points_are_those_of_the_curve_on_the_runs_own_page(tmp_path):
    """Rows that sampled two steps anew are of the same prompts, and must not replace those of the evaluation."""
    rows = [
        {"step": step, "prompt_id": prompt, "k": 0, "kl": kl, "gold": gold, "reward": gold, "set": where}
        for where, kl, gold in (("selection", 1.0, 0.5), ("again", 4.0, -0.5), ("final", 9.0, 0.0))
        for step in (0, 4)
        for prompt in "ab"
        if step or where != "again"
    ]
    rows[1]["gold"] = None  # the judge failed on one response: its KL counts all the same
    write_lines(tmp_path / "evaluation.jsonl", rows)
    points = distance.track_of(tmp_path, "gold").points
    curve = policy_card(tmp_path)["curve"]
    assert [(p.step, p.kl) for p in points] == [(p["step"], p["kl"]) for p in curve] == [(0, 1.0), (4, 1.0)]
    assert points[-1].change == {"a": 0.0} and curve[-1]["gold"] == 0.5


def test_all_are_compared_at_the_kl_that_each_has_reached(tmp_path):
    far = evaluations(tmp_path / "far", [(0, "a", 0.0, 0.0), (1, "a", 8.0, 4.0)])
    near = evaluations(tmp_path / "near", [(0, "a", 0.0, 0.0), (1, "a", 2.0, 1.5)])
    still = evaluations(tmp_path / "still", [(0, "a", 0.0, 0.0), (1, "a", 0.01, 0.0)])
    assert distance.common_kl([far, near]) == 2.0
    # At KL 2 the one that ended with more of the reward has less of it.
    assert distance.change_at([far], 2.0) == {"a": 1.0} and distance.change_at([near], 2.0) == {"a": 1.5}
    assert distance.common_kl([far, near, still]) is None and distance.common_kl([far]) is None


def test_repetitions_are_averaged_prompt_by_prompt(tmp_path):
    one = evaluations(tmp_path / "1", [(0, "a", 0.0, 0.0), (0, "b", 0.0, 0.0), (1, "a", 1.0, 1.0), (1, "b", 1.0, 5.0)])
    two = evaluations(tmp_path / "2", [(0, "a", 0.0, 0.0), (1, "a", 1.0, 2.0)])
    assert distance.change_at([one, two], 1.0) == {"a": 1.5}


def test_a_difference_of_two_of_many_has_the_wider_interval_of_all_pairs():
    one, other = {str(i): float(i % 7) for i in range(60)}, {str(i): float(i % 5) for i in range(60)}
    two, many = distance.difference(one, other, 2), distance.difference(one, other, 6)
    assert two.value == many.value == pytest.approx(sum(i % 7 - i % 5 for i in range(60)) / 60)
    assert many.low < two.low < two.high < many.high
    assert distance.difference(one, {"x": 1.0}, 2) is None


def test_trials_that_differ_by_seed_are_one_group(tmp_path):
    paths = [trial(tmp_path, f"{coef}-{seed}", seed=seed, kl_coef=coef) for coef in (0.05, 0.1) for seed in (0, 1)]
    trials = trials_of(paths)
    assert [t.name for t in trials] == ["0.05-0", "0.05-1", "0.1-0", "0.1-1"]
    assert [t.seed for t in trials] == ["0", "1", "0", "1"]
    assert differing(trials) == {"algorithm.kl_coef": ["0.05", "0.05", "0.1", "0.1"]}
    groups = groups_of(trials)
    assert [(g.name, len(g.trials)) for g in groups] == [("algorithm.kl_coef 0.05", 2), ("algorithm.kl_coef 0.1", 2)]


def test_names_that_are_alike_are_told_apart(tmp_path):
    paths = [trial(tmp_path / parent, "ppo") for parent in ("a", "b")]
    assert [t.name for t in trials_of(paths)] == ["a/ppo", "b/ppo"]


def test_the_mean_over_seeds_stands_with_its_spread(tmp_path):
    paths = [trial(tmp_path, f"s{seed}", seed=seed, kl=5.0 + seed, gold_gain=1.0 + seed) for seed in (0, 1)]
    [section] = sections(trials_of(paths))
    [line] = section.repeated.lines
    column = section.repeated.head.index("Change of the gold reward") - 1
    gains = [json.loads((path / "summary.json").read_text())["gold_difference"] for path in paths]
    mean, gap = sum(gains) / 2, abs(gains[0] - gains[1])
    assert line.cells[0].value == "2"
    assert line.cells[column].value == f"{mean:.2f}"
    assert line.cells[column].note.startswith(f"sd {gap / 2**0.5:.2f}; {min(gains):.2f} to {max(gains):.2f}")


def test_a_failed_run_is_shown_as_what_it_was_and_decides_nothing(tmp_path):
    paths = [trial(tmp_path, "good"), trial(tmp_path, "other", kl_coef=0.1, gold_gain=0.2)]
    paths.append(failed(trial(tmp_path, "broken", kl_coef=0.2, gold_gain=9.0, kl=0.5)))
    trials = trials_of(paths)
    words, lead = headline(trials)
    assert words == "3 runs side by side." and "1 of 3 did not end as told: broken" in lead
    [section] = sections(trials)
    assert "good had gained the most of the gold reward" in section.lead and "broken" not in section.lead
    assert "more than other" in section.lead
    ended = {line.name: line.cells[1] for line in section.results.lines}
    assert ended["broken"].value == "Did not finish" and ended["broken"].tone == "bad"
    assert ended["broken"].note.startswith("the gradients are not finite.")
    assert ended["good"].value == "It got better."


def test_equal_runs_have_no_clear_difference(tmp_path):
    paths = [trial(tmp_path, "a"), trial(tmp_path, "b", kl_coef=0.1)]
    [section] = sections(trials_of(paths))
    assert "with no clear difference to" in section.lead


def test_without_gold_in_all_of_them_the_reward_is_compared(tmp_path):
    paths = [trial(tmp_path, "a"), trial(tmp_path, "b", kl_coef=0.1, gold=False)]
    [section] = sections(trials_of(paths))
    assert "the reward they were trained on" in section.lead


def with_judges(run: Path, *, reward: str = "a.py:f", gold: str = "") -> Path:
    def tables(role: str, path: str) -> str:
        return f'[[{role}]]  # command line\nkind = "function"\npath = "{path}"\nweight = 1.0\n\n' if path else ""

    (run / "config.toml").write_text("seed = 0  # default\n\n" + tables("reward", reward) + tables("gold", gold))
    return run


def lead_of(*paths: Path) -> tuple[str, list[str], list[str]]:
    [section] = sections(trials_of(paths))
    return section.lead, section.results.head, [chart.title for chart in section.drawings]


def test_runs_with_different_rewards_are_not_ranked_by_them(tmp_path):
    a, b = (trial(tmp_path, name, gold=False) for name in "ab")
    lead, head, drawn = lead_of(with_judges(a), with_judges(b, reward="b.py:g"))
    assert "gained the most" not in lead and "trained on different rewards, and have no gold reward" in lead
    assert not any("at KL" in name for name in head) and "Change of the reward over distance" not in drawn
    [section] = sections(trials_of([a, b]))
    assert "their levels cannot be compared" in section.drawings[0].caption
    with_judges(b)
    lead, head, drawn = lead_of(a, b)
    assert "the reward they were trained on" in lead and "Change of the reward over distance" in drawn


def test_one_gold_for_all_of_them_ranks_runs_with_different_rewards(tmp_path):
    a = with_judges(trial(tmp_path, "a"), gold="g.py:true")
    b = with_judges(trial(tmp_path, "b", gold_gain=0.1), reward="b.py:g", gold="g.py:true")
    assert "a had gained the most of the gold reward" in lead_of(a, b)[0]
    with_judges(b, reward="b.py:g", gold="g.py:other")
    assert "do not have the same gold reward. A number" in lead_of(a, b)[0]
    with_judges(b, gold="g.py:other")  # the reward is the same: that can be compared
    lead = lead_of(a, b)[0]
    assert "of the reward they were trained on" in lead and "do not have the same gold reward" in lead
    # A run that failed has no say in what the others are compared by.
    c = failed(with_judges(trial(tmp_path, "c"), reward="c.py:h", gold="g.py:else"))
    with_judges(b, reward="b.py:g", gold="g.py:true")
    assert "of the gold reward" in lead_of(a, b, c)[0]


def test_judges_are_told_apart_by_the_hash_of_a_model_and_of_a_function_given_in_python(tmp_path):
    run = trial(tmp_path, "a")
    (run / "config.toml").write_text('[[reward]]\nkind = "model"\npath = "runs/reward"\nname = "x"\nweight = 2.0\n')
    inputs = {"reward 0": {"source": "runs/reward", "sha256": "ab12"}}
    (run / "manifest.json").write_text(json.dumps({"inputs": inputs, "given": {"gold": "cd34"}}))
    [one] = trials_of([run])
    assert one.judge("reward") == '{"kind" = "model", "weight" = 2.0, "path" = "ab12"}' and one.judge("gold") == "cd34"


def test_judges_are_the_same_by_what_their_files_hold_and_not_by_where_they_lie(tmp_path):
    def judge(name, table, **manifest):
        run = trial(tmp_path, name)
        (run / "config.toml").write_text(f"[[reward]]\n{table}\n")
        (run / "manifest.json").write_text(json.dumps(manifest))
        return trials_of([run])[0].judge("reward")

    function = 'kind = "function"\npath = "{}"'
    one = judge("a", function.format("a.py:f"), given={"reward 0": "11"})
    assert one == judge("b", function.format("there/b.py:f"), given={"reward 0": "11"})
    assert one != judge("c", function.format("a.py:f"), given={"reward 0": "22"}), "the file was edited"
    assert one != judge("d", function.format("a.py:g"), given={"reward 0": "11"}), "another function in it"
    asked = 'kind = "judge"\nurl = "http://127.0.0.1:1/v1"\nmodel = "m"\nrubric = "{}"\n{}'
    rubric = {"reward 0 rubric": {"source": "r.md", "sha256": "33"}}
    first = judge("e", asked.format("r.md", ""), inputs=rubric)
    assert first == judge("f", asked.format("s.md", 'cache = "other.jsonl"'), inputs=rubric)
    rubric = {"reward 0 rubric": {"source": "r.md", "sha256": "44"}}
    assert first != judge("g", asked.format("r.md", ""), inputs=rubric), "the rubric was edited"
    judge("h", 'kind = "model"\npath = ["a", "b"]')


def test_a_directory_of_trials_is_compared_and_a_pipeline_is_a_story(tmp_path):
    story = make_quickstart(tmp_path / "story")
    assert trials_in(story) == []
    trial(story, "ppo-2", seed=1)
    assert [path.name for path in trials_in(story)] == ["ppo", "ppo-2", "reward", "sft"]
    page = write_report(story).read_text(encoding="utf-8")
    assert "4 runs side by side." in page and "<h1 class=\"flat\">" in page
    assert "Supervised fine-tuning: 1 run<" in page and "Reinforcement learning: 2 runs" in page


def test_pipelines_are_compared_by_their_last_run(tmp_path):
    for name in ("one", "two"):
        make_sft(tmp_path / name / "sft")
        trial(tmp_path / name, "ppo")
    trials = trials_of(trials_in(tmp_path))
    assert [(t.name, t.run.command) for t in trials] == [("one", "ppo"), ("two", "ppo")]


def test_kinds_are_not_mixed_in_one_table(tmp_path):
    paths = [make_reward(tmp_path / "r1"), make_reward(tmp_path / "r2", skill=0.2), trial(tmp_path, "p")]
    first, second = sections(trials_of(paths))
    assert (first.title, second.title) == ("Reward model: 2 runs", "Reinforcement learning: 1 run")
    assert len(first.results.lines) == 2 and first.lead == ""


def test_more_runs_than_colours_are_said(tmp_path):
    paths = [trial(tmp_path, f"s{seed}", seed=seed, iterations=8, prompts=12) for seed in range(10)]
    [section] = sections(trials_of(paths))
    assert section.drawings[0].caption == "The first 8 runs; 2 more are in the tables."
    assert len(section.drawings[0].legend) == 8 and len(section.results.lines) == 10


def test_hostile_names_and_reasons_are_text(tmp_path):
    run = failed(trial(tmp_path, "a<b>"), "TrainingError: <script>alert(1)</script>")
    target = write_comparison([run, trial(tmp_path, "ok")], tmp_path / "page.html")
    page = target.read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page and "a&lt;b&gt;" in page


def test_the_command_takes_several_runs_or_a_directory(tmp_path, capsys):
    runs = [str(trial(tmp_path, name, seed=seed)) for seed, name in enumerate("ab")]
    assert main(["report", *runs]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "comparison.html")
    assert main(["report", *runs, "--out", str(tmp_path / "x.html")]) == 0 and (tmp_path / "x.html").is_file()
    assert main(["report", str(tmp_path)]) == 0
    assert "2 runs side by side." in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main(["report", runs[0], "--out", "x.html"]) == 78
