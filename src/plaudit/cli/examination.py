"""`plaudit doctor` with the settings of a run: the examination of a job, on the console or as JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

from plaudit.cli.config import read_job, require
from plaudit.cli.parser import show
from plaudit.errors import PlauditError
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.files import jsonable
from plaudit.stages.doctor.examine import examine
from plaudit.stages.doctor.part import WIDTH, Part, printable


def examine_job(files: list[str], flags: list[str], as_json: bool) -> int:
    """Print what is found of a job, part by part as it is known; or all of it as JSON.

    Args:
        files: TOML files, before them the name of the command if they do not say it.
        flags: as the command takes them.
        as_json: one JSON object on stdout; after an error it holds what was found until then.
    """
    target, job, _ = read_job("doctor", files, flags)
    require(job, COMMANDS[target].required)
    # Before the first part, so that whoever reads JSON finds it on top; an error takes it back.
    found: dict[str, Any] = {"command": target, "ready": True}
    warnings = 0
    try:
        for part in examine(job):
            found[part.name] = part.figures | {"warnings": list(part.warnings), "notes": list(part.notes)}
            warnings += len(part.warnings)
            if not as_json:
                _show(part)
    except PlauditError as error:
        found["error"] = {"code": error.code, "what": error.what, "where": error.where, "fix": error.cure}
        found["ready"] = False
        raise
    finally:
        if as_json:
            show(json.dumps(jsonable(found), indent=2))
    if not as_json:
        noted = f"{warnings} thing{'s' * (warnings > 1)} to look at above (!). " if warnings else ""
        show(f"{noted}Ready: `plaudit {target}` with the same settings starts the run.")
    return 0


def _show(part: Part) -> None:
    wrapped = [
        textwrap.fill(printable(text), WIDTH, initial_indent=f"  {mark} ", subsequent_indent="    ")
        for mark, texts in (("!", part.warnings), ("-", part.notes))
        for text in texts
    ]
    text = "\n".join([part.name, *(f"  {line}" for line in part.lines), *wrapped, "", ""])
    # A terminal that cannot show a character gets its escape: printing it would raise.
    encoding = sys.stdout.encoding or "utf-8"
    show(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
