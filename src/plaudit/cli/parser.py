"""argparse with our errors. The flags of a job are made from its settings."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from itertools import takewhile
from typing import Any, NoReturn

from pydantic import BaseModel

from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import MISSING, Setting, find, is_dict, nearest, settings
from plaudit.config.load import TYPE_KEY, Layer, algorithm_type, unknown
from plaudit.config.moved import former_switches, gone
from plaudit.config.sections import Job
from plaudit.data.reading.names import field_of
from plaudit.errors import ConfigError
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.rewarded import RewardedJob

LIST = "list of"
ANYWAY = "anyway"
"""A flag that is no setting; see `plaudit.stages.online.gate`."""
SEEDS = "seeds"
"""Another: how many times a job is trained, each time with the next seed; see `plaudit.cli.train`."""
TYPE = "--type"


class Parser(argparse.ArgumentParser):
    """No abbreviations, and a wrong command line is a ConfigError (exit 78) that names the nearest flag."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(
            prog=f"plaudit {prog}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        known = [o for action in self._actions for o in action.option_strings]
        strange = message.removeprefix("unrecognized arguments: ").split(" ")[0].split("=")[0]
        close = nearest(strange, known) if message.startswith("unrecognized") else ""
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            close = nearest(wrong[1], [name.strip("' ") for name in wrong[2].split(",")])
        cure = f"did you mean {close}?" if close else f"see `{self.prog} --help`"
        raise ConfigError(message, where="command line", cure=cure)


def split_files(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The TOML files before the first flag, and the flags."""
    files = list(takewhile(lambda word: not word.startswith("-"), argv))
    return files, list(argv[len(files) :])


def type_flag(flags: Sequence[str]) -> str:
    """The value of ``--type``, which decides what other flags there are; empty without one."""
    for word, following in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == TYPE:
            return value if equals else following
    return ""


def chosen(job_class: type[Job], layers: Sequence[Layer], flags: Sequence[str]) -> type[Job]:
    """The job class with the algorithm that ``--type`` names, or else the files."""
    named = type_flag(flags)
    return specialise(job_class, *((named, "command line, --type") if named else algorithm_type(layers)))


def parse_flags(command: str, job_class: type[BaseModel], argv: Sequence[str]) -> dict[str, Any]:
    """Overrides by dotted key from flags such as ``--kl-coef 0.1``. ``--help`` and ``--help-all`` print and exit."""
    table = settings(job_class)
    parser = job_parser(command, job_class, table, everything=HELP_ALL in argv)
    # Flags of earlier versions are read and answered with what took their place, but not shown.
    was = tuple(setting for setting in gone(job_class) if find(setting.name, table) is None)
    for setting in was:
        _add(parser, setting, shown=False)
    if issubclass(job_class, (RewardedJob, LoopJob)):
        about = "train on a reward model even if its own report card says that it may be no better than a coin"
        parser.add_argument(f"--{ANYWAY}", action="store_const", const=True, help=about)
    about = "train so many times, each with the next seed; report the spread, and whether they fall into two groups"
    parser.add_argument(f"--{SEEDS}", type=int, metavar="N", help=about)
    switches = former_switches(job_class)
    words = _with_values(_with_fields(argv, table), [s for s in table if s.key in switches])
    given = vars(parser.parse_args([_canonical(word, (*was, *table)) for word in words]))
    return {key: value for key, value in given.items() if value is not None}


def _with_fields(argv: Sequence[str], table: tuple[Setting, ...]) -> list[str]:
    """The flags, with ``--field prompt=ask`` for ``--input-key ask`` and its like, which other trainers have."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        flag, equals, value = word.partition("=")
        named = re.fullmatch(r"--(\w+)[-_]key", flag)
        meant = field_of(named[1]) if named and find(flag, table) is None else ""
        if not meant:
            words.append(word)
            continue
        if meant == "label" and any(s.name == "prompts_per_iteration" for s in table):
            meant = "answer"  # of prompts the label is what a response is checked against
        words += ["--field", f"{meant}={value if equals else next(rest, '')}"]
    return words


def add_field_flag(parser: argparse.ArgumentParser) -> None:
    """``--field`` for a command that reads data and is no job."""
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="which column a field is read from, where its name does not say it: prompt=ask",
    )


def _with_values(argv: Sequence[str], switches: Sequence[Setting]) -> list[str]:
    """The flags, with a value after each that had none because it was a switch: ``--no-x`` -> ``--x=false``."""
    said = {s.flag: f"{s.flag}=true" for s in switches} | {
        s.flag.replace("--", "--no-", 1): f"{s.flag}=false" for s in switches
    }
    pairs = zip(argv, [*argv[1:], "--"], strict=False)
    return [said[word] if word in said and _has_no_value(word, after) else word for word, after in pairs]


def _has_no_value(flag: str, after: str) -> bool:
    return flag.startswith("--no-") or after.startswith("--")


def _canonical(word: str, table: tuple[Setting, ...]) -> str:
    """A flag as the parser knows it: ``--kl_coef=1`` -> ``--kl-coef=1``, an alias -> the flag it means."""
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name in ("--help", HELP_ALL, TYPE, f"--{ANYWAY}", f"--{SEEDS}"):
        return word
    setting = find(name, table)
    negated = find(name.removeprefix("--no-"), table) if name.startswith("--no-") else None
    if setting is None and (negated is None or negated.annotation is not bool):
        raise unknown(name.lstrip("-"), table, "command line")
    return (setting.flag if setting else name) + equals + value


def job_parser(
    command: str, job_class: type[BaseModel], table: tuple[Setting, ...], everything: bool = True
) -> Parser:
    """A parser with one flag for each setting.

    Args:
        everything: its help shows all settings, grouped as the tables of the TOML file are; else the dozen that people
            change, an example, and how to see the others.
    """
    about = _first_paragraph(job_class)
    usage = f"plaudit {command} [CONFIG.toml ...] [--flag value ...]"
    parser = Parser(command, about, usage=usage, epilog=GUIDE if everything else _example(command, table))
    parser.add_argument(HELP_ALL, action="help", help=f"show all {len(table)} settings and exit")
    groups: dict[str, Any] = {}
    for setting in table:
        # Short help has one list: which table of the file a setting is in does not help to choose it.
        section = setting.section if everything or setting.section == "algorithm" else ""
        if section not in groups:
            groups[section] = _group(parser, job_class, section, "job" if everything else "what people change")
        _add(groups[section], setting, everything or setting.is_everyday, short=not everything)
    return parser


HELP_ALL = "--help-all"
EXAMPLES = {
    "--model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "--policy": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "--reward": "rule:contains:please",
}
DATA = {"sft": "demonstrations.jsonl", "reward": "preferences.jsonl", "dpo": "preferences.jsonl"}


def _example(command: str, table: tuple[Setting, ...]) -> str:
    """A command line that runs as it stands where the data file is there, and where to read on."""
    flags = {s.flag: EXAMPLES[s.flag] for s in table if not s.section and s.flag in EXAMPLES}
    flags |= {"--dataset": DATA.get(command, "prompts.jsonl"), "--out": f"runs/{command}"}
    lines = " \\\n      ".join(f"{flag} {value}" for flag, value in flags.items())
    return (
        f"example:\n  plaudit {command} {lines}\n\n"
        f"All {len(table)} settings: plaudit {command} {HELP_ALL}\n{GUIDE}"
    )


def _first_paragraph(owner: object) -> str:
    """Of a docstring, wrapped: argparse leaves descriptions as they are."""
    return textwrap.fill(" ".join((owner.__doc__ or "").split("\n\n")[0].split()), 78)


def _group(parser: Parser, job_class: type[BaseModel], section: str, untitled: str) -> Any:
    """The flags of a table; those of the algorithm start with which one it is, and what it does."""
    if section != "algorithm" or not issubclass(job_class, Job):
        return parser.add_argument_group(f"[{section}]" if section else untitled)
    about = _first_paragraph(job_class.model_fields["algorithm"].annotation or job_class)
    group = parser.add_argument_group("[algorithm]", about)
    names = f"{', '.join(types(job_class))}, or your own as module:Class"
    group.add_argument(TYPE, dest=TYPE_KEY, metavar="NAME", help=f"Which algorithm, and so which flags: {names}")
    return group


GUIDE = """\
Files come before flags; later files win over earlier ones, flags win over
files. `plaudit config CONFIG.toml` shows the values and where each is from.
docs/reference/config.md explains every setting."""


def _add(group: Any, setting: Setting, shown: bool = True, short: bool = False) -> None:
    default = "required" if setting.default is MISSING else f"default: {_short(setting.default)}"
    words = setting.in_short if short else setting.help
    text = f"{words} ({default})".replace("%", "%%")
    shape: dict[str, Any] = {"metavar": setting.expected.split(" ")[0].upper()}
    if setting.annotation is bool:
        group.add_argument(
            f"--no-{setting.flag[2:]}",
            dest=setting.key,
            action="store_const",
            const="false",
            help=argparse.SUPPRESS,
        )
        shape = {"nargs": "?", "const": "true", "metavar": "true|false"}
    elif is_dict(setting.annotation):
        shape = {"action": "append", "metavar": "NAME=COLUMN"}
    elif setting.key == "dataset":
        shape = {"nargs": "+", "action": "extend", "metavar": "FILE"}
    elif LIST in setting.expected:
        shape = {"nargs": "*", "metavar": "VALUE"}
    elif "|" in setting.expected:
        shape = {"metavar": setting.expected.replace(" ", "")}
    group.add_argument(setting.flag, dest=setting.key, help=text if shown else argparse.SUPPRESS, **shape)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def show(text: str) -> None:
    """Print to stdout: what the user asked for, as opposed to progress and errors, which go to stderr."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


_FIGURES: ContextVar[dict[str, Any] | None] = ContextVar("figures", default=None)


def answer(values: Mapping[str, Any]) -> None:
    """The figures that a command has found; the last call counts. Without ``--json`` nothing is done with them."""
    figures = _FIGURES.get()
    if figures is not None:
        figures.clear()
        figures.update(values)


@contextlib.contextmanager
def json_only() -> Iterator[None]:
    """Within it, what is printed goes to stderr; at its end the answer goes to stdout, also after an error."""
    from plaudit.runs.files import jsonable

    figures: dict[str, Any] = {}
    token = _FIGURES.set(figures)
    stdout = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _FIGURES.reset(token)
        # A run that a limit or an alarm has ended leaves with an error, and has its figures all the same.
        if figures:
            stdout.write(json.dumps(jsonable(figures), indent=2, ensure_ascii=False) + "\n")
