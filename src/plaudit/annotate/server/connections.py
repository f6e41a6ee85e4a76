"""Closing the connections of clients that send or read too slowly, and a limit to the connections of one address.

A request must begin soon and then keep coming, and its response must be read.
"""

# Without this, somebody who opens connections and sends one byte now and then holds all of them at no cost, until
# nobody else can connect ("slow loris").

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from plaudit.annotate.server.settings import is_loopback
from plaudit.errors import ConfigError

TICK = 1.0
"""Seconds between two checks of a connection."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server waits for a client.

    Args:
        seconds: for a whole request, from the connection or the end of the response before.
        bytes_per_second: bytes that have arrived extend that time at this rate, so that large uploads over slow lines
            succeed.
        stalled_seconds: how long a client may read nothing of a response.
        per_address: connections from one address. This machine is exempt: a proxy on it opens those of all people.
    """

    seconds: float = 20.0
    bytes_per_second: int = 8 << 10
    stalled_seconds: float = 30.0
    per_address: int = 128


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, closed when its client is too slow."""

    # uvicorn's own timeout ends idle connections between two requests only, and one byte of a request stops it. Time is
    # counted in checks, not by the clock: when the server itself was busy for some seconds, no check ran, and no client
    # is blamed for that time.

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the checks, or close the connection if its address has too many."""
        super().connection_made(transport)
        self._waited, self._received = 0.0, 0
        self._stalled, self._unsent = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None
        host = _host(self)
        if (
            not is_loopback(host)
            and sum(_host(c) == host for c in self.connections) > self.patience.per_address
        ):
            transport.abort()
            return
        self._timer = self.loop.call_later(TICK, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes: they extend the time of the request."""
        self._received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """The time of the next request begins."""
        self._waited, self._received = 0.0, 0
        super().on_response_complete()

    def _check(self) -> None:
        # While reading is paused the client waits for the app, so that time does not count.
        waiting = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.flow.read_paused
        self._waited += TICK if waiting else 0.0
        # The client reads nothing if the bytes that wait to be sent do not get fewer.
        unsent = self.transport.get_write_buffer_size()
        self._stalled = self._stalled + TICK if unsent and unsent == self._unsent else 0.0
        self._unsent = unsent
        allowed = self.patience.seconds + self._received / self.patience.bytes_per_second
        if self._waited > allowed or self._stalled > self.patience.stalled_seconds:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(TICK, self._check)


def listen(host: str, port: int) -> socket.socket:
    """The socket.

    Raises:
        ConfigError: the address is not of this machine, or in use; it says what is in the way.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        what = f"cannot listen on {host} port {port}: {error.strerror}"
        raise ConfigError(what, where="--port", cure=f"choose another one, such as --port {port + 1}") from error
    return opened


def _host(connection: Any) -> str:
    """The address of the client; uvicorn's protocols have no common type."""
    client: tuple[str, int] | None = connection.client
    return client[0] if client else ""
