"""Two runs answer the same prompts; nobody can tell from the order who wrote what."""

import json
from dataclasses import replace

import pytest
from tests.rewards.chat_server import chat_server, said, saying, status

from plaudit.cli.main import main
from plaudit.config.sections import SamplingSection
from plaudit.data.load import load_records
from plaudit.data.write import write_records
from plaudit.errors import ConfigError, RewardError
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.preferences.importing import items_of
from plaudit.records import Judgement, Prompt
from plaudit.stages.respond.compare import generate_comparisons, model_names
from plaudit.stages.respond.policy import TrainedPolicy

SAMPLING = SamplingSection(max_new_tokens=6)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    tokenizer = tiny_tokenizer(["red blue green warm cold good bad big say"], 48)
    for seed, name in enumerate(("one", "two")):
        save_causal_lm(
            tiny_lm("llama", tokenizer, hidden=16, layers=1, seed=seed, scale=1.0), root / name, tokenizer
        )
    return [str(root / "one"), str(root / "two")]


def reworded(rollout, text):
    return replace(rollout, turns=(replace(rollout.turns[0], content=text),))


PROMPTS = [Prompt(f"p{i}", f"say {w}") for i, w in enumerate("red blue green warm cold good bad big".split())]


def test_each_model_answers_each_prompt_in_an_order_of_chance(models):
    made, left_out = generate_comparisons(models, PROMPTS, SAMPLING, seed=1)
    assert len(made) + sum(left_out.values()) == len(PROMPTS) and len(made) >= 6
    said = {
        p.id: r.response
        for p, r in zip(PROMPTS, TrainedPolicy(models[0]).respond_all(PROMPTS, SAMPLING, seed=1), strict=True)
    }
    for c in made:
        assert set(c.models) == {"one", "two"}
        assert c.responses[c.models.index("one")] == said[c.id]
        assert c.provenance[0]["source"].endswith(c.models[0]) and c.provenance[0]["seed"] == 1
        assert c.provenance[0]["sampling"]["max_new_tokens"] == 6
    assert len({c.models for c in made}) == 2
    turned, _ = generate_comparisons(models[::-1], PROMPTS, SAMPLING, seed=1)
    assert [(c.responses, c.models) for c in turned] == [(c.responses, c.models) for c in made]
    alone, _ = generate_comparisons(models, PROMPTS[3:4], SAMPLING, seed=1)
    assert alone == [c for c in made if c.id == "p3"]


def test_what_a_byte_level_model_says_can_be_read_again(models, tmp_path, monkeypatch):
    drawn = [
        reworded(r, f"a\x00{r.response}")
        for r in TrainedPolicy(models[0]).respond_all(PROMPTS[:1], SAMPLING)
    ]
    monkeypatch.setattr(TrainedPolicy, "respond_all", lambda *a, **k: drawn)
    made, _ = generate_comparisons(models[:1], PROMPTS[:1], SAMPLING, least=1)
    write_records(made, tmp_path / "said.jsonl")
    (read,) = load_records(str(tmp_path / "said.jsonl")).records
    assert read.responses == made[0].responses and read.responses[0].startswith("a\ufffd")


def test_the_same_model_under_two_names_has_nothing_to_compare(models, tmp_path):
    (tmp_path / "copy").symlink_to(models[0])
    made, left_out = generate_comparisons([models[0], str(tmp_path / "copy")], PROMPTS, SAMPLING)
    assert made == [] and left_out == {"prompts to which all models gave the same response": 8}


def test_several_responses_of_one_model(models):
    made, left_out = generate_comparisons(models[:1], PROMPTS, SAMPLING, samples=4, seed=1)
    assert len(made) + sum(left_out.values()) == len(PROMPTS) and made
    assert all(set(c.models) == {"one"} and 2 <= len(set(c.responses)) == len(c.responses) <= 4 for c in made)
    first = TrainedPolicy(models[0]).respond_all(PROMPTS[:1], SAMPLING, n=4, seed=1)
    assert set(made[0].responses) == {r.response for r in first}
    alone, _ = generate_comparisons(models[:1], PROMPTS, SAMPLING, least=1)
    assert [len(c.responses) for c in alone] == [1] * len(PROMPTS)
    with pytest.raises(ConfigError, match="with 5 responses of each"):
        generate_comparisons(models, PROMPTS, SAMPLING, samples=5)


def test_names(models):
    with pytest.raises(ConfigError, match="2 to 9 responses of different models"):
        model_names(models[:1])
    with pytest.raises(ConfigError):
        model_names([models[0]] * 2)


def test_from_runs_to_items_to_standings(models, tmp_path, capsys):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    write_records(PROMPTS, prompts)
    flags = ["--max-new-tokens", "6", "--temperature", "1", "--limit", "7"]
    assert main(["compare", *models, "--prompts", str(prompts), "--out", str(out), *flags]) == 0
    loaded = load_records(str(out))
    assert loaded.kind == "comparison" and 4 <= len(loaded.records) <= 7
    items, _ = items_of(loaded.records, "pairwise")
    assert items[0].responses[0].provenance["sampling"]["temperature"] == 1.0
    judgements = [
        Judgement(
            i.key, i.prompt, *(r.content for r in i.responses), -1, *(r.model for r in i.responses), "ann"
        )
        for i in items
    ]
    judged, standings = tmp_path / "judgements.jsonl", tmp_path / "standings.json"
    write_records(judgements, judged)
    capsys.readouterr()
    assert main(["compare", str(judged), "--json", str(standings)]) == 0
    assert "win rate" in capsys.readouterr().out
    assert json.loads(standings.read_text())["judgements"] == len(items)


def test_wrong_command_lines_say_what_to_do(models, tmp_path, capsys):
    prompts, pairs = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    write_records(PROMPTS, prompts)
    assert main(["compare", *models]) == 78
    assert "--prompts FILE" in capsys.readouterr().err
    assert main(["compare", *models, "--prompts", str(prompts)]) == 78
    assert "add --out" in capsys.readouterr().err
    assert main(["compare", str(prompts)]) == 65
    assert "kind prompt" in capsys.readouterr().err
    write_records(generate_comparisons(models, PROMPTS, SAMPLING, seed=1)[0], pairs)
    assert main(["compare", str(pairs)]) == 65
    assert "plaudit annotate serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "task"), [((), "thumbs"), (("--samples", "2"), "pairwise"), (("--samples", "4"), "ranking")]
)
def test_models_answer_before_people_are_asked(models, tmp_path, monkeypatch, capsys, flags, task):
    """`plaudit annotate import PROMPTS --models RUN`: the task follows from how many responses there are."""
    pytest.importorskip("fastapi", reason="the annotation app's packages: pip install 'plaudit[annotate]'")
    monkeypatch.chdir(tmp_path)
    write_records(PROMPTS, tmp_path / "prompts.jsonl")
    command = ["annotate", "import", "prompts.jsonl", "--models", models[0], "--max-new-tokens", "6", *flags]
    assert main(command) == 0
    assert f"for prompts ({task})" in capsys.readouterr().out
    assert main(command) == 0
    assert "which are there already" in capsys.readouterr().out
    for other in (["--temperature", "0.5"], ["--samples", "3"], ["--seed", "7"]):
        assert main([*command, *other]) == 78, "nothing is reused that was drawn in another way"
        assert "of other models or settings" in capsys.readouterr().err
    write_records(PROMPTS[1:], tmp_path / "prompts.jsonl")
    assert main(command) == 78
    assert "to prompts not in prompts.jsonl" in capsys.readouterr().err
    assert main(["annotate", "import", "", "--models", models[0]]) == 78


def test_a_larger_limit_answers_only_what_is_missing(models, tmp_path, monkeypatch, capsys):
    pytest.importorskip("fastapi", reason="the annotation app's packages: pip install 'plaudit[annotate]'")
    monkeypatch.chdir(tmp_path)
    write_records(PROMPTS, tmp_path / "prompts.jsonl")
    asked, draw = [], TrainedPolicy.respond_all

    def respond(self, prompts, *args, **more):
        asked.append([p.id for p in prompts])
        said = draw(self, prompts, *args, **more)
        return [
            reworded(r, "same") if p.id in ("p1", "p4") else r
            for p, r in zip(prompts, said, strict=True)
        ]

    monkeypatch.setattr(TrainedPolicy, "respond_all", respond)
    command = ["annotate", "import", "prompts.jsonl", "--models", *models, "--max-new-tokens", "6"]
    command += ["--task", "pairwise"]

    def call(*more: str) -> str:
        asked.clear()
        assert main([*command, *more]) == 0
        return capsys.readouterr().out

    call("--limit", "3")
    first = (tmp_path / "prompts.responses.jsonl").read_bytes()
    assert [r.id for r in load_records("prompts.same.jsonl").records] == ["p1"]
    said = call("--limit", "6")
    assert asked == [["p3", "p4", "p5"]] * 2 and "3 more prompts are answered now" in said
    grown = (tmp_path / "prompts.responses.jsonl").read_bytes()
    assert grown.startswith(first) and len(grown) > len(first), "what was there is kept"
    said = call("--limit", "6")
    assert asked == [] and "are there already" in said, (
        "nor are those tried again to which both said the same"
    )
    assert call("--limit", "2") and asked == []
    call()
    assert asked == [["p6", "p7"]] * 2
    grown = load_records("prompts.responses.jsonl").records
    (tmp_path / "prompts.responses.jsonl").unlink()  # what is remembered of it counts no more
    call()
    assert load_records("prompts.responses.jsonl").records == grown, "bit by bit is the same as at once"


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the file of answers lies in the working directory
    with chat_server() as one:
        one.answers = [lambda body: said(f"heard {body['messages'][-1]['content']} {len(one.asked)}")]
        yield one


def test_an_endpoint_answers_beside_a_model_and_is_paid_once(models, server):
    source = f"{{kind = 'judge', url = '{server.url}', model = 'mini', concurrency = 1, options = {{seed = 7}}}}"
    made, left_out = generate_comparisons([models[0], source], PROMPTS, SAMPLING, seed=1)
    assert not left_out and {name for one in made for name in one.models} == {"one", "mini"}
    told = made[0].responses[made[0].models.index("mini")]
    assert told == "heard say red 1"
    assert made[0].provenance[made[0].models.index("mini")] == {"source": source, **SAMPLING.origin(1, 1)}
    body = server.asked[0]
    assert body["messages"] == [{"role": "user", "content": "say red"}] and "response_format" not in body
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("mini", 6, 1.0, 7)
    assert generate_comparisons([models[0], source], PROMPTS, SAMPLING, seed=1)[0] == made
    assert len(server.asked) == len(PROMPTS), "what was written is not asked for again"
    more, _ = generate_comparisons([source], PROMPTS[:2], SAMPLING, samples=3, seed=1)
    assert [len(set(one.responses)) for one in more] == [3, 3] and len(server.asked) == len(PROMPTS) + 4
    other, _ = generate_comparisons([source], PROMPTS[:1], SAMPLING, samples=2, seed=2)
    assert len(server.asked) == len(PROMPTS) + 6 and other[0].responses != more[0].responses[:2], "another seed"


def test_an_endpoint_that_leaves_out_a_few_is_counted_and_one_that_leaves_out_many_is_an_error(models, server):
    source = f"{{kind = 'judge', url = '{server.url}', model = 'mini', concurrency = 1}}"
    good = server.answers[0]
    server.answers = [saying(None), good]
    made, left_out = generate_comparisons([models[0], source], PROMPTS, SAMPLING, seed=1)
    assert len(made) == 7 and left_out == {"prompts that an endpoint did not answer": 1}
    server.answers = [good, status(404)]
    with pytest.raises(RewardError, match=r"it gave \d of 8 responses; it answered 404") as caught:
        generate_comparisons([models[0], source], PROMPTS, SAMPLING, seed=5)
    assert "not asked twice" in caught.value.cure


def test_an_endpoint_that_is_not_there_or_is_no_endpoint_is_an_error_before_the_first_prompt(models):
    with pytest.raises(ConfigError, match="start the server|cannot be reached|127.0.0.1") as caught:
        generate_comparisons([models[0], "judge:mini@http://127.0.0.1:1/v1"], PROMPTS, SAMPLING)
    assert "start the server" in caught.value.cure
    with pytest.raises(ConfigError, match="is a http, which writes no responses"):
        model_names(["{kind = 'http', url = 'http://127.0.0.1:1/x'}", "runs/a"])


def test_people_are_asked_about_what_an_endpoint_wrote(models, server, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p.content}) + "\n" for p in PROMPTS))
    source = f"judge:mini@{server.url}"
    out = tmp_path / "pairs.jsonl"
    assert main(["compare", models[0], source, "--prompts", str(prompts), "--out", str(out)]) == 0
    rows = load_records(str(out)).records
    assert len(rows) == 8 and all(sorted(row.models) == ["mini", "one"] for row in rows)
    assert any(one["source"] == source for row in rows for one in row.provenance)
