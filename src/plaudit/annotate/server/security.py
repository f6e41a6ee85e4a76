"""Passwords (argon2id), and the ASGI middleware around every request: allowed hosts, body sizes, security headers."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from plaudit.annotate.server.settings import ServeSettings
from plaudit.errors import DataError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY = 1 << 20
MOST_UPLOAD = 32 << 20
UPLOADS = ("/import",)
"""Ends of the paths that take files; only admins may use them."""
SESSION = "plaudit_session"
"""The cookie of somebody who is logged in."""
VISIT = "plaudit_visit"
"""The cookie of somebody who is not: forms need a secret that other sites do not know."""

# No inline scripts or styles, nothing from other servers: a text of a model that got through as HTML could still not
# run anything, nor tell another server who reads it.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer browsers send forms with "Origin: null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class TooLarge(HTTPException):
    """The body is larger than allowed; raised inside the app where it reads the body."""

    def __init__(self) -> None:
        super().__init__(413, "the request is too large")


class Shield:
    """ASGI middleware: refuses unknown hosts and large bodies, adds headers, and sets the cookies of the app."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        always = {"strict-transport-security": "max-age=31536000"} if settings.secure else {}
        self._static = _encoded(HEADERS | always)
        self._fresh = _encoded(HEADERS | always | {"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])  # ASGI gives their names in small letters
        scope.setdefault("state", {})["cookies"] = {}
        guarded = self._guard_send(scope, send)
        # DNS rebinding: a site can let its own name point to 127.0.0.1, and its scripts then speak to this app with the
        # browser's consent. The name in the Host header gives it away.
        if _host(headers.get(b"host", b"").decode("latin-1")) not in self.settings.hosts:
            await _refuse(guarded, 421, "this server does not go by that name")
            return
        most = MOST_UPLOAD if scope["path"].endswith(UPLOADS) else MOST_BODY
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(guarded, 413, f"the request is larger than {most >> 20} MiB")
            return
        # The client has left, or was cut off: there is nobody to answer, and no fault to log.
        with contextlib.suppress(ClientDisconnect):
            await self.app(scope, _limited(receive, most), guarded)

    def _guard_send(self, scope: Scope, send: Send) -> Send:
        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message.get("headers", [])}
                extra = self._static if scope["path"].startswith("/static/") else self._fresh
                added = [pair for pair in extra if pair[0] not in own]
                added += [(b"set-cookie", self._cookie(*pair)) for pair in scope["state"]["cookies"].items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return guarded

    def _cookie(self, name: str, value: str) -> bytes:
        # HttpOnly: no script can read it. SameSite=Lax: other sites' forms do not carry it.
        age = 14 * 86400 if value else 0
        secure = "; Secure" if self.settings.secure else ""
        return f"{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}".encode()


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _host(header: str) -> str:
    """The host without the port."""
    if header.startswith("["):
        return header[: header.find("]") + 1].lower()
    return header.partition(":")[0].lower()


def _limited(receive: Receive, most: int) -> Receive:
    """A ``receive`` that stops at ``most`` bytes, also where no length was announced."""
    seen = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLarge
        return message

    return limited


async def _refuse(send: Send, status: int, why: str) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": why.encode()})


# Passwords

SHORTEST, LONGEST = 10, 200
COMMON = frozenset(
    "password password1 password123 passwordpassword 1234567890 12345678910 123456789012 qwertyuiop qwerty12345 "
    "iloveyou12 administrator letmein123 welcome123 abcdefghij 0123456789 1111111111 0000000000".split()
)
# The least memory that OWASP recommends for argon2id, and one pass more: slow to guess in bulk, even on a GPU.
_HASHER = PasswordHasher(time_cost=3, memory_cost=19_456, parallelism=1)
_NOBODY = _HASHER.hash("nobody has this password")


def hash_password(password: str, name: str) -> str:
    """The hash to store; a DataError for a password that is too short, too long, or easy to guess."""
    if not SHORTEST <= len(password) <= LONGEST:
        what = f"a password has {SHORTEST} to {LONGEST} characters"
        raise DataError(what, where="password", cure="four random words do well")
    if password.lower() in COMMON or password.lower() == name.lower() or len(set(password)) < 4:
        raise DataError(
            "this password is guessed at once", where="password", cure="four random words do well"
        )
    return _HASHER.hash(password)


def is_right(password: str, hashed: str | None) -> bool:
    """Whether the password belongs to the hash; False without a hash."""
    # Without a hash (no such person) another one is checked, so that it takes as long: the time must not tell which
    # names exist.
    try:
        _HASHER.verify(hashed or _NOBODY, password[:LONGEST])
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None
