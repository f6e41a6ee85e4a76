"""`plaudit evaluate reward RUN --dataset FILE` on files of published benchmarks, with trained models."""

import json
from pathlib import Path

import pytest

from plaudit.cli.main import main
from plaudit.config.sections import DataSection, OptimizerSection
from plaudit.errors import DataError
from plaudit.evaluation import kinds
from plaudit.models.files.load import load_tokenizer
from plaudit.models.files.saving import save_causal_lm, write
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_lm, tiny_tokenizer
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.reward.evaluate import score_dataset
from plaudit.stages.reward.train import run_reward

FILES = Path(__file__).parents[2] / "data" / "benchmarks"
FAST = OptimizerSection(lr=1e-2)
SIDES = DataSection(eval_fraction=0.3)


def rows_of(name):
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text().splitlines()]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks") / "rm"
    return run_reward(world.reward(out, epochs=6, optimizer=FAST, data=SIDES))


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["rewardbench"], "RewardBench"),
        (["rewardbench_2"], "RewardBench 2"),
        (["rm_bench"], "RM-Bench"),
        (["ppe_human"], "PPE human preference"),
        (["ppe_mmlu_pro", "ppe_ifeval"], "PPE correctness"),
    ],
)
def test_every_benchmark_from_the_command_line(run, files, name, capsys):
    source = ",".join(str(FILES / f"{file}.jsonl") for file in files)
    assert main(["evaluate", "reward", str(run), "--dataset", source]) == 0
    said = capsys.readouterr().out
    assert f"\n{name}\n" in said and "95 % interval" in said and "Overall" in said and "report.html" in said
    where = max((run / "evaluations").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    summary = read_json(where / "summary.json")
    votes_without_winner = 2 if name == "PPE human preference" else 0
    assert summary["benchmark_title"] == name
    assert summary["benchmark_rows"] == len(read_lines(where / "benchmark.jsonl")) - votes_without_winner
    low, high = summary["benchmark_score_ci"]
    assert low <= summary["benchmark_score"] <= high
    assert f"<h3>{name}</h3>" in (where / "report.html").read_text()


def test_scores_are_those_of_the_model_itself(run):
    where = score_dataset(run, str(FILES / "rewardbench.jsonl"))
    model = RewardModel.load(run / "model")
    tokenizer = load_tokenizer(str(run / "model"))
    row, line = rows_of("rewardbench")[0], read_lines(where / "benchmark.jsonl")[0]
    ids = [tokenizer(row["prompt"] + row[side]).input_ids for side in ("chosen", "rejected")]
    ids = [each + [tokenizer.eos_token_id] if each[-1] != tokenizer.eos_token_id else each for each in ids]
    assert line["scores"] == pytest.approx(model.score_rows(ids), abs=1e-4)
    assert line["lengths"] == [3, 2], "with the end token"


def test_a_prompt_with_a_response_that_is_too_long_is_left_out_and_said(run, tmp_path, capsys):
    rows = rows_of("rewardbench_2")
    rows[0]["rejected"][1] = " bad" * 5000
    where = score_dataset(run, written(tmp_path / "long.jsonl", rows))
    assert "1 left out as too long" in capsys.readouterr().out
    figures = kinds.card(where)
    [(reason, count)] = figures["benchmark_left_out"].items()
    assert count == 1 and reason.startswith("longer than") and "Factuality" in figures["benchmark_missing"]
    assert any("Rows were left out" in message for message in kinds.warnings(kinds.load_run(where)))


def test_prompts_that_are_cut_are_counted(run, tmp_path):
    rows = rows_of("rm_bench")
    rows[1]["prompt"] = "say" + " red" * 3000
    where = score_dataset(run, written(tmp_path / "cut.jsonl", rows))
    figures = kinds.card(where)
    assert figures["benchmark_cut"] == 1 and figures["benchmark_rows"] == len(rows)
    assert any("Prompts were cut" in message for message in kinds.warnings(kinds.load_run(where)))


def test_files_of_which_nothing_can_be_scored(run, tmp_path):
    ties = [row for row in rows_of("ppe_human") if row["winner"].startswith("tie")]
    with pytest.raises(DataError, match="none of 2 prompts is scored: people saw no difference"):
        score_dataset(run, written(tmp_path / "ties.jsonl", ties))
    rows = [row | {"chosen": " good" * 5000} for row in rows_of("rewardbench")]
    with pytest.raises(DataError, match="all 10 rows are too long"):
        score_dataset(run, written(tmp_path / "long.jsonl", rows))


def test_a_broken_row_ends_with_the_code_of_bad_data_and_no_traceback(run, tmp_path, capsys):
    rows = rows_of("rm_bench")
    rows[2]["chosen"] = [" good"]
    source = written(tmp_path / "broken.jsonl", rows)
    assert main(["evaluate", "reward", str(run), "--dataset", source]) == 65
    said = capsys.readouterr().err
    assert "broken.jsonl:3" in said and "chosen: found 1 responses" in said and "Traceback" not in said


def test_columns_that_the_user_names_are_read_as_pairs(run):
    fields = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    where = score_dataset(run, str(FILES / "rewardbench.jsonl"), fields)
    assert len(read_lines(where / "heldout.jsonl")) == 10 and not (where / "benchmark.jsonl").exists()


def test_an_ensemble_gives_the_mean_of_its_members(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "rms", members=2, data=SIDES))
    where = score_dataset(run, str(FILES / "rm_bench.jsonl"))
    members = [read_lines(run / f"member-{m}" / "evaluations" / where.name / "benchmark.jsonl") for m in (0, 1)]
    moments = [read_json(run / f"member-{m}" / "summary.json") for m in (0, 1)]
    by_hand = [
        (lines[2]["scores"][4] - m["reward_mean"]) / m["reward_std"] for lines, m in zip(members, moments, strict=True)
    ]
    assert read_lines(where / "benchmark.jsonl")[2]["scores"][4] == pytest.approx(sum(by_hand) / 2)
    figures = kinds.card(where)
    assert figures["members"] == 2 and figures["benchmark"] == "rm-bench"
    assert main(["evaluate", "reward", str(run), "--dataset", str(FILES / "rm_bench.jsonl")]) == 0


def test_prompts_are_chats_to_a_model_that_was_trained_on_chats(world, tmp_path, capsys):
    """What the model was trained on decides: with a template, and without one as a transcript."""
    words = ["say", "red", "blue", "green", "warm", "cold", "good", "bad", "big", "user", "assistant"]
    tokenizer = tiny_tokenizer([" ".join(words)], chat=True)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), tmp_path / "lm", tokenizer)
    chats = [
        {"prompt": [{"role": "user", "content": f"say {w} {v}"}], "chosen": "good good", "rejected": "bad"}
        for w in ("red", "blue", "warm", "big") for v in ("good", "cold", "bad")
    ]  # fmt: skip
    plain = [row | {"prompt": row["prompt"][0]["content"]} for row in chats]
    found = {}
    for name, rows in {"chats": chats, "plain": plain}.items():
        data = written(tmp_path / f"{name}.jsonl", rows)
        run = run_reward(world.reward(tmp_path / name, model=str(tmp_path / "lm"), dataset=data, data=SIDES))
        capsys.readouterr()
        score_dataset(run, str(FILES / "rewardbench.jsonl"))
        found[name] = capsys.readouterr().out
    assert "read as a turn of the user (the tokenizer's chat template)" in found["chats"]
    assert "read as plain text, as the model was trained" in found["plain"]


def test_an_encoder_reads_pairs_of_texts(world, tmp_path):
    tokenizer = load_tokenizer(world.lm)
    source = str(tmp_path / "encoder")
    write(tiny_classifier("roberta", tokenizer, hidden=16, layers=1).base_model, source, tokenizer)
    run = run_reward(world.reward(tmp_path / "rm", model=source, data=SIDES))
    figures = kinds.card(score_dataset(run, str(FILES / "rewardbench_2.jsonl")))
    assert figures["benchmark_rows"] == 7 and figures["benchmark_missing"] == []
