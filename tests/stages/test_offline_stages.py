"""SFT and reward model stages on a tiny model."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from plaudit.config.sections import CheckpointSection, DataSection, LoraSection, OptimizerSection
from plaudit.data.write import write_records
from plaudit.errors import DataError, ModelError
from plaudit.evaluation import kinds
from plaudit.evaluation.kinds.reward_card import card
from plaudit.models.files.load import load_tokenizer
from plaudit.models.files.saving import write
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier
from plaudit.records import Demonstration
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft


def test_sft_learns(world, tmp_path):
    run = run_sft(world.sft(tmp_path / "run", epochs=6, optimizer=OptimizerSection(lr=1e-2)))
    rows = read_lines(run / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    found = kinds.card(run)
    assert found["verdict"] == "better" or found["heldout_prompts"] < 10
    assert found["heldout_loss"] < found["heldout_loss_before"] and found["perplexity"] > 1
    assert {row["step"] for row in read_lines(run / "samples.jsonl")} == {0, len(rows)}


def test_prompts_of_samples_are_cut_as_those_that_are_trained_on(world, tmp_path):
    rows = [{"prompt": f"say {w}" + " red" * 600, "response": " good"} for w in ("big", "bad", "warm", "cold")]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_sft(world.sft(tmp_path / "run", dataset=str(path), data=DataSection(max_length=16)))
    assert len(read_lines(run / "samples.jsonl")) == 2, "the model reads 512 tokens; one held-out prompt, twice"


def test_reward_model_learns_normalises_and_loads(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "run", epochs=8, optimizer=OptimizerSection(lr=1e-2)))
    held = read_lines(run / "heldout.jsonl")
    assert all(row["chosen_score"] > row["rejected_score"] for row in held)
    model = RewardModel.load(run / "model")
    probe = json.loads((run / "model" / "probe.json").read_text())
    plain = AutoModelForSequenceClassification.from_pretrained(run / "model")
    with torch.no_grad():
        found = [plain(input_ids=torch.tensor([row])).logits.item() for row in probe["tokens"]]
    assert found == pytest.approx(probe["scores"], abs=1e-5)
    assert model.std > 0 and model.trained_on == "comparisons"


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_resumed_equals_uninterrupted(world, tmp_path, stage, monkeypatch):
    run_stage = {"sft": run_sft, "reward": run_reward}[stage]
    make = getattr(world, stage)
    whole = run_stage(make(tmp_path / "whole", epochs=3))
    from plaudit.backends.local.learner import LocalLearner

    original, calls = LocalLearner.update, []

    def dies_at_the_fifth(self, batch, loss):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, batch, loss)

    with monkeypatch.context() as patched:
        patched.setattr(LocalLearner, "update", dies_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            run_stage(make(tmp_path / "cut", epochs=3, checkpoint=CheckpointSection(every=2)))
    cut = run_stage(make(tmp_path / "cut", epochs=3, checkpoint=CheckpointSection(every=2, resume=True)))
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [[row["step"] for row in read_lines(run / "metrics.jsonl")] for run in (cut, whole)]
    assert steps[0] == steps[1]


def ranked(path, extra=""):
    rows = [
        {"prompt": f"say {w} {v}", "responses": [" good good", " good", " bad bad" + extra], "ranks": [1, 2, 3]}
        for w in ("red", "blue", "warm", "big") for v in ("good", "cold", "bad")
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def encoder(world, root):
    tokenizer = load_tokenizer(world.lm)
    write(tiny_classifier("roberta", tokenizer, hidden=16, layers=1), root, tokenizer)
    return str(root)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_rankings_are_read_as_the_model_reads_pairs(world, tmp_path, kind):
    source = world.lm if kind == "decoder" else encoder(world, tmp_path / "start")
    data = {"dataset": ranked(tmp_path / "ranked.jsonl"), "data": DataSection(max_length=8, eval_fraction=0.3)}
    run = run_reward(world.reward(tmp_path / "run", model=source, epochs=2, **data))
    pairs = read_lines(run / "heldout.jsonl")
    rankings = read_lines(run / "rankings.jsonl")
    assert rankings and {tuple(row["ranks"]) for row in rankings} == {(1, 2, 3)}
    scores = {round(s, 4) for row in rankings for s in row["scores"]}
    assert {round(row["chosen_score"], 4) for row in pairs} <= scores


def test_an_encoder_leaves_out_what_it_cannot_read_and_cuts_prompts(world, tmp_path):
    rows = [{"prompt": f"say {w}", "chosen": " good", "rejected": " bad"} for w in ("red", "blue", "warm", "big")] * 2
    rows.append({"prompt": "say red", "chosen": " good" * 600, "rejected": " bad"})
    rows.append({"prompt": "say" + " red" * 600, "chosen": " good", "rejected": " bad"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSection(eval_fraction=0, max_length=2048)
    run = run_reward(
        world.reward(tmp_path / "run", model=encoder(world, tmp_path / "start"), dataset=str(path), data=data)
    )
    assert read_json(run / "summary.json")["train_rows"] == len(rows) - 1
    assert card(run)["accuracy"] is None, "nothing was held out"


def test_labels_train_a_classifier_that_rewards_whole_texts(world, tmp_path):
    pairs = [(w, v) for w in ("good", "bad") for v in ("red", "blue", "big", "cold")]
    texts = [{"text": f"say {w} {v}", "label": int(w == "good")} for w, v in pairs] * 4
    data = tmp_path / "labels.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in texts))
    run = run_reward(world.reward(tmp_path / "rm", dataset=str(data), epochs=20, optimizer=OptimizerSection(lr=1e-2)))
    model = RewardModel.load(run / "model")
    assert (model.trained_on, model.mean, model.std) == ("labels", 0.0, 1.0)
    compared = run_reward(world.reward(tmp_path / "compared", model=str(run / "model")))
    assert RewardModel.load(compared / "model").trained_on == "comparisons"
    back = run_reward(world.reward(tmp_path / "back", model=str(compared / "model"), dataset=str(data)))
    again = RewardModel.load(back / "model")
    assert (again.trained_on, again.mean, again.std) == ("labels", 0.0, 1.0), "not what it was before"
    ppo = run_rl(world.rl(tmp_path / "ppo", iterations=1, reward=(str(run / "model"),)))
    assert read_lines(ppo / "metrics.jsonl")[0]["reward/error_share"] == 0


def test_the_reward_model_becomes_reward_and_critic(world, tmp_path):
    run = run_reward(world.reward(tmp_path / "rm", lora=LoraSection(rank=2)))
    both = (str(run / "model"), {"kind": "rule", "rule": "json", "weight": 0.5})
    ppo = run_rl(world.rl(tmp_path / "ppo", iterations=2, reward=both))
    row = read_lines(ppo / "metrics.jsonl")[-1]
    assert "reward/reward_model" in row and "reward/json" in row


def test_comparisons_are_asked_for(world, tmp_path):
    with pytest.raises(DataError, match="comparisons"):
        run_reward(world.reward(tmp_path / "run", dataset=world.prompts))


def test_empty_and_missing_data(world, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for source in (str(empty), "nowhere.jsonl"):
        with pytest.raises(DataError):
            run_sft(world.sft(tmp_path / "run", dataset=source))
    with pytest.raises(ModelError):
        run_sft(world.sft(tmp_path / "run", model="./nowhere"))
    assert not (tmp_path / "run").exists()


def test_rows_with_one_prompt_are_trained_on_and_the_run_says_that_nothing_is_held_out(world, tmp_path):
    path = tmp_path / "one.jsonl"
    write_records([Demonstration(f"d{i}", "say red", f" {w}") for i, w in enumerate(("good", "bad"))], path)
    run = run_sft(world.sft(tmp_path / "run", dataset=str(path)))
    notes = [row["what"] for row in read_lines(run / "events.jsonl") if row["event"] == "note"]
    assert "nothing is held out: all 2 rows have the same prompt" in notes
