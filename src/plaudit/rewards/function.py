"""Your own function as a reward, and finding it by name."""

from __future__ import annotations

import asyncio
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

from plaudit.awaited import awaiting
from plaudit.errors import ConfigError
from plaudit.machine import TooSlow, time_limit
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.result import shortened, to_result
from plaudit.rewards.signature import read_signature

_CURE = "write path/file.py:function or module:function"
MOVED = {"plaudit.data.reviews": "plaudit.demo.reviews"}
"""Modules of reward functions that have moved: name in the configs of earlier versions -> name now."""


@runtime_checkable
class Named(Protocol):
    """Anything that says what it is called in metrics."""

    name: str


class FunctionReward:
    """A Python function, or anything that can be called, as a reward.

    What it is given depends on the names of its parameters: see `plaudit.rewards.signature`. For one response it
    returns a number, for a batch or a group a list of them. A mapping with ``score`` is a number with parts (verl); a
    `RewardResult` is taken as it is; None in the list of a function with ``completions`` means "not for this
    response" (TRL). An exception, or anything else, is an error of that rollout and never a reward of 0.

    An ``async`` function is awaited, several calls at the same time.

    The function runs in this process, so nothing saves the run from one that crashes it; a function that is named in
    the config runs in a process of its own instead (`IsolatedReward`).

    Args:
        fn: the function.
        name: in metrics; empty: the name of the function.
        timeout: seconds a call may take (as much for each response of a batch); 0: no limit. Python code is stopped,
            in the main thread, and so is an await; a call into C that does not come back is not.
        concurrency: calls of an async function that wait at the same time.
        columns: further columns of the data, which are names of parameters too.
        where: the config key, for errors.

    Raises:
        ConfigError: parameters that cannot be filled.
    """

    def __init__(
        self, fn: Callable[..., Any], name: str = "", *, timeout: float = 0.0, concurrency: int = 16,
        columns: Collection[str] = (), where: str = "reward",
    ) -> None:  # fmt: skip
        self.name = name or name_of(fn)
        self.signature = read_signature(fn, name_of(fn), columns, where)
        self.is_async = is_async(fn)
        self._fn, self._timeout, self._concurrency = fn, timeout, concurrency
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        units = self._units(rollouts)
        if self.is_async:
            rounds = len(rollouts) if self.signature.shape != "response" else len(units) // self._concurrency + 1
            with awaiting(f"the reward function {self.name}", self._timeout * rounds):
                answers = self._await(self._gathered([[rollouts[i] for i in unit] for unit in units]))
        else:
            answers = [self._called([rollouts[i] for i in unit]) for unit in units]
        results = {
            i: r
            for unit, answer in zip(units, answers, strict=True)
            for i, r in zip(unit, answer, strict=True)
        }
        return [results[i] for i in range(len(rollouts))]

    def _units(self, rollouts: Sequence[Rollout]) -> list[list[int]]:
        """What each call scores, as indices."""
        groups: dict[int, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            key = {"response": i, "batch": 0, "group": rollout.group_id}[self.signature.shape]
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    def _called(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        try:
            positions, names = self.signature.arguments(rollouts)
            limit = self._timeout * len(rollouts)
            said = f"the reward function {self.name}, asked about the prompt {rollouts[0].prompt.id!r}"
            with awaiting(said, limit), time_limit(limit):
                value = self._fn(*positions, **names)
                if inspect.isawaitable(
                    value
                ):  # of a function that does not look async, such as a lambda around one
                    value = self._await(_value(value))
            return self._results(value, len(rollouts))
        except (Exception, SystemExit, TooSlow) as error:
            return self._failed(f"raised {_describe(error)}", len(rollouts))

    async def _gathered(self, units: Sequence[Sequence[Rollout]]) -> list[list[RewardResult]]:
        # A bound, because thousands of open requests at once are what makes a server refuse them. The time of a call
        # starts when it is its turn: a call that has to wait for others is not slow itself.
        gate = asyncio.Semaphore(self._concurrency)

        async def one(rollouts: Sequence[Rollout]) -> list[RewardResult]:
            limit = self._timeout * len(rollouts)
            async with gate:
                try:
                    async with asyncio.timeout(limit or None) as clock:
                        positions, names = self.signature.arguments(rollouts)
                        return self._results(await self._fn(*positions, **names), len(rollouts))
                except (Exception, SystemExit) as error:
                    reason = f"took more than {limit:g} s" if clock.expired() else f"raised {_describe(error)}"
                    return self._failed(reason, len(rollouts))

        return await asyncio.gather(*map(one, units))

    def _await(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end in this reward's own event loop."""
        # One loop in a thread of its own, for as long as the reward lives. Not `asyncio.run`: it fails inside a
        # notebook, where a loop runs already, and it ends its loop, with which a client that the function keeps would
        # be lost.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_turn, args=(self._loop,), daemon=True)
            thread.start()
            weakref.finalize(self, _stop, self._loop, thread)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: nobody waits for the calls any more
            future.cancel()
            raise

    def _results(self, value: Any, count: int) -> list[RewardResult]:
        """What one call returned, as results."""
        if self.signature.shape == "response":
            return [to_result(value, self.name)]
        values = list(value.tolist() if hasattr(value, "tolist") else value)
        if len(values) != count:
            return self._failed(f"returned {len(values)} values for {count} responses", count)
        results = [to_result(each, self.name) for each in values]
        if self.signature.abstains:
            return [replace(r, abstains=v is None) for r, v in zip(results, values, strict=True)]
        return results

    def _failed(self, reason: str, count: int) -> list[RewardResult]:
        return [RewardResult(None, error=f"{self.name} {reason}")] * count


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(1.0)


async def _value(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def name_of(fn: Any) -> str:
    """What a function is called in metrics: its name, or that of its class; of a partial that of its function."""
    if isinstance(fn, functools.partial):
        return name_of(fn.func)
    if isinstance(fn, Named):
        return str(fn.name)
    return str(getattr(fn, "__name__", type(fn).__name__))


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a call gives something to await."""
    if isinstance(fn, functools.partial):
        return is_async(fn.func)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def with_options(
    fn: Callable[..., Any], options: Mapping[str, Any], where: str = "reward"
) -> Callable[..., Any]:
    """A class made with the options; a function with them bound by name.

    Raises:
        ConfigError: options that the class or function does not take, or a class whose objects cannot be called.
    """
    made: Any
    try:
        if not isinstance(fn, type):
            made = functools.partial(fn, **options) if options else fn
            if options:
                inspect.signature(fn).bind_partial(**options)
            return cast("Callable[..., Any]", made)
        made = fn(**options)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{name_of(fn)}({', '.join(f'{k}={v!r}' for k, v in options.items())}) failed: {_describe(error)}",
            where=where,
            cure=f"it has the parameters {_parameters(fn)}; give them in options = {{...}} of the table",
        ) from error
    if not callable(made):
        raise ConfigError(
            f"an object of the class {name_of(fn)} cannot be called",
            where=where,
            cure="give it a method __call__(self, prompt, response)",
        )
    return cast("Callable[..., Any]", made)


def _parameters(fn: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(fn))
    except (TypeError, ValueError):
        return "(unknown)"


def _describe(error: BaseException) -> str:
    """Type, message and line of an exception."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    quoted = shortened(text, 200)  # repr, so that a message of several lines is one line
    return quoted[1:].removesuffix(quoted[0]) + place


def load_function(spec: str, *, where: str = "reward", meant: str = "") -> Callable[..., Any]:
    """The function that ``path/file.py:function`` or ``module:function`` names.

    The code is run as it is: load only code you trust.

    Args:
        spec: file or module, a colon, and the name of the function (or ``Class.method``).
        where: the config key, for the error.
        meant: what else the user may have meant, for the error if there is no such module.

    Raises:
        ConfigError: no such file, module or function, or an error while it is imported.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{spec!r} does not name a function or class", where=where, cure=_CURE)
    module = _from_file(Path(source), where) if source.endswith(".py") else _from_module(source, where, meant)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise _missing(source, name, module, where)
        value = getattr(value, part)
    if not callable(value):
        raise ConfigError(
            f"{spec!r} is of type {type(value).__name__}, and no function", where=where, cure=_CURE
        )
    return cast("Callable[..., Any]", value)


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


def _from_module(name: str, where: str, meant: str) -> ModuleType:
    name = MOVED.get(name, name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {name!r}",
                where=where,
                cure=(f"did you mean {meant}? Else " if meant else "")
                + "install it, or give its file instead: path/file.py:function",
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
    # Classes too, but no imported ones: a reward may be a class, and an environment is one.
    own = {n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__}
    names = [n for n, v in vars(module).items() if (inspect.isfunction(v) or n in own) and n[0] != "_"]
    near = difflib.get_close_matches(name, names, n=1)
    listed = f"it has {', '.join(names[:10])}" if names else f"it has no functions or classes; {_CURE}"
    return ConfigError(
        f"{source} has no {name!r}",
        where=where,
        cure=f"did you mean {source}:{near[0]}?" if near else listed,
    )
