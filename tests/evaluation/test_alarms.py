"""Alarms of the sampler: after three bad iterations in a row, once, and again only after a good one."""

import json

import pytest

from plaudit.evaluation.alarms.sampler import SamplerWatch

BAD = {
    "stale": {"rollout/effective_share": 0.26, "rollout/logprob_diff_mean": 0.0},
    "mismatch": {"rollout/effective_share": 0.99, "rollout/logprob_diff_mean": 0.2},
}
GOOD = {"rollout/effective_share": 0.98, "rollout/logprob_diff_mean": 1e-6}


def kinds(rows):
    """Kinds of the alarms that each row raises."""
    watch = SamplerWatch()
    return [[alarm.kind for alarm in watch.look(row)] for row in rows]


@pytest.mark.parametrize("kind", BAD)
def test_three_in_a_row_raise_one_alarm(kind):
    assert kinds([BAD[kind]] * 6) == [[], [], [kind], [], [], []]


@pytest.mark.parametrize("kind", BAD)
def test_a_good_iteration_in_between_starts_the_count_anew(kind):
    assert kinds([BAD[kind], BAD[kind], GOOD, BAD[kind], BAD[kind]]) == [[]] * 5
    again = kinds([*[BAD[kind]] * 3, GOOD, *[BAD[kind]] * 3])
    assert [row for row in again if row] == [[kind], [kind]]


@pytest.mark.parametrize("saved_after", range(7))
def test_a_resumed_run_raises_what_it_would_have_raised(saved_after):
    rows = [BAD["stale"], GOOD, *[BAD["stale"]] * 5]
    before, after = SamplerWatch(), SamplerWatch()
    raised = [[alarm.kind for alarm in before.look(row)] for row in rows[:saved_after]]
    after.resume(json.loads(json.dumps(before.state())))
    raised += [[alarm.kind for alarm in after.look(row)] for row in rows[saved_after:]]
    assert raised == kinds(rows)


def test_what_is_not_measured_is_no_alarm():
    assert kinds([{}, BAD["stale"], {}, BAD["stale"], {"reward/mean": 1.0}, BAD["stale"]])[-1] == ["stale"]
    assert kinds([{}] * 9) == [[]] * 9


def test_the_message_has_the_figure_and_its_bound():
    watch = SamplerWatch()
    [alarm] = [alarm for _ in range(3) for alarm in watch.look(BAD["stale"])]
    assert "0.26" in alarm.message and "above 0.5" in alarm.message
    [alarm] = [alarm for _ in range(3) for alarm in watch.look(BAD["mismatch"])]
    assert "0.200" in alarm.message and "below 0.05" in alarm.message
