"""Only prompts are cut, pairs alike, and every row is counted."""

from __future__ import annotations

import pytest

from plaudit.data.chat import Encoded
from plaudit.data.fit import FitReport, fit_each, fit_length, fit_prompt
from plaudit.errors import DataError
from plaudit.records import Message


def row(prompt, response, opening=1, first=0):
    ids = list(range(first, first + prompt + response))
    return Encoded(ids, [i >= prompt for i in range(prompt + response)], prompt, opening)


def fit(units, max_length, on_long):
    """Units of text prompts after cutting, and the counts."""
    fitted = [fit_prompt("a text", lambda prompt, unit=unit: unit, max_length, on_long) for unit in units]
    return fit_each(fitted, max_length, on_long)


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
    (pair,), report = fit([(row(6, 4), row(6, 1))], 8, "truncate_prompt")
    assert [r.prompt_length for r in pair] == [4, 4]
    assert pair[0].ids[:4] == pair[1].ids[:4] == [0, 3, 4, 5]
    assert report == FitReport(kept=1, truncated=1, dropped=0, longest=10)


def test_half_an_earlier_response_is_left_out():
    mask = [False, False, True, True, True, False, False, True]
    cut = fit_length(Encoded(list(range(8)), mask, 7, 1), 6, "truncate_prompt")
    assert cut.ids == [0, 5, 6, 7] and cut.mask == [False, False, False, True]


def test_counts_and_places():
    units = [(row(2, 2),), (row(6, 2),), (row(2, 9),)]
    fitted, report = fit(units, 6, "truncate_prompt")
    assert [unit is None for unit in fitted] == [False, False, True]
    assert report == FitReport(kept=2, truncated=1, dropped=1, longest=11)
    _, report = fit(units, 6, "drop")
    assert report == FitReport(kept=1, truncated=0, dropped=2, longest=11)
    assert "1 rows kept (0 with a cut prompt, 2 left out" in str(report)


def test_errors_name_the_count_and_the_longest_row():
    units = [(row(2, 2),), (row(6, 2),), (row(2, 9),)]
    with pytest.raises(DataError, match="2 of 3 rows are over 6 tokens; the longest, row 3, has 11"):
        fit(units, 6, "error")
    with pytest.raises(DataError, match="all 1 rows are too long"):
        fit(units[2:], 6, "truncate_prompt")
    assert fit([], 6, "error")[1] == FitReport(0, 0, 0, 0)


# Chats: one token for each letter, and one more for each turn, as a template writes them.

SYSTEM, TOOLS = Message("system", "ss", tools=({"name": "f"},)), ({"name": "f"},)
ASKED, SAID, ASKED_AGAIN = Message("user", "uuuu"), Message("assistant", "aaaa"), Message("user", "vvvv")
CALL = Message("assistant", "", tool_calls=({"name": "f"},))
ANSWER = Message("tool", "tt")


def written(response="rr"):
    """An encoder of chats, and the chats that it was given."""
    seen = []

    def encode(turns):
        seen.append(turns)
        text = "".join("<" + turn.content for turn in turns)
        return (Encoded([ord(c) for c in text + response], [], len(text), 0),)

    return encode, seen


def text_of(fitted):
    return "".join(chr(i) for i in fitted.unit[0].ids) if fitted.unit else None


def cut(turns, max_length, response="rr"):
    return fit_prompt(turns, written(response)[0], max_length, "truncate_prompt")


def test_a_chat_loses_its_first_turns_and_keeps_the_systems():
    chat = (SYSTEM, ASKED, SAID, ASKED_AGAIN)
    assert text_of(cut(chat, 20)) == "<ss<uuuu<aaaa<vvvvrr"
    for max_length in range(10, 20):
        fitted = cut(chat, max_length)
        assert (text_of(fitted), fitted.cut, fitted.tokens) == ("<ss<vvvvrr", "turns", 20)
    assert text_of(cut(chat[1:], 16)) == "<vvvvrr", "a chat without a turn of the system"


def test_the_fewest_turns_are_lost():
    chat = (SYSTEM, *[ASKED, SAID] * 20, ASKED_AGAIN)
    for kept in range(20):
        length = 3 + 10 * kept + 5 + 2
        for spare in range(10 if kept < 19 else 5):
            assert len(text_of(cut(chat, length + spare))) == length


def test_a_chat_begins_with_a_turn_of_the_user_never_with_an_answer_of_a_tool():
    chat = (ASKED, CALL, ANSWER, SAID, ASKED_AGAIN, CALL, ANSWER)
    assert text_of(cut(chat, 18)) == "<vvvv<<ttrr"
    assert text_of(cut(chat, 11)) == "<vvvv<<ttrr"


def test_tools_stay_on_the_first_turn():
    encode, seen = written()
    first = Message("user", "uuuu", tools=TOOLS)
    fit_prompt((first, SAID, ASKED_AGAIN), encode, 10, "truncate_prompt")
    assert seen[-1] == (Message("user", "vvvv", tools=TOOLS),)


def test_the_last_turn_of_the_user_loses_its_first_words_if_it_is_too_long_alone():
    long = Message("user", "one two three four five six")
    fitted = cut((SYSTEM, ASKED, SAID, long), 20)
    assert (text_of(fitted), fitted.cut) == ("<ss<four five sixrr", "words")
    assert text_of(cut((long, CALL, ANSWER), 14)) == "<six<<ttrr"
    without_spaces = Message("user", "x" * 50)
    assert text_of(cut((without_spaces,), 20)) == "<" + "x" * 17 + "rr"


def test_a_chat_that_nothing_helps_is_left_out():
    for chat in ((SYSTEM, ASKED), (SAID, CALL), ()):
        fitted = cut(chat, 5, response="r" * 9)
        assert fitted.unit is None
    long_answer = Message("tool", "t" * 30)
    assert cut((SYSTEM, ASKED, CALL, long_answer), 20).unit is None
    assert fit_prompt((ASKED, SAID, ASKED), written()[0], 10, "drop").unit is None


def test_the_report_says_how_chats_were_cut():
    chats = [(ASKED, SAID, ASKED_AGAIN), (Message("user", "so very long words"),), (ASKED,), (CALL, ANSWER)]
    _, report = fit_each([cut(chat, 10, "r" * 3) for chat in chats], 10, "truncate_prompt")
    assert report == FitReport(kept=4, truncated=2, dropped=0, longest=22, turns=1, words=1)
    assert "2 with a cut prompt (chats: 1 without their first turns, 1 with a turn of the user" in str(report)


def test_errors_call_a_row_by_its_name():
    units = [(row(2, 2),), (row(6, 2),)]
    fitted = [fit_prompt("text", lambda prompt, unit=unit: unit, 6, "error") for unit in units]
    with pytest.raises(DataError, match="the longest, a.jsonl:2, has 8"):
        fit_each(fitted, 6, "error", names=["a.jsonl:1", "a.jsonl:2"])
