"""Connections to clients that do not get on: half-open ones would fill the server until nobody else gets in.

A request must begin soon and then keep coming, a response must be taken, and one address has a share of all
connections.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from plaudit.annotate.server.settings import is_loopback

TICK = 1.0
"""Seconds between two looks at a connection."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for.

    Args:
        seconds: for a request, from the connection or the end of the response before.
        bytes_per_second: what has come extends the time at this rate, so large uploads over slow lines get through.
        stalled_seconds: how long a client may take nothing of a response.
        per_address: connections from one address. This machine is exempt, for a proxy on it speaks for everybody.
    """

    seconds: float = 20.0
    bytes_per_second: int = 8 << 10
    stalled_seconds: float = 30.0
    per_address: int = 128


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, closed when its client lets us wait.

    uvicorn's own timeout ends idle connections between two requests only, and one byte stops it. Time is counted in
    looks, not by the clock: a server that was busy for seconds must not blame its clients for it.
    """

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look, unless the address has its share already."""
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
        self._timer = self.loop.call_later(TICK, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What comes buys time."""
        self._received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """The next request has its time from now on."""
        self._waited, self._received = 0.0, 0
        super().on_response_complete()

    def _look(self) -> None:
        # Where reading is paused the app lets the client wait, not the other way round.
        asked = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.flow.read_paused
        self._waited += TICK if asked else 0.0
        unsent = self.transport.get_write_buffer_size()
        self._stalled = self._stalled + TICK if unsent and unsent == self._unsent else 0.0
        self._unsent = unsent
        allowed = self.patience.seconds + self._received / self.patience.bytes_per_second
        if self._waited > allowed or self._stalled > self.patience.stalled_seconds:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(TICK, self._look)


def _host(connection: Any) -> str:
    client: tuple[str, int] | None = connection.client
    return client[0] if client else ""
