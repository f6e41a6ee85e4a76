"""Thumbs, ratings and clicks become preferences by the rule that is stated, worked out by hand."""

import json

import pytest

from plaudit.errors import DataError
from plaudit.loop.implicit import CLICKED, preferences_of, read_feedback
from plaudit.loop.plan import read_plan
from plaudit.loop.rounds import run_loop
from plaudit.runs.files import read_json, read_lines


@pytest.fixture
def found(tmp_path):
    """Writes events, and reads them."""

    def read(*events):
        path = tmp_path / "served.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return read_feedback([str(path)])

    return read


def thumb(response, up, prompt="ask"):
    return {"prompt": prompt, "response": response, "thumb": up}


def pairs(feedback):
    return [(one.prompt, one.chosen, one.rejected, one.agreement) for one in preferences_of(feedback)]


def test_a_thumb_up_is_better_than_a_thumb_down_to_the_same_prompt(found):
    assert pairs(found(thumb("a", "up"), thumb("b", "down"), thumb("c", 0, "other"))) == [("ask", "a", "b", 1.0)]


def test_thumbs_are_averaged_and_a_small_gap_says_nothing(found):
    # a: (1 + 1 + 0) / 3 = 2/3; b: 0; the gap is 2/3, so the agreement is 1/2 + 1/3. c: 1/2, a gap of 1/6 to a.
    events = [thumb("a", 1), thumb("a", True), thumb("a", False), thumb("b", "down"), thumb("c", 1), thumb("c", 0)]
    both = {(chosen, rejected): agreement for _, chosen, rejected, agreement in pairs(found(*events))}
    assert both == {("a", "b"): pytest.approx(5 / 6), ("c", "b"): pytest.approx(0.75)}


def test_ratings_count_by_the_scale_of_each_user(found):
    def rated(response, rating, user):
        return {"prompt": "ask", "response": response, "rating": rating, "user": user}

    # Ann uses 2 to 4, Bo 1 to 10: by both a is the best (1) and b the worst (0). Cy gives everything a 5.
    events = [rated("a", 4, "Ann"), rated("b", 2, "Ann"), rated("a", 10, "Bo"), rated("b", 1, "Bo")]
    feedback = found(*events, rated("a", 5, "Cy"), rated("b", 5, "Cy"))
    assert pairs(feedback) == [("ask", "a", "b", 1.0)]
    assert feedback.unused == {"ratings of users whose ratings are all the same": 2}
    assert feedback.events == {"thumb": 0, "rating": 6, "clicked": 0}


def test_a_click_is_over_what_was_shown_above_it(found):
    feedback = found({"prompt": "ask", "responses": ["a", "b", "c"], "clicked": 1})
    assert pairs(feedback) == [("ask", "b", "a", CLICKED)], "nobody knows whether c was read"
    assert pairs(found({"prompt": "ask", "responses": ["a", "b"], "clicked": 0})) == []


def test_edits_and_choices_of_a_served_model_are_preferences(found):
    edit = {"id": "1", "prompt": "ask", "response": "a", "edit": "better"}
    choice = {"id": "2", "prompt": "ask", "responses": ["c", "d"], "chosen": 0}
    tie = {"id": "3", "prompt": "ask", "responses": ["e", "f"], "chosen": None}
    assert sorted(pairs(found(edit, choice, tie))) == [("ask", "better", "a", 1.0), ("ask", "c", "d", 1.0)]


def test_the_last_word_on_a_served_response_counts(found):
    def of(number, value, user="Ann"):
        return {**thumb("ab"[number], value), "id": str(number), "user": user}

    feedback = found(of(0, "down"), of(1, "down"), of(0, "up"))
    assert pairs(feedback) == [("ask", "a", "b", 1.0)]


def test_served_responses_that_nobody_has_judged_are_counted(found):
    feedback = found({"id": "1", "prompt": "ask", "response": "a", "finish_reason": "stop"}, thumb("a", 1))
    assert feedback.unused == {"responses that nobody has judged": 1} and feedback.events["thumb"] == 1


def test_of_two_orders_the_one_with_more_evidence_stays(found):
    over_a = {"prompt": "ask", "responses": ["a", "b"], "clicked": 1}
    over_b = {"prompt": "ask", "responses": ["b", "a"], "clicked": 1}
    assert [one[:3] for one in pairs(found(over_a, over_a, over_b))] == [("ask", "b", "a")]
    assert pairs(found(over_a, over_b)) == []


def test_the_order_of_the_events_does_not_matter(found):
    events = [thumb("a", 1), thumb("b", 0), thumb("c", 0), thumb("d", 1, "x"), thumb("e", 0, "x")]
    assert pairs(found(*events)) == pairs(found(*events[::-1]))


@pytest.mark.parametrize(
    "event",
    [
        {"prompt": "ask", "response": "a"},
        thumb("a", "sideways"),
        {"prompt": "ask", "responses": ["a", "b"], "clicked": 2},
        {"response": "a", "thumb": 1},
        {"prompt": "ask", "response": "a", "rating": "very"},
    ],
)
def test_what_is_no_event_is_refused_with_its_line(found, event):
    with pytest.raises(DataError, match="no event of a known form") as caught:
        found(thumb("a", 1), event)
    assert caught.value.where.endswith("served.jsonl:2")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_feedback([str(tmp_path / "none.jsonl")])


def test_a_loop_learns_from_feedback_alone_and_from_each_event_once(config, tmp_path):
    served = tmp_path / "served.jsonl"
    events = [event for i in range(20) for event in (thumb(f" good {i}", 1, f"say {i}"), thumb(" bad", 0, f"say {i}"))]
    served.write_text("".join(json.dumps(event) + "\n" for event in events))
    changes = (("comparisons = 24", f'comparisons = 0\nfeedback = ["{served}"]'),)
    out = tmp_path / "fed"
    run_loop(read_plan([config(out, ("rounds = 2", "rounds = 1"), *changes)]), anyway=True)
    more = [thumb(" good good", 1, "say more"), thumb(" cold", 0, "say more")]
    served.write_text(served.read_text() + "".join(json.dumps(event) + "\n" for event in more))
    run_loop(read_plan([config(out, *changes)]), anyway=True)
    first, second = read_json(out / "loop.json")["rounds"]
    assert first["ask"]["implicit"] == 20 and first["ask"]["answers"] == 0
    assert second["ask"]["implicit"] == 1, "the others were learned from in the first round"
    assert second["mix"]["old"] + second["mix"]["new"] + second["mix"]["heldout"] == 21
    assert all(row["id"].startswith("r2-implicit-") for row in read_lines(out / "round-2" / "feedback.jsonl"))
