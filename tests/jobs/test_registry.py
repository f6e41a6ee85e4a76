"""One row a command: each has a job, a stage and figures, and nobody else keeps a list of commands."""

import ast
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import ClassVar

import pytest

import plaudit
from plaudit.cli.main import COMMANDS as ALL
from plaudit.config.algorithm import types, with_algorithm
from plaudit.config.sections import Job
from plaudit.evaluation.kinds import KINDS
from plaudit.jobs.registry import COMMANDS, command_for, command_of
from plaudit.stages import stage_of

VALUES = {"preferences": "records"}
SOURCES = Path(__file__).parents[2] / "src" / "plaudit"


@dataclass(frozen=True)
class Mine:
    needs: ClassVar[frozenset[str]] = frozenset()


@pytest.mark.parametrize("row", COMMANDS.values(), ids=lambda row: row.name)
def test_a_row_is_complete(row):
    fields = row.job.model_fields
    assert set(row.required) <= set(fields) and callable(stage_of(row.job)) and row.kind in KINDS
    assert ALL[row.name] == ("train", row.help)
    assert command_of(row.job) is row
    assert command_of(type(row.job())) is row
    takes = set(signature(stage_of(row.job)).parameters)
    assert {"sources", "on_iteration"} <= takes and {VALUES.get(name, name) for name in row.values} <= takes


@pytest.mark.parametrize("row", COMMANDS.values(), ids=lambda row: row.name)
def test_a_job_with_another_algorithm_is_of_the_same_command(row):
    made = with_algorithm(row.job, Mine)
    assert made is not row.job and command_of(made) is row and stage_of(made) is stage_of(row.job)


def test_an_algorithm_is_trained_by_the_command_that_takes_its_name():
    for row in COMMANDS.values():
        for name in types(row.job):
            relative = row.job.relatives.get(name) or row.job.model_fields["algorithm"].annotation
            assert command_for(relative() if isinstance(relative, type) else relative) is row
    assert command_for(plaudit.KTO()).name == "dpo"
    assert command_for(Mine()) is None


def test_what_is_no_command_is_said():
    with pytest.raises(KeyError, match=r"Job; add a row to jobs/registry\.py"):
        command_of(Job)
    with pytest.raises(KeyError, match=r"stages/__init__\.py"):
        stage_of(Job)


def test_inputs_are_said_by_every_job():
    values = {"policy": "p", "model": "m", "dataset": "d", "reward": ("r",)}
    for row in COMMANDS.values():
        job = row.job(**{name: value for name, value in values.items() if name in row.job.model_fields})
        assert {"d"} < set(job.inputs.values())


def test_no_other_module_lists_commands():
    """Names with a hyphen are commands and nothing else; an algorithm's ``type`` has underscores."""
    named = {name for name in COMMANDS if "-" in name}
    lists = {}
    for path in SOURCES.rglob("*.py"):
        constants = [
            n.value for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Constant)
        ]
        if found := named & {value for value in constants if isinstance(value, str)}:
            lists[path.relative_to(SOURCES).as_posix()] = found
    assert len(named) > 1 and lists.pop("jobs/registry.py") == named
    assert lists == {}
