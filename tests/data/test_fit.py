"""Only prompts are cut, pairs alike, and every row is counted."""

from __future__ import annotations

import pytest

from plaudit.data.chat import Encoded
from plaudit.data.fit import FitReport, fit_each, fit_length
from plaudit.errors import DataError


def row(prompt, response, opening=1, first=0):
    ids = list(range(first, first + prompt + response))
    return Encoded(ids, [i >= prompt for i in range(prompt + response)], prompt, opening)


def test_rows_that_fit_stay():
    assert fit_length(row(3, 2), 5, "error") == row(3, 2)


def test_prompts_lose_their_start_but_not_the_opening():
    cut = fit_length(row(6, 2), 5, "truncate_prompt")
    assert cut == Encoded([0, 4, 5, 6, 7], [False, False, False, True, True], 3, 1)
    cut = fit_length(row(6, 2, opening=0), 5, "truncate_prompt")
    assert cut.ids == [3, 4, 5, 6, 7]


def test_a_response_is_never_cut():
    assert fit_length(row(3, 5), 6, "truncate_prompt").ids == [0, 3, 4, 5, 6, 7]
    assert fit_length(row(3, 6), 6, "truncate_prompt") is None
    assert fit_length(row(3, 6, opening=0), 6, "truncate_prompt") is None, "something must come before it"
    assert fit_length(row(3, 3), 5, "drop") is None


def test_both_rows_of_a_pair_lose_the_same_prompt_tokens():
    (pair,), report = fit_each([(row(6, 4), row(6, 1))], 8, "truncate_prompt")
    assert [r.prompt_length for r in pair] == [4, 4]
    assert pair[0].ids[:4] == pair[1].ids[:4] == [0, 3, 4, 5]
    assert report == FitReport(kept=1, truncated=1, dropped=0, longest=10)


def test_half_an_earlier_response_is_left_out():
    mask = [False, False, True, True, True, False, False, True]
    cut = fit_length(Encoded(list(range(8)), mask, 7, 1), 6, "truncate_prompt")
    assert cut.ids == [0, 5, 6, 7] and cut.mask == [False, False, False, True]


def test_counts_and_places():
    units = [(row(2, 2),), (row(6, 2),), (row(2, 9),)]
    fitted, report = fit_each(units, 6, "truncate_prompt")
    assert [unit is None for unit in fitted] == [False, False, True]
    assert report == FitReport(kept=2, truncated=1, dropped=1, longest=11)
    _, report = fit_each(units, 6, "drop")
    assert report == FitReport(kept=1, truncated=0, dropped=2, longest=11)
    assert "1 rows kept (0 with a cut prompt, 2 left out" in str(report)


def test_errors_name_the_count_and_the_longest_row():
    units = [(row(2, 2),), (row(6, 2),), (row(2, 9),)]
    with pytest.raises(DataError, match="2 of 3 rows are over 6 tokens; the longest, row 3, has 11"):
        fit_each(units, 6, "error")
    with pytest.raises(DataError, match="all 1 rows are too long"):
        fit_each(units[2:], 6, "truncate_prompt")
    assert fit_each([], 6, "error")[1] == FitReport(0, 0, 0, 0)
