"""Your own function as a reward, and finding it by name."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.result import shortened, to_result

SINGLE = ("prompt", "messages", "response", "answer")
BATCH = ("prompts", "messages", "responses", "answers")
_CURE = "write path/file.py:function or module:function"


class FunctionReward:
    """A Python function as a reward. What it is given depends on the names of its parameters:

    - ``prompt``: text of the prompt (several messages: ``Human:`` and ``Assistant:`` turns); ``messages``: it
      as a list of ``{"role", "content"}``; ``response``: text without special tokens; ``answer``: the known
      answer, or None. It returns a number.
    - ``prompts``, ``messages``, ``responses``, ``answers``: the same for the whole batch, as lists of equal
      length. It returns a list of numbers.

    Two or three parameters with other names are taken as prompt, response and answer. An exception, or
    anything that is not a finite number, is an error of that rollout and never a reward of 0.

    The function runs in this process, so nothing saves the run from one that crashes it; a function that is named in
    the config runs in a process of its own instead (`IsolatedReward`).

    Args:
        fn: the function.
        name: in metrics; empty: the name of the function.
        timeout: seconds a call may take (as much for each response of a batch); 0: no limit. Python code is stopped,
            in the main thread; a call into C that does not come back is not.

    Raises:
        ConfigError: parameters that cannot be filled.
    """

    def __init__(self, fn: Callable[..., Any], name: str = "", *, timeout: float = 0.0) -> None:
        self.name = name or getattr(fn, "__name__", type(fn).__name__)
        self._fn = fn
        self._wanted, self._by_name = _parameters(fn, self.name)
        self.takes_batches = "responses" in self._wanted
        self._timeout = timeout

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        if not rollouts:
            return []
        if self.takes_batches:
            return self._score_batch(rollouts)
        return [self._score(r) for r in rollouts]

    def _score(self, rollout: Rollout) -> RewardResult:
        try:
            with time_limit(self._timeout):
                value = self._call(_inputs(rollout))
            return to_result(value, self.name)
        except (Exception, SystemExit, TooSlow) as error:
            return RewardResult(None, error=f"{self.name} raised {_describe(error)}")

    def _score_batch(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        rows = [_inputs(r) for r in rollouts]
        single = dict(zip(BATCH, SINGLE, strict=True))
        columns = {name: [row[single[name]] for row in rows] for name in BATCH}
        try:
            with time_limit(self._timeout * len(rows)):
                values = self._call(columns)
            values = list(values.tolist() if hasattr(values, "tolist") else values)
        except (Exception, SystemExit, TooSlow) as error:
            return [RewardResult(None, error=f"{self.name} raised {_describe(error)}")] * len(rows)
        if len(values) != len(rows):
            reason = f"{self.name} returned {len(values)} values for {len(rows)} responses"
            return [RewardResult(None, error=reason)] * len(rows)
        return [to_result(value, self.name) for value in values]

    def _call(self, inputs: dict[str, Any]) -> Any:
        if self._by_name:
            return self._fn(**{name: inputs[name] for name in self._wanted})
        return self._fn(*(inputs[name] for name in self._wanted))


class TooSlow(BaseException):
    """A call took longer than it may. No Exception, so that a function's own ``except Exception`` lets it through."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, Python code of the main thread is stopped with `TooSlow` after so many seconds; 0: no limit."""
    if (
        not seconds
        or not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _inputs(rollout: Rollout) -> dict[str, Any]:
    content = rollout.prompt.content
    turns = [("user", content)] if isinstance(content, str) else [(m.role, m.content) for m in content]
    return {
        "prompt": plain_text(content),
        "messages": [{"role": role, "content": text} for role, text in turns],
        "response": rollout.response,
        "answer": rollout.prompt.answer,
    }


def _parameters(fn: Callable[..., Any], name: str) -> tuple[tuple[str, ...], bool]:
    """Which inputs the function wants, and whether they are passed by name."""
    try:
        found = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return ("prompt", "response"), False  # a builtin without a signature
    plain = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in plain if p.default is p.empty]
    known = BATCH if any(p.name == "responses" for p in plain) else SINGLE
    nameable = [p for p in plain if p.kind is not p.POSITIONAL_ONLY]
    wanted = tuple(p.name for p in nameable if p.name in known)
    if wanted and all(p.name in wanted for p in required):
        return wanted, True
    if not wanted and len(required) in (2, 3) and all(p.kind is not p.KEYWORD_ONLY for p in required):
        return ("prompt", "response", "answer")[: len(required)], False
    raise ConfigError(
        f"the reward function {name}{inspect.signature(fn)} has parameters that cannot be filled",
        where="reward",
        cure="use parameters among prompt, messages, response, answer (for a batch: their plurals)",
    )


def _describe(error: BaseException) -> str:
    """Type, message and line of an exception."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return shortened(text, 200).strip("'\"") + place


def load_function(spec: str, *, where: str = "reward") -> Callable[..., Any]:
    """The function that ``path/file.py:function`` or ``module:function`` names.

    The code is run as it is: load only code you trust.

    Args:
        spec: file or module, a colon, and the name of the function (or ``Class.method``).
        where: the config key, for the error.

    Raises:
        ConfigError: no such file, module or function, or an error while it is imported.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{spec!r} does not name a function", where=where, cure=_CURE)
    module = _from_file(Path(source), where) if source.endswith(".py") else _from_module(source, where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise _missing(source, name, module, where)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{spec!r} is a {type(found).__name__}, not a function", where=where, cure=_CURE)
    return found


def _from_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        cure = f"did you mean {path.parent / near[0]}?" if near else f"check the path; {_CURE}"
        raise ConfigError(f"there is no file {path}", where=where, cure=cure)
    name = f"plaudit_reward_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(str(path), error, where) from error
    return module


def _from_module(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {name!r}",
                where=where,
                cure="install it, or give its file instead: path/file.py:function",
            ) from error
        raise _broken(name, error, where) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error, where) from error


def _broken(source: str, error: BaseException, where: str) -> ConfigError:
    frames = traceback.extract_tb(error.__traceback__)
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    file = error.filename if isinstance(error, SyntaxError) else frames[-1].filename if frames else source
    return ConfigError(
        f"{source} cannot be imported: {type(error).__name__}: {error}",
        where=f"{where} ({Path(str(file)).name}:{line})",
        cure="make it importable by itself first",
    )


def _missing(source: str, name: str, module: ModuleType, where: str) -> ConfigError:
    functions = [n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_")]
    near = difflib.get_close_matches(name, functions, n=1)
    listed = f"its functions: {', '.join(functions[:10])}" if functions else f"it has no functions; {_CURE}"
    return ConfigError(
        f"{source} has no {name!r}",
        where=where,
        cure=f"did you mean {source}:{near[0]}?" if near else listed,
    )
