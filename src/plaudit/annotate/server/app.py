"""The app: routes, the guard that runs before each, the middleware around them, errors as pages or problem+json."""

from __future__ import annotations

import json
import logging
import traceback
import uuid
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from plaudit import __version__
from plaudit.annotate.pages import account, admin, review, work
from plaudit.annotate.rest import api, reference
from plaudit.annotate.server.access import Forbidden, NotLoggedIn, guard
from plaudit.annotate.server.limits import Limiter, TooMany
from plaudit.annotate.server.security import Shield
from plaudit.annotate.server.settings import ServeSettings
from plaudit.annotate.server.site import STATIC, Site, site_of
from plaudit.errors import ConfigError, DataError, PlauditError
from plaudit.preferences.store import people
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.transaction import Conflict, NotFound

LOG = logging.getLogger("plaudit.annotate")
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404), (Conflict, 409), (NotLoggedIn, 401), (Forbidden, 403), (TooMany, 429),
    (DataError, 422), (ConfigError, 422),
)  # fmt: skip


def create_app(
    store: Store, settings: ServeSettings | None = None, limiter: Limiter | None = None
) -> FastAPI:
    """The app.

    Args:
        store: the database.
        settings: whether people log in, and under which address; without them one local user on this machine.
        limiter: the rate limits.
    """
    site = Site(store, settings or ServeSettings(), limiter or Limiter())
    if not site.settings.auth:
        with store.write() as conn:
            people.local_user(conn)
    app = FastAPI(
        title="Plaudit annotation",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(guard)],
    )
    app.state.site = site
    # The routes that annotators use all day come first: they are tried in this order.
    for part in (api, work, account, review, admin, reference):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for kind in (PlauditError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_middleware(Shield, settings=site.settings)
    return app


async def _failed(request: Request, error: Exception) -> Response:
    """Any failure as a page, as a notice inside the page (htmx), or as problem+json (RFC 9457)."""
    status, failure = _failure(error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, TooMany) else {}
    if request.url.path.startswith("/api/"):
        body = {"type": "about:blank", "status": status, "title": failure.what, "code": failure.code}
        body |= {k: v for k, v in (("detail", failure.cure), ("instance", failure.where)) if v}
        return Response(json.dumps(body), status, headers, "application/problem+json")
    if request.headers.get("hx-request"):
        page = site_of(request).page(request, "_notice.html", status=status, failure=failure)
        page.headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML", **headers})
        return page
    if status == 401 and request.method == "GET":
        return RedirectResponse("/login", status_code=303)
    page = site_of(request).page(request, "error.html", status=status, failure=failure)
    page.headers.update(headers)
    return page


def _failure(error: Exception) -> tuple[int, PlauditError]:
    """The status of the response, and the error as one of ours."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            assert isinstance(error, PlauditError), "the table holds our own errors"
            return status, error
    if isinstance(error, HTTPException):
        plain = {
            404: "there is no such page",
            405: "this page cannot be used like that",
            413: "the request is too large",
        }
        return error.status_code, DataError(
            plain.get(error.status_code, str(error.detail)), cure="go back to the start"
        )
    if isinstance(error, RequestValidationError):
        first: dict[str, Any] = dict(error.errors()[0])
        where = ".".join(map(str, first["loc"]))
        return 422, DataError(first["msg"], where=where, cure="see /api/openapi.json")
    # An error that nobody expected may hold paths, SQL or texts of others: the page shows a number only, by which the
    # full report can be found in the log.
    number = uuid.uuid4().hex[:8]
    LOG.error("failure %s: %s", number, "".join(traceback.format_exception(error)))
    return 500, PlauditError(
        f"something went wrong on the server (number {number})", cure="try again; then report it"
    )
