"""Where the app listens, and who may connect: settings that refuse unsafe combinations."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from plaudit.annotate.import_data import LIMITS, ImportLimits
from plaudit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the app is served.

    Args:
        host: the address to listen on.
        port: the port to listen on.
        auth: people log in; without it there is one local user, and only this machine may connect.
        public_url: the address that people type, such as https://label.example.org; needed for other machines.
        plain_http: that address may be http://, because the network is encrypted by other means (a VPN).
        imports: how much a file that is uploaded may hold.
        proxy: the address of the reverse proxy whose X-Forwarded-For header tells who connects; empty: the header does
            not count, for anybody can send it.

    Raises:
        ConfigError: an address for other machines without ``auth`` and a ``public_url`` of https://.
    """

    # Unsafe combinations are errors and not warnings: the data are people's judgements and passwords, and a server that
    # is open by mistake is not noticed by those who started it.

    host: str = "127.0.0.1"
    port: int = 8000
    auth: bool = False
    public_url: str = ""
    plain_http: bool = False
    proxy: str = ""
    imports: ImportLimits = LIMITS

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}", where="--port", cure="choose one from 1024 to 65535")
        if self.public_url and urlsplit(self.public_url).scheme not in ("http", "https"):
            cure = "give it whole, such as https://label.example.org"
            raise ConfigError(f"the public address is {self.public_url!r}", where="--public-url", cure=cure)
        public = urlsplit(self.public_url)
        if public.scheme == "http" and not is_loopback(public.hostname or "") and not self.plain_http:
            cure = (
                "put a proxy with TLS in front and give its https:// address; "
                "or --plain-http, on a network that is encrypted itself"
            )
            raise ConfigError(
                f"passwords would go to {self.public_url} in clear", where="--public-url", cure=cure
            )
        if self.proxy and not _is_address(self.proxy):
            cure = "give its IP address, such as 127.0.0.1 for a proxy on this machine"
            raise ConfigError(f"the proxy is {self.proxy!r}", where="--proxy", cure=cure)
        if is_loopback(self.host):
            return
        if not self.auth:
            cure = "add --auth (people log in), or leave --host out to serve this machine only"
            raise ConfigError(
                f"{self.host} is open to other machines, and nobody has to log in", where="--host", cure=cure
            )
        if not self.public_url:
            cure = "add --public-url https://NAME, the address that people will type"
            raise ConfigError(
                f"{self.host} is open to other machines at an unknown address", where="--host", cure=cure
            )

    @property
    def url(self) -> str:
        """The address for people, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def secure(self) -> bool:
        """Whether cookies travel over HTTPS only."""
        return self.url.startswith("https://")

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which browsers may address the app; others are refused (see ``security.Shield``)."""
        names = {"localhost", "127.0.0.1", "[::1]"} if is_loopback(self.host) else set()
        return frozenset(names | {urlsplit(self.url).hostname or ""})


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
