"""Exports with something missing, more, or otherwise than in ``exports/``; nothing vanishes without a word."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.data.load import Loaded, load_records
from plaudit.data.reading.exports.shapes import strength_of
from plaudit.data.reading.exports.table import EXPORTS, read_exports
from plaudit.data.reading.rows import ReadLog, Row
from plaudit.data.write import write_records
from plaudit.errors import DataError, PlauditError
from plaudit.records import (
    Comparison,
    Demonstration,
    Judgement,
    Message,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Record,
)

FILES = Path(__file__).parent / "exports"
JSON_FILES = sorted(path.name for path in FILES.iterdir() if path.suffix != ".csv")


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (FILES / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def read(tmp_path: Path, *rows: dict[str, Any], kind: Any = None) -> Loaded:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_records(str(path), kind)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


# Nothing vanishes


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects of a row."""
    if isinstance(value, dict):
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in parts:
        yield from objects(below, (*path, name))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


LEFT_OUT = {"argilla_1_records.json": ("responses", 1), "label_studio.json": ("annotations", 2)}
"""Answers that are left out and counted: their fields are not named one by one."""


@pytest.mark.parametrize("file", JSON_FILES)
def test_a_further_field_anywhere_is_named_or_refused(file: str, tmp_path: Path) -> None:
    rows = rows_of(file)
    quiet = []
    skipped = LEFT_OUT.get(file, ("none",))
    for path in (path for path in objects(rows[0]) if path[: len(skipped)] != skipped):
        changed = copy.deepcopy(rows[:1])
        at(changed[0], path)["zz_further"] = "a value"
        try:
            loaded = read(tmp_path, *changed)
        except PlauditError:
            continue
        # What a tool schema holds is its own affair and travels with it; a field in what is not used is not used.
        travels = "zz_further" in repr(loaded.records)
        covered = any(".".join(str(s) for s in path if isinstance(s, str)).startswith(name) for name in loaded.unused)
        if not (travels or covered or any("zz_further" in name for name in loaded.unused)):
            quiet.append(path)
    assert quiet == []


@pytest.mark.parametrize("file", JSON_FILES)
def test_a_missing_or_odd_value_is_no_traceback(file: str, tmp_path: Path) -> None:
    rows = rows_of(file)
    for path in objects(rows[0]):
        for name in at(rows[0], path):
            for value in (None, "", -1.5, [], {}, "odd", [1], True):
                changed = copy.deepcopy(rows)
                at(changed[0], path)[name] = value
                try:
                    read(tmp_path, *changed)
                except PlauditError as error:
                    assert "rows.jsonl" in str(error)


@pytest.mark.parametrize("file", JSON_FILES)
def test_a_row_gives_records_or_is_counted(file: str, tmp_path: Path) -> None:
    for row in rows_of(file):
        if file.startswith("oasst"):
            continue
        try:
            loaded = read(tmp_path, row)
        except DataError as error:
            assert "left out" in str(error), "a file without records says why"
            continue
        assert loaded.records or loaded.dropped


OWN: list[Record] = [
    Prompt("p", "Q", "A"),
    Demonstration("d", (Message("user", "Q"),), "A"),
    Preference("p", "Q", "A", "B", 1.5, 0.75, "ann"),
    Judgement("j", "Q", "A", "B", -2, "m", "n", "ann", 3.0),
    Ranking("r", "Q", ("A", "B"), (2, 1)),
    Rating("r", "Q", "A", 3.0, {"helpfulness": 3.0}),
    Comparison("c", "Q", ("A", "B"), ("m", "n")),
]


@pytest.mark.parametrize("record", OWN, ids=lambda record: type(record).__name__)
def test_our_own_layouts_are_no_exports_and_come_back(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    write_records([record], path)
    row = Row("own", 1, json.loads(path.read_text(encoding="utf-8")))
    assert read_exports([("own", [row])], ReadLog("own"))[1] == ""
    assert load_records(str(path)).records == (record,)


def test_no_two_exports_have_one_name() -> None:
    assert len({export.name for export in EXPORTS}) == len(EXPORTS)


# Verdicts


@pytest.mark.parametrize(
    ("word", "strength"),
    [
        ("A", -1), ("model_b", 1), ("Response A is better", -1), ("right is much better", 2), ("2", 1), ("B>A", 1),
        ("[[A>>B]]", -2), ("A=B", 0), ("tie", 0), ("Tie (bothbad)", 0), ("both_bad", 0), ("Neither", 0),
        ("the first answer is slightly better", -1), ("c", None), ("seven", None), ("", None), (None, None),
        (True, None),
    ],
)  # fmt: skip
def test_words_of_verdicts(word: Any, strength: int | None) -> None:
    assert strength_of(word) == strength


def test_numbers_count_as_the_names_of_the_sides_do() -> None:
    assert strength_of("1", ["answer1", "answer2"]) == -1
    assert strength_of("1", ["response_0", "response_1"]) == 1
    assert strength_of(0, ["response_0", "response_1"]) == -1
    assert strength_of("summary two", ["summary one", "summary two"]) == 1


# Annotation tools


def argilla(**changes: Any) -> dict[str, Any]:
    row = copy.deepcopy(rows_of("argilla_2_records.json")[0])
    return row | changes


def test_argilla_finds_the_pair_by_its_names(tmp_path: Path) -> None:
    answers = {"best": [{"value": "generation-2", "user_id": "ann"}]}
    fields = {"ask": "Q", "generation-1": "one", "generation-2": "two"}
    (judgement,) = read(tmp_path, argilla(fields=fields, responses=answers, metadata={})).records
    assert isinstance(judgement, Judgement)
    assert (judgement.prompt, judgement.response_a, judgement.response_b, judgement.strength) == ("Q", "one", "two", 1)


def test_argilla_that_does_not_tell_names_the_flag(tmp_path: Path) -> None:
    fields = {"ask": "Q", "good": "one", "other": "two"}
    with pytest.raises(DataError, match="--field prompt=NAME --field response_a=NAME") as error:
        read(tmp_path, argilla(fields=fields))
    assert "ask, good, other" in str(error.value) and "rows.jsonl:1" in str(error.value)


def test_names_that_are_given_come_first() -> None:
    fields = {"ask": "Q", "good": "one", "other": "two"}
    row = Row("x:1", 1, argilla(fields=fields, responses={"p": [{"value": "good", "user_id": "ann"}]}))
    asked = {"prompt": "ask", "response_a": "other", "response_b": "good"}
    log = ReadLog("x")
    parts, _ = read_exports([("x", [row])], log, asked)
    (own,) = parts[0][1]
    assert not log.faults
    assert (own.values["response_a"], own.values["response_b"], own.values["strength"]) == ("two", "one", 1)


def test_argilla_with_two_questions_that_could_be_meant_is_refused(tmp_path: Path) -> None:
    answers = {name: [{"value": "response_a", "user_id": "ann"}] for name in ("helpful", "safe")}
    with pytest.raises(DataError, match="--field label=QUESTION"):
        read(tmp_path, argilla(responses=answers))


def test_argilla_answers_without_annotator(tmp_path: Path) -> None:
    (judgement,) = read(tmp_path, argilla(responses={"preference": [{"value": "response_b"}]})).records
    assert isinstance(judgement, Judgement) and (judgement.id, judgement.annotator) == ("r1", "")


def test_argilla_ranking_of_two_is_a_judgement_by_annotator(tmp_path: Path) -> None:
    ranks = [{"value": "response_b", "rank": 1}, {"value": "response_a", "rank": 2}]
    tied = [{"value": "response_b", "rank": 1}, {"value": "response_a", "rank": 1}]
    answers = {"order": [{"value": ranks, "user_id": "ann"}, {"value": tied, "user_id": "bob"}]}
    records = read(tmp_path, argilla(responses=answers)).records
    assert [(r.annotator, r.strength) for r in records if isinstance(r, Judgement)] == [("ann", 1), ("bob", 0)]


def test_argilla_written_answers_are_demonstrations(tmp_path: Path) -> None:
    row = argilla(fields={"prompt": "Q"}, responses={"answer": [{"value": "A", "user_id": "ann"}]})
    assert read(tmp_path, row).records == (Demonstration("r1/ann", "Q", "A"),)


def test_argilla_several_numbers_are_axes(tmp_path: Path) -> None:
    answers = {name: [{"value": value, "user_id": "ann"}] for name, value in (("clear", 2), ("true", 4))}
    loaded = read(tmp_path, argilla(fields={"prompt": "Q", "response": "A"}, responses=answers))
    assert loaded.records == (Rating("r1/ann", "Q", "A", 3.0, {"clear": 2.0, "true": 4.0}),)


@pytest.mark.parametrize("names", [
    ("rating_a", "rating_b"), ("response_a-rating", "response_b-rating"), ("quality a", "quality b"),
])  # fmt: skip
def test_argilla_ratings_of_both_responses_are_judgements(names: tuple[str, str], tmp_path: Path) -> None:
    given = {"ann": (2, 5), "bob": (4, 4), "eve": (3, None)}
    answers = {
        name: [{"value": pair[i], "user_id": user} for user, pair in given.items() if pair[i] is not None]
        for i, name in enumerate(names)
    }
    loaded = read(tmp_path, argilla(responses=answers))
    found = [(r.annotator, r.strength, r.margin) for r in loaded.records if isinstance(r, Judgement)]
    assert found == [("ann", 1, 3), ("bob", 0, 0)]
    assert "1 answers that rate some of the responses only, left out" in loaded.notes


def test_argilla_ratings_of_three_responses_are_a_ranking(tmp_path: Path) -> None:
    fields = {"prompt": "Q", **{f"generations-{i}": str(i) for i in range(3)}}
    answers = {f"generations-{i}-rating": [{"value": n, "user_id": "ann"}] for i, n in enumerate((2, 5, 2))}
    row = argilla(fields=fields, responses=answers)
    assert read(tmp_path, row).records == (Ranking("r1/ann", "Q", ("0", "1", "2"), (2, 1, 2)),)


def task(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(rows_of("label_studio.json")[0]) | changes


def test_label_studio_takes_choices_and_the_order_of_its_objects(tmp_path: Path) -> None:
    choice = {"type": "choices", "from_name": "better", "to_name": "dialog", "value": {"choices": ["Both are bad"]}}
    named = {"type": "pairwise", "from_name": "pw", "to_name": "answer2,answer1", "value": {"selected": "left"}}
    done = [{"id": i, "completed_by": i, "result": [result]} for i, result in enumerate((choice, named))]
    loaded = read(tmp_path, task(annotations=done))
    assert [r.strength for r in loaded.records if isinstance(r, Judgement)] == [0, 1]
    assert "1 verdicts that both responses are bad, read as ties" in loaded.notes


def test_label_studio_without_a_verdict_is_counted(tmp_path: Path) -> None:
    text = {"type": "textarea", "from_name": "why", "to_name": "txt-1", "value": {"text": ["no idea"]}}
    pairwise = task()["annotations"][0]
    loaded = read(tmp_path, task(annotations=[pairwise, {"id": 1, "completed_by": 9, "result": [text]}]))
    assert len(loaded.records) == 1 and loaded.dropped == 1
    assert "1 annotations without a verdict on the responses, left out" in loaded.notes


def test_label_studio_pairs_of_its_template_have_no_prompt(tmp_path: Path) -> None:
    loaded = read(tmp_path, task(data={"text1": "one", "text2": "two", "lang": "en"}))
    assert {(r.prompt, r.response_a, r.response_b) for r in loaded.records if isinstance(r, Judgement)} == {
        ("", "one", "two")
    }
    assert "data.lang" in loaded.unused and "1 pairs without a prompt" in loaded.notes


def test_label_studio_stars_are_ratings(tmp_path: Path) -> None:
    star = {"type": "rating", "from_name": "stars", "to_name": "txt", "value": {"rating": 4}}
    row = task(data={"prompt": "Q", "response": "A"}, annotations=[{"id": 1, "completed_by": 9, "result": [star]}])
    assert read(tmp_path, row).records == (Rating("1/9", "Q", "A", 4.0),)


def listed(*orders: Any) -> dict[str, Any]:
    items = [{"id": "x", "body": "one"}, {"id": "y", "body": "two", "title": "T"}, {"id": "z", "html": "three"}]
    done = [
        {"id": i, "completed_by": i, "result": [
            {"type": "ranker", "from_name": "rank", "to_name": "answers", "value": {"ranker": order}}
        ]}
        for i, order in enumerate(orders, 1)
    ]  # fmt: skip
    return task(data={"prompt": "Q", "items": items}, annotations=done)


def test_label_studio_rankers_are_rankings_by_annotator(tmp_path: Path) -> None:
    loaded = read(tmp_path, listed({"rank": ["z", "x", "y"]}, ["y", "z", "x"]))
    texts = ("one", "two", "three")
    assert loaded.records == (Ranking("1/1", "Q", texts, (2, 3, 1)), Ranking("1/2", "Q", texts, (3, 1, 2)))
    assert "data.items.title" in loaded.unused


def test_label_studio_ranker_that_places_two_is_a_judgement(tmp_path: Path) -> None:
    loaded = read(tmp_path, listed({"rank": ["z", "x"]}))
    (judgement,) = loaded.records
    assert isinstance(judgement, Judgement)
    assert (judgement.response_a, judgement.response_b, judgement.strength) == ("one", "three", 1)
    assert "1 items that were not ranked, left out" in loaded.notes


@pytest.mark.parametrize("order, found", [
    ({"good": ["x"], "bad": ["y", "z"]}, "the buckets good, bad"),
    ({"rank": ["x", "w"]}, "no list that holds x, w"),
    ("x", "x"),
])  # fmt: skip
def test_label_studio_rankers_that_give_no_order_are_refused(order: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=found):
        read(tmp_path, listed(order))


def test_label_studio_stars_for_each_of_two_are_a_judgement(tmp_path: Path) -> None:
    stars = [
        {"type": "rating", "from_name": f"stars{i}", "to_name": f"txt-{i}", "value": {"rating": number}}
        for i, number in ((2, 5), (1, 3))
    ]
    (judgement,) = read(tmp_path, task(annotations=[{"id": 1, "completed_by": 9, "result": stars}])).records
    assert isinstance(judgement, Judgement) and (judgement.strength, judgement.margin) == (1, 2)


def test_label_studio_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = rows_of("label_studio_min.json")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows([json.dumps(v) if isinstance(v, list) else v for v in row.values()] for row in rows)
    records = load_records(str(path)).records
    assert [(r.annotator, r.strength) for r in records if isinstance(r, Judgement)] == [("3", -1), ("4", 1)]


def test_prodigy_more_options_are_a_ranking(tmp_path: Path) -> None:
    row = rows_of("prodigy_choice.jsonl")[0]
    row["options"] = [{"id": i, "text": text} for i, text in enumerate(("one", "two", "three"))]
    loaded = read(tmp_path, row | {"accept": [1]})
    assert loaded.records == (Ranking("5/ann", "Name a colour.", ("one", "two", "three"), (2, 1, 2)),)


def test_prodigy_option_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected ids of options: x, y"):
        read(tmp_path, rows_of("prodigy_choice.jsonl")[0] | {"accept": ["z"]})


# Tracing


def test_langfuse_items_without_expected_output_are_prompts(tmp_path: Path) -> None:
    row = {"id": "i", "datasetId": "d", "status": "ACTIVE", "input": {"messages": [user("Q")]}, "expectedOutput": None}
    assert [r.content for r in read(tmp_path, row).records if isinstance(r, Prompt)] == [(Message("user", "Q"),)]


def test_a_page_of_an_api_is_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"data": rows_of("langfuse_items.jsonl"), "meta": {"page": 1}}), encoding="utf-8")
    loaded = load_records(str(path))
    assert [r.id for r in loaded.records] == ["i1", "i2"]
    assert "meta" in loaded.unused and "rows are under the field 'data'" in loaded.notes


@pytest.mark.parametrize("names", [("train", "test"), ("training", "validation"), ("train_sft", "test_sft")])
def test_splits_in_one_object_are_read_as_those_of_a_folder_are(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]
    path.write_text(json.dumps({"version": "1", names[0]: rows, names[1]: rows[:1]}), encoding="utf-8")
    loaded = load_records(str(path))
    assert [r.prompt for r in loaded.records] == ["a", "c"] and "version" in loaded.unused
    assert any(f"not read: the splits '{names[1]}' (1); to read one" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"test": [{"prompt": "a"}], "dev": [{"prompt": "b"}]}, "several splits and not one to train on: test, dev"),
        ({"train": {"prompt": ["a"], "response": ["b"]}, "test": {"prompt": ["c"]}}, "a table by columns"),
    ],
)
def test_splits_that_do_not_tell_say_what_to_write(value: Any, found: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=found):
        load_records(str(path))


def test_messages_under_several_fields_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    said = [[{"role": "assistant", "content": text}] for text in "AB"]
    path.write_text(json.dumps({"prompt": [user("Q")], "chosen": said[0], "rejected": said[1]}))
    assert len(load_records(str(path)).records) == 1


def test_langfuse_input_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    row = {"id": "i", "datasetId": "d", "input": {"one": "Q", "two": "R"}, "expectedOutput": "A"}
    with pytest.raises(DataError, match="--field prompt=NAME"):
        read(tmp_path, row)


def test_scores_and_feedback_without_texts_say_what_to_export(tmp_path: Path) -> None:
    score = {"id": "s", "traceId": "t", "name": "helpful", "value": 1, "dataType": "NUMERIC"}
    feedback = {"id": "f", "run_id": "r", "key": "preferred", "score": 1, "comparative_experiment_id": "c"}
    for row in (score, feedback):
        with pytest.raises(DataError, match="export the traces or runs with their inputs, outputs and scores"):
            read(tmp_path, row)


def test_langsmith_outputs_that_are_a_pair(tmp_path: Path) -> None:
    row = {"id": "e", "dataset_id": "d", "inputs": {"input": "Q"}, "outputs": {"chosen": "A", "rejected": "B"}}
    assert read(tmp_path, row).records == (Preference("e", "Q", "A", "B"),)


# Public data sets


def test_battles_are_cut_where_they_were_judged(tmp_path: Path) -> None:
    chats = {
        f"conversation_{x}": [user("Q"), assistant(answer), user("More?"), assistant("No.")]
        for x, answer in (("a", "one"), ("b", "two"))
    }
    (judgement,) = read(tmp_path, {"winner": "model_a", "turn": 1, "model_a": "x", "model_b": "y", **chats}).records
    assert judgement == Judgement("rows-1", (Message("user", "Q"),), "one", "two", -1, "x", "y")


def test_battles_with_plain_columns(tmp_path: Path) -> None:
    row = {"prompt": "Q", "response_a": "one", "response_b": "two", "model_a": "x", "model_b": "y", "winner": "tie"}
    assert read(tmp_path, row).records == (Judgement("rows-1", "Q", "one", "two", 0, "x", "y"),)


def test_an_unknown_winner_is_refused(tmp_path: Path) -> None:
    row = {"prompt": "Q", "response_a": "one", "response_b": "two", "winner": "somebody"}
    with pytest.raises(DataError, match="rows.jsonl:1") as error:
        read(tmp_path, row)
    assert "'somebody'" in str(error.value)


def test_helpsteer_without_annotators_has_one_verdict_for_all(tmp_path: Path) -> None:
    row = {"context": [user("Q")], "response1": "one", "response2": "two", "overall_preference": 3}
    loaded = read(tmp_path, row)
    assert loaded.records == (Judgement("rows-1", (Message("user", "Q"),), "one", "two", 2, margin=3.0),)
    (pair,) = read(tmp_path, row, kind="preference").records
    assert isinstance(pair, Preference) and (pair.chosen, pair.margin) == ("two", 3.0)


def test_helpsteer_margin_of_a_majority_is_the_mean_of_the_annotators(tmp_path: Path) -> None:
    row = rows_of("helpsteer3.jsonl")[0]
    row["individual_preference"].append({"score": 1})
    (pair,) = read(tmp_path, row, kind="preference").records
    assert isinstance(pair, Preference) and pair.chosen == "Red."
    assert pair.margin == pytest.approx(1) and pair.agreement == pytest.approx(2 / 3)
    loaded = read(tmp_path, row | {"overall_preference": 1})
    assert any("overall_preference differs from the majority" in note for note in loaded.notes)


def test_helpsteer_beyond_its_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="overall_preference"):
        read(tmp_path, {"context": [user("Q")], "response1": "a", "response2": "b", "overall_preference": 9})


def test_ultrafeedback_compares_by_a_score_that_all_have(tmp_path: Path) -> None:
    row = rows_of("ultrafeedback.jsonl")[0]
    del row["completions"][1]["fine-grained_score"], row["completions"][1]["annotations"]
    loaded = read(tmp_path, row)
    assert [r.reward for r in loaded.records if isinstance(r, Rating)] == [8.5, 3.0]
    assert "2 completions whose reward is overall_score" in loaded.notes


def test_a_rejected_response_with_the_higher_score_has_no_margin(tmp_path: Path) -> None:
    row = rows_of("ultrafeedback_binarized.jsonl")[0] | {"score_chosen": 1}
    loaded = read(tmp_path, row)
    assert [r.margin for r in loaded.records if isinstance(r, Preference)] == [None]
    assert any("higher score" in note for note in loaded.notes)


def test_more_than_nine_answers_are_the_best_nine(tmp_path: Path) -> None:
    answers = [{"answer": f"a{rank}", "rank": rank} for rank in range(12, 0, -1)]
    loaded = read(tmp_path, {"prompt": "Q", "answers": answers})
    assert [r.responses[-1] for r in loaded.records if isinstance(r, Ranking)] == ["a1"] and loaded.dropped == 3


def test_a_confidence_that_contradicts_the_choice_is_no_margin(tmp_path: Path) -> None:
    row = rows_of("summaries.jsonl")[0] | {"extra": {"confidence": 2}}
    loaded = read(tmp_path, row)
    assert [(r.strength, r.margin) for r in loaded.records if isinstance(r, Judgement)] == [(1, None)]
    assert "extra" in loaded.unused


def test_the_safer_response_on_request() -> None:
    row = Row("x:1", 1, rows_of("safe_rlhf.jsonl")[0])
    parts, _ = read_exports([("x", [row])], ReadLog("x"), {"label": "safer_response_id"})
    assert parts[0][1][0].values["strength"] == 1


def test_oasst_without_ranks_are_conversations_in_which_users_are_context(tmp_path: Path) -> None:
    rows = [row | {"rank": None} for row in rows_of("oasst_messages.jsonl")]
    loaded = read(tmp_path, *rows)
    path = (Message("user", "Name a colour."), Message("assistant", "Red."), Message("user", "Another?"))
    assert loaded.records == (
        Demonstration("m1", (Message("user", "Name a colour."),), "Seven."),
        Demonstration("m4", path, "Blue."),
    )


def test_oasst_deleted_messages_are_counted_with_what_is_below_them(tmp_path: Path) -> None:
    rows = rows_of("oasst_messages.jsonl")
    rows.append(rows[4] | {"message_id": "m5", "rank": 1, "text": "Green."})
    rows[4]["rank"], rows[2]["deleted"] = 0, True
    rows.append(rows[1] | {"message_id": "m6", "rank": 2, "text": "Six."})
    loaded = read(tmp_path, *rows)
    assert [r.id for r in loaded.records] == ["m0"]
    assert "2 replies below a message that is missing, left out" in loaded.notes
    assert "1 messages that were deleted, left out" in loaded.notes


# Other trainers


def test_llama_factory_pair_in_a_list(tmp_path: Path) -> None:
    loaded = read(tmp_path, {"instruction": "Q", "input": "", "output": ["A", "B"]})
    assert loaded.records == (Preference("rows-1", (Message("user", "Q"),), "A", "B"),)


def test_plain_instructions_stay_as_they_were(tmp_path: Path) -> None:
    loaded = read(tmp_path, {"instruction": "Q", "input": "", "output": "A"})
    assert loaded.format.startswith("demonstrations (")


def test_sharegpt_pair_with_plain_responses_keeps_its_prompt(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "Q"}], "chosen": "A", "rejected": "B"}
    assert read(tmp_path, row).records == (Preference("rows-1", (Message("user", "Q"),), "A", "B"),)


def test_ms_swift_several_rejected_responses_are_a_pair_each(tmp_path: Path) -> None:
    loaded = read(tmp_path, {"messages": [user("Q"), assistant("A")], "rejected_response": ["B", "C"]})
    assert [r.rejected for r in loaded.records if isinstance(r, Preference)] == ["B", "C"]


def test_skywork_pairs_are_our_own_layout(tmp_path: Path) -> None:
    row = {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")], "source": "s"}
    loaded = read(tmp_path, row)
    assert loaded.records == (Preference("rows-1", (Message("user", "Q"),), "A", "B", category="s"),)


def test_tools_and_calls_of_openai_preferences_are_kept(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    row = rows_of("openai_preference.jsonl")[0]
    row["preferred_output"] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    (pair,) = read(tmp_path, row).records
    assert isinstance(pair, Preference) and isinstance(pair.chosen, tuple)
    assert pair.chosen[0].tool_calls == (call,) and pair.prompt[0].tools  # type: ignore[union-attr]
