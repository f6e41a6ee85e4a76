"""Every error that a user can cause: what is wrong and with which value, where, and what to do about it.

Exit codes follow sysexits.h where it has one: 65 bad data, 70 a fault of the program, 74 the machine, 75 stopped and
can be resumed, 78 bad configuration. 3 is a run that was ended by a limit or an alarm, with its results saved; 4 a gate
that was not passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal


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


class Unplanned(ModelError):
    """What a model needs of memory cannot be worked out in advance. Nothing else depends on that."""


class RewardError(PlauditError):
    """A reward that fails, or returns something that is not a finite number, too often."""

    code, exit_code = "REWARD", 65


class TrainingError(PlauditError):
    """A run that cannot go on, such as with weights of another model, or with responses from old weights."""

    code, exit_code = "TRAINING", 70


class Ended(TrainingError):
    """A run that ends before its last step, by a limit or an alarm. What it has reached is saved all the same.

    Attributes:
        how: "limit" (the KL), or "alarm" (gradients that are not finite, a reward that fails or is exploited).
        kind: of the alarm that says so; "": it has been raised already.
        run: the run directory with its model and figures; None before they are saved.
    """

    code, exit_code = "ENDED", 3

    def __init__(
        self, what: str, *, how: Literal["limit", "alarm"], kind: str, where: str = "", cure: str = ""
    ) -> None:
        super().__init__(what, where=where, cure=cure)
        self.how, self.kind = how, kind
        self.run: Path | None = None


class MachineError(PlauditError):
    """The machine refuses: no such device, no permission, a full disk, no memory, an input or output error."""

    code, exit_code = "SYSTEM", 74


class Lost(MachineError):
    """A machine of a run is gone, such as a worker that died. The run can go on with another from its last checkpoint.

    Attributes:
        run: the run directory; None where there is none yet.
        stacks: of its processes, if it hung; else empty.
    """

    run: Path | None = None
    stacks = ""


class Refused(PlauditError):
    """A gate was not passed: something that is allowed only where it is asked for, such as --anyway."""

    code, exit_code = "REFUSED", 4


class Stopped(PlauditError):
    """The run was asked to stop (SIGTERM, Ctrl-C) and can be resumed.

    Attributes:
        run: the run directory, if what it has reached so far was saved as a model; else None.
        abandoned: the step that was under way took too long and was given up: what is kept is the last checkpoint.
    """

    code, exit_code = "STOPPED", 75
    run: Path | None = None
    abandoned = False
