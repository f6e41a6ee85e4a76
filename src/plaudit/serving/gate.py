"""ASGI middleware in front of the endpoints: API keys, hosts, sizes of bodies, and the count of what was answered."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from plaudit.annotate.server.settings import is_loopback
from plaudit.errors import PlauditError
from plaudit.serving.metrics import Metrics
from plaudit.serving.settings import MOST_BODY, ServingSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
"""Paths that need no key: they say nothing but that the server is up."""
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
KNOWN = (
    "/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/score", "/v1/feedback", "/metrics", "/health",
)  # fmt: skip
"""Paths that the metrics tell apart: clients can make up any number of others."""


def error_body(failure: PlauditError, status: int) -> dict[str, Any]:
    """An error as clients of OpenAI read it, the cure in its message."""
    message = failure.what + (f"; {failure.cure}" if failure.cure else "")
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {"message": message, "type": kind, "param": failure.where or None, "code": failure.code.lower()}
    }


class Gate:
    """Refuses who has no key, who comes from a web page of somebody else, and what is too large."""

    def __init__(self, app: App, settings: ServingSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal:
                await _answer(counted, *refusal)
            else:
                await self.app(scope, _limited(receive), counted)
        finally:
            path = scope["path"] if scope["path"] in KNOWN else "other"
            self.metrics.answered(path, status or 499, time.monotonic() - began)

    def _refusal(self, scope: Scope) -> tuple[int, PlauditError] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > MOST_BODY:
            return 413, Rejected("the request is too large", cure=f"send at most {MOST_BODY >> 20} MiB")
        if self.settings.keys:
            scheme, _, key = headers.get(b"authorization", "").partition(" ")
            if scope["path"] in OPEN or (scheme.lower() == "bearer" and self.settings.knows(key.strip())):
                return None
            return 401, Rejected("no valid API key", cure="send it as: Authorization: Bearer KEY")
        # Without keys this machine's people may ask, and no web page that one of them happens to look at: it could let
        # its own name point to 127.0.0.1 (DNS rebinding), or post to that address.
        origin = headers.get(b"origin", "")
        names = (headers.get(b"host", ""), origin.partition("://")[2] if origin else "localhost")
        if not all(is_loopback(_name(name)) for name in names):
            return 403, Rejected("asked from a page or under a name of another machine", cure="use API keys")
        return None


class Rejected(PlauditError):
    """A request that does not come through the gate."""

    code = "REJECTED"


def _name(host: str) -> str:
    """The host without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _limited(receive: Receive) -> Receive:
    """A ``receive`` that ends the body where it becomes too large, also where no length was announced."""
    seen = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BODY:
            raise HTTPException(413, "the request is too large")
        return message

    return limited


async def _answer(send: Send, status: int, failure: PlauditError) -> None:
    body = json.dumps(error_body(failure, status)).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    head += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
