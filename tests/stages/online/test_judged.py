"""Runs that are rewarded by a judge: as reward, as gold, again from the same answers, with faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server, judging, status

from plaudit.algorithms.grpo import GRPO
from plaudit.cli.main import main
from plaudit.config.sections import CheckpointSection
from plaudit.errors import Ended
from plaudit.jobs.online import GRPOJob
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.rl import run_rl

ITERATIONS = 2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # where a judge without a file of answers keeps its own
    with chat_server() as made:
        made.answers = [judging(lambda text: text.count("good"), first=0.5)]
        yield made


def job(world: Any, server: Any, out: Path, **changes: Any) -> GRPOJob:
    where = {"kind": "judge", "url": server.url, "model": "mini", "cache": str(out.parent / "answers.jsonl")}
    reward, gold = {**where, "ask": "group", "prices": [1.0, 2.0]}, {**where, "name": "second"}
    like = world.rl(out)
    given = {name: getattr(like, name) for name in like.model_fields_set if name != "algorithm"}
    return GRPOJob(**{**given, "iterations": ITERATIONS, "algorithm": GRPO(group_size=3), "reward": [reward],
                      "gold": [gold], **changes})  # fmt: skip


def test_a_run_with_judges_as_reward_and_as_gold_asks_nothing_twice(world, server, tmp_path, capsys) -> None:
    first = run_rl(job(world, server, tmp_path / "first"))
    rows = read_lines(first / "metrics.jsonl")
    assert all(0 < row["reward/mean"] < 1 and "reward/judge_cost" in row for row in rows)
    assert rows[-1]["reward/judge_calls"] >= rows[0]["reward/judge_calls"] > 0
    assert "gold" in read_lines(first / "evaluation.jsonl")[0]
    assert "a mean of 0.5" in capsys.readouterr().out + (first / "events.jsonl").read_text()
    asked = len(server.asked)
    assert asked == len({json.dumps(body, sort_keys=True) for body in server.asked})
    run_rl(job(world, server, tmp_path / "second"))
    assert len(server.asked) == asked, "the same run anew"
    run_rl(job(world, server, tmp_path / "third", iterations=1))
    asked = len(server.asked)  # one that ends earlier draws other responses at its end
    run_rl(job(world, server, tmp_path / "third", checkpoint=CheckpointSection(resume=True)))
    assert len(server.asked) == asked, "what follows its checkpoint was answered before"
    other = f"judge:maxi@{server.url}"
    assert main(["evaluate", "policy", str(first), "--gold", other]) == 0
    assert len(server.asked) > asked and {body["model"] for body in server.asked[asked:]} >= {"maxi"}
    assert "gold" in json.dumps(read_json(next((first / "evaluations").iterdir()) / "summary.json"))


def test_an_endpoint_that_goes_away_ends_the_run_with_its_results(world, server, tmp_path) -> None:
    def gone(*iteration: Any) -> None:
        server.answers = [status(401, {"error": {"message": "the account is closed"}})]

    with pytest.raises(Ended, match="the account is closed") as caught:
        run_rl(job(world, server, tmp_path / "run"), on_iteration=gone)
    assert caught.value.run is not None and (caught.value.run / "model").is_dir()


def test_an_endpoint_that_is_not_as_it_should_be_is_said_before_the_run(world, server, tmp_path, capsys) -> None:
    server.models = (401, {}, {})
    flags = ["--policy", world.lm, "--dataset", world.prompts, "--out", str(tmp_path / "run")]
    assert main(["grpo", *flags, "--reward", f"judge:mini@{server.url}", "--iterations", "1"]) == 78
    text = capsys.readouterr()
    assert "refuses a request without a key" in text.out + text.err and server.asked == []
