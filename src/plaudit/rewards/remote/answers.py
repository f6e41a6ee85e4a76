"""The answers of judges on disk, by content, with what they cost: nothing is asked and billed twice.

A file of JSON lines that is only ever added to, one line a reply: it can be read while a run goes on, several runs may
share it, and a run that was killed loses nothing but a line that was half written.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge replied, and what it took."""

    text: str
    finish: str = ""
    """Why it ended, in the endpoint's word: "stop", "length" ..."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    """By the prices at that time, in the user's currency."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was asked of an endpoint."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, reply: Reply) -> Spent:
        """With one reply more."""
        return Spent(
            self.calls + 1, self.tokens + reply.tokens_in + reply.tokens_out, self.cost + reply.cost
        )


class Answers:
    """The replies in a file, which several threads and runs may add to.

    Attributes:
        spent: what all replies in the file took, those of other runs included.

    Args:
        path: the file; made with the first reply.
        where: the config key, for errors.

    Raises:
        ConfigError: the file cannot be read or written.
    """

    def __init__(self, path: str, where: str) -> None:
        self.spent = Spent()
        self._path, self._where = Path(os.path.expanduser(path)), where
        self._replies: dict[str, Reply] = {}
        self._read, self._torn = 0, False
        self._lock = threading.Lock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"")
            self.refresh()
        except OSError as error:
            raise ConfigError(
                f"the file of answers {path} cannot be used: {error.strerror or error}",
                where=where,
                cure="name a file that can be written: cache = FILE.jsonl in the table of the judge",
            ) from None

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was made before."""
        return self._replies.get(key)

    def add(self, key: str, model: str, reply: Reply) -> None:
        """Write a reply down, before anybody uses it.

        Raises:
            OSError: the file cannot be written any more.
        """
        line = json.dumps({"key": key, "model": model, **asdict(reply)})
        with self._lock:
            self._refresh()
            # One write call: lines of several processes do not mix. After a line that was never ended, by a process
            # that was killed, a new one is begun first.
            self._append(("\n" * self._torn + line + "\n").encode())
            self._refresh()

    def refresh(self) -> None:
        """Read what other runs have added."""
        with self._lock:
            self._refresh()

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def _refresh(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole, end, rest = new.rpartition(b"\n")
        self._read += len(whole) + len(end)
        self._torn = bool(rest)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            key, reply = str(row["key"]), _reply(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # half a line: its question will be asked again
        # Each line was paid for, also where two runs asked the same at the same time.
        self.spent = self.spent.plus(reply)
        self._replies.setdefault(key, reply)


def _reply(row: Mapping[str, Any]) -> Reply:
    counts, cost = (int(row["tokens_in"]), int(row["tokens_out"])), float(row["cost"])
    if not math.isfinite(cost):  # with it no limit would ever be reached
        raise ValueError("no cost")
    return Reply(str(row["text"]), str(row["finish"]), *counts, cost)
