"""Active selection from reward models to priorities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.data.write import write_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.importing import items_of
from plaudit.records import Comparison, Demonstration
from plaudit.stages.respond.ask import ask_next, reward_differences
from plaudit.stages.reward.evaluate import score_dataset
from plaudit.stages.reward.train import run_reward

WORDS = "red blue green warm cold good bad big".split()


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("rewards")
    return [str(run_reward(world.reward(root / f"r{seed}", seed=seed))) for seed in (0, 1)]


@pytest.fixture
def pairs(tmp_path):
    rows = [
        Comparison(f"c{i}", f"say {WORDS[i]}", (f" {WORDS[i]} good", f" {WORDS[-i]} bad"))
        for i in range(1, 8)
    ]
    path = tmp_path / "pairs.jsonl"
    write_records([*rows, Comparison("same", "say red", (" red", " red"))], path)
    return str(path)


def test_differences_are_those_of_the_models_report(runs, world):
    items, _ = items_of(load_records(world.preferences).records, "pairwise")
    found = reward_differences(items, runs[:1], lambda text: None)[0]
    rows = [
        json.loads(line)
        for line in (score_dataset(Path(runs[0]), world.preferences) / "heldout.jsonl")
        .read_text()
        .splitlines()
    ]
    by_id = {r["id"]: r["chosen_score"] - r["rejected_score"] for r in rows}
    chosen = {r.id: r.chosen for r in load_records(world.preferences).records}
    signs = [1 if item.responses[0].content == chosen[item.key] else -1 for item in items]
    assert {1, -1} == set(signs)
    expected = [sign * by_id[item.key] for sign, item in zip(signs, items, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_most_disputed_come_first_and_a_pair_of_equals_last(runs, pairs):
    items, _ = items_of(load_records(pairs).records, "pairwise")
    priorities = ask_next(pairs, runs)
    p = 1 / (1 + np.exp(-reward_differences(items, runs, lambda text: None)))
    spread = dict(zip([i.key for i in items], np.abs(p[0] - p[1]), strict=True))
    order = sorted(priorities, key=lambda k: -priorities[k])
    assert order[-1] == "same" and spread["same"] == 0.0
    assert spread[order[0]] > np.median(list(spread.values()))
    assert ask_next(pairs, runs[:1], "margin")["same"] == 1.0  # nothing is less sure than two equals


def test_a_batch_comes_first_and_nothing_is_lost(runs, pairs):
    plain, diverse = ask_next(pairs, runs), ask_next(pairs, runs, batch=3)
    assert set(plain) == set(diverse) and len(set(diverse.values())) == 8
    assert max(plain, key=plain.get) == max(diverse, key=diverse.get)


def test_by_chance_needs_no_model(pairs):
    assert ask_next(pairs, [], "random", seed=1) != ask_next(pairs, [], "random", seed=2)


def test_refusals(runs, pairs, tmp_path):
    with pytest.raises(ConfigError, match="two reward models or more, found 1"):
        ask_next(pairs, runs[:1])
    with pytest.raises(ConfigError, match="a reward model, found 0"):
        ask_next(pairs, [], "margin")
    lone = tmp_path / "lone.jsonl"
    write_records([Demonstration("d", "say", "this")], lone)
    with pytest.raises(DataError, match="no pairs"):
        ask_next(str(lone), runs)


def test_the_command_writes_what_annotate_reads(runs, pairs, tmp_path, capsys):
    out = tmp_path / "priorities.jsonl"
    assert main(["select", pairs, "--reward", *runs, "--out", str(out), "--batch", "2"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"] for row in rows} == {"same", *(f"c{i}" for i in range(1, 8))}
    assert (
        all(math.isfinite(row["priority"]) for row in rows)
        and "8 pairs by disagreement" in capsys.readouterr().out
    )
    assert main(["select", pairs, "--out", str(out)]) == 78
