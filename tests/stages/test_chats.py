"""Chats in a run: a template's refusal names file and line, and a chat that is too long loses turns, which is said."""

import json

import pytest
from transformers import AutoTokenizer

import plaudit
from plaudit.algorithms.dpo import DPO
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import DataSection, LogSection, SamplingSection
from plaudit.errors import DataError
from plaudit.jobs.preference import DPOJob
from plaudit.models.tiny import tiny_lm
from plaudit.records import RewardResult
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
    "{{ ' ' + m.role[0] }}{{ m.content }}{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' a' }}{% endif %}"
)
COLOURS = ("red", "blue", "green", "warm", "cold", "good", "bad", "big")
KINDS = ["sft", "dpo", "reward", "ranking", "rl"]


@pytest.fixture(scope="module")
def chat_lm(world, tmp_path_factory):
    """A model whose template knows no turns of the system."""
    path = str(tmp_path_factory.mktemp("chat") / "lm")
    tokenizer = AutoTokenizer.from_pretrained(world.lm)
    tokenizer.chat_template = TEMPLATE
    tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.2).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def row_of(kind, prompt):
    answers = {
        "sft": {"response": " good"},
        "dpo": {"chosen": " good good", "rejected": " bad"},
        "reward": {"chosen": " good good", "rejected": " bad"},
        "ranking": {"responses": [" good", " cold", " bad"], "ranks": [1, 2, 3]},
        "rl": {},
    }
    return {"prompt": prompt} | answers[kind]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ask(words):
    return {"role": "user", "content": f" say {words}"}


def start(world, lm, kind, path, out, max_length=32):
    changes = {"dataset": path, "data": DataSection(max_length=max_length, eval_fraction=0.25)}
    if kind == "rl":
        reward = lambda rollouts: [RewardResult(1.0) for _ in rollouts]  # noqa: E731
        return run_rl(world.rl(out, policy=lm, iterations=1, **changes), reward=reward)
    if kind == "dpo":
        quiet = {"log": LogSection(progress=False, tensorboard=False), "sampling": SamplingSection(max_new_tokens=4)}
        return run_dpo(with_algorithm(DPOJob, DPO)(model=lm, out=str(out), batch_size=8, **quiet, **changes))
    job, stage = (world.sft, run_sft) if kind == "sft" else (world.reward, run_reward)
    return stage(job(out, model=lm, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_the_template_refuses_are_named_by_file_and_line(world, chat_lm, kind, tmp_path):
    system = {"role": "system", "content": "be big"}
    rows = [row_of(kind, [*([system] if i in (2, 5) else []), ask(c)]) for i, c in enumerate(COLOURS)]
    path = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as caught:
        start(world, chat_lm, kind, path, tmp_path / "run")
    assert "no system turns here" in caught.value.what and caught.value.cure
    assert not any(f"rows.jsonl:{line} " in caught.value.where for line in (1, 2, 4, 5, 7, 8))
    named = [line for line in (3, 6) if f"rows.jsonl:{line} " in caught.value.where]
    assert named, "one of them at least is not held out"
    assert f"(row rows-{named[0]})" in caught.value.where
    assert not (tmp_path / "run").exists()


def test_values_that_the_template_refuses_are_named_by_their_place(chat_lm, tmp_path):
    system = {"role": "system", "content": "be big"}
    chats = [[ask(c)] if i else [system, ask(c)] for i, c in enumerate(COLOURS)]
    with pytest.raises(DataError) as caught:
        plaudit.train(
            plaudit.REINFORCE(), policy=chat_lm, prompts=chats, reward=lambda prompt, response: 1.0,
            out=str(tmp_path / "run"), max_new_tokens=4,
        )  # fmt: skip
    assert "prompts[0]" in caught.value.where and "no system turns here" in caught.value.what


@pytest.mark.parametrize("kind", KINDS)
def test_long_chats_lose_their_first_turns_and_the_run_says_so(world, chat_lm, kind, tmp_path, capsys):
    said = {"role": "assistant", "content": " good"}
    long = [turn for c in COLOURS for turn in (ask(c), said)]
    rows = [row_of(kind, [*(long if i == 3 else []), ask(f"{c} big")]) for i, c in enumerate(COLOURS)]
    # The long chat comes twice more, so that one of them at least is trained on, whichever is held out.
    rows += [row_of(kind, [*long, ask(f"{c} good")]) for c in COLOURS]
    run = start(world, chat_lm, kind, written(tmp_path / "rows.jsonl", rows), tmp_path / "run", max_length=16)
    told = [row["message"] for row in read_lines(run / "events.jsonl") if row["event"] == "data"]
    assert any("without their first turns" in message for message in told)
    assert any("without their first turns" in note for note in read_json(run / "summary.json")["notes"])
    if kind == "rl":
        assert "without their first turns" in capsys.readouterr().out


def test_each_command_takes_rows_from_python(world, tmp_path):
    common = {"policy": world.lm, "batch_size": 4, "progress": False, "tensorboard": False, "max_new_tokens": 4}
    chats = [{"messages": [ask(c), {"role": "assistant", "content": " good"}], "mood": 1} for c in COLOURS]
    run = plaudit.train(plaudit.SFT(), dataset=chats, out=str(tmp_path / "sft"), **common)
    assert any("fields not used: mood" in note for note in run.summary["notes"])
    del common["max_new_tokens"]
    rows = (row_of("dpo", f"say {a} {b}") for a in COLOURS for b in COLOURS[:2])
    assert plaudit.train(plaudit.RewardModel(), preferences=rows, out=str(tmp_path / "rm"), **common).summary
    text = run.policy.generate([ask("red")], max_new_tokens=2)
    assert text == run.policy.generate({"prompt": [ask("red")]}, max_new_tokens=2)
    assert text == run.policy.generate([plaudit.Message("user", " say red")], max_new_tokens=2)
    with pytest.raises(DataError, match="ends with the assistant's turn"):
        run.policy.generate([ask("red"), {"role": "assistant", "content": "a"}])
    with pytest.raises(DataError) as caught:
        plaudit.train(plaudit.SFT(), dataset=[{"messages": []}], out=str(tmp_path / "no"), **common)
    assert caught.value.where == "dataset[0]"
    with pytest.raises(plaudit.ConfigError, match="no use for prompts"):
        plaudit.train(plaudit.SFT(), prompts=["a"], out=str(tmp_path / "no"), **common)
