"""`[algorithm] type`: the built-in algorithm of a command, or a user's own as "module:Class"."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any, TypeVar

from pydantic import Field, create_model

from plaudit.config.fields import MISSING
from plaudit.config.sections import Job
from plaudit.errors import ConfigError

J = TypeVar("J", bound=Job)


def type_name(algorithm: type) -> str:
    """What ``type`` says for an algorithm: ``ppo``, ``reward_model``; ``module:Class`` for a user's own."""
    if not algorithm.__module__.startswith("plaudit."):
        return f"{algorithm.__module__}:{algorithm.__qualname__}"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", algorithm.__name__).lower()


def specialise(job_class: type[J], name: str, where: str) -> type[J]:
    """The job class with the algorithm that ``type`` names; the class itself for its own.

    Raises:
        ConfigError: another command's algorithm, or a class that cannot be imported or is not an algorithm.
    """
    field = job_class.model_fields.get("algorithm")
    if not name or field is None:
        return job_class
    own = type_name(field.annotation) if isinstance(field.annotation, type) else ""
    if name.replace("-", "_") == own:
        return job_class
    if ":" not in name:
        raise ConfigError(
            f"algorithm.type = {name!r}, but this command trains with {own!r}",
            where=where,
            cure=f'write type = "{own}", use that algorithm\'s command, or name your own as "module:Class"',
        )
    return with_algorithm(job_class, load_algorithm(name, where))


def with_algorithm(job_class: type[J], algorithm: type) -> type[J]:
    """The job class with another type of ``algorithm``; the class itself if it has that type already."""
    if job_class.model_fields["algorithm"].annotation is algorithm:
        return job_class
    required = [f.name for f in dataclasses.fields(algorithm) if f.default is f.default_factory is MISSING]
    default: Any = ... if required else Field(default_factory=algorithm)
    made: type[J] = create_model(job_class.__name__, __base__=job_class, algorithm=(algorithm, default))
    return made


def load_algorithm(name: str, where: str) -> type:
    """Import ``module:Class`` and check that it is an algorithm: a dataclass with ``needs`` and ``loss``."""
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot load the algorithm {name!r}: {error}",
            where=where,
            cure='write type = "module:Class"; the module must be in the current directory or be installed',
        ) from error
    lacks = [what for what in ("needs", "loss") if not hasattr(found, what)]
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)) or lacks:
        missing = f"it lacks {' and '.join(lacks)}" if lacks else "it is not a dataclass"
        raise ConfigError(
            f"{name!r} is not an algorithm: {missing}",
            where=where,
            cure="an algorithm is a frozen dataclass with needs and loss; see plaudit/algorithms/protocol.py",
        )
    return found
