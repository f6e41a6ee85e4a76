"""Every error a user can cause, with what happened, where, the value found, and the cure.

Exit codes follow sysexits.h where it has one: 65 bad data, 70 our own fault, 75 stopped and resumable, 78 bad config.
"""

from __future__ import annotations

from typing import ClassVar


class PlauditError(Exception):
    """Base of all errors that are printed without a traceback.

    Args:
        what: one sentence on what is wrong, with the value found.
        where: file and line, config key, or run directory.
        cure: what the user can do about it.
    """

    code: ClassVar[str] = "PLAUDIT"
    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.cure = what, where, cure

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.cure:
            lines.append(f"  fix:   {self.cure}")
        return "\n".join(lines)


class ConfigError(PlauditError):
    """A setting that does not exist, does not fit its type, or contradicts another one."""

    code, exit_code = "CONFIG", 78


class DataError(PlauditError):
    """A data file that is missing, unreadable, empty, or has bad rows."""

    code, exit_code = "DATA", 65


class ModelError(PlauditError):
    """A model or tokenizer that cannot be found, loaded, or combined as asked."""

    code, exit_code = "MODEL", 78


class RewardError(PlauditError):
    """A reward that fails, or returns something that is not a finite number, too often."""

    code, exit_code = "REWARD", 65


class TrainingError(PlauditError):
    """A run that must not go on: non-finite losses in a row, or a KL far over its budget."""

    code, exit_code = "TRAINING", 70


class Stopped(PlauditError):
    """The run was asked to stop (SIGTERM, Ctrl-C) and can be resumed."""

    code, exit_code = "STOPPED", 75
