"""What every route can use: the store, the settings, the limits, the templates, and who makes the request."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plaudit import __version__
from plaudit.annotate.pages import markup
from plaudit.annotate.server.batches import Batcher
from plaudit.annotate.server.limits import Limiter
from plaudit.annotate.server.newest import Newest
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.people import User
from plaudit.preferences.store.projects import Project

ANNOTATE = Path(__file__).parents[1]
"""The folder that holds ``templates/`` and ``static/``."""
STATIC = ANNOTATE / "static"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes the request."""

    user: User | None
    secret: str
    """Of the session cookie, or of the cookie of a visitor who is not logged in; empty with an API token."""
    address: str

    @property
    def csrf(self) -> str:
        """The token that forms of this visitor must carry."""
        return csrf_of(self.secret)

    @property
    def me(self) -> User:
        """The person who is logged in; only for routes that let nobody else in."""
        assert self.user is not None, "the route lets nobody in without logging in"
        return self.user


def csrf_of(secret: str) -> str:
    """A token for forms that only the holder of the cookie can know."""
    # Derived by a hash, not the secret itself: the token stands in the HTML of every page, and whoever gets hold of a
    # page (a screenshot, a saved file) must not be able to log in with it.
    return hashlib.sha256(f"csrf/{secret}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Site:
    """The parts of one running app."""

    store: Store
    settings: ServeSettings
    limiter: Limiter = field(default_factory=Limiter)
    newest: Newest = field(default_factory=Newest)
    """Results that take long to compute: figures, comparisons of models, tables of disputed items."""
    reader: Batcher = field(init=False)
    """Short reads that every request needs."""
    writer: Batcher = field(init=False)
    """Short writes: answers, and the next items."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", Batcher(self.store.read_batch, "reader"))
        object.__setattr__(self, "writer", Batcher(self.store.write_batch, "writer"))

    def page(self, request: Request, name: str, *, status: int = 200, **context: object) -> Response:
        """A page from its template.

        Args:
            request: the request.
            name: of the template.
            status: of the response.
            context: values for the template.
        """
        # An error page may come before the guard has found out who asks, so both may be missing.
        known = request.scope.get("state", {})
        visitor: Visitor | None = known.get("visitor")
        common = {
            "me": visitor.user if visitor else None,
            "csrf": visitor.csrf if visitor else "",
            "key": uuid.uuid4().hex,  # of the answer that may be given on this page: sent twice, it is stored once
            "auth": self.settings.auth,
            "project": known.get("project"),
            "path": request.url.path,
        }
        text = templates().get_template(name).render(common | context)
        # "replace": texts of models may hold halves of surrogate pairs, which cannot be encoded.
        return HTMLResponse(text.encode("utf-8", "replace"), status_code=status)


def site_of(request: Request) -> Site:
    """The site that the app was made with."""
    site: Site = request.app.state.site
    return site


def visitor_of(request: Request) -> Visitor:
    """Who makes the request; the guard has put it there."""
    visitor: Visitor = request.state.visitor
    return visitor


def project_of(request: Request) -> Project:
    """The project of the path; the guard has checked that the visitor may see it."""
    project: Project = request.state.project
    return project


def see(path: str) -> RedirectResponse:
    """The response to a form: go to another page with GET."""
    # 303 and not 302: reloading the page that follows must not send the form again.
    return RedirectResponse(path, status_code=303)


@cache
def templates() -> Environment:
    """Templates, every value escaped, every missing name an error."""
    # autoescape and StrictUndefined are the two nets under every template: a value that nobody thought of is shown as
    # text, not as HTML, and a misspelt name is an error, not an empty place.
    loader = FileSystemLoader(ANNOTATE / "templates")
    env = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.globals.update(version=__version__, static=_static, letters="ABCDEFGHI")
    env.filters.update(
        markdown=markup.markdown,
        plain=markup.plain,
        first_part=markup.first_part,
        turns=markup.turns,
        when=_when,
        duration=_duration,
        percent=_percent,
    )
    return env


def _static(name: str) -> str:
    """The address of a static file; it changes with the file, so that browsers may keep it."""
    return f"/static/{name}?v={_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def _when(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share == share else "\u2013"
