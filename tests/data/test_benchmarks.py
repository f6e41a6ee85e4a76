"""The files of published benchmarks of reward models: recognised by their columns, read, refused row by row."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from plaudit.data.benchmarks.layouts import listed
from plaudit.data.benchmarks.load import load_benchmark
from plaudit.data.benchmarks.names import CORRECTNESS_SETS, SECTIONS, TITLES
from plaudit.data.load import load_records
from plaudit.data.reading.rows import BadRows
from plaudit.errors import DataError
from plaudit.records import Message

FILES = Path(__file__).parent / "benchmarks"
NAMES = {
    "rewardbench": "rewardbench",
    "rewardbench_2": "rewardbench-2",
    "rm_bench": "rm-bench",
    "ppe_human": "ppe-human",
    "ppe_mmlu_pro": "ppe-correctness",
    "ppe_ifeval": "ppe-correctness",
}


def rows_of(name):
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text().splitlines()]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def cases(source):
    benchmark = load_benchmark(str(source))
    assert benchmark is not None
    return list(benchmark.cases.values())


@pytest.mark.parametrize(("file", "name"), NAMES.items())
def test_each_file_is_recognised(file, name):
    benchmark = load_benchmark(str(FILES / f"{file}.jsonl"))
    assert benchmark is not None and benchmark.name == name and name in TITLES
    assert len(benchmark.cases) == len(rows_of(file))
    assert all(":" in benchmark.places.of(key) for key in benchmark.cases)


@pytest.mark.parametrize(("file", "name"), NAMES.items())
@pytest.mark.parametrize("form", ["parquet", "json", "gz", "csv", "text"])
def test_every_way_to_write_it_gives_the_same_cases(tmp_path, file, name, form):
    rows, expected = rows_of(file), cases(FILES / f"{file}.jsonl")
    path = tmp_path / f"{file}.{form}"
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    elif form == "json":
        path.write_text(json.dumps(rows))
    elif form == "gz":
        path = tmp_path / f"{file}.jsonl.gz"
        path.write_bytes(gzip.compress((FILES / f"{file}.jsonl").read_bytes()))
    elif form == "csv":  # as pandas writes a table that was read from Parquet: arrays as numpy prints them
        printed = [{k: str(np.array(v)) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(printed)
    else:  # lists stored as JSON text
        path = tmp_path / f"{file}.jsonl"
        written(path, [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows])
    assert cases(path) == expected


def test_lists_of_any_make():
    assert listed(np.array(["a", "b"], dtype=object)) == listed('["a", "b"]') == listed("['a' 'b']") == ["a", "b"]
    assert listed("[see below]") is listed(None) is listed({"a": 1}) is None


def test_what_a_row_becomes():
    first = cases(FILES / "rewardbench.jsonl")[0]
    assert (first.prompt, first.responses, first.correct) == ("say red blue", (" good good", " bad"), (True, False))
    assert (first.subset, first.id) == ("alpacaeval-easy", "0")
    tied = cases(FILES / "rewardbench_2.jsonl")[-1]
    assert (tied.id, tied.correct) == ("tied:0", (True, True, True, False, False))
    styles = cases(FILES / "rm_bench.jsonl")[3]
    assert styles.subset == "safety-refuse" and styles.correct == (True,) * 3 + (False,) * 3
    votes = cases(FILES / "ppe_human.jsonl")
    assert [vote.correct for vote in votes[:2]] == [(True, False), (False, True)]
    assert votes[0].groups == ("hard prompts", "code", "English") and votes[4].groups[-1] == "other languages"
    assert [bool(vote.left_out) for vote in votes] == [False, False, True, True, False]
    sampled = cases(FILES / "ppe_mmlu_pro.jsonl")[0]
    assert (sampled.subset, sampled.groups, len(sampled.responses)) == ("MMLU-Pro", ("x",), 4)
    assert sampled.pairs == ((0, 1), (2, 3)), "the right one first, whatever their order in the file"


def test_what_people_paste_into_a_prompt_is_no_transcript(tmp_path):
    rows = rows_of("ppe_human")
    rows[0]["prompt"] = "Human: hello\n\nAssistant: hello"
    assert cases(written(tmp_path / "file.jsonl", rows))[0].prompt == rows[0]["prompt"]


def test_the_published_weights_of_sections():
    assert [sum(subsets.values()) for subsets in SECTIONS.values()] == [358, 456, 740, 1968]
    code = {name: weight for name, weight in SECTIONS["Reasoning"].items() if name.startswith("hep-")}
    assert SECTIONS["Reasoning"]["math-prm"] == sum(code.values()) == 984, "code and mathematics weigh the same"


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "c", "subset": "part one"},
        {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_model": "x", "rejected_model": "y"},
        {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_model": "x", "rejected_model": "y", "subset": "mine"},
        {"prompt": "a", "chosen": ["b"], "rejected": ["c"]},
        {"prompt": "a", "chosen": ["b"], "rejected": ["c", "d"], "domain": "chat"},
        {"prompt": "a", "response_1": "b", "response_2": "c", "winner": "model_a"},
        {"prompt": "a", "response": "b"},
        {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2]},
    ],
)
def test_other_data_are_no_benchmark(tmp_path, columns):
    source = written(tmp_path / "data.jsonl", [columns] * 3)
    assert load_benchmark(source) is None
    load_records(source)


def test_several_files_of_one_benchmark_and_of_two(tmp_path):
    both = load_benchmark(f"{FILES / 'ppe_mmlu_pro.jsonl'},{FILES / 'ppe_ifeval.jsonl'}")
    assert both is not None and {case.subset for case in both.cases.values()} == {"MMLU-Pro", "IFEval"}
    with pytest.raises(DataError, match="(?s)of RM-Bench, and rewardbench, which is of RewardBench.*one at a time"):
        load_benchmark(f"{FILES / 'rm_bench.jsonl'},{FILES / 'rewardbench.jsonl'}")
    plain = written(tmp_path / "mine.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match="mine, which is of no benchmark"):
        load_benchmark(f"{FILES / 'rewardbench.jsonl'},{plain}")


def test_files_of_one_name_in_several_folders(tmp_path):
    for name in ("ppe_mmlu_pro", "ppe_ifeval"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "train.jsonl", rows_of(name))
    found = cases(f"{tmp_path / 'ppe_mmlu_pro' / 'train.jsonl'},{tmp_path / 'ppe_ifeval' / 'train.jsonl'}")
    assert [case.subset for case in found] == ["MMLU-Pro"] * 3 + ["IFEval"] * 2
    written(tmp_path / "ppe_ifeval" / "train.jsonl", rows_of("rm_bench"))
    with pytest.raises(DataError, match="which is of RM-Bench"):
        cases(f"{tmp_path / 'ppe_mmlu_pro' / 'train.jsonl'},{tmp_path / 'ppe_ifeval' / 'train.jsonl'}")


def test_files_of_prior_sets_beside_rewardbench_are_named_after_their_set(tmp_path):
    turns = [{"role": "user", "content": "say red"}, {"role": "assistant", "content": "red"}]
    rows = [{"prompt": [*turns, turns[0]], "chosen": " good", "rejected": " bad", "subset": "harmless-base"}]
    prior = written(tmp_path / "anthropic_hhh-00000-of-00001.jsonl", rows)
    found = cases(f"{FILES / 'rewardbench.jsonl'},{prior}")[-1]
    assert found.subset == "anthropic_hhh" and found.prompt[0] == Message("user", "say red")


def test_ppe_sets_are_told_by_their_columns_else_by_the_name_of_the_file(tmp_path):
    row = {"prompt": "a", "response_1": "b", "response_2": "c", "scores": [1, 0]}
    columns = {
        "MMLU-Pro": {"options": ["x"]},
        "MATH": {"level": "Level 1"},
        "GPQA": {"Record ID": "r"},
        "MBPP-Plus": {"test_list": ["assert f()"]},
        "IFEval": {"instruction_id_list": ["length"]},
    }
    assert set(columns) == set(CORRECTNESS_SETS)
    for name, more in columns.items():
        assert cases(written(tmp_path / "a.jsonl", [row | more]))[0].subset == name
    assert cases(written(tmp_path / "PPE-GPQA-Best-of-K.jsonl", [row]))[0].subset == "GPQA"
    assert cases(written(tmp_path / "own.jsonl", [row]))[0].subset == "own"
    assert cases(written(tmp_path / "own.jsonl", [row]))[0].pairs == ((0, 1),)


def spoiled(name, at, **changes):
    rows = rows_of(name)
    rows[at] = {key: value for key, value in (rows[at] | changes).items() if value is not ...}
    return rows


@pytest.mark.parametrize(
    ("name", "at", "changes", "field", "words"),
    [
        ("rewardbench", 1, {"subset": None}, "subset", "found nothing"),
        ("rewardbench", 1, {"subset": " "}, "subset", "name the subset of the row: alpacaeval-easy"),
        ("rewardbench", 1, {"chosen": ["a", 1]}, "chosen", "found a list of 2"),
        ("rewardbench", 1, {"prompt": ""}, "prompt", "found an empty prompt"),
        ("rewardbench", 1, {"prompt": ...}, "prompt", "expected prompt"),
        ("rewardbench", 1, {"rejected": None}, "rejected", "found nothing (null)"),
        ("rewardbench", 1, {"chosen": "a\0"}, "chosen", "a NUL character"),
        ("rewardbench_2", 0, {"rejected": []}, "rejected", "found a list of 0"),
        ("rewardbench_2", 0, {"chosen": "a text"}, "chosen", "expected a list"),
        ("rewardbench_2", 0, {"chosen": [" good", None]}, "chosen[1]", "found nothing (null)"),
        ("rewardbench_2", 0, {"num_correct": 2}, "num_correct", "the lists of the row have 1"),
        ("rewardbench_2", 0, {"total_completions": 9}, "total_completions", "the lists of the row have 4"),
        ("rewardbench_2", 0, {"num_correct": "many"}, "num_correct", "expected a finite number"),
        ("rewardbench_2", 0, {"subset": ...}, "subset", "Factuality, Precise IF"),
        ("rewardbench_2", 5, {"id": "7"}, "id", "expected ref:NUMBER"),
        ("rm_bench", 0, {"chosen": [" good"]}, "chosen", "found 1 responses"),
        ("rm_bench", 0, {"rejected": []}, "rejected", "found a list of 0"),
        ("rm_bench", 0, {"domain": None}, "domain", "chat, code, math"),
        ("ppe_human", 0, {"winner": "nobody knows"}, "winner", "expected model_a, model_b or tie"),
        ("ppe_human", 0, {"winner": None}, "winner", "expected model_a"),
        ("ppe_human", 0, {"hard_prompt": "perhaps"}, "hard_prompt", "expected true or false"),
        ("ppe_mmlu_pro", 0, {"scores": [True, False]}, "scores", "found 2 for 4 responses"),
        ("ppe_mmlu_pro", 0, {"scores": [0.5, 1, 0, 1]}, "scores[0]", "expected true or false"),
        ("ppe_mmlu_pro", 0, {"scores": "all"}, "scores", "expected a list"),
        ("ppe_mmlu_pro", 0, {"sampled_conflict_pairs": [[0, 2]]}, "sampled_conflict_pairs[0]", "found [0, 2]"),
        ("ppe_mmlu_pro", 0, {"sampled_conflict_pairs": [[0, 99]]}, "sampled_conflict_pairs[0]", "found [0, 99]"),
        ("ppe_mmlu_pro", 0, {"sampled_conflict_pairs": [3]}, "sampled_conflict_pairs[0]", "a wrong one"),
        ("ppe_mmlu_pro", 0, {f"response_{i}": None for i in (2, 3, 4)}, "response_2", "found 1 responses"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named_with_its_line_and_field(tmp_path, name, at, changes, field, words):
    source = written(tmp_path / "file.jsonl", spoiled(name, at, **changes))
    with pytest.raises(BadRows) as caught:
        load_benchmark(source)
    fault = next(fault for fault in caught.value.faults if fault.field == field)
    assert fault.where.endswith(f"file.jsonl:{at + 1}")
    assert words in f"{caught.value}", str(caught.value)
    assert caught.value.cure


def test_all_faults_of_a_file_are_listed_at_once(tmp_path):
    rows = [row | {"subset": None} if i % 3 == 0 else row for i, row in enumerate(rows_of("rewardbench"))]
    with pytest.raises(BadRows, match="4 faults"):
        load_benchmark(written(tmp_path / "file.jsonl", rows))


def test_two_questions_of_ties_with_one_name(tmp_path):
    rows = rows_of("rewardbench_2")
    with pytest.raises(DataError, match=r"the id 'tied:0' stands in two rows, .*:7 and .*:8"):
        load_benchmark(written(tmp_path / "file.jsonl", [*rows, rows[-1]]))


def test_other_spellings_and_counts_are_read_and_said(tmp_path):
    rows = spoiled("rewardbench_2", 0, subset="factuality", rejected=[" bad"], num_incorrect=1, total_completions=2)
    rows[1] |= {"num_rejected": 3}
    benchmark = load_benchmark(written(tmp_path / "file.jsonl", rows))
    assert benchmark is not None
    assert next(iter(benchmark.cases.values())).subset == "Factuality"
    assert benchmark.notes == ("1 prompts with another number of responses than 4",)


def test_a_file_without_rows_or_that_is_not_there(tmp_path):
    assert load_benchmark(written(tmp_path / "empty.jsonl", [])) is None
    with pytest.raises(DataError, match="no such file"):
        load_benchmark(str(tmp_path / "none.jsonl"))
