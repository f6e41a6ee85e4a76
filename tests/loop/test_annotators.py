"""People through the annotation app, a judge through its seam, and simulated annotators."""

import itertools
import threading
import time

import pytest

from plaudit.cli.main import main
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.loop import AnnotatorsSection, LoopJob
from plaudit.loop import app
from plaudit.loop.annotators import Answer, Waiting
from plaudit.loop.answers import KINDS, majority, open_annotators
from plaudit.loop.plan import read_plan
from plaudit.loop.rounds import run_loop
from plaudit.preferences.annotation import Choice, Skip
from plaudit.preferences.store import answers, leases, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.records import Comparison, Judgement
from plaudit.runs.files import read_json, read_lines

ASKED = [Comparison(f"r1-t{i}-p", f"say {i}", (" good", f" bad {i}"), ("a", "a")) for i in range(6)]


def answer(db, slug, most=1000, who="Ada"):
    """A person answers what the app gives, at most so many: the response with more good words is better."""
    store, done = Store.open(db), 0
    with store.write() as conn:
        known = people.find_user(conn, who)
        user = known[0] if known else people.add_user(conn, who, "annotator")
    while done < most:
        with store.write() as conn:
            project = projects.get_project(conn, slug)
            work = leases.lease(conn, project, user.id, time.time())
            if work is None:
                break
            first, second = (str(r.content).count("good") - str(r.content).count("bad") for r in work.item.responses)
            sent = Skip("The text is broken") if first == second and done % 2 else Choice(1 if second > first else -1)
            answers.submit(conn, project, user.id, work.id, answers.Submission(f"{who}-{work.id:08d}", sent))
        done += 1
    store.close()
    return done


def test_the_loop_waits_for_people_and_goes_on(config, tmp_path, capsys):
    db = tmp_path / "annotations.db"
    path = config(tmp_path / "people", ('kind = "simulated"', 'kind = "app"'))
    text = path.read_text()
    source = text[text.index("source = ") :].splitlines()[0]
    path.write_text(text.replace(source, f'source = "{db}"', 1).replace("comparisons = 24", "comparisons = 8"))
    assert main(["loop", str(path), "--anyway"]) == 75
    said = capsys.readouterr().err
    assert "0 of 8 comparisons of round 1" in said and f"plaudit annotate serve --db {db}" in said
    page = (tmp_path / "people" / "report.html").read_text()
    assert "It waits" in page and "0 of 8 comparisons of round 1" in page
    assert answer(db, "people", most=5) == 5
    assert main(["loop", str(path), "--anyway"]) == 75
    assert "5 of 8 comparisons of round 1" in capsys.readouterr().err
    assert answer(db, "people") == 3
    assert main(["loop", str(path), "--anyway"]) == 75
    assert "0 of 8 comparisons of round 2" in capsys.readouterr().err, "the first round is done"
    assert answer(db, "people") == 8
    assert main(["loop", str(path), "--anyway"]) == 0
    rows = read_lines(tmp_path / "people" / "round-2" / "answers.jsonl")
    assert {row["annotator"] for row in rows} == {"Ada"}
    assert all(row["provenance"]["project"] == "people" and row["provenance"]["seconds"] >= 0 for row in rows)
    assert all(row["id"].startswith("r2-") for row in rows)
    state = read_json(tmp_path / "people" / "loop.json")
    assert state["finished"] and not state["waits"]


def settings(tmp_path, **changes):
    section = AnnotatorsSection(**{"kind": "app", "source": str(tmp_path / "a.db"), **changes})
    return LoopJob(out=str(tmp_path / "My Loop"), annotators=section)


def test_enough_is_a_share_and_a_skip_counts_as_handled(tmp_path):
    people_of = open_annotators(settings(tmp_path, enough=0.5))
    with pytest.raises(Waiting, match=r"0 of 6 comparisons of round 1 are answered in the project my-loop, and 50%"):
        people_of.answer(ASKED, 1)
    answer(tmp_path / "a.db", "my-loop", most=3)
    given = people_of.answer(ASKED, 1)
    assert 0 < len(given) <= 3
    assert {one.judgement.id.rpartition("/")[0] for one in given} <= {row.id for row in ASKED}


def test_several_people_answer_each_comparison(tmp_path):
    people_of = open_annotators(settings(tmp_path, per_comparison=2))
    with pytest.raises(Waiting):
        people_of.answer(ASKED, 1)
    answer(tmp_path / "a.db", "my-loop", who="Ada")
    with pytest.raises(Waiting, match="0 of 6"):
        people_of.answer(ASKED, 1)
    answer(tmp_path / "a.db", "my-loop", who="Bo")
    assert len(majority(people_of.answer(ASKED, 1), 1)) == 6


def test_it_can_stay_and_wait(tmp_path, monkeypatch, capsys):
    sleep, polls = time.sleep, itertools.count()

    def nap(seconds):
        assert next(polls) < 1000, "nobody has answered"
        sleep(0.02)

    monkeypatch.setattr(app.time, "sleep", nap)
    people_of = open_annotators(settings(tmp_path, wait=True))

    def later():
        while True:
            time.sleep(0.2)
            store = Store.open(tmp_path / "a.db")
            with store.read() as conn:
                there = projects.list_projects(conn)
            store.close()
            if there:
                break
        answer(tmp_path / "a.db", "my-loop")

    worker = threading.Thread(target=later)
    worker.start()
    given = people_of.answer(ASKED, 1)
    worker.join()
    assert len(given) == 6
    assert "0 of 6 comparisons of round 1" in capsys.readouterr().out


JUDGE = """
from plaudit.loop.annotators import Answer
from plaudit.records import Judgement

class Longer:
    def answer(self, asked, number):
        return [
            Answer(Judgement(f"{c.id}/longer", c.prompt, *c.responses,
                             1 if len(c.responses[1]) > len(c.responses[0]) else -1, annotator="longer"),
                   {"model": "length", "tokens": 0})
            for c in asked
        ]
"""


def test_a_judge_answers_with_where_its_verdicts_come_from(config, tmp_path, monkeypatch):
    (tmp_path / "length_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = config(tmp_path / "judged", ("rounds = 2", "rounds = 1"), ('kind = "simulated"', 'kind = "judge"'))
    text = path.read_text()
    source = text[text.index("source = ") :].splitlines()[0]
    path.write_text(text.replace(source, 'source = "length_judge:Longer"', 1))
    run_loop(read_plan([path]), anyway=True)
    rows = read_lines(tmp_path / "judged" / "round-1" / "answers.jsonl")
    assert rows and all(row["provenance"] == {"model": "length", "tokens": 0} for row in rows)
    assert all(len(row["response_a"]) >= len(row["response_b"]) for row in rows if row["strength"] < 0)


def test_a_judge_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no judge 'nowhere:judge'"):
        open_annotators(settings(tmp_path, kind="judge", source="nowhere:judge"))


def test_every_kind_of_annotators_can_be_opened():
    assert set(KINDS) == {"simulated", "app", "judge"}


def test_simulated_annotators_are_a_function_of_seed_and_round(tmp_path):
    score = tmp_path / "truth.py"
    score.write_text("def score(prompt, response):\n    return response.count('good')\n")
    job = LoopJob(annotators=AnnotatorsSection(source=f"{score}:score", error_rate=0.3, per_comparison=3))
    first, again = (open_annotators(job).answer(ASKED, 1) for _ in range(2))
    assert first == again and len(first) == 18
    assert [one.judgement.strength for one in first] != [
        one.judgement.strength for one in open_annotators(job).answer(ASKED, 2)
    ]
    assert {one.judgement.id for one in first[:3]} == {f"r1-t0-p/{one.judgement.annotator}" for one in first[:3]}


def test_answers_that_say_nothing_are_an_error():
    tie = Answer(Judgement("r1-t0-p/a", "say", " one", " two", 0, annotator="a"))
    with pytest.raises(DataError, match="of 1 answers of round 1 none says"):
        majority([tie], 1)
