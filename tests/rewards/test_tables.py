"""Tables of rewards and the short texts that stand for them: one meaning each, or a refusal with the cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.config.load import load_job
from plaudit.config.show import to_toml
from plaudit.errors import ConfigError
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward_tables import (
    ClassifierTable,
    FunctionTable,
    HttpTable,
    JudgeTable,
    ModelTable,
    RewardTable,
    RuleTable,
)
from plaudit.jobs.reward_texts import meant_by, parse, table_of
from plaudit.runs.resume import changes, check, described

MEANINGS: dict[str, RewardTable] = {
    "runs/reward/model": ModelTable(path="runs/reward/model"),
    "owner/name": ModelTable(path="owner/name"),
    r"C:\models\reward": ModelTable(path=r"C:\models\reward"),
    "A,B@min": ModelTable(path=("A", "B"), ensemble="min"),
    "A, B": ModelTable(path=("A", "B")),
    "runs/e@mean_minus_std=0.5": ModelTable(path="runs/e", ensemble="mean_minus_std", coef=0.5),
    "my.py:f": FunctionTable(path="my.py:f"),
    r"C:\my.py:f": FunctionTable(path=r"C:\my.py:f"),
    "~/my.py:Class.method": FunctionTable(path="~/my.py:Class.method"),
    "package.module:f": FunctionTable(path="package.module:f"),
    "owner/name#POSITIVE": ClassifierTable(path="owner/name", label="POSITIVE"),
    "owner/name#very good@prob": ClassifierTable(path="owner/name", label="very good", scale="prob"),
    r"C:\classifier#1": ClassifierTable(path=r"C:\classifier", label="1"),
    "rule:json": RuleTable(rule="json"),
    "rule:contains:a:b # c": RuleTable(rule="contains", text="a:b # c"),
    "rule:length:40": RuleTable(rule="length", words=40),
    "http://127.0.0.1:5000/get_reward": HttpTable(url="http://127.0.0.1:5000/get_reward"),
    "https://host/score#now": HttpTable(url="https://host/score#now"),
    "judge:qwen2.5:7b@http://127.0.0.1:11434/v1": JudgeTable(model="qwen2.5:7b", url="http://127.0.0.1:11434/v1"),
    "judge:@cf/meta/x@https://host/v1": JudgeTable(model="@cf/meta/x", url="https://host/v1"),
    '{kind = "function", path = "judge:f", weight = 0.5}': FunctionTable(path="judge:f", weight=0.5),
}


@pytest.mark.parametrize(("text", "table"), MEANINGS.items(), ids=list(MEANINGS))
def test_a_short_text_has_one_meaning(text: str, table: RewardTable) -> None:
    assert parse(text) == table


@pytest.mark.parametrize("table", MEANINGS.values(), ids=list(MEANINGS))
def test_a_table_names_its_source_as_a_short_text(table: RewardTable) -> None:
    if isinstance(table, FunctionTable) and table.path.startswith("judge"):
        return  # a reserved word: only a table can name it
    assert parse(table.source) == table


REFUSED = {
    "judge:x": ("names no judge and its endpoint", 'path = "judge:x"'),
    "judge:@http://host/v1": ("names no judge", "judge:MODEL@http"),
    "judge:m@http://": ("names no judge", "judge:MODEL@http"),
    '{kind = "judge", url = "http://h/v1", model = "m", key_env = "sk-secret"}': ("key_env = ...", "environment"),
    '{kind = "judge", url = "http://h/v1", model = "m", options = {api_key = "s"}}': ("options = ...", "key_env"),
    '{kind = "judge", url = "http://h/v1", model = "m", options = {stream = true}}': ("options", "stream"),
    '{kind = "judge", url = "http://h/v1", model = "m", cost_limit = 1}': ("does not fit", "needs prices"),
    '{kind = "judge", url = "http://h/v1", model = "m", prices = [1, -1]}': ("prices", "million tokens"),
    '{kind = "judge", url = "http://h/v1", model = "m", against = "chosen"}': ("does not fit", "pairs"),
    "model:runs/x": ("no short text starts with model:", "./model:runs/x"),
    "my.py": ("no function in it", "my.py:FUNCTION"),
    "my.py:": ("names neither a function nor a rule", "file.py:function"),
    "a:b:c": ("names neither a function nor a rule", "rule:json"),
    "my.py:f,runs/b": ("reward models only", "several values"),
    "A,,B": ("does not name an ensemble", "DIR,DIR,DIR@RULE"),
    "A,B@min=2": ("does not name an ensemble", "mean_minus_std=NUMBER"),
    "A,B@mni": ("reward models only|no rule", ""),
    "A@mni": ("no rule for an ensemble", "did you mean A@min?"),
    "rule:jsn": ("'rule:jsn' is not a rule", "rule:json"),
    "rul:contains:please": ("names neither", "did you mean rule:contains:please?"),
    "Rules:length:40": ("names neither", "did you mean rule:length:40?"),
    "https:host/x": ("names neither", "did you mean https://host/x?"),
    "http:/host/x": ("no short text starts with http:", "did you mean http://host/x?"),
    "name#": ("does not name a classifier", "owner/name#LABEL"),
    "ftp://host/x": ("ftp://host/x", "http://"),
    "https://user:secret@host/x": ("url", "user name and password"),
    "http://host:port/x": ("url", "Port could not be cast"),
    "": ("is no reward", "runs/reward"),
    '{kind = "function", path = "a.py:f"': ("is not a TOML table", "kind ="),
    '{kind = "modle", path = "x"}': ("'modle'", 'did you mean kind = "model"'),
    '{path = "x"}': ("no kind", "model, function"),
    '{kind = "function", path = "a.py:f", wieght = 2}': ("no setting wieght", "did you mean weight?"),
    '{kind = "function", path = "a.py:f", weight = "2"}': ("expected number", "weight"),
    '{kind = "function", path = "a.py"}': ("path = 'a.py'", "file.py:function"),
    '{kind = "rule", rule = "length"}': ("does not fit", "length needs words"),
    '{kind = "model"}': ("has no path", "reward model"),
    '{kind = "model", path = "x", weight = inf}': ("weight", "multiplied"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.items(), ids=list(REFUSED))
def test_what_has_no_meaning_is_refused_with_the_cure(text: str, says: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=says[0]) as caught:
        parse(text, "gold")
    assert says[1] in caught.value.cure and caught.value.where == "gold"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("rul:json", "rule:json"),
        ("ruel:jsno", "rule:json"),
        ("rule:lenght", "rule:length:WORDS"),
        ("rul:contains:a:b", "rule:contains:a:b"),
        ("rul:json:x", ""),
        ("rul:", ""),
        ("my_rewards:json", ""),
        ("file.py:json", ""),
        ("httpx:get", ""),
        ("json", ""),
    ],
)
def test_a_misspelt_prefix_means_the_rule_or_address(text: str, meant: str) -> None:
    assert meant_by(text) == meant


def test_what_lies_on_the_disk_decides_between_two_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a#b", "c:d", "e,f", "g@min", "clf#1"):
        Path(name).mkdir()
        assert parse(name) == ModelTable(path=name), name
    assert parse("clf#1#POSITIVE") == ClassifierTable(path="clf#1", label="POSITIVE")
    assert parse("a#b@min") == ModelTable(path="a#b", ensemble="min")
    Path("x#y.py").write_text("")
    assert parse("x#y.py:f") == FunctionTable(path="x#y.py:f")
    Path("x,y.py").write_text("")
    assert parse("x,y.py:f") == FunctionTable(path="x,y.py:f")


@pytest.mark.parametrize(
    ("there", "text", "ways"),
    [
        (("clf", "clf#POS"), "clf#POS", "model or as a classifier"),
        (("x", "x#y.py"), "x#y.py:f", "function or as a classifier"),
        (("json:loads",), "json:loads", "model or as a function"),
        (("a", "a@min"), "a@min", "model or as a model"),
    ],
)
def test_two_readings_that_both_exist_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], text: str, ways: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).mkdir()
    with pytest.raises(ConfigError, match=ways) as caught:
        parse(text)
    first, _, second = caught.value.cure.removeprefix("write ").partition(" or {")
    for line in (first, "{" + second):  # the cure can be given back as it stands
        assert isinstance(parse(line), (ModelTable, ClassifierTable, FunctionTable))


def test_tables_from_a_file_and_back(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'policy = "m"\n'
        '[[reward]]\nkind = "model"\npath = ["A", "B"]\nensemble = "min"\n'
        '[[reward]]\nkind = "function"\npath = "my.py:Mine"\nweight = 0.3\noptions = {scale = 2, words = ["a"]}\n'
        '[[gold]]\nkind = "http"\nurl = "http://host/x"\n'
    )
    job = load_job(RLJob, [file]).job
    assert job.reward == (
        ModelTable(path=("A", "B"), ensemble="min"),
        FunctionTable(path="my.py:Mine", weight=0.3, options={"scale": 2, "words": ["a"]}),
    )
    assert job.gold == (HttpTable(url="http://host/x"),)
    again = tmp_path / "config.toml"
    again.write_text(to_toml(job))
    assert load_job(RLJob, [again]).job == job
    assert "[[reward]]" in again.read_text() and "[[gold]]" in again.read_text()


def test_a_mistake_in_a_file_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('policy = "m"\n[[reward]]\nkind = "model"\npath = "A"\nensembel = "min"\n')
    with pytest.raises(ConfigError, match="no setting ensembel") as caught:
        load_job(RLJob, [file])
    assert caught.value.where == f"{file}:2" and "did you mean ensemble?" in caught.value.cure
    file.write_text('reward = ["judge:x"]\n')
    with pytest.raises(ConfigError, match="judge") as caught:
        load_job(RLJob, [file])
    assert caught.value.where == f"{file}:1"


@pytest.mark.parametrize(
    ("given", "tables"),
    [
        ("A", (ModelTable(path="A"),)),
        (["A,B@min"], (ModelTable(path=("A", "B"), ensemble="min"),)),
        (["A", "my.py:f"], (ModelTable(path="A"), FunctionTable(path="my.py:f"))),
        (
            ["A", '{kind = "function", path = "my.py:f", weight = 0.3}'],
            (ModelTable(path="A"), FunctionTable(path="my.py:f", weight=0.3)),
        ),
        ('{kind = "model", path = "A", weight = 2}', (ModelTable(path="A", weight=2.0),)),
    ],
)
def test_rewards_on_the_command_line(given: Any, tables: tuple[RewardTable, ...]) -> None:
    assert load_job(RLJob, (), {"reward": given}).job.reward == tables


def test_a_mistake_on_the_command_line_names_the_flag() -> None:
    with pytest.raises(ConfigError, match="judge") as caught:
        load_job(RLJob, (), {"gold": ["judge:x"]})
    assert caught.value.where == "command line, --gold"


def test_weights_and_seconds_of_earlier_versions_go_into_the_tables(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text(
        'reward = ["A", "my.py:f"]\nreward_weights = [1.0, 0.5]\nreward_timeout = 5.0\ngold = "my.py:g"\n'
    )
    job = load_job(RLJob, [file]).job
    assert job.reward == (ModelTable(path="A"), FunctionTable(path="my.py:f", weight=0.5, timeout=5.0))
    assert job.gold == (FunctionTable(path="my.py:g", timeout=5.0),)
    table = {"kind": "function", "path": "my.py:f", "timeout": 1.0}
    own = load_job(RLJob, (), {"reward": table, "reward_timeout": 5.0}).job
    assert own.reward == (FunctionTable(path="my.py:f", timeout=1.0),)
    with pytest.raises(ConfigError, match="reward_weights"):
        load_job(RLJob, (), {"reward": "A", "reward_weights": [1.0, 2.0]})


def test_members_of_an_ensemble_are_read_from_its_run(tmp_path: Path) -> None:
    for i in (10, 2, 0):
        (tmp_path / f"member-{i}").mkdir()
    table = ModelTable(path=str(tmp_path))
    assert table.members == tuple(str(tmp_path / f"member-{i}") for i in (0, 2, 10)) and table.is_ensemble
    assert ModelTable(path="A").members == ("A",) and not ModelTable(path="A").is_ensemble
    assert ModelTable(path="A", ensemble="min").is_ensemble, "so that building it says what is missing"


def test_only_tables_texts_and_mappings_are_rewards() -> None:
    with pytest.raises(ConfigError, match="reward = 3 is no reward"):
        table_of(3)
    with pytest.raises(ConfigError, match="cannot be kept"):
        table_of({"kind": "function", "path": "a.py:f", "options": {"x": object()}})


OLD: dict[str, Any] = {
    "reward": ["A,B@mean", "my.py:f"],
    "reward_weights": [1.0, 0.5],
    "reward_timeout": 60.0,
    "gold": [],
}
"""What the first version kept of a job in a manifest."""


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"reward_timeout": 5.0}, True),
        ({"reward": ["C,D@mean", "other.py:g"]}, True),  # places are compared by content
        ({"reward_weights": [1.0, 2.0]}, False),
        ({"reward": ["A,B@min", "my.py:f"]}, False),
        ({"reward": ["A,B@mean", "rule:json"]}, False),
        ({"gold": ["my.py:g"]}, False),
    ],
)
def test_a_resumed_run_is_rewarded_as_it_was(tmp_path: Path, change: dict[str, Any], kept: bool) -> None:
    job = load_job(RLJob, (), {**OLD, **change}).job
    start = {"settings": {**described(RLJob(), None)["settings"], **OLD}}
    if kept:
        assert changes(tmp_path, job, start) == {}
    else:
        with pytest.raises(ConfigError, match="started with other settings"):
            changes(tmp_path, job, start)


JUDGE = {"kind": "judge", "url": "http://a/v1", "model": "m", "prices": [1.0, 2.0], "cost_limit": 5.0}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"url": "http://b/v1", "cost_limit": 9.0, "cache": "elsewhere.jsonl", "key_env": "KEY"}, True),
        ({"rubric": "moved.md"}, True),  # compared by content
        ({"model": "n"}, False),
        ({"ask": "group"}, False),
        ({"options": {"seed": 1}}, False),
    ],
)
def test_a_resumed_run_may_ask_the_same_judge_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], kept: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rubric.md", "moved.md"):
        Path(name).write_text("Be short.")
    job = load_job(RLJob, (), {"reward": {**JUDGE, "rubric": "rubric.md"}}).job
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps(described(job, None)))
    later = load_job(RLJob, (), {"reward": {**JUDGE, "rubric": "rubric.md", **change}}).job
    if kept:
        assert check(run, later, described(later, None)) == {}
        Path("moved.md").write_text("Be long.")
        Path("rubric.md").write_text("Be long.")
    with pytest.raises(ConfigError, match="rubric|other settings"):
        check(run, later, described(later, None))


def test_weights_that_the_first_version_did_not_keep_are_not_compared(tmp_path: Path) -> None:
    job = load_job(RLJob, (), {"reward": {"kind": "rule", "rule": "json", "weight": 2.0}}).job
    settings = described(RLJob(), None)["settings"]
    old = {"settings": {**settings, "reward": ["rule:json"], "reward_weights": [], "reward_timeout": 60.0}}
    assert changes(tmp_path, job, old) == {}
    new = {"settings": {**settings, "reward": [{"kind": "rule", "rule": "json", "weight": 1.0}]}}
    with pytest.raises(ConfigError, match="weight"):
        changes(tmp_path, job, new)


def test_sources_of_an_earlier_version_are_read_as_today() -> None:
    source = {"source": "A,B@mean", "sha256": ""}
    manifest = {"settings": {}, "inputs": {"reward 0": source, "policy": source}}
    inputs = RLJob.as_recorded(manifest)["inputs"]
    assert inputs["reward 0"]["source"] == "A,B" and inputs["policy"] == source


def test_a_reward_that_cannot_be_read_is_said_also_beside_earlier_settings(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text('reward = ["judge:x"]\nreward_weights = [2.0]\nreward_timeout = 5.0\n')
    with pytest.raises(ConfigError, match="names no judge and its endpoint") as caught:
        load_job(RLJob, [file])
    assert caught.value.where == f"{file}:1"
