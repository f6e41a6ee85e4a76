"""A policy is not trained on a reward model that may be a coin, unless somebody says so."""

import json

import pytest

import plaudit
from plaudit.cli.main import main
from plaudit.errors import Refused
from plaudit.jobs.online import RLJob
from plaudit.stages.online.gate import alarms_on_rewards, known_of_rewards, notes_on_rewards, refuse_coins


def rated(folder, low, high=0.8, *, pairs=40):
    """The run of a reward model with such an interval on its card."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(
        json.dumps({"accuracy": (low + high) / 2, "accuracy_ci": [low, high], "heldout_pairs": pairs})
    )
    (folder / "model").mkdir()
    return str(folder)


def job(*rewards):
    return RLJob(policy="p", dataset="d", reward=rewards)


def test_a_coin_is_refused_with_its_figures_and_the_cure(tmp_path):
    coin, good = rated(tmp_path / "coin", 0.43), rated(tmp_path / "good", 0.55)
    with pytest.raises(Refused, match=r"of 40 held-out pairs .* 43% to 80%") as caught:
        refuse_coins(job(good, coin))
    assert caught.value.exit_code == 4 and caught.value.where == coin and "--anyway" in caught.value.cure
    refuse_coins(job(coin), anyway=True)
    [alarm] = alarms_on_rewards(job(coin))
    assert alarm.kind == "coin" and "43% to 80%" in alarm.message
    refuse_coins(job(good))
    assert notes_on_rewards(job(good)) == alarms_on_rewards(job(good)) == []
    [known] = known_of_rewards(job(good))
    assert known["path"] == good and known["heldout_pairs"] == 40


def test_the_model_directory_of_a_run_has_the_card_of_the_run(tmp_path):
    with pytest.raises(Refused):
        refuse_coins(job(rated(tmp_path / "coin", 0.5) + "/model"))


def test_what_has_no_card_passes_and_is_named(tmp_path):
    (tmp_path / "other").mkdir()
    refuse_coins(job(str(tmp_path / "other"), "rule:length:5"))
    [note] = notes_on_rewards(job(str(tmp_path / "other"), "rule:length:5"))
    assert "no report card" in note


def test_few_pairs_tell_nothing_and_refuse_nothing(tmp_path):
    few = rated(tmp_path / "few", 0.2, pairs=9)
    refuse_coins(job(few))
    [note] = notes_on_rewards(job(few))
    assert "on 9 held-out pairs, too few to say" in note


def test_members_one_by_one_and_what_is_only_watched(tmp_path):
    coin, good = rated(tmp_path / "coin", 0.4), rated(tmp_path / "good", 0.6)
    with pytest.raises(Refused):
        refuse_coins(job({"kind": "model", "path": [good, coin]}))
    refuse_coins(job({"kind": "model", "path": coin, "weight": 0}, good))


def test_the_command_and_python_ask_before_anything_is_written(world, tmp_path, capsys):
    coin = rated(tmp_path / "coin", 0.4)
    settings = {"policy": world.lm, "dataset": world.prompts, "out": str(tmp_path / "run")}
    words = [w for name, value in settings.items() for w in (f"--{name}", value)]
    assert main(["ppo", *words, "--reward", coin]) == 4
    assert capsys.readouterr().err.startswith("REFUSED: the reward model ranks")
    assert main(["best-of-n", *words, "--reward", coin]) == 4
    with pytest.raises(Refused):
        plaudit.train(plaudit.GRPO(), reward=coin, **settings)
    assert not (tmp_path / "run").exists()
    # With --anyway it goes on to load the model, which is none.
    assert main(["ppo", *words, "--reward", coin, "--anyway"]) == 78
    assert main(["sft", "--model", world.lm, "--dataset", world.prompts, "--anyway"]) == 78
