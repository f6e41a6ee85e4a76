"""Each online command, end to end on a tiny model; resuming with dynamic sampling; types, presets and refusals."""

import json
import tomllib

import pytest
import torch
from safetensors.torch import load_file

import plaudit
from plaudit.algorithms.grpo import DAPO, GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.cli.main import main
from plaudit.config.algorithm import specialise, types, with_algorithm
from plaudit.config.fields import settings
from plaudit.config.sections import CheckpointSection
from plaudit.errors import ConfigError
from plaudit.jobs.online import GRPOJob, RLJob
from plaudit.jobs.registry import COMMANDS, command_for
from plaudit.models.files.load import load_tokenizer
from plaudit.models.files.saving import write
from plaudit.models.tiny import tiny_classifier
from plaudit.records import RewardResult
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.train import run_reward
from plaudit.tracking.names import METRICS

SMALL = "--iterations 2 --max-new-tokens 5 --batch-size 4 --no-progress --no-tensorboard --eval-fraction 0.25".split()
RUNS = [
    ["grpo"],
    ["grpo", "--type", "grpo_paper"],
    ["grpo", "--type", "dr_grpo", "--kl-coef", "0.1"],
    ["grpo", "--type", "dapo", "--sampling-rounds", "2"],
    ["grpo", "--type=gspo", "--minibatches", "2"],
    ["grpo", "--type", "cispo"],
    ["rloo", "--group-size", "2"],
    ["reinforce", "--group-size", "2"],
    ["reinforce", "--baseline", "greedy"],
    ["reinforce", "--baseline", "value", "--critic-warmup", "1"],
    ["reinforce", "--type", "reinforce-pp", "--epochs", "2"],
]
REWARD = "def words(prompt, response):\n    return float(len(set(response)))\n"


def likes_good(rollouts):
    return [RewardResult(float(len(set(r.response_ids)))) for r in rollouts]


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_it_runs_from_the_command_line(words, world, tmp_path):
    (tmp_path / "my_reward.py").write_text(REWARD)
    given = [
        "--policy",
        world.lm,
        "--dataset",
        world.prompts,
        "--reward",
        f"{tmp_path / 'my_reward.py'}:words",
    ]
    out = tmp_path / "run"
    assert main([*words, *given, *SMALL, "--lr", "1e-3", "--seed", "1", "--out", str(out), "--debug"]) == 0
    rows = read_lines(out / "metrics.jsonl")
    assert len(rows) == 2 and {"loss", "objective/kl", "policy/entropy", "rollout/effective_share"} <= set(
        rows[1]
    )
    unknown = {
        name for row in rows for name in row if "/" in name and not name.startswith(("critic/", "reward/"))
    }
    assert unknown <= set(METRICS)
    written = tomllib.loads((out / "config.toml").read_text())["algorithm"]
    job_class = COMMANDS[words[0]].job
    name = written.pop("type")
    if written.get("epochs", 1) * written.get("minibatches", 1) == 1:
        assert rows[-1]["policy/ratio_max"] == pytest.approx(1, abs=1e-4), (
            "the only step starts where it sampled"
        )
    table = settings(specialise(job_class, name, ""))
    assert set(written) == {s.key.partition(".")[2] for s in table if s.section == "algorithm"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["command"] == words[0]
    in_force = [row["objective/kl_coef_in_force"] for row in rows if "objective/kl_coef_in_force" in row]
    assert summary["kl_coef_in_force"] == in_force[-1]
    assert (out / "report.html").is_file() and (out / "model" / "config.json").is_file()
    assert main(["config", str(out / "config.toml")]) == 0, (
        "its config can be fed back, and names its command"
    )


def test_python_trains_with_the_same_names(world, tmp_path):
    run = plaudit.train(
        plaudit.GRPO(group_size=2), policy=world.lm, prompts=world.prompts, reward=lambda p, r: float(len(r)),
        out=str(tmp_path / "run"), iterations=1, batch_size=4, max_new_tokens=5, eval_fraction=0.25, progress=False,
        tensorboard=False,
    )  # fmt: skip
    assert run.summary["command"] == "grpo"
    names = ("GRPOPaper", "DrGRPO", "DAPO", "GSPO", "CISPO", "RLOO", "REINFORCE", "REINFORCEPlusPlus")
    commands = [command_for(getattr(plaudit, name)()).name for name in names]
    assert commands == ["grpo", "grpo", "grpo", "grpo", "grpo", "rloo", "reinforce", "reinforce"]


def test_resumed_dynamic_sampling_is_bitwise_the_same(world, tmp_path):
    algorithm = DAPO(group_size=2, sampling_rounds=2)
    job_class = with_algorithm(GRPOJob, algorithm)

    def job(out, **checkpoint):
        values = dict(world.rl(out, algorithm=PPO())) | {"algorithm": algorithm}
        return job_class(**(values | {"checkpoint": CheckpointSection(every=1, **checkpoint)}))

    whole = run_rl(job(tmp_path / "whole"), reward=likes_good)

    def stop_in_the_second(iteration, metrics_, rollouts_):
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rl(job(tmp_path / "cut"), reward=likes_good, on_iteration=stop_in_the_second)
    cut = run_rl(job(tmp_path / "cut", resume=True), reward=likes_good)
    rows = [
        [
            {k: v for k, v in row.items() if not k.startswith(("time", "throughput", "memory"))}
            for row in lines
        ]
        for lines in (read_lines(run / "metrics.jsonl") for run in (whole, cut))
    ]
    assert rows[0] == rows[1] and {row["dyn/rounds"] for row in rows[0]} <= {1.0, 2.0}
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_type_of_another_command_is_refused_with_those_of_this_one():
    with pytest.raises(ConfigError, match="trains with 'grpo'") as caught:
        specialise(GRPOJob, "rloo", "my.toml:3")
    assert all(f'"{name}"' in caught.value.cure for name in types(GRPOJob))


def test_a_preset_is_the_algorithm_with_other_defaults():
    made = specialise(RLJob, "ppo-max-paper", "")()
    assert type(made.algorithm) is PPO and made.algorithm == RLJob.relatives["ppo_max_paper"]


def test_a_key_of_another_method_is_refused(world, tmp_path, capsys):
    config = tmp_path / "a.toml"
    config.write_text('[algorithm]\ntype = "reinforce"\nclip = 0.1\n')
    assert main(["reinforce", str(config), "--policy", world.lm]) == 78
    assert "there is no setting algorithm.clip" in capsys.readouterr().err


def test_a_group_of_one_is_refused_before_a_file_is_written(world, tmp_path, capsys):
    words = ["rloo", "--policy", world.lm, "--dataset", world.prompts, "--reward", "rule:contains:good"]
    assert main([*words, "--group-size", "1", "--out", str(tmp_path / "run")]) == 78
    assert "--group-size" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_is_probably_not_meant_is_said(world, tmp_path, capsys):
    algorithm = PPO(critic_warmup=0, epochs=1, reward_scaling="none", value_clip=0.2)
    run = run_rl(world.rl(tmp_path / "run", iterations=1, algorithm=algorithm), reward=likes_good)
    assert "value_clip 0.2 is in units of the reward" in capsys.readouterr().out
    assert any("value_clip" in row.get("what", "") for row in read_lines(run / "events.jsonl"))


def test_help_teaches_which_type_has_which_flags(capsys):
    assert main(["grpo", "--type", "dapo", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--overlong-buffer" in text and "dr_grpo" in text
    assert " ".join(GRPO.__doc__.split()) in text
    assert main(["reinforce", "--help"]) == 0
    assert " ".join(REINFORCE.__doc__.split()) in " ".join(capsys.readouterr().out.split())


def test_an_encoder_cannot_become_the_critic_so_the_policy_does_and_it_is_said(world, tmp_path, capsys):
    tokenizer = load_tokenizer(world.lm)
    write(tiny_classifier("roberta", tokenizer, hidden=16, layers=1), tmp_path / "start", tokenizer)
    reward = run_reward(world.reward(tmp_path / "reward", model=str(tmp_path / "start")))
    algorithm = PPO(critic="reward", critic_warmup=0)
    run = run_rl(
        world.rl(tmp_path / "run", reward=(str(reward / "model"),), algorithm=algorithm, iterations=1)
    )
    assert "the critic starts from the policy" in capsys.readouterr().out
    assert any("it is an encoder" in row.get("what", "") for row in read_lines(run / "events.jsonl"))
