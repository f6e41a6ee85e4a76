"""The config of a loop: its own settings, those of its steps, and what is refused before anything is done."""

import pytest

from plaudit.cli.main import main
from plaudit.errors import ConfigError
from plaudit.loop.plan import POLICIES, read_plan


def changed(config, tmp_path, *changes, flags=None):
    return read_plan([config(tmp_path / "out", *changes)], flags)


def test_shared_tables_hold_for_every_step_and_a_step_may_say_otherwise(config, tmp_path):
    plan = changed(config, tmp_path, ("[reward.optimizer]", "[reward.compute]\nthreads = 2\n[reward.optimizer]"))
    steps = plan.steps()
    reward, policy = steps["reward"].job, steps["policy"].job
    assert policy.sampling.max_new_tokens == 5 and policy.compute.threads == 1 and reward.compute.threads == 2
    assert reward.compute.precision == policy.compute.precision == "fp32"
    assert reward.data.eval_fraction == policy.data.eval_fraction == 0.25
    assert policy.algorithm.group_size == 2 and policy.iterations == 2 and reward.batch_size == 8
    assert steps["policy"].sources["iterations"].startswith(str(tmp_path / "loop.toml"))
    assert reward.seed == policy.seed == plan.job.seed


def test_flags_win_over_files_in_every_step(config, tmp_path):
    plan = changed(config, tmp_path, flags={"compute.threads": 3, "rounds": "5", "sampling.max_new_tokens": 7})
    assert plan.job.rounds == 5
    assert [loaded.job.compute.threads for loaded in plan.steps().values()] == [3, 3]
    assert plan.steps()["policy"].job.sampling.max_new_tokens == 7


def test_out_is_named_after_the_config(config, tmp_path):
    path = config(tmp_path / "out", name="my-loop")
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("out"))
    path.write_text(text)
    assert read_plan([path]).job.out == "runs/my-loop"


def test_the_resolved_config_is_a_config(config, tmp_path):
    plan = changed(config, tmp_path, ("group_size = 2", 'group_size = 2\ntype = "dr_grpo"'))
    again = tmp_path / "again.toml"
    again.write_text(plan.as_toml())
    same = read_plan([again])
    assert same.job == plan.job and same.command == plan.command
    for name, loaded in plan.steps().items():
        assert same.steps()[name].job.model_dump() == loaded.job.model_dump(), name


OTHERS = {"best-of-n": 'command = "best-of-n"', "dpo": 'command = "dpo"'}
OF_GRPO = "iterations = 2\nprompts_per_iteration = 3\n"


@pytest.mark.parametrize("command", sorted(set(POLICIES) - set(OTHERS)))
def test_every_online_command_can_train_the_policy(config, tmp_path, command):
    plain = ("[policy.algorithm]\ngroup_size = 2\n", "")
    plan = changed(config, tmp_path, plain, ('command = "grpo"', f'command = "{command}"'))
    assert plan.steps()["policy"].job.policy == plan.job.model


@pytest.mark.parametrize(
    ("old", "new", "says", "cure"),
    [
        ('command = "grpo"', 'command = "sft"', "'sft' is not one that a loop", "dpo"),
        ("batch_size = 8", "batch_size = 8\nseed = 3", r"\[reward\] seed is not for a step", "leave it out"),
        ("batch_size = 8", "batch_size = 8\n[reward.data]\neval_fraction = 0.5", "data.eval_fraction is not", "leave"),
        ("iterations = 2", 'iterations = 2\nreward = "rule:json"', r"\[policy\] reward is not", "leave it out"),
        ("batch_size = 8", "batch_sise = 8", "no setting batch_sise", "batch_size"),
        ("rounds = 2", "rouns = 2", "no setting rouns", "rounds"),
        ("rounds = 2", 'rounds = 2\nchoose = "disagreement"', "members is 1", "members = 3"),
        ("comparisons = 24", "comparisons = 0", "nothing would be learned from", "comparisons"),
        ("rounds = 2", "rounds = 0", "rounds = 0 does not fit", "integer >= 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(config, tmp_path, old, new, says, cure):
    with pytest.raises(ConfigError, match=says) as caught:
        changed(config, tmp_path, (old, new))
    assert cure in caught.value.cure
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("line", "says"), [("model = ", "model is not set"), ("source = ", "source is not set")])
def test_what_must_be_given(config, tmp_path, line, says):
    path = config(tmp_path / "out")
    path.write_text("\n".join(row for row in path.read_text().splitlines() if not row.startswith(line)))
    with pytest.raises(ConfigError, match=says):
        read_plan([path])


def test_help_shows_what_people_change(capsys):
    assert main(["loop", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--rounds" in short and "--comparisons" in short and "--anyway" in short
    assert main(["loop", "--help-all"]) == 0
    assert "--old-share" in capsys.readouterr().out


def test_config_shows_the_settings_of_every_step(config, tmp_path, capsys):
    path = config(tmp_path / "out")
    assert main(["config", "loop", str(path), "--rounds", "4"]) == 0
    shown = capsys.readouterr().out
    assert "rounds = 4" in shown and "[policy.optimizer]" in shown and 'command = "grpo"' in shown
    assert f"{path}:31" in shown


def test_a_mistake_on_the_command_line_is_a_bad_config(config, tmp_path, capsys):
    assert main(["loop", str(config(tmp_path / "out")), "--rouns", "3"]) == 78
    assert "did you mean --rounds?" in capsys.readouterr().err


def test_a_policy_of_dpo_learns_from_the_comparisons_and_is_judged_by_gold_on_the_prompts(config, tmp_path):
    plain = ("[policy.algorithm]\ngroup_size = 2\n", "[policy.algorithm]\nbeta = 0.2\n")
    plan = changed(config, tmp_path, plain, (OF_GRPO, "eval_prompts = 6\n"), ('command = "grpo"', OTHERS["dpo"]))
    folder = tmp_path / "round-1"
    job = plan.policy("start", folder / "reward", folder / "dpo").job
    assert (job.model, job.dataset) == ("start", str(folder / "data.jsonl")) and job.algorithm.beta == 0.2
    judged = plan.judged(folder / "reward", folder / "dpo").job
    assert (judged.policy, judged.dataset) == (plan.job.model, plan.job.dataset) and judged.eval_prompts == 6
    assert [table.path for table in judged.reward] == [str(folder / "reward" / "model")]
    assert [table.kind for table in judged.gold] == ["function"] and judged.sampling.max_new_tokens == 5
    again = tmp_path / "again.toml"
    again.write_text(plan.as_toml())
    same = read_plan([again])
    assert same.judged(folder / "reward", folder / "dpo").job == judged and same.command == "dpo"


def test_best_of_n_trains_for_a_round_unless_told_otherwise(config, tmp_path):
    plain = (("[policy.algorithm]\ngroup_size = 2\n", ""), (OF_GRPO, ""))
    plan = changed(config, tmp_path, *plain, ('command = "grpo"', OTHERS["best-of-n"]))
    assert plan.steps()["policy"].job.rounds == 1
    more = changed(config, tmp_path, *plain, ('command = "grpo"', OTHERS["best-of-n"] + "\nrounds = 3"))
    assert more.steps()["policy"].job.rounds == 3
    with pytest.raises(ConfigError, match="train no policy") as caught:
        changed(config, tmp_path, *plain, ('command = "grpo"', OTHERS["best-of-n"] + "\nrounds = 0"))
    assert "rounds = 1" in caught.value.cure
