"""Scores against their group: G1 to G4 and Q4 of the specification, failed members, order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.functional.groups import compare, group_advantages, leave_one_out, overlong_penalty

EVERYONE = torch.ones(4, dtype=torch.bool)
ONE = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("scores", "grpo", "dr_grpo", "rloo"),
    [
        (
            [1.0, 0, 0, 1],
            [0.8660, -0.8660, -0.8660, 0.8660],
            [0.5, -0.5, -0.5, 0.5],
            [2 / 3, -2 / 3, -2 / 3, 2 / 3],
        ),
        ([1.0, 0, 0, 0], [1.5, -0.5, -0.5, -0.5], [0.75, -0.25, -0.25, -0.25], [1.0, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_g1_g2(scores, grpo, dr_grpo, rloo):
    x = torch.tensor(scores)
    assert group_advantages(x, ONE, EVERYONE).tolist() == pytest.approx(grpo, abs=4e-4)  # 1e-4 beside the std
    assert group_advantages(x, ONE, EVERYONE, "none").tolist() == pytest.approx(dr_grpo)
    found = leave_one_out(x, ONE, EVERYONE)
    assert found.tolist() == pytest.approx(rloo) and float(found.sum()) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(found, group_advantages(x, ONE, EVERYONE, "none") * 4 / 3)


def test_the_std_is_that_of_a_sample():
    assert float(compare(torch.tensor([1.0, 0, 0, 1]), ONE, EVERYONE).std[0]) == pytest.approx(1 / 3**0.5)


def test_batch_scale_divides_by_the_std_of_all_scores():
    x, ids = torch.tensor([1.0, 0, 10, 12]), torch.tensor([0, 0, 1, 1])
    expected = torch.tensor([0.5, -0.5, -1, 1]) / (x.std() + 1e-4)
    assert torch.allclose(group_advantages(x, ids, EVERYONE, "batch"), expected)


@given(st.permutations(range(8)))
def test_g3_advantages_go_with_their_samples(order):
    scores = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
    ids, everyone = torch.tensor([5, 5, 5, 5, 2, 2, 2, 2]), torch.ones(8, dtype=torch.bool)
    order = torch.tensor(order)
    for rule in (group_advantages, leave_one_out):
        whole = rule(scores, ids, everyone)
        assert torch.allclose(rule(scores[order], ids[order], everyone), whole[order])


@pytest.mark.parametrize("score", [13.37, 0.1, -7.3, 1e6 + 0.1])
def test_g4_equal_scores_are_exactly_nothing(score):
    x = torch.full((8,), score)
    ids, everyone = torch.zeros(8, dtype=torch.long), torch.ones(8, dtype=torch.bool)
    for scale in ("group", "batch", "none"):
        assert group_advantages(x, ids, everyone, scale).tolist() == [0.0] * 8
    assert leave_one_out(x, ids, everyone).tolist() == [0.0] * 8
    assert compare(x, ids, everyone).equal.all()


def test_scores_that_differ_by_a_little_still_count():
    x = torch.tensor([0.0, 0.0, 0.0, 1e-4])
    assert not compare(x, ONE, EVERYONE).equal.any() and leave_one_out(x, ONE, EVERYONE)[3] > 0


def test_a_failed_member_is_no_part_of_its_group():
    x = torch.tensor([1.0, float("nan"), 0, 0])
    valid = ~x.isnan()
    for rule in (group_advantages, leave_one_out):
        found = rule(x, ONE, valid)
        assert found[1] == 0
        assert torch.allclose(found[valid], rule(x[valid], ONE[valid], EVERYONE[:3]))


@pytest.mark.parametrize("rule", [group_advantages, leave_one_out])
def test_who_is_left_alone_has_no_baseline(rule):
    x = torch.tensor([5.0, float("nan"), float("nan"), float("nan")])
    assert rule(x, ONE, ~x.isnan()).tolist() == [0.0] * 4
    nobody = torch.full((4,), float("nan"))
    assert rule(nobody, ONE, ~nobody.isnan()).tolist() == [0.0] * 4


def test_q4_overlong():
    lengths = torch.tensor([10, 80, 90, 100, 130])
    assert overlong_penalty(lengths, torch.full((5,), 100), 0.2).tolist() == pytest.approx(
        [0, 0, -0.5, -1, -1]
    )
