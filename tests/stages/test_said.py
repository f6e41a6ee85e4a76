"""What a run does not use of its data, it says on the console, in events.jsonl, in summary.json and in the report."""

import json

import pytest

from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.ppo import PPO
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import DataSection, LogSection, SamplingSection
from plaudit.evaluation.report import write_report
from plaudit.jobs.preference import DPOJob
from plaudit.records import Message, RewardResult, to_json
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft


def rows(command):
    words = ("red", "blue", "warm", "cold", "big", "green", "bad", "good")
    prompts = [{"prompt": f"say {a} {b}", "mood": "sunny"} for a in words for b in words[:2]]
    if command == "sft":
        return [row | {"response": " good"} for row in prompts]
    if command in ("reward", "dpo"):
        return [row | {"chosen": " good good", "rejected": " bad"} for row in prompts]
    return prompts


def start(world, command, path, out):
    long = {"dataset": path, "data": DataSection(max_length=12, eval_fraction=0.25)}
    if command == "rl":
        return run_rl(
            world.rl(out, iterations=1, algorithm=PPO(critic_warmup=0), **long),
            reward=lambda rollouts: [RewardResult(1.0) for _ in rollouts],
        )
    if command == "dpo":
        quiet = {
            "log": LogSection(progress=False, tensorboard=False),
            "sampling": SamplingSection(max_new_tokens=4),
        }
        return run_dpo(
            with_algorithm(DPOJob, DPO)(model=world.lm, out=str(out), batch_size=8, **quiet, **long)
        )
    return {"sft": run_sft, "reward": run_reward}[command](getattr(world, command)(out, **long))


@pytest.mark.parametrize("command", ["sft", "reward", "dpo", "rl"])
def test_fields_and_rows_that_are_not_used_are_said_everywhere(world, tmp_path, command, capsys):
    path = tmp_path / "rows.jsonl"
    written = rows(command)
    written.append(written[0] | {"prompt": "say red " + "blue " * 40 + "warm"})
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    run = start(world, command, str(path), tmp_path / "run")
    told = [row for row in read_lines(run / "events.jsonl") if row["event"] == "data"]
    assert ["mood"] in [row["unused_fields"] for row in told]
    console, page = capsys.readouterr().out, write_report(run).read_text()
    assert "fields not used: mood" in console and "fields not used: mood" in page
    assert any("fields not used: mood" in line for line in read_json(run / "summary.json")["notes"])
    assert any("cut" in row["message"] for row in told), "a prompt of 43 words does not fit"


def test_a_turn_keeps_all_that_it_has_through_json():
    turn = Message(
        "assistant",
        "",
        "Ada",
        "hm",
        ({"type": "function", "function": {"name": "f", "arguments": "{}"}},),
        train=False,
    )
    assert Message.of(json.loads(json.dumps(to_json(turn)))) == turn
    assert to_json(Message("user", "Hi")) == {"role": "user", "content": "Hi"}
    assert hash(turn) == hash(Message.of(to_json(turn)))
