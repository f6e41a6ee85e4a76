"""Who may do what. Every route declares it in its OpenAPI entry (``x-access``), and the guard here, which runs before
every route, reads it there: the published rule is the enforced one, and a route that declares nothing admits nobody.

- public: everybody; person: who is logged in; member: the people of the project; reviewer, admin: that role or higher.
"""

# The order of the checks, and why:
# 1. who it is, from the cookie or the bearer token;
# 2. whether they are too fast, before anything that costs more;
# 3. whether the form comes from another site, and whether the role suffices: before the body is read, so that somebody
#    who may not upload cannot make the server take 32 MiB;
# 4. the body;
# 5. the CSRF token, which is a field of the form;
# 6. the project. A project of others gives the same "not found" as one that does not exist.

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Path, Request
from fastapi.routing import APIRoute
from starlette.datastructures import UploadFile

from plaudit.annotate.server.limits import READS, WRITES
from plaudit.annotate.server.security import SESSION, VISIT
from plaudit.annotate.server.site import Site, Visitor, site_of
from plaudit.errors import DataError, PlauditError
from plaudit.preferences.store import people
from plaudit.preferences.store.people import LOCAL_USER, User
from plaudit.preferences.store.projects import Project, project_for
from plaudit.preferences.store.transaction import NotFound, Transaction

MOST_NUMBER = 2**31 - 1
"""The largest number that a column of whole numbers holds in every database."""
Number = Annotated[int, Path(ge=1, le=MOST_NUMBER)]
"""A row number in the path of a route."""
Access = Literal["public", "person", "member", "reviewer", "admin"]
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing: they need no CSRF token."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
MOST_FIELDS = 300
MOST_FIELD = 256 << 10


class NotLoggedIn(PlauditError):
    """Nobody is logged in."""

    code, exit_code = "NOT_LOGGED_IN", 78


class Forbidden(PlauditError):
    """The person's role does not allow it."""

    code, exit_code = "FORBIDDEN", 78


class Form:
    """The fields of a form; a missing field is empty."""

    def __init__(self, pairs: list[tuple[str, str | UploadFile]]) -> None:
        self._pairs = pairs

    def text(self, name: str) -> str:
        """The text of a field; the first one, if it was sent several times."""
        return next((v for k, v in self._pairs if k == name and isinstance(v, str)), "")

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts of a field that may be sent several times."""
        return tuple(v for k, v in self._pairs if k == name and isinstance(v, str))

    def has(self, name: str) -> bool:
        """Whether the field was sent and is not empty."""
        return bool(self.text(name))

    def number(self, name: str, default: int | None = None) -> int:
        """The whole number in a field, or a DataError; ``default`` where the field is empty."""
        text = self.text(name).strip()
        if not text and default is not None:
            return default
        # int() would also take "1_000", " 1 ", and digits of other scripts, and needs long for a million of them.
        whole = text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 12
        if not whole or abs(int(text)) > MOST_NUMBER:
            raise DataError(f"{text[:40]!r} is no whole number", where=name, cure="enter a whole number")
        return int(text)

    def file(self, name: str) -> UploadFile | None:
        """An uploaded file."""
        return next((v for k, v in self._pairs if k == name and isinstance(v, UploadFile)), None)


def needs(access: Access, *fields: str) -> dict[str, Any]:
    """The OpenAPI entry of a route: who may use it, and for pages the names of the form's fields."""
    entry: dict[str, Any] = {"x-access": access}
    if fields:
        named = {name: {"type": "string"} for name in ("csrf", *fields)}
        schema = {"type": "object", "properties": named}
        entry["requestBody"] = {"content": {FORMS[0]: {"schema": schema}}}
    return entry


async def admit(request: Request) -> None:
    """Find out who makes the request, and refuse it before its body is read if they are too fast or may not do it.

    Raises:
        TooMany: over the limit of requests.
        NotLoggedIn: nobody is logged in, and the route needs somebody.
        Forbidden: the role does not suffice, or the request comes from another site.
    """
    # Everything that asks the database is one job, the project included: each job costs a change of threads.
    await site_of(request).reader.run(lambda conn: _admit(request, conn))


def _admit(request: Request, conn: Transaction) -> None:
    site, access = site_of(request), _access(request)
    is_api = request.scope["path"].startswith("/api/")
    slug = request.path_params.get("slug")
    visitor = _bearer(request, site, conn) if is_api else _cookie(request, site, conn)
    request.state.visitor = visitor
    _limit(request, site, visitor)
    if not is_api and request.method not in SAFE:
        _check_origin(request, site)
    _allow(access, visitor)
    if slug is not None and access != "public":
        # A missing project is raised later, by ``guard``: a form without a CSRF token must not tell what exists.
        request.state.looked_up = _project(conn, visitor, slug)


async def read_form(request: Request, admitted: Annotated[None, Depends(admit)]) -> AsyncIterator[Form]:
    """The fields of the posted form, none where no form was posted; uploads are closed afterwards."""
    # It depends on ``admit``, so that nothing is read of a request that is refused.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in SAFE or kind not in FORMS:
        yield Form([])
        return
    data = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD)
    try:
        yield Form(list(data.multi_items()))
    finally:
        await data.close()


Posted = Annotated[Form, Depends(read_form)]


async def guard(request: Request, form: Posted) -> None:
    """The last checks before a route: that a form comes from a page of this app, and that the project may be seen.

    Raises:
        Forbidden: the CSRF token is missing or wrong.
        NotFound: there is no such project, or it is not one of theirs.
    """
    visitor: Visitor = request.state.visitor
    # The API needs no CSRF token: it takes bearer tokens only, which browsers do not send by themselves.
    if request.method not in SAFE and not request.scope["path"].startswith("/api/"):
        _check_csrf(request, form, visitor)
    looked_up: Project | NotFound | None = request.scope["state"].get("looked_up")
    if isinstance(looked_up, NotFound):
        raise looked_up
    if looked_up is not None:
        request.state.project = looked_up


def _access(request: Request) -> Access | None:
    route = request.scope.get("route")
    entry = route.openapi_extra if isinstance(route, APIRoute) else None
    return (entry or {}).get("x-access")


def _allow(access: Access | None, visitor: Visitor) -> None:
    if access == "public":
        return
    if access is None:
        raise Forbidden(
            "the route does not say whom it lets in", cure="this is a fault of the program: report it"
        )
    if visitor.user is None:
        raise NotLoggedIn("log in first", cure="open /login, or send an API token as a bearer")
    if access in ("reviewer", "admin") and not visitor.user.may(access):
        article = "an" if access == "admin" else "a"
        raise Forbidden(f"this is for {article} {access}", cure="ask somebody with that role")


def _project(conn: Transaction, visitor: Visitor, slug: str) -> Project | NotFound:
    try:
        project, is_member = project_for(conn, slug, visitor.me.id)
    except NotFound as missing:
        return missing
    if is_member or visitor.me.sees_all:
        return project
    return NotFound(f"there is no project {slug[:80]!r}", cure="see the list of projects")


def _bearer(request: Request, site: Site, conn: Transaction) -> Visitor:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    address = request.client.host if request.client else ""
    if kind.lower() != "bearer" or not secret:
        return Visitor(None, "", address)
    return Visitor(_person(site, conn, secret.strip(), "api"), "", address)


def _cookie(request: Request, site: Site, conn: Transaction) -> Visitor:
    address = request.client.host if request.client else ""
    secret = request.cookies.get(SESSION, "")
    user = _person(site, conn, secret, "session") if secret else None
    if user:
        return Visitor(user, secret, address)
    visit = request.cookies.get(VISIT, "")
    if len(visit) != 43:  # not one of ours: 32 bytes in base64 have 43 characters
        visit = secrets.token_urlsafe(32)
        request.state.cookies[VISIT] = visit
    return Visitor(None if site.settings.auth else _local(conn), visit, address)


def _person(site: Site, conn: Transaction, secret: str, kind: Literal["session", "api"]) -> User | None:
    """The person whose secret it is, or None."""
    # A database that was used without logging in may hold secrets of the local user, which anybody at that machine
    # could have. Where people log in they count for nothing.
    user = people.user_of(conn, secret, kind)
    return None if user and user.name == LOCAL_USER and site.settings.auth else user


def _local(conn: Transaction) -> User:
    """The only person of an app in which nobody logs in."""
    # No session is stored for them: any site could make a browser open this address again and again, and fill the
    # table.
    local = people.find_user(conn, LOCAL_USER)
    assert local is not None, "create_app has added the local user"
    return local[0]


def _limit(request: Request, site: Site, visitor: Visitor) -> None:
    who = f"user {visitor.user.id}" if visitor.user else f"address {visitor.address}"
    site.limiter.take(READS if request.method in SAFE else WRITES, who)


def _check_origin(request: Request, site: Site) -> None:
    """Refuse a form that was sent from a page of another site."""
    # Browsers say so in two headers, which scripts cannot change. Programs send neither; the CSRF token remains for
    # browsers that do not.
    origin = request.headers.get("origin")
    fetched = request.headers.get("sec-fetch-site", "same-origin")
    own = {request.headers.get("host", "").lower(), urlsplit(site.settings.url).netloc.lower()}
    foreign = origin is not None and urlsplit(origin).netloc.lower() not in own
    if foreign or fetched not in ("same-origin", "none"):
        raise Forbidden("the request comes from another site", cure="use the app's own pages")


def _check_csrf(request: Request, form: Form, visitor: Visitor) -> None:
    # The header is what htmx sends, the field what a plain form sends.
    sent = request.headers.get("x-csrf-token", "") or form.text("csrf")
    if not hmac.compare_digest(sent.encode(), visitor.csrf.encode()):
        raise Forbidden(
            "the form is out of date", cure="load the page again; what you wrote is still in this one"
        )
