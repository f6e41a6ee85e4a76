"""What a security review found, and that it stays away: half-open connections, unread bodies."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from annotating import Unlimited, free_port

from plaudit.annotate.server import connections
from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.connections import Patience, TimedConnection, listen
from plaudit.annotate.server.serve import server_config
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.store.engine import Store

OPENED: list[socket.socket] = []
HEAD = b"Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"


class Hasty(TimedConnection):
    """Waits for a second only: short for a test, and yet more than a busy machine makes a client wait."""

    patience = Patience(seconds=1.0, bytes_per_second=4096, stalled_seconds=2.0, per_address=3)


HOUR = 3600.0
MADE: list["Unhurried"] = []


class Unhurried(TimedConnection):
    """Time passes only where a test says so: a look is an hour, a client has two, and 2 KiB buy one more."""

    patience = Patience(seconds=2 * HOUR, bytes_per_second=2048 / HOUR, stalled_seconds=2 * HOUR)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        MADE.append(self)

    def pass_hours(self, hours: int, received: int = 0) -> None:
        """So many looks, as soon as so many bytes are there."""
        until, done = time.monotonic() + 600, threading.Event()
        while self._received < received:
            assert time.monotonic() < until, "what was sent never came"
            time.sleep(0.005)
        self.loop.call_soon_threadsafe(lambda: ([self._check() for _ in range(hours)], done.set()))
        assert done.wait(600)


def newest(n: int) -> Unhurried:
    """The n-th connection, once it is made."""
    until = time.monotonic() + 600
    while len(MADE) < n:
        assert time.monotonic() < until, "it was never made"
        time.sleep(0.005)
    return MADE[n - 1]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.clear()
    monkeypatch.setattr(connections, "TICK", HOUR)


@contextlib.contextmanager
def hasty_server(store: Store, most: int, kind: type[TimedConnection] = Hasty) -> Iterator[int]:
    """The port of the server as it is served, with less patience and fewer connections."""
    settings = ServeSettings(port=free_port())
    config = server_config(create_app(store, settings, Unlimited()), settings)
    config.http, config.limit_concurrency = kind, most
    server = uvicorn.Server(config)
    opened = listen(settings.host, settings.port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        yield settings.port
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TICK", 0.05)


@pytest.fixture(autouse=True)
def opened() -> Iterator[list[socket.socket]]:
    """Sockets of a test, closed after it."""
    yield OPENED
    while OPENED:
        OPENED.pop().close()


def connect(port: int, first: bytes) -> socket.socket:
    for _ in range(2400):
        try:
            OPENED.append(socket.create_connection(("127.0.0.1", port), timeout=120))
        except ConnectionRefusedError:
            time.sleep(0.05)
            continue
        OPENED[-1].sendall(first)
        return OPENED[-1]
    raise AssertionError("the server did not start")


def status(port: int, request: bytes) -> bytes:
    with contextlib.suppress(ConnectionError), connect(port, request) as made:
        return made.recv(4096)[:12]
    return b""


def closed_within(made: socket.socket, seconds: float) -> bool:
    made.settimeout(seconds)
    try:
        while made.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


GET = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
HALVES = {
    "silent": b"",
    "half a head": b"GET /login HTTP/1.1\r\nHost: 127.0",
    "half a body": b"POST /p/x/undo HTTP/1.1\r\n" + HEAD + b"Content-Length: 900\r\n\r\nkey=",
    "a byte after a response": GET.replace(b"Connection: close\r\n", b"") + b"G",
}


@pytest.mark.parametrize("kind", HALVES)
def test_half_open_connections_are_closed(sqlite_store: Store, quick: None, kind: str) -> None:
    """More of them than the server takes, and yet it answers soon after."""
    with hasty_server(sqlite_store, most=8) as port:
        connect(port, GET).close()
        held = [connect(port, HALVES[kind]) for _ in range(12)]
        assert [closed_within(each, 600) for each in held] == [True] * 12
        assert status(port, GET).startswith(b"HTTP/1.1 30")


def test_a_trickle_does_not_keep_a_connection(sqlite_store: Store, quick: None) -> None:
    with hasty_server(sqlite_store, most=8) as port:
        made = connect(port, b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < began + 600:
                made.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() < began + 600


def test_a_slow_but_steady_body_gets_through(sqlite_store: Store, unhurried: None) -> None:
    """64 KiB in 18 hours, which is longer than a silent client has."""
    with hasty_server(sqlite_store, 8, Unhurried) as port:
        silent = connect(port, b"POST /p/x/undo HTTP/1.1\r\n")
        newest(1).pass_hours(3)
        assert closed_within(silent, 600)
        start = b"POST /p/x/undo HTTP/1.1\r\n" + HEAD + b"Content-Length: 65536\r\nConnection: close\r\n\r\n"
        made = connect(port, start)
        slow = newest(2)
        for k in range(1, 33):
            made.sendall(b"k" * 2048)
            if k < 32:
                slow.pass_hours(k % 2, received=len(start) + 2048 * k)
        assert made.recv(64).startswith(b"HTTP/1.1 403")


def test_a_response_that_is_not_taken_is_given_up(
    sqlite_store: Store, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    lost = Hasty.connection_lost
    monkeypatch.setattr(Hasty, "connection_lost", lambda self, exc: (lost(self, exc), ended.set())[0])
    with hasty_server(sqlite_store, most=8) as port:
        connect(port, GET).close()
        ended.clear()
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.connect(("127.0.0.1", port))
            made.sendall(b"GET /static/vendor/htmx.min.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
            assert ended.wait(600)


def test_one_address_has_its_share(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is exempt; here it is made to look like another one."""
    monkeypatch.setattr(Hasty, "patience", Patience(per_address=3))
    with hasty_server(sqlite_store, most=50) as port:
        held = [connect(port, b"GET /login") for _ in range(5)]
        assert status(port, GET).startswith(b"HTTP/1.1 30")
        monkeypatch.setattr(connections, "is_loopback", lambda host: False)
        assert closed_within(connect(port, b""), 600)
        for each in held:
            each.close()
        until = time.monotonic() + 600
        while not status(port, GET).startswith(b"HTTP/1.1 30"):
            assert time.monotonic() < until


def test_time_is_counted_for_the_next_request_anew(sqlite_store: Store, unhurried: None) -> None:
    with hasty_server(sqlite_store, 8, Unhurried) as port:
        made = connect(port, b"")
        for _ in range(6):
            made.sendall(GET.replace(b"Connection: close\r\n", b""))
            assert made.recv(65536).startswith(b"HTTP/1.1")
            newest(1).pass_hours(2)
