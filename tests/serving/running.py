"""What the tests of the server have in common: a server as it is run, and a reward model whose scores are known."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from plaudit.annotate.server.connections import TimedConnection, listen
from plaudit.serving.app import create_app
from plaudit.serving.host import Host


class Letters:
    """Scores a response by its length, so that a test knows the scores."""

    def score_texts(self, prompts: Any, responses: Any, truncated: Any) -> list[float]:
        return [len(text) - 0.5 * cut for text, cut in zip(responses, truncated, strict=True)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Served:
    """A server that runs: its host, its address, and a client."""

    def __init__(self, host: Host) -> None:
        self.host, self.url = host, f"http://127.0.0.1:{host.settings.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def ask(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)


@contextlib.contextmanager
def serving(host: Host) -> Iterator[Served]:
    config = uvicorn.Config(create_app(host), log_level="critical", http=TimedConnection, lifespan="off")
    server = uvicorn.Server(config)
    sockets = [listen("127.0.0.1", host.settings.port)]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    served = Served(host)
    try:
        yield served
    finally:
        served.client.close()
        server.should_exit = True
        thread.join(30)
