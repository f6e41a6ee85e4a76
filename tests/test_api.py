"""Training from Python: the same names as on the command line."""

from __future__ import annotations

import html
import inspect
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit import api
from plaudit.errors import RewardError
from plaudit.evaluation.kinds import in_words
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

WORDS = "the a film soup bed room was is very quite good bad warm cold and but we they liked left".split()
COMMON: dict[str, Any] = {"max_length": 32, "precision": "fp32", "progress": False, "tensorboard": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("api") / "start"
    tokenizer = tiny_tokenizer([" ".join(WORDS)], 64)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), path, tokenizer)
    return str(path)


def ppo(model: str, out: Path, **settings: Any) -> plaudit.Run:
    prompts = [f"the {word} was" for word in WORDS]
    algorithm = plaudit.PPO(kl_coef=0.07, critic_warmup=0, critic="sft")
    arguments = {"prompts": prompts, "batch_size": 4, "iterations": 2, "max_new_tokens": 5, "lr": 1e-3}
    return plaudit.train(algorithm, policy=model, out=str(out), **{**COMMON, **arguments, **settings})


def test_ppo_with_a_function_as_reward(model: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def reward(prompt: str, response: str) -> float:
        seen.append(prompt)
        return float(response.count("good"))

    run = ppo(model, tmp_path / "run", reward=reward)
    assert seen and all(text.startswith("the ") for text in seen)
    assert run.report.is_file() and "win_rate" in run.summary
    config = (run.path / "config.toml").read_text(encoding="utf-8")
    assert "kl_coef = 0.07" in config and "prompts_per_iteration = 4" in config
    first = run.policy.generate("the film was", max_new_tokens=4)
    assert isinstance(first, str) and first == run.policy.generate("the film was", max_new_tokens=4)


def test_weighted_functions_and_a_gold_judge(model: str, tmp_path: Path) -> None:
    run = ppo(
        model,
        tmp_path / "run",
        reward=[(lambda prompt, response: 1.0, 2.0), lambda prompt, response: 0.5],
        gold=lambda prompt, response: float(len(response)),
    )
    rows = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["reward/mean"] == pytest.approx(2.5)
    assert "gold_mean" in run.summary


@pytest.mark.parametrize("several", [False, True])
def test_a_function_has_as_long_as_the_settings_say(model: str, tmp_path: Path, several: bool) -> None:
    def reward(prompt: str, response: str) -> float:
        if not response.count("good"):
            while True:
                pass
        return 1.0

    def other(prompt: str, response: str) -> float:
        return 0.0

    given: Any = [(reward, 1.0), (other, 1.0)] if several else reward
    with pytest.raises(RewardError, match=r"more than 0\.05 s"):
        ppo(model, tmp_path / "run", reward=given, reward_timeout=0.05)


def test_functions_and_names_with_weights(model: str, tmp_path: Path) -> None:
    reward = [("rule:length:3", 2.0), (lambda prompt, response: 0.5, -1.0)]
    run = ppo(model, tmp_path / "run", reward=reward, gold=["rule:length:3", lambda prompt, response: 1.0])
    row = json.loads((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    parts = {name: row[f"reward/{name}"] for name in ("length", "<lambda>")}
    assert row["reward/mean"] == pytest.approx(2.0 * parts["length"] - parts["<lambda>"])
    table = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))["reward"][0]
    assert (table["rule"], table["words"], table["weight"]) == ("length", 3, 2.0)
    assert "gold_mean" in run.summary


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reward": 3}, "reward = 3"),
        ({"reward": None}, "reward"),
        ({"reward": lambda p, r: 1.0, "learning_rat": 1}, "learning_rat"),
        ({"reward": lambda p, r: 1.0, "iterations": "many"}, "iterations"),
    ],
)
def test_mistakes_are_config_errors(model: str, tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(plaudit.ConfigError, match=says):
        ppo(model, tmp_path / "run", **settings)


def test_sft_and_reward_model(model: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"the {w} was", "chosen": f"very {w}", "rejected": f"quite {w}"} for w in WORDS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sft = plaudit.train(plaudit.SFT(), model=model, dataset=str(pairs), out=str(tmp_path / "sft"), **COMMON)
    assert sft.summary["heldout_rows"] > 0
    trained = plaudit.train(
        plaudit.RewardModel(label_smoothing=0.1),
        model=model,
        dataset=str(pairs),
        out=str(tmp_path / "rm"),
        **COMMON,
    )
    assert 0 <= trained.summary["accuracy"] <= 1
    assert "label_smoothing = 0.1" in (trained.path / "config.toml").read_text(encoding="utf-8")


def test_help_shows_the_real_parameters() -> None:
    parameters = inspect.signature(plaudit.train).parameters
    assert list(parameters)[:4] == ["algorithm", "prompts", "reward", "gold"]
    assert {
        "policy",
        "model",
        "dataset",
        "lr",
        "batch_size",
        "iterations",
        "out",
        "kl_coef",
    } <= parameters.keys()
    text = inspect.getdoc(plaudit.train) or ""
    assert "\nmax_new_tokens: " in text.replace("    max", "max") and "Settings that people change:" in text


def test_dir_is_the_api_only() -> None:
    assert set(dir(plaudit)) == set(plaudit.__all__)
    assert not {"Any", "annotations", "importlib"} & set(dir(plaudit))


def test_an_algorithm_by_its_name_takes_its_settings_beside_the_others(model: str, tmp_path: Path) -> None:
    seen: list[float] = []
    run = plaudit.train(
        "rloo",
        kl_coef=0.07,
        policy=model,
        prompts=[f"the {word} was" for word in WORDS],
        reward=lambda prompt, response: float(response.count("good")),
        out=tmp_path / "run",
        on_iteration=lambda number, metrics, rollouts: seen.append(metrics["objective/kl_coef"]),
        **{**COMMON, "batch_size": 4, "iterations": 1, "max_new_tokens": 5},
    )
    assert seen == [0.07]
    with (run.path / "config.toml").open("rb") as file:
        assert tomllib.load(file)["algorithm"]["kl_coef"] == 0.07


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ppo", plaudit.PPO()),
        ("DAPO", plaudit.DAPO()),
        ("reward", plaudit.RewardModel()),
        ("best-of-n", plaudit.BestOfN()),
        ("sft", plaudit.SFT()),
    ],
)
def test_names_of_algorithms(name: str, expected: Any) -> None:
    assert api._named(name) == expected


def test_a_name_that_nobody_knows_is_answered_with_those_there_are() -> None:
    with pytest.raises(plaudit.ConfigError) as error:
        plaudit.train("poo")
    assert (
        error.value.cure is not None
        and "did you mean 'ppo'" in error.value.cure
        and "grpo" in error.value.cure
    )


def test_a_run_shows_its_verdict_tables_and_page(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    run = ppo(model, str(tmp_path / "run"), reward=lambda prompt, response: float(response.count("good")))  # type: ignore[arg-type]
    assert run.path == tmp_path / "run"
    verdict, *rest = repr(run).splitlines()
    assert verdict and rest[-1] == f"report  {run.report}" and in_words(run.path) in repr(run)
    shown = run._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and html.escape(verdict) in html.unescape(shown)
    assert "&lt;svg" in shown and "<svg" not in shown
    assert list(run.metrics["step"]) == [1, 2] and "response" in run.samples.columns
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    assert [row["step"] for row in run.metrics] == [1, 2] and "response" in run.samples[0]


def test_strings_are_paths(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "Hi", "chosen": "Yes", "rejected": "No"}\n', encoding="utf-8"
    )
    rows = plaudit.load_records(str(tmp_path / "a.jsonl")).records
    assert plaudit.load_records(tmp_path / "a.jsonl").records == rows
    plaudit.write_records(rows, str(tmp_path / "b.jsonl"))
    assert (tmp_path / "b.jsonl").is_file()
    with pytest.raises(plaudit.DataError):
        plaudit.write_report(str(tmp_path))
    with pytest.raises(plaudit.DataError):
        repr(plaudit.Run(str(tmp_path)))  # type: ignore[arg-type]
