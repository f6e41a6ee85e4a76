"""Best of n over the responses of a model at an endpoint: chosen, paid once, with where they come from; and faults."""

import json

import pytest
from tests.rewards.chat_server import chat_server, said, saying, status
from tests.stages.conftest import WORDS

from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.runs.files import read_json, read_lines

PROMPTS = ["say red", "say blue", "say warm", "say cold"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the file of answers lies in the working directory
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    (tmp_path / "score.py").write_text("def score(prompt, response):\n    return float(response.split()[-1])\n")
    with chat_server() as one:
        one.answers = [lambda body: said(f"{body['messages'][-1]['content'][4:]} {len(one.asked)}")]
        yield one


def best_of_n(server, *more, table=""):
    source = f"{{kind = 'judge', url = '{server.url}', model = 'mini', concurrency = 1{table}}}"
    flags = ["--policy", source, "--dataset", "prompts.jsonl", "--reward", "score.py:score", "--group-size", "3"]
    return main(["best-of-n", *flags, "--out", "run", "--max-new-tokens", "9", "--trackers", *more])


def test_the_best_of_its_responses_is_kept_with_where_it_is_from_and_none_is_paid_twice(server, tmp_path, capsys):
    assert best_of_n(server, "--gold", "rule:length:2", "--seed", "5", table=", prices = [1.0, 1.0]") == 0, (
        capsys.readouterr().err
    )
    rows = read_lines(tmp_path / "run" / "best.jsonl")
    assert [row["prompt"] for row in rows] == PROMPTS and len(server.asked) == 16, "three to choose from, one beside"
    for number, row in enumerate(rows):
        assert row["scores"] == [4.0 * number + k for k in (1, 2, 3)] and row["best"] == 2
        assert row["response"] == f"{PROMPTS[number][4:]} {4 * number + 3}" and row["one_gold"] is not None
        assert row["provenance"]["source"].startswith("{kind = 'judge'") and row["provenance"]["seed"] == 5
        assert row["lengths"][0] == len(f"{PROMPTS[number][4:]} {4 * number + 1}")
    body = server.asked[0]
    assert (body["max_tokens"], body["model"]) == (9, "mini") and "response_format" not in body
    pairs = load_records(str(tmp_path / "run" / "pairs.jsonl")).records
    assert [(pair.chosen, pair.rejected) for pair in pairs][0] == ("red 3", "red 1")
    last = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["endpoint/calls"] == 16 and last["endpoint/cost"] == pytest.approx(16 * 110 / 1e6)
    assert read_json(tmp_path / "run" / "summary.json")["n"] == 3 and (tmp_path / "run" / "report.html").is_file()
    assert best_of_n(server, "--seed", "5", "--overwrite") == 0 and len(server.asked) == 16, "from the file of answers"
    assert best_of_n(server, "--seed", "6", "--overwrite") == 0 and len(server.asked) == 32, "other responses"


def test_the_cost_limit_ends_it_and_a_higher_one_goes_on_without_asking_again(server, capsys):
    limits = ", prices = [1.0, 1.0], cost_limit = {}"
    assert best_of_n(server, table=limits.format(0.0008)) == 65
    words = capsys.readouterr().err
    assert "cost_limit is 0.0008" in words and "not asked twice" in words and len(server.asked) == 8
    assert best_of_n(server, "--overwrite", table=limits.format(1.0)) == 0 and len(server.asked) == 16


def test_a_response_that_was_not_given_is_left_out_and_many_are_an_error(server, tmp_path, capsys):
    good = server.answers[0]
    server.answers = [good, saying(None), good]
    assert best_of_n(server) == 0
    first = read_lines(tmp_path / "run" / "best.jsonl")[0]
    assert first["scores"] == [1.0, None, 3.0] and first["best"] == 2
    server.answers = [status(404)]
    assert best_of_n(server, "--overwrite", "--seed", "9") == 65
    assert "it gave 0 of 16 responses; it answered 404" in capsys.readouterr().err


def test_a_reward_model_scores_its_texts(server, world, tmp_path):
    from plaudit.stages.reward.train import run_reward

    model = run_reward(world.reward(tmp_path / "rm")) / "model"
    server.answers = [lambda body: said(f" {WORDS[len(server.asked) % len(WORDS)]}")]
    assert best_of_n(server, "--reward", str(model)) == 0
    assert any(len(set(row["scores"])) > 1 for row in read_lines(tmp_path / "run" / "best.jsonl"))


@pytest.mark.parametrize("command", ["best-of-n", "grpo", "sft"])
def test_an_endpoint_that_is_to_be_trained_is_refused(server, command, capsys):
    source = f"judge:mini@{server.url}"
    more = {"sft": ["--model", source], "grpo": ["--policy", source, "--reward", "score.py:score"]}
    more["best-of-n"] = [*more["grpo"], "--rounds", "1"]
    assert main([command, *more[command], "--dataset", "prompts.jsonl", "--out", "other"]) == 78
    assert "is an endpoint, which answers and cannot be trained" in capsys.readouterr().err and not server.asked


def test_an_endpoint_that_is_not_there_is_said_before_the_first_prompt(server, capsys):
    server.url = "http://127.0.0.1:1/v1"
    assert best_of_n(server) == 78
    assert "start the server" in capsys.readouterr().err
