"""Feedback as batches: cached references, and the rotation that KTO's zero point is measured on."""

import pytest
import torch

from plaudit.data.chat import Encoded
from plaudit.records import Preference, Rating
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.preference.feedback import Feedback, chunks, mismatched


def row(prompt, answer, opening=0):
    ids = [*prompt, *answer]
    return Encoded(ids, [i >= len(prompt) for i in range(len(ids))], len(prompt), opening)


def test_rotation_takes_the_next_row_with_another_prompt():
    rows = [row([1, 10], [20]), row([1, 10], [21]), row([1, 11], [22, 23]), row([1, 12], [24])]
    found = mismatched(["a", "a", "b", "c"], rows, 16)
    assert [r.ids for r in found] == [[1, 10, 22, 23], [1, 10, 22, 23], [1, 11, 24], [1, 12, 20]]
    assert found[0].mask == [False, False, True, True]


def test_rotation_without_a_partner_and_over_the_length():
    assert mismatched(["a", "a"], [row([1], [2]), row([1], [3])], 16) == []
    assert mismatched(["a"], [row([1], [2])], 16) == []
    long = mismatched(["a", "b"], [row([1, 5, 6, 7], [2], opening=1), row([1, 8], [3, 3, 3], opening=1)], 5)
    assert long[0].ids == [1, 7, 3, 3, 3], (
        "the prompt is cut from the left, its opening stays, the response is whole"
    )


class Counting:
    """Scores every token by its id, and counts how often it was asked."""

    def __init__(self, scale=-0.1):
        self.scale, self.rows = scale, 0

    def read(self, batch, signal):
        self.rows += len(batch.tokens)
        return [torch.where(batch.response_mask, self.scale * batch.tokens, 0.0)]


def rated(count):
    records = [Rating(f"r{i}", f"prompt {i}", "x", float(i % 2)) for i in range(count)]
    return Rows(records, [(row([1, 2 + i], [10 + i, 11]),) for i in range(count)], None)


def test_references_are_computed_once_and_found_again():
    scorer = Counting()
    feedback = Feedback(rated(5), 0, scorer, 16)
    feedback.precompute(frozenset({"ref_logprobs"}), [])
    assert scorer.rows == 5
    scorer.scale = -77.0  # it has learned since
    batch = feedback.collate([3, 0])
    assert scorer.rows == 5
    assert batch.ref_logprobs[0].tolist() == pytest.approx([0, 0, -1.3, -1.1])
    assert batch.rewards.tolist() == [1.0, 0.0]


def test_pairs_find_the_references_of_both_rows():
    records = [Preference(f"p{i}", f"prompt {i}", "x", "y") for i in range(3)]
    encoded = [(row([1], [10 + i]), row([1], [20 + i, 5, 5])) for i in range(3)]
    feedback = Feedback(Rows(records, encoded, None), 0, Counting(), 16)
    feedback.precompute(frozenset({"ref_logprobs"}), [])
    batch = feedback.collate([2, 1])
    found = batch.ref_logprobs.sum(-1).tolist()
    assert found == pytest.approx([-1.2, -3.2, -1.1, -3.1])


def test_the_zero_point_is_of_the_whole_step_and_never_negative():
    scorer = Counting()
    feedback = Feedback(rated(4), 0, scorer, 16)
    step = (2, 0, 3)
    feedback.precompute(frozenset({"ref_logprobs", "mismatched_kl"}), [step])
    assert feedback.collate(step).mismatched_kl.tolist() == [0.0] * 3, "policy and reference are the same"
    scorer.scale = -0.05
    answers = sum(10 + i + 11 for i in step) / 3
    assert feedback.collate(step).mismatched_kl.tolist() == pytest.approx([0.05 * answers] * 3)
    scorer.scale = -0.2
    assert feedback.collate(step).mismatched_kl.tolist() == [0.0] * 3


def test_no_signal_that_is_not_needed():
    batch = Feedback(rated(2), 0, Counting(), 16).collate([0, 1])
    assert batch.ref_logprobs is None and batch.mismatched_kl is None


def test_names_and_parts():
    same = [prompt_id(Rating("a", "Say  it", "x", 1.0)), prompt_id(Rating("b", "say it", "y", 0.0))]
    assert same[0] == same[1] != prompt_id(Rating("c", "other", "x", 1.0))
    assert prompt_id(Rating("lone", "", "x", 1.0)) == "lone"
    assert [len(c) for c in chunks(130)] == [64, 64, 2] and chunks(0) == []


@pytest.mark.parametrize("step", [(4,), (1, 4)])
def test_a_last_batch_with_one_prompt_is_measured_on_the_other_rows(step):
    rows = rated(5)
    rows.records[1] = Rating("r1", "prompt 4", "x", 1.0)  # the prompt of row 4
    scorer = Counting()
    feedback = Feedback(rows, 0, scorer, 16)
    feedback.precompute(frozenset({"mismatched_kl"}), [step])
    scorer.scale = -0.05  # every token gained 0.05 times its id since
    [first, *_] = step
    others = [i for i in [*range(first, 5), *range(first)] if i not in (1, 4)][: len(step)]
    expected = 0.05 * sum(10 + i + 11 for i in others) / len(others)
    assert expected > 0
    assert feedback.collate(step).mismatched_kl.tolist() == pytest.approx([expected] * len(step))


def test_a_single_held_out_row_is_measured_on_the_training_rows():
    held = rated(1)
    held.records[0] = Rating("h", "held out", "x", 1.0)
    scorer = Counting()
    feedback = Feedback(held, 0, scorer, 16, others=rated(3))
    feedback.precompute(frozenset({"mismatched_kl"}), [(0,)])
    scorer.scale = -0.05
    assert feedback.collate((0,)).mismatched_kl.tolist() == pytest.approx([0.05 * 21])
