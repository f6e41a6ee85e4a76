"""Running the app: the server, the address that is printed, the first admin."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.connections import TimedConnection
from plaudit.annotate.server.settings import ServeSettings
from plaudit.errors import ConfigError
from plaudit.preferences.store import people
from plaudit.preferences.store.engine import Store

KEEP_ALIVE_SECONDS = 15
MOST_CONNECTIONS = 512
STOP_SECONDS = 10
GARBAGE = (10_000, 20, 50)
"""Thresholds of Python's garbage collector; a request leaves nearly no cycles behind."""


def serve(
    store: Store,
    settings: ServeSettings,
    *,
    path: str = "/",
    browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C. Clients that do not get on are cut off; requests under way are finished.

    Args:
        store: the database.
        settings: where to listen and who may connect.
        path: the page to point people to.
        browser: open it in the browser of this machine.
        say: where the lines for people go.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    opened = listen(settings)
    say(f"{settings.url}{path}")
    link = first_admin(store, settings) if settings.auth else ""
    if link:
        say(f"Nobody is admin yet. Open this link to become it (it works once, for a week):\n{link}")
    if not settings.auth:
        say(
            "Nobody logs in: everybody with an account on this machine can open this page, and is its admin. "
            "On a shared machine use --auth."
        )
    say("Ctrl-C stops; every answer is stored as soon as it was given.")
    if browser:
        threading.Timer(1.0, webbrowser.open, [f"{settings.url}{path}"]).start()
    server = uvicorn.Server(server_config(create_app(store, settings), settings))
    gc.collect()
    gc.freeze()  # what is there now stays for good: looking through it again and again makes everybody wait
    gc.set_threshold(*GARBAGE)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[opened])


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """The server: no log of requests, no name of itself, an end to connections that say nothing."""
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
        proxy_headers=bool(settings.public_url),
        forwarded_allow_ips="127.0.0.1",
        h11_max_incomplete_event_size=64 << 10,
        http=TimedConnection,
        ws="none",
    )


def listen(settings: ServeSettings) -> socket.socket:
    """The socket, or a ConfigError that says what is in the way."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        what = f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
        raise ConfigError(
            what, where="--port", cure=f"choose another one, such as --port {settings.port + 1}"
        ) from error
    return found


def first_admin(store: Store, settings: ServeSettings) -> str:
    """An invitation for the first admin, if there is none who can log in; empty otherwise."""
    with store.write() as conn:
        if any(
            u.role == "admin" and u.name != people.LOCAL_USER and not u.disabled
            for u in people.list_users(conn)
        ):
            return ""
        return f"{settings.url}/join/{people.invite(conn, 'admin')}"
