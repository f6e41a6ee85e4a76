"""A judge at an endpoint answers the comparisons of a loop."""

import json

import pytest
from tests.rewards.chat_server import chat_server, judging, said, saying

from plaudit.errors import ConfigError, RewardError
from plaudit.jobs.loop import AnnotatorsSection, LoopJob
from plaudit.loop.answers import majority, open_annotators
from plaudit.loop.plan import read_plan
from plaudit.loop.rounds import run_loop
from plaudit.records import Comparison
from plaudit.runs.files import read_lines

ASKED = [Comparison(f"r1-t{i}-p", f"say {i}", (" good" * (1 + i % 3), " good cold red"), ("a", "a")) for i in range(6)]


@pytest.fixture
def server():
    with chat_server() as one:
        one.answers = [judging(lambda text: len(text) / 4)]  # the longer response is better, whatever its place
        yield one


def judge(tmp_path, source, **changes):
    section = AnnotatorsSection(kind="judge", source=source, **changes)
    return open_annotators(LoopJob(out=str(tmp_path), annotators=section))


def test_its_verdicts_have_provenance_and_are_paid_for_once(server, tmp_path):
    one = judge(tmp_path, f"judge:mini@{server.url}")
    given = one.answer(ASKED, 1)
    won = {row.id: row.chosen for row in majority(given, 1)}
    assert won == {row.id: max(row.responses, key=len) for row in ASKED}
    assert all(answer.provenance["model"] == "mini" and not answer.provenance["by_place"] for answer in given)
    asked = len(server.asked)
    assert one.answer(ASKED, 1) == given
    assert len(server.asked) == asked, "what was answered is not asked again"
    assert (tmp_path / "judge-answers.jsonl").is_file()


def test_too_few_answers_are_an_error_that_keeps_what_there_is(server, tmp_path):
    good = server.answers[0]
    server.answers = [*[good] * 6, saying("hm")]
    source = f"{{kind = 'judge', url = '{server.url}', model = 'mini', concurrency = 1}}"
    with pytest.raises(RewardError, match=r"answered \d of 6 comparisons of round 1") as caught:
        judge(tmp_path, source).answer(ASKED, 1)
    assert "not asked twice" in caught.value.cure


def test_another_reward_is_no_judge(tmp_path):
    with pytest.raises(ConfigError, match="not a judge"):
        judge(tmp_path, "{kind = 'http', url = 'http://127.0.0.1:1/x'}")


def test_a_loop_with_a_judge(server, config, tmp_path):
    changes = ("rounds = 2", "rounds = 1"), ('kind = "simulated"', 'kind = "judge"\nenough = 0.5')
    path = config(tmp_path / "judged", *changes)
    text = path.read_text()
    source = text[text.index("source = ") :].splitlines()[0]
    path.write_text(text.replace(source, f'source = "judge:mini@{server.url}"', 1))
    run_loop(read_plan([path]), anyway=True)
    rows = read_lines(tmp_path / "judged" / "round-1" / "answers.jsonl")
    assert rows and {row["annotator"] for row in rows} == {"mini"}


def test_responses_of_an_endpoint_are_compared_beside_those_of_the_policy(server, config, tmp_path):
    wrote = lambda body: said(f" good {body['messages'][-1]['content']}")  # noqa: E731
    server.answers = [wrote]
    path = config(tmp_path / "beside", ("rounds = 2", f'rounds = 1\nbeside = ["judge:mini@{server.url}"]'))
    out = run_loop(read_plan([path]), anyway=True)
    rows = read_lines(out / "round-1" / "candidates.jsonl")
    mixed = [row for row in rows if "mini" in row["models"]]
    alone = [row for row in rows if "mini" not in row["models"]]
    assert abs(len(mixed) - len(alone)) <= 3, "about half of the pairs are of the policy alone"
    for row in mixed:
        assert row["responses"][row["models"].index("mini")] == f" good {row['prompt']}"
    assert any("judge" in one["source"] for row in mixed for one in row["provenance"])
    assert (out / "judge-answers.jsonl").is_file(), "its replies are kept with the loop"
    assert len({json.dumps(body["messages"]) for body in server.asked}) <= len(server.asked)
