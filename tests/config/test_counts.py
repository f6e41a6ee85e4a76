"""How many settings there are. The ceiling rises only with what is planned: a judge brought nine fields, the
limit on the size of data files one.

The rule: a field counts once, in the class that declares it, with every section, every job class and every algorithm.
A table (a section, the algorithm, a list of tables) is no setting itself; its fields are. A field that a class takes
over from its base, with the same or another default, is the base's. kind says which table of a list it is, as type
says which algorithm, and is not counted either. By this rule the first release had 244 fields of
145 names; with out, overwrite and seed once for each of the five kinds of job, as they were first counted, 256.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import is_table
from plaudit.config.sections import Job
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.registry import COMMANDS

OF_THE_LOOP = 14
"""A command planned after the first ones, with settings that no other has: how many rounds, what is asked and by whom,
what is mixed. Its steps have the settings of the commands that they are, and none of their own."""
OF_FAULTS = 4
"""How long a step may take after SIGTERM, how much time a crash may cost, what a reward function is given, and when a
run hangs."""
OF_THE_CLUSTER = 4
"""Which backend, how many workers and generators, and where the cluster is."""
MOST_FIELDS = 151 + OF_THE_LOOP + OF_FAULTS + OF_THE_CLUSTER
MOST_NAMES = 140 + 12 + OF_FAULTS + OF_THE_CLUSTER


def tables_in(owner: type) -> Iterator[type]:
    """A class of settings, its bases, and the classes of the tables that stand in it."""
    yield from (base for base in owner.__mro__ if inspect.get_annotations(base))
    hints = typing.get_type_hints(owner, include_extras=True)
    for name in own_fields(owner):
        for kind in kinds_in(hints[name]):
            if is_table(kind):
                yield from tables_in(kind)


def kinds_in(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of: a list of tables of several kinds is a list, a union, and tables."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from kinds_in(part)


def own_fields(owner: type) -> list[str]:
    """The names of all fields of a section or a dataclass, those of its bases included."""
    if dataclasses.is_dataclass(owner):
        return [field.name for field in dataclasses.fields(owner)]
    return list(getattr(owner, "model_fields", ()))


def fields_of(job_classes: list[type]) -> set[tuple[str, str]]:
    """(class, field) of every setting, where it is first declared."""
    found = set()
    for owner in {table for job_class in job_classes for table in tables_in(job_class)}:
        hints = typing.get_type_hints(owner, include_extras=True)
        bases = [base for base in owner.__mro__[1:] if inspect.get_annotations(base)]
        inherited = {name for base in bases for name in inspect.get_annotations(base)}
        for name in inspect.get_annotations(owner).keys() & set(own_fields(owner)) - inherited:
            if name not in ("algorithm", "kind") and not any(map(is_table, kinds_in(hints[name]))):
                found.add((owner.__name__, name))
    return found


@pytest.fixture(scope="module")
def counted() -> set[tuple[str, str]]:
    jobs: list[type[Job]] = [row.job for row in COMMANDS.values()]
    return fields_of([LoopJob, *(specialise(job, name, "") for job in jobs for name in types(job))])


def test_there_are_few_settings(counted: set[tuple[str, str]]) -> None:
    names = {name for _, name in counted}
    assert len(counted) <= MOST_FIELDS, f"{len(counted)} settings: a new one must replace, derive or justify"
    assert len(names) <= MOST_NAMES, f"{len(names)} names of settings"


def test_the_ceiling_sinks_with_the_count(counted: set[tuple[str, str]]) -> None:
    assert len(counted) > MOST_FIELDS - 8, f"MOST_FIELDS can be {len(counted)}"


def test_the_loop_has_few_settings_of_its_own(counted: set[tuple[str, str]]) -> None:
    assert sum(owner in ("LoopJob", "AnnotatorsSection") for owner, _ in counted) == OF_THE_LOOP


def test_the_count_sees_every_kind_of_class(counted: set[tuple[str, str]]) -> None:
    assert {
        ("Job", "seed"),
        ("OptimizerSection", "lr"),
        ("PPO", "gae_lambda"),
        ("SFT", "all_turns"),
    } <= counted
    assert not {name for _, name in counted} & {"algorithm", "optimizer", "data"}


@dataclasses.dataclass(frozen=True)
class Base:
    shared: int = 1


@dataclasses.dataclass(frozen=True)
class Other(Base):
    shared: int = 2
    own: int = 3


class LocalJob(Job):
    """A job with a table of its own, and a list of tables."""

    algorithm: Other = Other()
    many: tuple[Base, ...] = ()


def test_a_field_with_another_default_is_the_field_of_its_base() -> None:
    here = {field for field in fields_of([LocalJob]) if field[0] in ("Base", "Other", "LocalJob")}
    assert here == {("Base", "shared"), ("Other", "own")}
