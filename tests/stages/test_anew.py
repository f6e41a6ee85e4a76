"""Runs whose machines are lost on the way: they go on with others, and come out as if nothing had happened."""

import pytest

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import CheckpointSection
from plaudit.errors import Lost
from plaudit.records import Demonstration
from plaudit.runs.files import EVENTS, read_lines
from plaudit.stages.anew import MOST, carried_through
from plaudit.stages.sft import run_sft


@pytest.fixture
def dying(monkeypatch):
    """Lets the learner's updates die at given calls, counted from 1 over all runs."""

    def dies(*calls, always=()):
        count, update = [0], LocalLearner.update

        def updated(learner, *args, **options):
            count[0] += 1
            if count[0] in calls or (always and learner.step in always):
                raise Lost("worker 1 ended while the run waited for a step of the policy", cure="--resume")
            return update(learner, *args, **options)

        monkeypatch.setattr(LocalLearner, "update", updated)

    return dies


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def test_a_run_that_loses_workers_goes_on_and_ends_the_same(world, tmp_path, dying, capsys):
    each = CheckpointSection(every=2)
    plain = run_sft(world.sft(tmp_path / "plain", epochs=3, checkpoint=each))
    dying(1, 5, 8)  # before any checkpoint; after that of step 2; and once more
    run = carried_through(world.sft(tmp_path / "run", epochs=3, checkpoint=each), {})
    assert weights(run) == weights(plain)
    said = capsys.readouterr().out
    assert "worker 1 ended while" in said and "goes on from the start with others (1)" in said
    assert "goes on from step-000002 with others (1)" in said
    cautions = [row["message"] for row in read_lines(run / EVENTS) if row["event"] == "caution"]
    assert sum("worker 1 ended" in message for message in cautions) == 3
    steps = [row["step"] for row in read_lines(run / "metrics.jsonl")]
    assert steps == sorted(set(steps)), "each step stands there once"


def test_one_that_dies_always_at_the_same_place_ends(world, tmp_path, dying):
    dying(always=(3,))
    with pytest.raises(Lost, match="worker 1") as error:
        carried_through(world.sft(tmp_path / "run", epochs=3, checkpoint=CheckpointSection(every=2)), {})
    tries = [row for row in read_lines(error.value.run / EVENTS) if row["event"] == "caution"]
    assert sum("worker 1 ended" in row["message"] for row in tries) == MOST + 1


def test_rows_that_can_be_read_once_only_are_not_read_again(world, tmp_path, dying):
    dying(2)
    rows = [Demonstration(f"d{i}", "say red", " good") for i in range(24)]
    with pytest.raises(Lost):
        carried_through(world.sft(tmp_path / "once", dataset=""), {}, records=iter(rows))
    dying(2)
    run = carried_through(world.sft(tmp_path / "list", dataset=""), {}, records=rows)
    assert (run / "model").is_dir()
