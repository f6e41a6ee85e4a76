"""Who may do what. Every route says so in its OpenAPI entry (``x-access``), and this guard, which runs before every
route, reads it from there: what is published is what is enforced, and a route that says nothing lets nobody in.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Path, Request
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
"""What a column of numbers can hold in every database."""
Number = Annotated[int, Path(ge=1, le=MOST_NUMBER)]
"""In the path of a route."""
Access = Literal["public", "person", "member", "reviewer", "admin"]
SAFE = ("GET", "HEAD", "OPTIONS")
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
        """One field."""
        return next((v for k, v in self._pairs if k == name and isinstance(v, str)), "")

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that may come several times."""
        return tuple(v for k, v in self._pairs if k == name and isinstance(v, str))

    def has(self, name: str) -> bool:
        """Whether the field was sent with something in it."""
        return bool(self.text(name))

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number, or a DataError."""
        said = self.text(name).strip()
        if not said and default is not None:
            return default
        whole = said.isascii() and said.removeprefix("-").isdecimal() and len(said) <= 12
        if not whole or abs(int(said)) > MOST_NUMBER:
            raise DataError(f"{said[:40]!r} is no whole number", where=name, cure="enter a whole number")
        return int(said)

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
    """Before anything of a form is read: who it is, whether they are too fast, and whether they may.

    All that asks the database is done in one go, the project included: changing threads costs more than asking.
    """
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
        request.state.found = _project(conn, visitor, slug)


async def read_form(request: Request, admitted: Annotated[None, Depends(admit)]) -> AsyncIterator[Form]:
    """The posted fields of somebody who may post, none where no form was posted; uploads are closed afterwards."""
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
    """For writes, whether the form comes from our own page; and whether the project is one of theirs."""
    visitor: Visitor = request.state.visitor
    if request.method not in SAFE and not request.scope["path"].startswith("/api/"):
        _check_csrf(request, form, visitor)
    found: Project | NotFound | None = getattr(request.state, "found", None)
    if isinstance(found, NotFound):
        raise found
    if found is not None:
        request.state.project = found


def _access(request: Request) -> Access | None:
    route = request.scope.get("route")
    return (getattr(route, "openapi_extra", None) or {}).get("x-access")


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
    if len(visit) != 43:
        visit = secrets.token_urlsafe(32)
        request.state.cookies[VISIT] = visit
    return Visitor(None if site.settings.auth else _local(conn), visit, address)


def _person(site: Site, conn: Transaction, secret: str, kind: Literal["session", "api"]) -> User | None:
    """Whose secret it is. Secrets of the local user, whom anybody could be, are worth nothing where people log in."""
    user = people.user_of(conn, secret, kind)
    return None if user and user.name == LOCAL_USER and site.settings.auth else user


def _local(conn: Transaction) -> User:
    """Without logging in there is one person. A visit is not written down: other sites could cause any number."""
    found = people.find_user(conn, LOCAL_USER)
    assert found is not None, "made when the app was"
    return found[0]


def _limit(request: Request, site: Site, visitor: Visitor) -> None:
    who = f"user {visitor.user.id}" if visitor.user else f"address {visitor.address}"
    site.limiter.take(READS if request.method in SAFE else WRITES, who)


def _check_origin(request: Request, site: Site) -> None:
    """Browsers say which site a form was sent from; other sites' forms are refused even with a cookie."""
    origin = request.headers.get("origin")
    fetched = request.headers.get("sec-fetch-site", "same-origin")
    own = {request.headers.get("host", "").lower(), urlsplit(site.settings.url).netloc.lower()}
    foreign = origin is not None and urlsplit(origin).netloc.lower() not in own
    if foreign or fetched not in ("same-origin", "none"):
        raise Forbidden("the request comes from another site", cure="use the app's own pages")


def _check_csrf(request: Request, form: Form, visitor: Visitor) -> None:
    sent = request.headers.get("x-csrf-token", "") or form.text("csrf")
    if not hmac.compare_digest(sent.encode(), visitor.csrf.encode()):
        raise Forbidden(
            "the form is out of date", cure="load the page again; what you wrote is still in this one"
        )
