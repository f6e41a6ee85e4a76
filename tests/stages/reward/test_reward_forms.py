"""`plaudit reward` on every kind of data, from the file to a saved model that rewards a policy."""

import json
import math

import pytest
import torch

from plaudit.algorithms.reward_model import RewardModel as Algorithm
from plaudit.config.sections import (
    CheckpointSection,
    DataSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.errors import ConfigError, DataError
from plaudit.evaluation.kinds.reward import card
from plaudit.evaluation.report import write_report
from plaudit.models.files.load import load_tokenizer
from plaudit.models.files.saving import save_causal_lm, write
from plaudit.models.reward_extras import averaged
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_config, tiny_lm
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.evaluate import score_dataset
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

FAST = OptimizerSection(lr=1e-2)
PROMPTS = [f"say {w} {v}" for w in ("red", "blue", "warm", "big") for v in ("good", "cold", "bad")]
SIDES = DataSection(eval_fraction=0.3)


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def ranked(tmp_path):
    said = [" good good", " good", " bad cold", " bad bad"]
    rows = [
        {"prompt": p, "responses": said[: 3 + i % 2], "ranks": [1, 2, 3, 3][: 3 + i % 2]}
        for i, p in enumerate(PROMPTS)
    ]
    return written(tmp_path / "ranked.jsonl", rows)


@pytest.fixture
def rated(tmp_path):
    rows = []
    for i, prompt in enumerate(PROMPTS * 2):
        goods = (i + i // len(PROMPTS)) % 3
        response = " good" * goods + " bad" * (2 - goods) + " red" * (i % 2)
        axes = {"helpfulness": 1 + 4.0 * goods, "verbosity": 2.0 + i % 2}
        rows.append({"prompt": prompt, "response": response, "reward": 1.0 + 4 * goods, "axes": axes})
    return written(tmp_path / "rated.jsonl", rows)


def encoder(world, root):
    tokenizer = load_tokenizer(world.lm)
    write(tiny_classifier("roberta", tokenizer, hidden=16, layers=1).base_model, root, tokenizer)
    return str(root)


@pytest.mark.parametrize("kind", ["pairs", "plackett_luce", "best"])
def test_rankings_are_learned_as_lists(world, tmp_path, ranked, kind):
    algorithm = Algorithm(ranking_loss=kind)
    job = world.reward(tmp_path / "run", dataset=ranked, epochs=10, batch_size=4, optimizer=FAST, data=SIDES)
    run = run_reward(job.model_copy(update={"algorithm": algorithm}))
    figures = card(run)
    assert figures["best_of_k_hit_rate"] == 1.0 and 0 < figures["best_of_k_chance"] < 0.5
    assert figures["kendall_tau_from"] == "rankings" and figures["kendall_tau"] > (
        0.9 if kind != "best" else 0.3
    )
    train = read_lines(run / "metrics.jsonl")
    assert train[-1]["loss"] < train[0]["loss"]
    assert len(train) == 10 * math.ceil(read_json(run / "summary.json")["train_rows"] / 4), (
        "prompts, not pairs"
    )
    assert "prompt_swap_accuracy" in figures and figures["nll"] < math.log(2)
    assert write_report(run).is_file()


def test_an_encoder_reads_rankings_and_ratings_too(world, tmp_path, ranked, rated):
    source = encoder(world, tmp_path / "start")
    run = run_reward(world.reward(tmp_path / "ranked", model=source, dataset=ranked, epochs=2, data=SIDES))
    assert read_lines(run / "rankings.jsonl")
    algorithm = Algorithm(ratings="regression", attributes=("helpfulness", "verbosity"))
    run = run_reward(
        world.reward(tmp_path / "rated", model=source, dataset=rated, data=SIDES, algorithm=algorithm)
    )
    assert RewardModel.load(run / "model").attributes == ("helpfulness", "verbosity")


def test_ratings_are_predicted(world, tmp_path, rated):
    algorithm = Algorithm(ratings="regression")
    run = run_reward(
        world.reward(
            tmp_path / "run",
            dataset=rated,
            epochs=15,
            optimizer=FAST,
            data=SIDES,
            algorithm=algorithm,
            batch_size=4,
        )
    )
    figures = card(run)
    assert figures["pearson"] > 0.8 and figures["rmse"] < 0.8
    summary = read_json(run / "summary.json")
    assert 1 < summary["rating_means"]["reward"] < 9 and summary["rating_stds"]["reward"] > 1
    assert RewardModel.load(run / "model").trained_on == "ratings"
    assert card(score_dataset(run, rated))["pearson"] > 0.8


def test_ratings_of_one_prompt_become_pairs_by_default(world, tmp_path, rated):
    run = run_reward(world.reward(tmp_path / "run", dataset=rated, data=SIDES))
    held = read_lines(run / "heldout.jsonl")
    assert held and all(row["margin"] > 0 for row in held)
    assert card(run)["accuracy_by_margin"] == [] or len(card(run)["accuracy_by_margin"]) > 1


def test_each_quality_gets_a_head_and_a_critic_can_start_from_it(world, tmp_path, rated):
    algorithm = Algorithm(
        ratings="regression", attributes=("helpfulness", "verbosity"), attribute_weights=(1.0, -0.5)
    )
    run = run_reward(
        world.reward(
            tmp_path / "run", dataset=rated, epochs=15, optimizer=FAST, data=SIDES, algorithm=algorithm
        )
    )
    figures = card(run)
    assert figures["pearson/helpfulness"] > 0.8 and "rmse/verbosity" in figures
    assert "reward_model/squared_error/verbosity" in read_lines(run / "metrics.jsonl")[-1]
    ppo = run_rl(world.rl(tmp_path / "ppo", iterations=1, reward=(str(run / "model"),)))
    assert read_lines(ppo / "metrics.jsonl")[0]["reward/error_share"] == 0
    rows = [row for row in read_lines(ppo / "evaluation.jsonl") if row["set"] == "selection"]
    assert rows and all(("gap_shuffled" in row) is (row["k"] == 0) for row in rows)


def test_missing_axes_and_other_kinds_of_data_are_refused(world, tmp_path, rated):
    with pytest.raises(DataError, match="no axis 'kindness'"):
        algorithm = Algorithm(ratings="regression", attributes=("kindness",))
        run_reward(world.reward(tmp_path / "a", dataset=rated, algorithm=algorithm))
    with pytest.raises(DataError, match="needs rated responses"):
        run_reward(world.reward(tmp_path / "b", algorithm=Algorithm(ratings="regression")))


def test_lm_loss_is_trained_and_refused_for_an_encoder(world, tmp_path, ranked):
    algorithm = Algorithm(lm_coef=0.5)
    run = run_reward(world.reward(tmp_path / "run", epochs=8, optimizer=FAST, algorithm=algorithm))
    rows = read_lines(run / "metrics.jsonl")
    assert rows[-1]["reward_model/lm_loss"] < 0.8 * rows[0]["reward_model/lm_loss"]
    lists = run_reward(world.reward(tmp_path / "lists", dataset=ranked, data=SIDES, algorithm=algorithm))
    assert read_lines(lists / "metrics.jsonl")[0]["reward_model/lm_loss"] > 0
    with pytest.raises(ConfigError, match="is an encoder") as caught:
        run_reward(
            world.reward(tmp_path / "no", model=encoder(world, tmp_path / "start"), algorithm=algorithm)
        )
    assert "lm_coef = 0" in caught.value.cure


def test_low_agreement_is_left_out_ties_are_kept_where_asked_for_and_both_are_said(world, tmp_path, capsys):
    rows = []
    for i, prompt in enumerate(PROMPTS):
        labels = [{"a": "a", "b": "a", "c": "a"}, {"a": "a", "b": "a", "c": "b"}, {"a": "a", "b": "b"}][i % 3]
        rows.append(
            {"prompt": prompt, "response_a": " good good", "response_b": " bad bad", "labels": labels}
        )
    data = written(tmp_path / "judged.jsonl", rows)
    changes = {"dataset": data, "data": DataSection(eval_fraction=0)}
    strict = run_reward(world.reward(tmp_path / "strict", min_agreement=0.9, **changes))
    assert read_json(strict / "summary.json")["train_rows"] == 4
    assert "4 comparisons left out: agreement below 0.9" in capsys.readouterr().out
    half = run_reward(world.reward(tmp_path / "half", ties="half", **changes))
    assert read_json(half / "summary.json")["train_rows"] == 12
    assert "4 comparisons without a majority" in capsys.readouterr().out
    with pytest.raises(DataError, match="lower --min-agreement|no comparison has"):
        run_reward(
            world.reward(
                tmp_path / "none", dataset=written(tmp_path / "t.jsonl", rows[1::3]), min_agreement=0.9
            )
        )


@pytest.mark.parametrize("length", ["residual", "divide", "penalty"])
def test_references_and_length_rule_are_stored_and_used_in_rl(world, tmp_path, length):
    algorithm = Algorithm(length=(length, 0.5))
    run = run_reward(world.reward(tmp_path / "run", references=world.demonstrations, algorithm=algorithm))
    model = RewardModel.load(run / "model")
    assert model.length_rule.kind == length and read_json(run / "summary.json")["length_rule"] == length
    assert model.length_rule.typical == pytest.approx(4.0), "three words and the end token"
    ppo = run_rl(world.rl(tmp_path / "ppo", iterations=1, reward=(str(run / "model"),)))
    assert read_lines(ppo / "metrics.jsonl")[0]["reward/error_share"] == 0


@pytest.fixture(scope="module")
def by_habit(tmp_path_factory):
    """People like "good", and are shown mostly long good responses: length goes with what they like."""
    rows = []
    for i in range(96):
        good, bad, filler = " good", " bad", " red" * (1 + i % 3)
        long, short = (good + filler, bad) if i % 6 else (good, bad + filler)
        rows.append({"prompt": f"{PROMPTS[i % 12]} {i // 12}", "chosen": long, "rejected": short})
    return written(tmp_path_factory.mktemp("habit") / "habit.jsonl", rows)


def length_share(run):
    """Correlation of score and length in the held-out responses, and accuracy where the better one is the shorter."""
    rows = read_lines(run / "heldout.jsonl")
    pairs = [(row[f"{side}_score"], row[f"{side}_length"]) for row in rows for side in ("chosen", "rejected")]
    table = torch.tensor(pairs, dtype=torch.float64).T
    hard = [row for row in rows if row["chosen_length"] < row["rejected_length"]]
    right = sum(row["chosen_score"] > row["rejected_score"] for row in hard)
    return float(torch.corrcoef(table)[0, 1]), right / len(hard)


def test_odin_keeps_length_out_of_the_score_and_is_a_reward_like_any_other(world, tmp_path, by_habit):
    changes = {"dataset": by_habit, "data": SIDES, "epochs": 3, "batch_size": 16}
    plain = run_reward(world.reward(tmp_path / "plain", **changes))
    odin = run_reward(world.reward(tmp_path / "odin", algorithm=Algorithm(length="odin"), **changes))
    (before, _), (after, hard) = length_share(plain), length_share(odin)
    assert abs(after) < abs(before) / 2, f"{before:.2f} -> {after:.2f}"
    assert hard > 0.5, "what is good is still seen where it is short"
    rows = read_lines(odin / "metrics.jsonl")
    assert 0 <= rows[-1]["reward_model/head_overlap"] <= 1
    model = RewardModel.load(odin / "model")
    assert model.attributes == ("quality", "length") and model.head_weights.tolist() == [1.0, 0.0]
    ppo = run_rl(world.rl(tmp_path / "ppo", iterations=1, reward=(str(odin / "model"),)))
    assert read_lines(ppo / "metrics.jsonl")[0]["reward/error_share"] == 0


def test_odin_says_what_it_cannot_do(world, tmp_path):
    algorithm = Algorithm(length="odin")
    with pytest.raises(ConfigError, match="is an encoder"):
        run_reward(world.reward(tmp_path / "no", model=encoder(world, tmp_path / "start"), algorithm=algorithm))
    rows = [{"text": f"{prompt} good", "label": i % 2} for i, prompt in enumerate(PROMPTS)]
    with pytest.raises(DataError, match="texts with 0/1 labels"):
        run_reward(world.reward(tmp_path / "labels", dataset=written(tmp_path / "l.jsonl", rows), algorithm=algorithm))
    with pytest.raises(ConfigError, match="head_init = 'probe'"):
        run_reward(world.reward(tmp_path / "probe", head_init="probe", algorithm=algorithm))


def test_members_are_trained_resumed_and_reward_as_one(world, tmp_path):
    job = world.reward(tmp_path / "rms", members=2)
    run = run_reward(job)
    heads = [RewardModel.load(run / f"member-{m}" / "model").model.score.weight for m in (0, 1)]
    assert not torch.equal(*heads)
    held = [[row["id"] for row in read_lines(run / f"member-{m}" / "heldout.jsonl")] for m in (0, 1)]
    assert held[0] == held[1] == [row["id"] for row in read_lines(run / "heldout.jsonl")]
    figures = card(run)
    assert figures["accuracy"] is not None and read_json(run / "summary.json")["ensemble_std"] > 0
    times = [(run / f"member-{m}" / "model" / "probe.json").stat().st_mtime_ns for m in (0, 1)]
    run_reward(job.model_copy(update={"checkpoint": CheckpointSection(resume=True)}))
    assert times == [(run / f"member-{m}" / "model" / "probe.json").stat().st_mtime_ns for m in (0, 1)]
    alone = run_reward(world.reward(tmp_path / "alone", member=1))
    assert torch.equal(RewardModel.load(alone / "model").model.score.weight, heads[1]), "trained by itself"
    both = f"{run}/member-0,{run}/member-1@mean_minus_std=0.5"
    for name, source in (("dir", f"{run}@min"), ("list", both)):
        ppo = run_rl(world.rl(tmp_path / name, iterations=1, reward=(source,)))
        row = read_lines(ppo / "metrics.jsonl")[0]
        assert row["reward/ensemble_std"] > 0 and row["reward/error_share"] == 0


@pytest.mark.parametrize("lora", [LoraSection(), LoraSection(rank=2)], ids=["full", "lora"])
def test_members_become_one_model_with_the_mean_of_their_weights(world, tmp_path, lora):
    run = run_reward(world.reward(tmp_path / "rms", members=2, lora=lora))
    members = [str(run / f"member-{m}" / "model") for m in (0, 1)]
    tokenizer = load_tokenizer(members[0])
    one, both = averaged(members[:1] * 2, tokenizer), averaged(members, tokenizer)
    alone = [RewardModel.load(member, tokenizer) for member in members]
    rows = [[5, 6, 7], [8, 9, 10, 11]]
    assert one.score_rows(rows) == alone[0].score_rows(rows), "the mean of a model with itself is itself"
    heads = [model.model.score.weight for model in alone]
    assert torch.allclose(both.model.score.weight, (heads[0] + heads[1]) / 2, atol=1e-7)
    assert both.mean == pytest.approx((alone[0].mean + alone[1].mean) / 2)
    ppo = run_rl(world.rl(tmp_path / "warm", iterations=1, reward=(f"{run}@weights",)))
    row = read_lines(ppo / "metrics.jsonl")[0]
    assert row["reward/error_share"] == 0 and "reward/ensemble_std" not in row
    with pytest.raises(ConfigError, match="at least two reward models, found 1"):
        averaged(members[:1], tokenizer)


def test_an_ensemble_is_evaluated_on_other_data_as_a_whole(world, tmp_path, ranked):
    run = run_reward(world.reward(tmp_path / "rms", members=2, dataset=ranked, data=SIDES))
    where = score_dataset(run, world.preferences)
    assert where == run / "evaluations" / "preferences"
    figures = card(where)
    assert figures["heldout_pairs"] == 24
    assert read_json(where / "summary.json")["members"] == 2
    rows = [read_lines(run / f"member-{m}" / "evaluations" / "preferences" / "heldout.jsonl") for m in (0, 1)]
    moments = [read_json(run / f"member-{m}" / "summary.json") for m in (0, 1)]
    by_hand = [
        (r[5]["chosen_score"] - m["reward_mean"]) / m["reward_std"]
        for r, m in zip(rows, moments, strict=True)
    ]
    assert read_lines(where / "heldout.jsonl")[5]["chosen_score"] == pytest.approx(sum(by_hand) / 2)
    assert len(read_lines(score_dataset(run, ranked) / "rankings.jsonl")) == len(PROMPTS)


def test_rows_beyond_a_table_of_positions_are_cut_and_said(world, tmp_path, capsys):
    tokenizer = load_tokenizer(world.lm)
    model = tiny_lm("gpt2", tokenizer, hidden=16, layers=1)
    short = type(model)(tiny_config("gpt2", tokenizer, hidden=16, layers=1, positions=16)).eval()
    save_causal_lm(short, tmp_path / "gpt2", tokenizer)
    rows = [
        {"prompt": "say" + " red" * 40 + f" {w}", "chosen": " good", "rejected": " bad"}
        for w in ("big", "bad", "warm")
    ]
    data = written(tmp_path / "long.jsonl", rows)
    run_reward(world.reward(tmp_path / "rm", model=str(tmp_path / "gpt2"), dataset=data))
    assert "16, not 512: the model has 16 positions" in capsys.readouterr().out
    shown = SamplingSection(max_new_tokens=4)
    run_sft(world.sft(tmp_path / "sft", model=str(tmp_path / "gpt2"), dataset=data, sampling=shown))
    assert "16 positions" in capsys.readouterr().out


def test_a_response_that_is_too_long_costs_itself_and_not_its_list(world, tmp_path, capsys):
    rows = [{"prompt": p, "responses": [" good", " bad", " red" * 40], "ranks": [1, 2, 3]} for p in PROMPTS]
    data = {
        "dataset": written(tmp_path / "long.jsonl", rows),
        "data": DataSection(eval_fraction=0.3, max_length=16),
    }
    run = run_reward(world.reward(tmp_path / "run", **data))
    assert "12 responses left out of their lists" in capsys.readouterr().out
    assert {tuple(row["ranks"]) for row in read_lines(run / "rankings.jsonl")} == {(1, 2)}


def test_members_trained_on_values_say_what_they_do_not_use(world, tmp_path):
    rows = [{"prompt": f"say {i}", "chosen": " good good", "rejected": " bad bad", "extra": i} for i in range(12)]
    for name, values in (("list", rows), ("iterator", iter(rows))):
        run = run_reward(world.reward(tmp_path / name, members=2), records=values)
        for index in range(2):
            notes = read_json(run / f"member-{index}" / "summary.json")["notes"]
            assert any("fields not used: extra" in note for note in notes)
