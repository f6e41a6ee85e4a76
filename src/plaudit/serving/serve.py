"""Running the server until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable

import uvicorn

from plaudit.annotate.server.connections import TimedConnection, listen
from plaudit.errors import Stopped
from plaudit.serving.app import create_app
from plaudit.serving.host import Host

STOP_SECONDS = 30
"""How long responses that are being drawn may take when the server is stopped."""
MOST_CONNECTIONS = 1024


def serve(host: Host, say: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM; then no request is taken any more, and those that are being answered are finished.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = host.settings
    try:
        opened = listen(settings.host, settings.port)
        say(f"{settings.url}  (Ctrl-C stops the server)")
        config = uvicorn.Config(
            create_app(host), log_level="warning", access_log=False, server_header=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=STOP_SECONDS, http=TimedConnection,
            proxy_headers=False, ws="none",
        )  # fmt: skip
        # uvicorn raises the signal again once it has ended; it has done what the signal asks for.
        with contextlib.suppress(KeyboardInterrupt, Stopped):
            uvicorn.Server(config).run(sockets=[opened])
    finally:
        host.close()
    say("stopped")
