"""Running the app: the server, the address that is printed, the first admin."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.connections import TimedConnection, listen
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.store import people
from plaudit.preferences.store.engine import Store

KEEP_ALIVE_SECONDS = 15
MOST_CONNECTIONS = 512
STOP_SECONDS = 10
GARBAGE = (10_000, 20, 50)
"""Thresholds of Python's garbage collector: it runs less often than usual, for a request leaves nearly no cycles."""


def serve(
    store: Store,
    settings: ServeSettings,
    *,
    path: str = "/",
    browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C; requests that are being answered then are finished.

    Args:
        store: the database.
        settings: where to listen and who may connect.
        path: the page whose address is printed.
        browser: open it in the browser of this machine.
        say: prints the lines for people.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    # The port is opened before the address is printed: whoever opens it at once is served as soon as the app is up.
    opened = listen(settings.host, settings.port)
    say(f"{settings.url}{path}")
    link = first_admin(store, settings) if settings.auth else ""
    if link:
        say(f"Nobody is admin yet. Open this link to become it (it works once, for a week):\n{link}")
    if not settings.auth:
        say(
            "Nobody logs in: everybody with an account on this machine can open this page, and is its admin. "
            "On a shared machine use --auth."
        )
    if settings.secure and not settings.proxy:
        say(
            "No proxy is named, so all people seem to come from the proxy's address and share its limit on logging in. "
            "Name it, such as --proxy 127.0.0.1."
        )
    say("Ctrl-C stops the server. Every answer is stored as soon as it is given.")
    if browser:
        threading.Timer(1.0, webbrowser.open, [f"{settings.url}{path}"]).start()
    server = uvicorn.Server(server_config(create_app(store, settings), settings))
    gc.collect()
    gc.freeze()  # what is loaded now stays until the end: the collector need not go through it while requests wait
    gc.set_threshold(*GARBAGE)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[opened])


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """The server's configuration: no log of requests, no header with its name, idle connections closed."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        proxy_headers=bool(settings.proxy),
        forwarded_allow_ips=settings.proxy,
        h11_max_incomplete_event_size=64 << 10,
        http=TimedConnection,
        ws="none",
    )


def first_admin(store: Store, settings: ServeSettings) -> str:
    """The address of an invitation for the first admin; empty if there is an admin who can log in."""
    # There is no default password: the right to become admin goes to whoever can read this terminal.
    with store.write() as conn:
        if any(
            u.role == "admin" and u.name != people.LOCAL_USER and not u.disabled
            for u in people.list_users(conn)
        ):
            return ""
        return f"{settings.url}/join/{people.invite(conn, 'admin')}"
