"""`[algorithm] type`: the built-in algorithm of a command, a relative of it, or a user's own as "module:Class"."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import Field, create_model

from plaudit.config.fields import MISSING
from plaudit.config.sections import Job
from plaudit.errors import ConfigError

J = TypeVar("J", bound=Job)


def type_name(algorithm: type) -> str:
    """What ``type`` says for an algorithm: ``ppo``, ``reward_model``; ``module:Class`` for a user's own."""
    if not algorithm.__module__.startswith("plaudit."):
        return f"{algorithm.__module__}:{algorithm.__qualname__}"
    own = vars(algorithm).get("type_name")
    if isinstance(own, str):  # where the class is called by a name of several words in capitals
        return own
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", algorithm.__name__).lower()


@runtime_checkable
class Named(Protocol):
    """An algorithm some of whose values are known by a name of their own, such as Dr. GRPO."""

    @property
    def type_name(self) -> str:
        """The value of ``[algorithm] type``."""
        ...


def name_of(algorithm: object) -> str:
    """What ``type`` says for the values of an algorithm: ``dr_grpo``, where those of GRPO are Dr. GRPO's."""
    return algorithm.type_name if isinstance(algorithm, Named) else type_name(type(algorithm))


def specialise(job_class: type[J], name: str, where: str) -> type[J]:
    """The job class with the algorithm that ``type`` names: a relative, or a user's own; the class itself for its own.

    Raises:
        ConfigError: another command's algorithm, or a class that cannot be imported or is not an algorithm.
    """
    if not name or "algorithm" not in job_class.model_fields:
        return job_class
    own, plain = own_type(job_class), name.replace("-", "_")
    if plain == own:
        return job_class
    if plain in job_class.relatives:
        return with_algorithm(job_class, job_class.relatives[plain])
    if ":" not in name:
        known = " or ".join(f'"{each}"' for each in types(job_class))
        raise ConfigError(
            f"algorithm.type = {name!r}, but this command trains with {own!r}",
            where=where,
            cure=f'write type = {known}, use that algorithm\'s command, or name your own as "module:Class"',
        )
    return with_algorithm(job_class, load_algorithm(name, where))


def own_type(job_class: type[Job]) -> str:
    """The name of the algorithm that a command trains with by itself; empty for a job without one."""
    field = job_class.model_fields.get("algorithm")
    return type_name(field.annotation) if field is not None and isinstance(field.annotation, type) else ""


def types(job_class: type[Job]) -> tuple[str, ...]:
    """The values of ``[algorithm] type`` that a command takes by name."""
    return tuple(dict.fromkeys((own_type(job_class), *job_class.relatives)))


def with_algorithm(job_class: type[J], algorithm: object) -> type[J]:
    """The job class with another ``algorithm``: a class, or a value, whose fields become the defaults.

    The job class itself if it has that class already.
    """
    if job_class.model_fields["algorithm"].annotation is algorithm:
        return job_class
    if isinstance(algorithm, type):
        required = [
            f.name for f in dataclasses.fields(algorithm) if f.default is f.default_factory is MISSING
        ]
        default: Any = ... if required else Field(default_factory=algorithm)
    else:
        algorithm, default = type(algorithm), algorithm
    made: type[J] = create_model(
        job_class.__name__, __base__=job_class, __doc__=job_class.__doc__, algorithm=(algorithm, default)
    )
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
