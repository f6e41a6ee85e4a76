"""Every error that a user can cause: what is wrong and with which value, where, and what to do about it.

Exit codes follow sysexits.h where it has one: 65 bad data, 70 a fault of the program, 74 the machine, 75 stopped and
can be resumed, 78 bad configuration.
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

    # Codes and exit codes are part of the interface: scripts and schedulers react to them (75: start the same command
    # again), so they are not renamed.
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
    """A run that has to end: several non-finite losses after each other, or a KL far over its limit."""

    code, exit_code = "TRAINING", 70


class MachineError(PlauditError):
    """The machine refuses: no such device, no permission, a full disk, no memory, an input or output error."""

    code, exit_code = "SYSTEM", 74


class Stopped(PlauditError):
    """The run was asked to stop (SIGTERM, Ctrl-C) and can be resumed."""

    code, exit_code = "STOPPED", 75
