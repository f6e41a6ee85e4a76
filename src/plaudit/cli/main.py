"""The front door: finds the command, and turns every failure into a few plain lines and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from plaudit import __version__
from plaudit.errors import ConfigError, MachineError, PlauditError, Stopped
from plaudit.jobs.registry import COMMANDS as TRAINING
from plaudit.machine import free_bytes, is_full, refusal, size

# name -> module of plaudit.cli, and what it does. Only commands that work are listed.
COMMANDS = {
    "quickstart": ("quickstart", "the whole pipeline on made-up annotators: SFT, reward model, PPO, report"),
    **{row.name: ("train", row.help) for row in TRAINING.values()},
    "loop": ("loop", "rounds of asking, reward model and policy as one object that goes on"),
    "evaluate": ("evaluate", "report card of a reward model or a policy, with intervals"),
    "select": ("compare", "which pairs to ask annotators about first: active selection"),
    "compare": ("compare", "which of several models people prefer; the pairs to ask them about"),
    "report": ("report", "one self-contained HTML page about a run, or several side by side"),
    "runs": ("runs", "the runs of a directory with their figures, or several side by side"),
    "frontier": ("report", "reward and gold over the distance from the start, with the predicted peak"),
    "export": ("export", "a trained model for transformers, vLLM, llama.cpp and Ollama, verified"),
    "chat": ("chat", "talk to a model or a run"),
    "serve": ("serve", "a model or a reward model behind an API that clients of OpenAI know"),
    "annotate": ("annotate", "a web app on which people compare, rank, rate and write responses"),
    "data": ("data", "check data files, convert between formats"),
    "config": ("config", "show the resolved settings, each with its source"),
    "doctor": ("doctor", "whether Plaudit works here; of a run: memory, template, rewards, time"),
    "plan": ("cluster.plan", "what a run would take on a cluster: memory of each GPU, time from your own runs"),
    "completion": ("completion", "a script that makes bash, zsh or fish complete commands and flags"),
}

AS_JSON = (*TRAINING, "quickstart", "loop", "evaluate", "select", "frontier", "export", "data")
"""Commands whose figures `--json` prints; those that write or list rows have a flag of that name of their own."""
RESUME = "the same command with --out DIR --resume goes on from the last checkpoint"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `plaudit.errors`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    with contextlib.suppress(ValueError):  # not in the main thread: the caller keeps its own handlers
        signal.signal(signal.SIGTERM, _stop)
    if not debug:  # what third parties warn each other of is not for users
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        return _dispatch(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) has left
        return 0
    except SystemExit as leave:  # argparse after --help
        return int(leave.code or 0)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        trains = COMMANDS.get(words[0], ("train", ""))[0] == "train"
        failure = explain(error, RESUME if trains else "run the command again")
        print(failure, file=sys.stderr)
        return failure.exit_code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"plaudit {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise ConfigError(f"there is no command {name!r}", where="command line", cure=_meant(name))
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # so that "my_module:MyAlgorithm" and reward functions are found
    run = importlib.import_module(f"plaudit.cli.{COMMANDS[name][0]}").run
    if name in AS_JSON and "--json" in words:
        from plaudit.cli.parser import json_only

        with json_only():
            return int(run(name, [word for word in words[1:] if word != "--json"]) or 0)
    return int(run(name, words[1:]) or 0)


def _meant(name: str) -> str:
    """Which command is meant by a word that is none: mistyped, or what other tools call it."""
    known = {command: f"did you mean `plaudit {command}`?" for command in COMMANDS}
    for row in TRAINING.values():
        known |= dict.fromkeys(row.elsewhere, known[row.name])
    known |= {"eval": known["evaluate"], "inference": known["chat"]}
    known["train"] = f"{known['sft']} Each way to train is a command: {', '.join(TRAINING)}"
    plain = name.lower().replace("_", "-").removesuffix(".py")
    close = [plain] if plain in known else difflib.get_close_matches(plain, known, n=1)
    return known[close[0]] if close else "`plaudit --help` lists the commands"


def overview() -> str:
    """The table of commands."""
    rows = "\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "Plaudit: reinforcement learning from human feedback, measured.\n\n"
        f"usage: plaudit COMMAND ...\n\n{rows}\n\n"
        "`plaudit COMMAND --help` lists the command's settings; --debug shows the traceback of an error;\n"
        "--json prints the figures as one JSON object to stdout, and everything else to stderr.\n"
        "First time here: `plaudit quickstart`."
    )


class Bug(PlauditError):
    """Something that should not have happened: our fault until shown otherwise."""

    code, exit_code = "BUG", 70


def explain(error: BaseException, stopped: str = RESUME) -> PlauditError:
    """Any exception as an error with where and cure; ``stopped`` is the cure of an interruption that has none."""
    if isinstance(error, KeyboardInterrupt):
        return Stopped("interrupted", cure=stopped)
    if isinstance(error, Stopped) and not error.cure:
        return Stopped(error.what, where=error.where, cure=stopped)
    if isinstance(error, PlauditError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    if _is_no_memory(error):
        cure = (
            "lower --tokens-per-microbatch, or use --gradient-checkpointing, or train adapters with --rank 8"
        )
        return MachineError(f"out of memory: {_first_line(error)}", where=where, cure=cure)
    if reason := refusal(error):
        cure = "check free space and permissions, or choose another --out; --debug shows the traceback"
        named = str(getattr(error, "filename", "") or "")
        if is_full(error):
            with contextlib.suppress(OSError):
                reason = f"{reason} ({size(free_bytes(Path(named or '.')))} free)"
        return MachineError(reason, where=named or where, cure=cure)
    if isinstance(error, ValidationError):  # of a value that a command hands on as it was typed
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = f"{name or error.title} = {first['input']!r} does not fit: {first['msg']}"
        return ConfigError(what, where="command line", cure="see `plaudit COMMAND --help` for what is allowed")
    cure = "run again with --debug and report the traceback in the project's issues (see CONTRIBUTING.md)"
    return Bug(f"unexpected {type(error).__name__}: {_first_line(error)}", where=where, cure=cure)


def _is_no_memory(error: BaseException) -> bool:
    # PyTorch has a class of its own for a GPU, and none for a CPU.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    words = ("can't allocate memory", "not enough memory")
    return named or (isinstance(error, RuntimeError) and any(text in str(error) for text in words))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped("stopped by SIGTERM")


if __name__ == "__main__":
    sys.exit(main())
