"""What a run directory says of itself, and which runs a directory holds."""

import json

import pytest

from plaudit.config.show import plain_values, to_toml, toml_value
from plaudit.errors import DataError
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.reading import is_run, read_run, runs_in


def make(path, *, metrics=(), events=(), **files):
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_settings_have_their_sources_and_texts_with_a_hash_stay_whole(tmp_path):
    config = 'seed = 0      # default\n# a remark\n\n[optimizer]\nlr = 1e-4    # command line\nname = "a # b"  # file\n'
    run = read_run(make(tmp_path / "r", config_toml=config))
    assert [tuple(setting) for setting in run.settings] == [
        ("seed", "0", "default"),
        ("optimizer.lr", "0.0001", "command line"),
        ("optimizer.name", '"a # b"', "file"),
    ]


def test_tables_of_rewards_are_one_setting_and_what_follows_them_keeps_its_name(tmp_path):
    tables = (
        '[[reward]]  # command line\nkind = "function"\npath = "a.py:f"\nweight = 1.0\noptions = {"k" = 1}\n\n'
        '[[reward]]  # command line\nkind = "rule"\nrule = "json"\nweight = 0.5\n\n'
    )
    config = f'gold = []  # default\n\n{tables}[data]\nfields = {{"prompt" = "q = [a]"}}  # default\n'
    run = read_run(make(tmp_path / "r", config_toml=config))
    first = '{kind = "function", path = "a.py:f", options = {"k" = 1}}'
    assert [tuple(setting) for setting in run.settings] == [
        ("gold", "[]", "default"),
        ("reward", first + ', {kind = "rule", weight = 0.5, rule = "json"}', "command line"),
        ("data.fields", '{"prompt" = "q = [a]"}', "default"),
    ]


def test_settings_of_every_command_are_read_as_they_are_written(tmp_path):
    for row in COMMANDS.values():
        job = row.job()
        run = read_run(make(tmp_path / row.name, config_toml=to_toml(job)))
        read = {s.key: s.value for s in run.settings}
        assert {k: v for k, v in read.items() if k != "algorithm.type"} == {
            key: toml_value(value) for key, value in plain_values(job).items()
        }


def test_a_config_that_is_no_toml_is_an_error_with_a_cure(tmp_path):
    with pytest.raises(DataError, match=r"not TOML[\s\S]*mend"):
        read_run(make(tmp_path / "r", config_toml="seed = = 1\n"))


@pytest.mark.parametrize("content", [b"seed = \xff\xfe", b"seed = " + b"9" * 5000, b"a = " + b"[" * 100_000, b"\x00"])
def test_a_damaged_config_is_named_with_a_cure(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(DataError, match="not TOML") as caught:
        read_run(tmp_path)
    assert caught.value.where == str(tmp_path / "config.toml") and "manifest.json" in caught.value.cure


def test_values_that_no_setting_has_are_shown_as_they_stand(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "config.toml").write_text("when = 1979-05-27\n[[data]]\nx = [07:32:00]\n")
    assert [s.value for s in read_run(tmp_path).settings] == ["1979-05-27", '{"x" = [07:32:00]}']


def test_the_manifest_is_flat_and_leaves_the_settings_to_the_config(tmp_path):
    manifest = {"seed": 3, "settings": {"lr": 1}, "versions": {"torch": "2.13.0"}, "changed": []}
    run = read_run(make(tmp_path / "r", manifest_json=json.dumps(manifest)))
    assert run.manifest == [("seed", "3"), ("versions.torch", "2.13.0"), ("changed", "[]")]


def test_early_and_late_are_means_over_at_most_a_tenth_and_five_steps(tmp_path):
    def ends(n):
        rows = [
            {"step": s, "time": 1.0, "loss": float(s)} for s in range(n, 0, -1)
        ]  # order in the file is no matter
        run = read_run(make(tmp_path / f"r{n}", metrics=rows))
        assert (run.first("loss"), run.last("loss")) == (1.0, float(n)), "as they were recorded"
        return run.early("loss"), run.late("loss")

    assert ends(5) == (1.0, 5.0)
    assert ends(20) == (2.0, 19.0)  # three steps
    assert ends(200) == (3.0, 198.0)  # five


def test_a_figure_that_was_not_finite_is_no_point_of_the_curve(tmp_path):
    rows = [{"step": s, "loss": None if s == 2 else 1.0} for s in (1, 2, 3)]
    run = read_run(make(tmp_path / "r", metrics=rows))
    assert run.series("loss") == ([1, 3], [1.0, 1.0])
    assert run.early("reward/mean") is None and run.last("reward/mean") is None


def test_the_reason_of_the_end_is_that_of_the_last_event(tmp_path):
    stopped = {"time": 5.0, "event": "stopped", "reason": "STOPPED: SIGTERM"}
    events = [{"time": 1.0, "event": "started"}, stopped]
    assert read_run(make(tmp_path / "a", events=events)).reason == "STOPPED: SIGTERM"
    resumed = read_run(make(tmp_path / "b", events=[*events, {"time": 9.0, "event": "started"}]))
    assert resumed.reason == "", "it runs again"
    assert resumed.seconds == 8.0


def test_a_directory_of_runs_holds_its_sub_directories_that_are_runs(tmp_path):
    for name in ("ppo", "sft"):
        make(tmp_path / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "preferences.jsonl").write_text("{}\n")
    assert runs_in(tmp_path) == [tmp_path / "ppo", tmp_path / "sft"]
    assert runs_in(tmp_path / "ppo") == [tmp_path / "ppo"]
    assert not is_run(tmp_path / "data")


@pytest.mark.parametrize("name", ["", "absent"])
def test_what_holds_no_run_is_an_error_with_a_cure(tmp_path, name):
    with pytest.raises(DataError, match=r"not a run[\s\S]*fix"):
        runs_in(tmp_path / name)
    with pytest.raises(DataError, match="not a run"):
        read_run(tmp_path / name)


def alarm(step, kind="length", **more):
    return {"event": "alarm", "step": step, "kind": kind, "message": f"{kind} at {step}", **more}


STARTED = {"event": "started"}


@pytest.mark.parametrize(
    ("events", "standing"),
    [
        # Killed at step 24, resumed at 20: what was raised at 24 is raised once more, and counts once.
        ([STARTED, alarm(10), alarm(24), STARTED, {"event": "resumed", "step": 20}, alarm(24)], [10, 24]),
        # Or it does not come again, with other settings.
        ([STARTED, alarm(24), STARTED, {"event": "resumed", "step": 20}], []),
        # Resumed twice; the second time nothing was done again.
        ([STARTED, alarm(4), STARTED, {"event": "resumed", "step": 8}, STARTED, {"event": "resumed", "step": 9}], [4]),
        # There was no checkpoint: all is done again.
        ([STARTED, alarm(0), alarm(4), STARTED, {"event": "started over"}, alarm(0), alarm(4)], [0, 4]),
        # What the resuming process says before it goes on, of a checkpoint that is broken, stands.
        ([STARTED, STARTED, alarm(30, "checkpoint"), {"event": "resumed", "step": 20}], [30]),
        # Killed again before it had gone on.
        ([STARTED, alarm(4), STARTED, STARTED, {"event": "resumed", "step": 8}], [4]),
    ],
)
def test_events_of_steps_that_were_done_again_stand_once(tmp_path, events, standing):
    run = read_run(make(tmp_path / "r", events=events))
    assert [row["step"] for row in run.standing if row["event"] == "alarm"] == standing
    assert run.events == events, "the file keeps all of them"


def test_a_resumed_run_hands_out_other_weights(tmp_path):
    put_back = {"event": "rolled back", "step": 0, "why": "it was better there"}
    events = [STARTED, put_back, {"event": "stopped"}, STARTED, {"event": "resumed", "step": 8}]
    assert put_back not in read_run(make(tmp_path / "r", events=events)).standing
