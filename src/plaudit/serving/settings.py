"""Where the server listens, who may ask, and how much: settings that refuse unsafe combinations."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from plaudit.annotate.server.settings import is_loopback
from plaudit.errors import ConfigError

MAKE = "`openssl rand -hex 24` makes one"
SHORTEST_KEY = 16
MOST_BODY = 4 << 20
"""Bytes of a request."""
MOST_CHOICES = 16
"""Responses to one prompt, and prompts of one request."""
MOST_SCORED = 256
"""Responses that are scored in one request."""
MOST_ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How a model is served.

    Args:
        model: its name for clients.
        reward: the name of the reward model; empty: none.
        host: the address to listen on; one that other machines can reach needs ``keys``.
        port: the port to listen on.
        keys: SHA-256 of the API keys; empty: nobody needs one.
        max_tokens: longest response, and what a request that names no length gets.
        timeout: seconds that a response may take, the time in the queue included.

    Raises:
        ConfigError: a port, a length or a time that is none; an address for other machines without keys.
    """

    model: str = ""
    reward: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[bytes, ...] = ()
    max_tokens: int = 1024
    timeout: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}", where="--port", cure="choose one from 1024 to 65535")
        for name, value in (("--max-tokens", self.max_tokens), ("--timeout", self.timeout)):
            if not value > 0:
                raise ConfigError(f"{name} is {value:g}", where=name, cure="give a number above 0")
        if not is_loopback(self.host) and not self.keys:
            cure = (
                "name a file of keys with --api-keys, or set PLAUDIT_API_KEYS; or leave --host out to serve this "
                "machine only"
            )
            what = f"{self.host} is open to other machines, and there are no API keys"
            raise ConfigError(what, where="--host", cure=cure)

    @property
    def url(self) -> str:
        """The address of the endpoints, as clients take it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def knows(self, key: str) -> bool:
        """Whether a key is one of those that may ask; every one is compared, so that time tells nothing."""
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        return sum(compare_digest(digest, known) for known in self.keys) > 0


def keys_of(lines: str, where: str) -> tuple[bytes, ...]:
    """The keys in a text, one a line or with commas between them, as `ServingSettings` keeps them.

    Raises:
        ConfigError: none, or one that is easy to guess.
    """
    keys = [key.strip() for line in lines.splitlines() for key in line.partition("#")[0].split(",") if key.strip()]
    if not keys:
        raise ConfigError("there is no API key", where=where, cure=f"write one a line; {MAKE}")
    if any(len(key) < SHORTEST_KEY for key in keys):
        what = f"an API key of less than {SHORTEST_KEY} characters can be guessed"
        raise ConfigError(what, where=where, cure=MAKE)
    return tuple(sha256(key.encode()).digest() for key in keys)
