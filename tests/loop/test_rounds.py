"""What a round asks and learns from, how its steps fit together, and what may change between two starts."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import plaudit
from plaudit.cli.main import main
from plaudit.data.split import split_by_prompt
from plaudit.errors import ConfigError, Ended, Refused, Stopped
from plaudit.evaluation.looping import accuracy_by_round
from plaudit.jobs.loop import LoopJob
from plaudit.loop import rounds
from plaudit.loop.annotators import Waiting
from plaudit.loop.choice import is_active, mixed, prompts_of, round_of, sizes
from plaudit.loop.plan import read_plan
from plaudit.loop.rounds import STEPS, carried_out, ended_before, is_half_handed_out, run_loop
from plaudit.records import Preference, Prompt
from plaudit.runs.files import merge_json, read_json, read_lines
from plaudit.runs.lock import only_writer

PROMPTS = [Prompt(f"p{i}", f"say {i}") for i in range(40)]


def job(**changes):
    return LoopJob(**({"comparisons": 20, "data": {"eval_fraction": 0.25}} | changes))


def preferences(number, n=40):
    return [Preference(f"r{number}-t{i}", f"say {i}", " good", f" bad {number}") for i in range(n)]


def test_sizes_hold_out_a_share_of_what_is_asked():
    assert sizes(job()) == (15, 5)
    assert sizes(job(comparisons=3)) == (2, 1), "where anything is held out, something is in every round"
    assert sizes(job(data={"eval_fraction": 0.0})) == (20, 0)


def test_prompts_of_the_rounds_are_apart_until_all_were_used():
    each = [prompts_of(job(), PROMPTS, number) for number in (1, 2)]
    for side in (0, 1):
        contents = [prompt.content for both in each for prompt in both[side]]
        pool = split_by_prompt(PROMPTS, 0.25, 0)[side]
        assert {prompt.content for prompt in pool} >= set(contents)
        first = contents[: len(pool)]
        assert len(set(first)) == len(first), "none comes again before all have come"
    ids = [prompt.id for both in each for side in both for prompt in side]
    assert len(set(ids)) == len(ids) and {round_of(name) for name in ids} == {1, 2}
    assert each[0] == prompts_of(job(), PROMPTS, 1), "a function of seed and round"


def test_active_choice_samples_more_from_the_second_round_on():
    active = job(choose="margin", candidates=4)
    assert [is_active(active, number) for number in (1, 2)] == [False, True]
    train = [len(prompts_of(active, PROMPTS, number)[0]) for number in (1, 2)]
    heldout = [len(prompts_of(active, PROMPTS, number)[1]) for number in (1, 2)]
    assert train == [19, 75] and heldout == [7, 7]


@pytest.mark.parametrize(("share", "old"), [(1.0, (66, 66)), (0.0, (0, 0)), (0.5, (20, 46))])
def test_a_share_of_the_old_comparisons_is_mixed_in_and_every_held_out_one_stays(share, old):
    rounds_of = [preferences(number) for number in (1, 2, 3)]
    rows, figures = mixed(job(old_share=share), rounds_of)
    train, heldout = split_by_prompt(rows, 0.25, 0)
    every = split_by_prompt([row for one in rounds_of for row in one], 0.25, 0)[1]
    assert heldout == every and figures["heldout"] == len(every)
    assert {round_of(row.id) for row in heldout} == {1, 2, 3}
    new = [row for row in train if round_of(row.id) == 3]
    assert figures["new"] == len(new) == len(split_by_prompt(rounds_of[2], 0.25, 0)[0]), "new ones are all in"
    assert old[0] <= figures["old"] <= old[1] and figures["old"] == len(train) - len(new)


def test_another_half_of_the_old_is_left_out_in_another_round():
    rounds_of = [preferences(number) for number in (1, 2, 3)]
    kept = [
        {row.id for row in mixed(job(old_share=0.5), rounds_of[:upto])[0] if round_of(row.id) == 1} for upto in (2, 3)
    ]
    assert kept[0] != kept[1]


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    """A loop of two rounds with active choice and an ensemble, done."""
    out = tmp_path_factory.mktemp("done") / "out"
    path = config(
        out,
        ("rounds = 2", 'rounds = 2\nchoose = "disagreement"\ncandidates = 2'),
        ("batch_size = 8", "batch_size = 8\nmembers = 2"),
        ("max_new_tokens = 5", "max_new_tokens = 5"),
    )
    run_loop(read_plan([path]), anyway=True)
    return out


def test_every_round_has_its_files_runs_and_figures(done):
    state = read_json(done / "loop.json")
    assert state["finished"] and [list(one) for one in state["rounds"]] == [list(STEPS)] * 2
    for number, steps in enumerate(state["rounds"], 1):
        folder = done / f"round-{number}"
        assert (folder / "grpo" / "model").is_dir() and (folder / "reward" / "member-1" / "model").is_dir()
        assert (folder / "reward" / "report.html").is_file() and (folder / "grpo" / "report.html").is_file()
        assert steps["evaluate"]["kl"] is not None and steps["evaluate"]["gold_mean"] is not None
        assert steps["choose"]["by"] == ("random" if number == 1 else "disagreement")
        assert set(steps["reward"]["accuracy"]) == {"0", *map(str, range(1, number + 1))}
    assert state["rounds"][1]["mix"]["old"] > 0


def test_held_out_comparisons_are_chosen_at_random_and_kept_from_every_round(done):
    asked = read_lines(done / "round-2" / "asked.jsonl")
    heldout = {row["id"] for row in read_lines(done / "round-2" / "reward" / "heldout.jsonl")}
    assert {round_of(name) for name in heldout} == {1, 2}
    assert all(re.match(r"r\d+-h", name) for name in heldout)
    assert sum(row["id"].startswith("r2-h") for row in asked) == 6
    accuracy = accuracy_by_round(done / "round-2" / "reward")
    assert accuracy[0]["rows"] == accuracy[1]["rows"] + accuracy[2]["rows"] == len(heldout)


def test_the_second_round_starts_from_the_first_policy_and_is_measured_from_the_sft_model(done):
    config = (done / "round-2" / "grpo" / "config.toml").read_text()
    assert 'round-1/grpo/model"' in next(line for line in config.splitlines() if line.startswith("policy ="))
    places = [done / f"round-{number}" / "grpo" / "evaluations" / "against-sft" for number in (1, 2)]
    rows = [read_lines(place / "evaluation.jsonl") for place in places]
    names = ("prompt_id", "response", "ref_logprob")
    start = [[tuple(row[name] for name in names) for row in each if row["step"] == 0] for each in rows]
    assert start[0] == start[1], "the SFT model, both times"
    assert all(abs(row["kl"]) < 1e-4 for row in rows[1] if row["step"] == 0)


def test_the_page_tells_of_every_round_and_leads_to_every_run(done):
    page = (done / "report.html").read_text()
    for address in re.findall(r'<a href="([^"]+)"', page):
        assert (done / address).is_file(), address
    assert page.count("its page</a>") == 4
    for words in ("KL to the SFT model", "Gold reward after each round", "Reward models on held-out", "held out"):
        assert words in page, words
    before = page
    assert main(["report", str(done)]) == 0
    assert (done / "report.html").read_text() == before


def test_a_finished_loop_does_nothing_and_goes_on_with_more_rounds(config, tmp_path, monkeypatch):
    path = config(tmp_path / "out", ("rounds = 2", "rounds = 1"))
    run_loop(read_plan([path]), anyway=True)
    state = (tmp_path / "out" / "loop.json").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "carried_through", None)
        run_loop(read_plan([path]), anyway=True)
    assert (tmp_path / "out" / "loop.json").read_text() == state
    run_loop(read_plan([config(tmp_path / "out", ("rounds = 2", 'rounds = 2'))]), anyway=True)
    assert len(read_json(tmp_path / "out" / "loop.json")["rounds"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("comparisons = 24", "comparisons = 12", "comparisons = 24, now 12"),
        ("rounds = 2", "rounds = 2\nseed = 4", "seed = 0, now 4"),
        ("eval_fraction = 0.25", "eval_fraction = 0.5", "data.eval_fraction = 0.25, now 0.5"),
    ],
)
def test_what_must_stay_is_refused(config, tmp_path, old, new, says):
    out = tmp_path / "out"
    config(out)
    stopped(config(out))
    with pytest.raises(ConfigError, match=re.escape(says)):
        run_loop(read_plan([config(out, (old, new))]))


class Stops:
    """Annotators that are interrupted."""

    def answer(self, asked, number):
        raise Stopped("stopped by SIGTERM")


def stopped(path):
    with pytest.raises(Stopped) as caught:
        run_loop(read_plan([path]), annotators=Stops())
    assert "goes on" in caught.value.cure
    return read_plan([path]).job.out


def test_other_prompts_are_refused_and_settings_of_steps_may_change(config, tmp_path, capsys):
    out = tmp_path / "out"
    path = config(out)
    stopped(path)
    run = config(out, ("lr = 1e-3\n[policy.algorithm]", "lr = 2e-3\n[policy.algorithm]"))
    with pytest.raises(Stopped):
        run_loop(read_plan([run]), annotators=Stops())
    assert "[policy] optimizer.lr 0.001 -> 0.002" in capsys.readouterr().out
    assert "optimizer.lr 0.001" in read_json(out / "loop.json")["changed"][0]
    text = path.read_text()
    prompts = re.search(r'dataset = "(.+)"', text)[1]
    other = tmp_path / "prompts.jsonl"
    rows = [row | {"prompt": row["prompt"] + " now"} for row in read_lines(Path(prompts))]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text(text.replace(prompts, str(other)))
    with pytest.raises(ConfigError, match="the dataset is not the one"):
        run_loop(read_plan([path]))


def test_a_directory_of_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not a loop"):
        run_loop(read_plan([config(tmp_path / "out")]))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_one_process_at_a_time(config, tmp_path):
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out"), pytest.raises(ConfigError, match="another process writes"):
        run_loop(read_plan([config(tmp_path / "out")]))


def test_a_loop_is_replaced_where_that_is_asked_for(config, tmp_path):
    out = tmp_path / "out"
    stopped(config(out))
    path = config(out, ("rounds = 2", "rounds = 2\nseed = 5\noverwrite = true"))
    stopped(path)
    assert read_json(out / "loop.json")["settings"]["seed"] == 5


def test_a_coin_is_no_reward_model(config, tmp_path, monkeypatch):
    def refuse(job, anyway):
        if not anyway:
            raise Refused("the reward model ranks like a coin", where="reward", cure="ask more")

    monkeypatch.setattr(rounds, "refuse_coins", refuse)
    path = config(tmp_path / "out", ("rounds = 2", "rounds = 1"))
    assert main(["loop", str(path)]) == 4
    assert main(["loop", str(path), "--anyway"]) == 0


@pytest.fixture(scope="module")
def limited(config, tmp_path_factory):
    """A loop whose policy is ended by the KL limit in its first round."""
    out = tmp_path_factory.mktemp("limited") / "out"
    path = config(out, ("rounds = 2", "rounds = 1"), ("iterations = 2", "iterations = 6\nkl_limit = 1e-9"))
    path.write_text(path.read_text().replace("lr = 1e-3\n[policy.algorithm]", "lr = 0.05\n[policy.algorithm]"))
    run_loop(read_plan([path]), anyway=True)
    return out


def test_a_policy_that_a_limit_ended_hands_out_its_best_and_the_loop_goes_on(limited):
    [steps] = read_json(limited / "loop.json")["rounds"]
    assert steps["policy"]["ended"] == "limit" and steps["evaluate"]["kl"] is not None
    assert "ended by a limit" in (limited / "report.html").read_text()


def test_a_run_that_has_ended_is_not_trained_past_its_end(limited, tmp_path):
    run = tmp_path / "grpo"
    shutil.copytree(limited / "round-1" / "grpo", run)
    assert ended_before(run) == "limit" and is_half_handed_out(run), "it is not finished as a run"
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[:-1]))
    assert ended_before(run) == "", "killed before all was handed out: it starts anew"
    merge_json(run / "summary.json", {"ended": "finished"})
    assert ended_before(run) == "" and not is_half_handed_out(run)


def test_a_reward_model_that_ended_early_is_none(config, tmp_path, monkeypatch):
    loaded = read_plan([config(tmp_path / "out")]).steps()["reward"]

    def ends(job, sources):
        error = Ended("the gradients were not finite", how="alarm", kind="non_finite")
        error.run = tmp_path
        raise error

    monkeypatch.setattr(rounds, "carried_through", ends)
    with pytest.raises(Ended):
        carried_out(loaded.job, loaded.sources)


@pytest.mark.parametrize("command", ["dpo", "best-of-n"])
def test_dpo_and_best_of_n_train_the_policy_of_a_round(config, tmp_path, command):
    settings = "batch_size = 8" if command == "dpo" else "prompts_per_iteration = 4"
    path = config(
        tmp_path / "out",
        ("iterations = 2\nprompts_per_iteration = 3", settings),
        ("[policy.algorithm]\ngroup_size = 2", ""), ('command = "grpo"', f'command = "{command}"'),
    )  # fmt: skip
    out = run_loop(read_plan([path]), anyway=True)
    state = read_json(out / "loop.json")
    assert state["finished"] and len(state["rounds"]) == 2
    for number, steps in enumerate(state["rounds"], 1):
        folder = out / f"round-{number}"
        assert (folder / command / "model").is_dir() and steps["policy"]["command"] == command
        assert steps["evaluate"]["gold_mean"] is not None and steps["evaluate"]["kl"] is not None
    second = (out / "round-2" / command / "config.toml").read_text()
    assert f"round-1/{command}/model" in second, "it goes on from the policy of the round before"
    if command == "dpo":
        learned = {row["id"] for row in read_lines(out / "round-2" / "data.jsonl")}
        judged = {row["id"] for row in read_lines(out / "round-2" / "dpo" / "preferences.jsonl")}
        assert 'round-2/data.jsonl"' in second and judged and judged < learned
    page = (out / "report.html").read_text()
    assert command.upper() in page and f"round-2/{command}/report.html" in page
    before = read_json(out / "loop.json")["rounds"]
    assert run_loop(read_plan([path]), anyway=True) == out and read_json(out / "loop.json")["rounds"] == before


def test_a_loop_from_python_goes_on_and_gives_its_last_policy(config, tmp_path):
    tree = tomllib.loads(config(tmp_path / "out").read_text())
    annotators = tree.pop("annotators")
    first = plaudit.run_loop(tree, {"annotators": annotators}, rounds=1, anyway=True, out=str(tmp_path / "own"))
    assert first.path == tmp_path / "own" and first.summary["command"] == "loop" and first.summary["round"] == 1
    again = plaudit.run_loop(tree, {"annotators": annotators}, rounds=2, anyway=True, out=str(tmp_path / "own"))
    assert again.summary["round"] == 2 and again.report.is_file()
    assert isinstance(again.policy.generate("say red", max_new_tokens=3), str)
    with pytest.raises(ConfigError, match="there is no setting nonsense"):
        plaudit.run_loop(tree, nonsense=1)

    class Mine:
        def answer(self, asked, number):
            raise Waiting("nobody is here", where="here", cure="wait")

    with pytest.raises(Waiting):
        plaudit.run_loop(tree, rounds=1, annotators=Mine(), out=str(tmp_path / "mine"), comparisons=8, source="x:y")
