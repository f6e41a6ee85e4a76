"""Frozen values of settings: what an algorithm is. Bounds stand on the field and are checked when a value is made.

    @settings_value
    class Toy:
        kl_coef: NotNegative = 0.05
        ""Weight of the KL.""

`Toy(kl_coef=-1)` is a ConfigError that names the setting, its bounds and its help text. A value that is read from a
file is checked against the same bounds by pydantic, which names the line as well.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter, ValidationError

from plaudit.config.fields import Setting, settings
from plaudit.config.foreign import ALIASES, REASONS
from plaudit.config.moved import renewed
from plaudit.errors import ConfigError

C = TypeVar("C", bound=type)

Count = Annotated[int, Ge(1)]
CountOrNone = Annotated[int, Ge(0)]
"""0 switches something off, or stands for all."""
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Mislabelled = Annotated[float, Ge(0), Lt(0.5)]
"""Share of labels that are assumed to be wrong: from a half on, they would say the opposite."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings_value(cls: C) -> C:
    """A frozen dataclass with slots and keyword arguments, each checked against the type and bounds of its field.

    Names of earlier versions are understood as `renewed` says.

    Raises:
        ConfigError: when a value is made: a setting out of its bounds, or one that is gone and has no equal.
    """
    made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    plain = made.__init__

    @functools.wraps(plain)
    def checked(self: Any, **given: Any) -> None:
        given = renewed(made, given, {name: setting.default for name, (setting, _) in _checks(made).items()})
        for name, value in given.items():
            # A name that is no field goes through: the dataclass itself refuses it.
            if name in _checks(made):
                _check(made, name, value)
            elif name in ALIASES or name in REASONS:
                raise _elsewhere(made, name)
        plain(self, **given)

    made.__init__ = checked
    return made


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings_part(cls: C) -> C:
    """Settings that several values share, as a further base of each of them, so that they are declared once.

    The class needs ``__slots__ = ()``: Python lets a class with slots have only one base with slots of its own.
    """
    assert vars(cls).get("__slots__") == (), "a part has no slots; the value that has it as a base makes them"
    part: Any = dataclass(frozen=True, kw_only=True)(cls)
    return cast("C", part)


@functools.cache
def _checks(owner: type) -> dict[str, tuple[Setting, TypeAdapter[Any]]]:
    # Not when the class is made: type hints of a module can only be resolved once it has been imported.
    return {setting.key: (setting, TypeAdapter(setting.annotation)) for setting in settings(owner)}


def _elsewhere(owner: type, name: str) -> ConfigError:
    """The error for a name of another tool, with where the same is said here."""
    keys = ALIASES.get(name, ())
    own = [key.rpartition(".")[2] for key in keys if key.startswith("algorithm.")]
    own = [key for key in own if key in _checks(owner)]
    run = [key.rpartition(".")[2] for key in keys if not key.startswith("algorithm.")]
    call = f"plaudit.train(plaudit.{owner.__name__}(...), "
    if own:
        cure = f"write {own[0]}="
    elif run:
        cure = f"it is a setting of the run: {call}{run[0]}=...)"
    else:
        cure = REASONS.get(name, "this algorithm has no such setting")
    return ConfigError(f"{owner.__name__} has no setting {name}", where=f"{owner.__name__}({name}=...)", cure=cure)


def _check(owner: type, name: str, value: Any) -> None:
    setting, adapter = _checks(owner)[name]
    try:
        adapter.validate_python(value)
    except ValidationError:
        raise ConfigError(
            f"{name} = {value!r} does not fit, expected {setting.expected}",
            where=f"[algorithm] {name}",
            cure=f"{setting.flag} takes {setting.expected}: {setting.help}",
        ) from None
