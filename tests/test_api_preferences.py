"""Preference methods and best-of-n from Python."""

import pytest

import plaudit
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

SMALL = {"lr": 1e-2, "progress": False, "tensorboard": False, "precision": "fp32"}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm")
    tokenizer = tiny_tokenizer(["say red blue good bad warm cold"], chat=False)
    tiny_lm("llama", tokenizer, hidden=16, layers=1).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


PROMPTS = [f"say {w} {v}" for w in ("red", "blue", "warm") for v in ("cold", "good", "bad")]


def test_dpo_takes_dicts_and_records(lm, tmp_path):
    rows = [{"prompt": p, "chosen": " good", "rejected": " bad"} for p in PROMPTS[:-1]]
    rows.append(plaudit.Preference("last", PROMPTS[-1], " good", " bad"))
    run = plaudit.train(
        plaudit.DPO(beta=0.2),
        policy=lm,
        preferences=rows,
        out=str(tmp_path / "run"),
        epochs=4,
        batch_size=4,
        **SMALL,
    )
    assert run.summary["accuracy"] == 1.0 and run.summary["margin_mean"] > 0
    assert run.report.is_file() and isinstance(run.policy.generate("say red", max_new_tokens=2), str)


def test_kto_takes_thumbs(lm, tmp_path):
    rows = [
        {"prompt": p, "response": r, "reward": v} for p in PROMPTS for r, v in ((" good", 1), (" bad", 0))
    ]
    run = plaudit.train(
        plaudit.KTO(), policy=lm, preferences=rows, out=str(tmp_path / "run"), epochs=3, batch_size=4, **SMALL
    )
    assert run.summary["algorithm"] == "kto" and run.summary["margin_mean"] > 0


def test_best_of_n_and_online_dpo(lm, tmp_path):
    common = {
        "policy": lm, "prompts": PROMPTS, "reward": lambda prompt, response: float(response.count("good")),
        "max_new_tokens": 4, **SMALL,
    }  # fmt: skip
    best = plaudit.train(plaudit.BestOfN(group_size=3), out=str(tmp_path / "best"), **common)
    assert best.summary["reward_gain"] >= 0 and best.summary["n"] == 3
    sizes = {"iterations": 2, "prompts_per_iteration": 4}
    online = plaudit.train(plaudit.OnlineDPO(group_size=3), out=str(tmp_path / "online"), **sizes, **common)
    assert online.summary["command"] == "online-dpo" and "kl" in online.summary
