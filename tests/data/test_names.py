"""The names that people give to columns: what each is read as, what is said of it, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.data.load import load_records
from plaudit.data.reading.names import NAMES, plain
from plaudit.errors import DataError
from plaudit.records import Demonstration, Judgement, Message, Preference, Prompt, Rating, to_json

SYSTEM, ASKED = Message("system", "Be brief."), Message("user", "Hi")
SAID = {"role": "assistant", "content": "Hello"}
HI = {"role": "user", "content": "Hi"}

PROMPTS = [
    *("question", "query", "problem", "context", "input", "user_input", "Prompt", "PROMPT", "User Prompt", "userInput"),
    *("history", "user", "text", "Question ", "user-query"),
]
PAIRS = [
    ("preferred", "dispreferred"), ("win", "lose"), ("winner", "loser"), ("accepted", "rejected"), ("better", "worse"),
    ("response_chosen", "response_rejected"), ("Chosen Response", "Rejected Response"), ("y_w", "y_l"),
    ("chosenAnswer", "rejectedAnswer"), ("preferred_output", "non_preferred_output"), ("Chosen", "Rejected"),
]  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_usual_names_of_the_prompt(name, write_lines):
    loaded = load_records(write_lines({name: "Hi", "chosen": "a", "rejected": "b"}))
    assert loaded.records == (Preference("rows-1", "Hi", "a", "b"),)
    said = plain(name) == "prompt" or f"`{name}` is read as the prompt" in loaded.notes
    assert said and not loaded.unused


@pytest.mark.parametrize("chosen, rejected", PAIRS)
def test_usual_names_of_a_pair(chosen, rejected, write_lines):
    loaded = load_records(write_lines({"prompt": "Hi", chosen: "a", rejected: "b"}))
    assert loaded.records == (Preference("rows-1", "Hi", "a", "b"),)


@pytest.mark.parametrize("name", ["output", "assistant", "target", "reply", "Model Output", "Completion", "gpt"])
def test_usual_names_of_the_response(name, write_lines):
    assert load_records(write_lines({"prompt": "Hi", name: "Hello"})).records == (
        Demonstration("rows-1", "Hi", "Hello"),
    )


def test_headers_of_a_spreadsheet(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("Prompt,Response,Reward\nHi,Hello,3\n")
    assert load_records(str(path)).records == (Rating("ratings-1", "Hi", "Hello", 3.0),)
    path.write_text("Question;Response 1;Response 2;Winner\nHi;a;b;B\n")
    assert load_records(str(path)).records == (Judgement("ratings-1", "Hi", "a", "b", 1),)


def test_two_columns_for_one_field_are_refused_with_both_names(write_lines):
    with pytest.raises(DataError) as caught:
        load_records(write_lines({"question": "Hi", "query": "Ho", "chosen": "a", "rejected": "b"}))
    assert "question and query" in str(caught.value) and "--field prompt=question" in caught.value.cure
    with pytest.raises(DataError, match="question and context"):
        load_records(write_lines({"question": "Hi", "context": "It rains.", "response": "a"}))


def test_our_own_name_wins_and_the_other_is_said(write_lines):
    loaded = load_records(write_lines({"prompt": "Hi", "question": "Ho", "chosen": "a", "rejected": "b"}))
    assert loaded.records[0].prompt == "Hi" and loaded.unused == ("question",)


def test_rows_of_one_file_may_use_different_names(write_lines):
    path = write_lines({"prompt": "Hi", "response": "a"}, {"question": "Ho", "completion": "b"})
    assert [(r.prompt, r.response) for r in load_records(path).records] == [("Hi", "a"), ("Ho", "b")]


# Instructions, system texts, histories, tools


def test_an_instruction_is_a_turn_and_its_input_belongs_to_it(write_lines):
    pair = {"chosen": "a", "rejected": "b"}
    path = write_lines(
        {"instruction": "Add.", "input": "2 and 2", **pair}, {"instruction": "Hi", "input": "", **pair}
    )
    prompts = [record.prompt for record in load_records(path).records]
    assert prompts == [(Message("user", "Add.\n\n2 and 2"),), (ASKED,)]
    row = {"instruction": "Why?", "context": "It rains.", "response": "a", "category": "qa"}
    loaded = load_records(write_lines(row))
    assert loaded.records[0].prompt == (Message("user", "Why?\n\nIt rains."),) and loaded.unused == ("category",)


def test_a_system_text_and_a_history_are_turns_before_the_prompt(write_lines):
    row = {"system_prompt": "Be brief.", "question": "Hi", "history": [["A?", "B."]], "chosen": "a", "rejected": "b"}
    plain_row = {"system_prompt": "", "question": "Hi", "history": [], "chosen": "a", "rejected": "b"}
    first, second = load_records(write_lines(row, plain_row)).records
    turns = (SYSTEM, Message("user", "A?"), Message("assistant", "B."), ASKED)
    assert first.prompt == turns
    assert second.prompt == (ASKED,), "all prompts of a source are chats if one is"


@pytest.mark.parametrize(
    "history",
    [
        [["A?", "B."]],
        [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}],
        [{"user": "A?", "assistant": "B."}],
        '[["A?", "B."]]',
        "[('A?', 'B.')]",
        "\n\nHuman: A?\n\nAssistant: B.",
    ],
)
def test_forms_of_a_history(history, write_lines):
    loaded = load_records(write_lines({"prompt": "Hi", "response": "a", "history": history}))
    assert loaded.records[0].prompt == (Message("user", "A?"), Message("assistant", "B."), ASKED)


@pytest.mark.parametrize("history", [["A?", "B."], "what was said", [["A?"]], [["A?", None]], {"a": 1}])
def test_a_history_that_cannot_be_told_is_refused(history, write_lines):
    with pytest.raises(DataError, match="history"):
        load_records(write_lines({"prompt": "Hi", "response": "a", "history": history}))


def test_system_texts_and_tools_of_chats(write_lines):
    tool = {"name": "weather", "parameters": {"type": "object"}}
    chat = {"messages": [HI, SAID]}
    prompt = load_records(write_lines({**chat, "system": "Be brief.", "tools": [tool]})).records[0].prompt
    assert prompt == (Message("system", "Be brief.", tools=(tool,)), ASKED) and prompt[0].tools == (tool,)
    prompt = load_records(write_lines({**chat, "tools": '[{"name": "weather"}]'})).records[0].prompt
    assert prompt[0].tools == ({"name": "weather"},)
    with pytest.raises(DataError, match="second system turn"):
        load_records(write_lines({"system": "A", "messages": [{"role": "system", "content": "B"}, HI, SAID]}))
    pair = {"chosen": [HI, SAID], "rejected": [HI, {"role": "assistant", "content": "No"}]}
    assert load_records(write_lines({"system": "Be brief.", **pair})).records[0].prompt == (SYSTEM, ASKED)


# Preferences whose prompt was not found


@pytest.mark.parametrize(
    "row",
    [
        {"ask": "a", "chosen": "x", "rejected": "y"},
        {"remark": "What is this thing?", "chosen": "x", "rejected": "y"},
        {"my_question": "Why?", "chosen": "x", "rejected": "y"},
        {"remark": [HI], "chosen": [SAID], "rejected": [{"role": "assistant", "content": "No"}]},
        {"remark": "What is this thing?", "response": "x", "reward": 1},
    ],
)
def test_no_row_is_learned_without_the_prompt_that_it_has(row, write_lines):
    with pytest.raises(DataError) as caught:
        load_records(write_lines(row))
    assert "--field prompt=" in caught.value.cure and next(iter(row)) in str(caught.value)


def test_what_is_no_prompt_does_not_refuse_a_row(write_lines):
    loaded = load_records(write_lines({"prompt_id": "p1", "source": "s", "chosen": "The sky is", "rejected": "The"}))
    assert set(loaded.unused) == {"prompt_id", "source"}


def test_a_prompt_that_is_not_the_one_of_the_conversations_is_refused(write_lines):
    pair = {"chosen": [HI, SAID], "rejected": [HI, {"role": "assistant", "content": "No"}]}
    assert load_records(write_lines({"prompt": "Hi", **pair})).records[0].prompt == (ASKED,)
    with pytest.raises(DataError, match="is not in the conversations"):
        load_records(write_lines({"prompt": "Ho", **pair}))


# Answers


STEPS = "3 and 4 make 7.\n#### 7"


def test_questions_with_answers_are_prompts_or_demonstrations_as_they_are_needed(write_lines):
    path = write_lines({"question": "3 + 4?", "answer": STEPS})
    (asked,) = load_records(path, "prompt").records
    assert asked == Prompt("rows-1", "3 + 4?", "7", {"answer": STEPS}) and asked == load_records(path).records[0]
    assert load_records(path, "demonstration").records == (Demonstration("rows-1", "3 + 4?", STEPS),)


def test_solutions_are_responses_and_their_answers_can_be_checked(write_lines):
    path = write_lines({"problem": "3 + 4?", "solution": "It is 7.", "answer": "7"})
    assert load_records(path, "prompt").records == (Prompt("rows-1", "3 + 4?", "7", {"solution": "It is 7."}),)
    shown = load_records(path, "demonstration")
    assert shown.records == (Demonstration("rows-1", "3 + 4?", "It is 7."),) and shown.unused == ("answer",)
    path = write_lines({"prompt": "3 + 4?", "output": "It is 7.", "ground_truth": "7"})
    assert load_records(path, "prompt").records[0].answer == "7"


@pytest.mark.parametrize("answer", ["#### 7", "7 ####", "Steps\n#### Title\nand more", "7"])
def test_other_marks_leave_an_answer_as_it_is(answer, write_lines):
    assert load_records(write_lines({"prompt": "Hi", "answer": answer}), "prompt").records[0].answer == answer


def test_chats_that_end_with_the_user_are_prompts_where_prompts_are_needed(write_lines):
    path = write_lines({"messages": [HI], "ground_truth": 4})
    assert load_records(path, "prompt").records == (Prompt("rows-1", (ASKED,), "4"),)
    with pytest.raises(DataError, match="ends with role user"):
        load_records(path, "demonstration")


def test_hints_propose_no_name_that_is_there(write_lines):
    with pytest.raises(DataError) as caught:
        load_records(write_lines({"chosen": "a", "responce": "b", "response_b": "c"}))
    assert "response for 'responce'" in caught.value.cure
    assert "for 'chosen'" not in caught.value.cure and "for 'response_b'" not in caught.value.cure


# Nothing vanishes


USUAL = sorted({name for names in NAMES.values() for name in (*names.own, *names.usual, *names.last, *names.late)})
COLUMN = st.sampled_from([*USUAL, "ask", "colour", "Chosen Response", "note", "source", "license"])


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.lists(COLUMN, min_size=1, max_size=6, unique=True),
    st.sampled_from([None, "prompt", "demonstration", "preference"]),
    st.sampled_from(["text", "sentence", "chat"]),
)
def test_every_column_is_read_or_said_or_the_row_is_refused(tmp_path_factory, columns, kind, form):
    """Each value is a word of its own, so that it can be looked for in the record."""
    words = {name: f"word{i}x" for i, name in enumerate(columns)}
    values = {name: word if form == "text" else f"{word} is said here" for name, word in words.items()}
    if form == "chat":
        values = {name: [HI, {"role": "assistant", "content": word}] for name, word in words.items()}
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(json.dumps(values) + "\n")
    try:
        loaded = load_records(str(path), kind)
    except DataError as error:
        assert error.cure
        return
    kept = json.dumps([to_json(r) for r in loaded.records]) + json.dumps(
        [dict(r.columns) for r in loaded.records if isinstance(r, Prompt)]
    )
    said = " ".join(loaded.notes)
    lost = [n for n, word in words.items() if word not in kept and n not in loaded.unused and f"`{n}`" not in said]
    converted = any("else is used" in note or "of them" in note for note in loaded.notes)
    assert not lost or converted or loaded.dropped, f"{lost} of {columns} as {kind} vanished: {loaded}"
