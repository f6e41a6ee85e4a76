"""What a source may name: several files, folders with splits, saved data sets, lines of text; columns by --field."""

from __future__ import annotations

import json

import pytest

from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.records import Demonstration, Preference, Prompt


def rows(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def prompts(loaded):
    return [record.content for record in loaded.records]


# Several files


def test_several_files_with_commas_or_as_a_pattern(tmp_path):
    a = rows(tmp_path / "a.jsonl", {"prompt": "1"}, {"prompt": "2"})
    b = rows(tmp_path / "b.jsonl", {"question": "3"})
    for source in (f"{a},{b}", f"{a}, {b}", str(tmp_path / "*.jsonl")):
        loaded = load_records(source)
        assert prompts(loaded) == ["1", "2", "3"] and loaded.rows == 3
        assert any(note.startswith("2 files: a.jsonl, b.jsonl") for note in loaded.notes)
    assert prompts(load_records(f"{a},{b}", limit=1)) == ["1"]
    odd = rows(tmp_path / "a,b.jsonl", {"prompt": "with a comma"})
    assert prompts(load_records(str(odd))) == ["with a comma"]


def test_faults_of_several_files_name_file_and_line(tmp_path):
    a = rows(tmp_path / "a.jsonl", {"prompt": "1"}, {"prompt": 2})
    b = rows(tmp_path / "b.jsonl", {"prompt": "3"}, {"prompt": "4"}, {"prompt": 5})
    with pytest.raises(DataError) as caught:
        load_records(f"{a},{b}")
    assert f"{a}:2" in str(caught.value) and f"{b}:3" in str(caught.value)


def test_a_missing_file_or_one_that_is_named_twice(tmp_path):
    a = rows(tmp_path / "a.jsonl", {"prompt": "1"})
    with pytest.raises(DataError, match="no such file"):
        load_records(f"{a},{tmp_path}/none.jsonl")
    with pytest.raises(DataError, match="named twice"):
        load_records(f"{a},{a}")
    with pytest.raises(DataError, match="no such file"):
        load_records(str(tmp_path / "*.csv"))


def test_files_of_one_kind_are_each_read_in_their_own_layout(tmp_path):
    a = rows(tmp_path / "a.jsonl", {"prompt": "p", "response": "r"})
    chat = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    b = rows(tmp_path / "b.jsonl", {"messages": chat})
    loaded = load_records(f"{a},{b}")
    assert [r.response for r in loaded.records] == ["r", "r"] and "JSONL" in loaded.format


def test_files_of_different_kinds_are_refused_unless_one_kind_is_needed(tmp_path):
    a = rows(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "r", "rejected": "x"})
    b = rows(tmp_path / "b.jsonl", {"prompt": "q", "responses": ["1", "2"], "ranks": [2, 1]})
    with pytest.raises(DataError, match="a: preference, b: ranking"):
        load_records(f"{a},{b}")
    assert [(r.prompt, r.chosen) for r in load_records(f"{a},{b}", "preference").records] == [("p", "r"), ("q", "2")]


# Lines of text


def test_a_text_file_holds_a_prompt_on_each_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("What is it?\n\n[INST] Say hi [/INST]\n{not JSON\r\n")
    loaded = load_records(str(path), "prompt")
    assert prompts(loaded) == ["What is it?", "[INST] Say hi [/INST]", "{not JSON"]
    assert loaded.places.of("prompts-2") == f"{path}:3" and "each line of prompts.txt is a prompt" in loaded.notes


def test_json_under_the_ending_of_a_text_file(tmp_path):
    path = tmp_path / "rows.txt"
    for text in ('{"prompt": "a"}\n{"prompt": "b"}\n', '[\n{"prompt": "a"},\n{"prompt": "b"}]'):
        path.write_text(text)
        assert prompts(load_records(str(path))) == ["a", "b"]


# Folders


@pytest.mark.parametrize(
    "train, test",
    [
        ("train.jsonl", "test.jsonl"),
        ("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"),
        ("train/0.jsonl", "validation/0.jsonl"),
        ("math_train.jsonl", "math_dev.jsonl"),
        ("rows.jsonl", "test.jsonl"),
        ("rows.jsonl", "test/rows.jsonl"),
        ("Training.jsonl", "Eval.jsonl"),
    ],
)
def test_train_and_test_of_a_folder_are_not_merged(train, test, tmp_path):
    rows(tmp_path / train, {"prompt": "train"})
    rows(tmp_path / test, {"prompt": "test"})
    loaded = load_records(str(tmp_path))
    assert prompts(loaded) == ["train"]
    (note,) = (note for note in loaded.notes if note.startswith("not read"))
    split = note.split(f"{tmp_path}:")[1]
    assert prompts(load_records(f"{tmp_path}:{split}")) == ["test"]
    with pytest.raises(DataError, match="no split 'trian'"):
        load_records(f"{tmp_path}:trian")


def test_shards_are_one_split_and_a_lone_test_is_read(tmp_path):
    for i in range(3):
        rows(tmp_path / f"train-0000{i}-of-00003.jsonl", {"prompt": str(i)})
    assert prompts(load_records(str(tmp_path))) == ["0", "1", "2"]
    rows(tmp_path / "only" / "test.jsonl", {"prompt": "t"})
    assert prompts(load_records(str(tmp_path / "only"))) == ["t"]


def test_several_splits_to_train_on_are_refused_with_their_names(tmp_path):
    for name in ("train_sft", "train_prefs", "test_sft"):
        rows(tmp_path / "data" / f"{name}-00000-of-00001.jsonl", {"prompt": name})
    with pytest.raises(DataError, match="train_prefs, train_sft") as caught:
        load_records(str(tmp_path))
    assert f"{tmp_path}:train_sft" in caught.value.cure
    assert prompts(load_records(f"{tmp_path}:train_sft")) == ["train_sft"]
    for name in ("main", "socratic"):
        rows(tmp_path / "sets" / name / "train-00000-of-00001.jsonl", {"prompt": name})
    with pytest.raises(DataError, match="main/train, socratic/train"):
        load_records(str(tmp_path / "sets"))
    assert prompts(load_records(f"{tmp_path}/sets:main/train")) == ["main"]


CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: part-*.jsonl
  - split: test
    path: held.jsonl
---
# A data set
"""


def test_a_card_says_which_files_are_which_split(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "dataset_info.json").write_text('{"features": {}}')
    rows(tmp_path / "part-1.jsonl", {"prompt": "a"})
    rows(tmp_path / "part-2.jsonl", {"prompt": "b"})
    rows(tmp_path / "held.jsonl", {"prompt": "c"})
    assert prompts(load_records(str(tmp_path))) == ["a", "b"]
    assert prompts(load_records(f"{tmp_path}:test")) == ["c"]


@pytest.mark.parametrize("name", ["README.md", "dataset_info.json", "dataset_dict.json", "state.json"])
def test_a_description_of_data_is_known_for_what_it_is(name, tmp_path):
    rows(tmp_path / "rows.jsonl", {"prompt": "a"})
    (tmp_path / name).write_text('{"prompt": "not a row"}')
    (tmp_path / "LICENSE.txt").write_text("no prompt")
    assert prompts(load_records(str(tmp_path))) == ["a"]
    with pytest.raises(DataError, match="holds no rows"):
        load_records(str(tmp_path / name))


def test_what_datasets_has_saved_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    table.save_to_disk(str(tmp_path / "one"))
    assert load_records(str(tmp_path / "one")).records[0].chosen == "a"
    test = datasets.Dataset.from_list([{"prompt": "q", "chosen": "c", "rejected": "d"}])
    both = datasets.DatasetDict(train=table, test=test)
    both.save_to_disk(str(tmp_path / "two"))
    loaded = load_records(str(tmp_path / "two"))
    assert [r.prompt for r in loaded.records] == ["p"] and "Arrow" in loaded.format
    assert [r.prompt for r in load_records(f"{tmp_path}/two:test").records] == ["q"]
    (next((tmp_path / "one").glob("*.arrow"))).write_bytes(b"\xff\xff\xff\xffcut")
    with pytest.raises(DataError, match="damaged Arrow"):
        load_records(str(tmp_path / "one"))


def test_one_name_in_two_formats_is_refused(tmp_path):
    rows(tmp_path / "a.jsonl", {"prompt": "a"})
    (tmp_path / "a.csv").write_text("prompt\na\n")
    with pytest.raises(DataError, match="may hold the same rows"):
        load_records(str(tmp_path))


# Columns that the user names


def test_columns_of_any_name(write_lines):
    path = write_lines({"ask": "Hi", "good": "a", "bad": "b", "prompt": "other"})
    loaded = load_records(path, fields={"prompt": "ask", "chosen": "good", "rejected": "bad"})
    assert loaded.records == (Preference("rows-1", "Hi", "a", "b"),) and loaded.unused == ("prompt",)


def test_two_columns_joined_or_none(write_lines):
    path = write_lines({"question": "Why?", "context": "It rains.", "response": "a"})
    loaded = load_records(path, fields={"prompt": "context+question"})
    assert loaded.records == (Demonstration("rows-1", "It rains.\n\nWhy?", "a"),) and not loaded.unused
    path = write_lines({"remark": "They are alike.", "chosen": "a", "rejected": "b"})
    loaded = load_records(path, fields={"prompt": ""})
    assert loaded.records == (Preference("rows-1", "", "a", "b"),) and loaded.unused == ("remark",)


def test_a_field_by_another_of_its_names(write_lines):
    path = write_lines({"frage": "Hi", "antwort": "Hello"})
    assert load_records(path, fields={"question": "frage", "completion": "antwort"}).records == (
        Demonstration("rows-1", "Hi", "Hello"),
    )
    assert load_records(path, "prompt", fields={"prompt": "frage", "answer": "antwort"}).records == (
        Prompt("rows-1", "Hi", "Hello"),
    )


def test_a_column_that_no_row_has_and_a_field_that_there_is_not(write_lines):
    path = write_lines({"ask": "Hi", "good": "a", "bad": "b"})
    with pytest.raises(DataError, match="no row has a column 'aks'") as caught:
        load_records(path, fields={"prompt": "aks", "chosen": "good", "rejected": "bad"})
    assert "did you mean 'ask'" in caught.value.cure
    with pytest.raises(ConfigError, match="there is no field 'colour'"):
        load_records(path, fields={"colour": "ask"})


def test_rows_without_the_named_column_are_faults(write_lines):
    path = write_lines({"ask": "Hi", "reply": "a"}, {"ask": "Ho", "reply": "b"}, {"prompt": "He", "reply": "c"})
    with pytest.raises(DataError, match="prompt") as caught:
        load_records(path, fields={"prompt": "ask"})
    assert ":3" in caught.value.where
