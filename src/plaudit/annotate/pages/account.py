"""Logging in and out, joining by invitation, and a person's own password and tokens."""

from __future__ import annotations

from asyncio import sleep

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from plaudit.annotate.server.access import Number, Posted, needs
from plaudit.annotate.server.limits import LOGIN, LOGIN_ACCOUNT, LOGIN_ADDRESS
from plaudit.annotate.server.security import SESSION, hash_password, is_right
from plaudit.annotate.server.site import Site, see, site_of, visitor_of
from plaudit.errors import DataError
from plaudit.preferences.store import people
from plaudit.preferences.store.people import User

router = APIRouter()


@router.get("/login", openapi_extra=needs("public"))
def login_page(request: Request) -> Response:
    """The form to log in."""
    if visitor_of(request).user:
        return see("/")
    return site_of(request).page(request, "login.html", message="")


@router.post("/login", openapi_extra=needs("public", "name", "password"))
async def login(request: Request, form: Posted) -> Response:
    """Check name and password and begin a session."""
    site, visitor = site_of(request), visitor_of(request)
    name = form.text("name").strip()[:64]
    # The limits come before the password is checked: the check is slow on purpose, and without limits it could be used
    # to keep the server busy.
    site.limiter.take(LOGIN_ADDRESS, visitor.address)
    site.limiter.take(LOGIN, f"{people.name_key(name)} {visitor.address}")
    await sleep(site.limiter.wait(LOGIN_ACCOUNT, people.name_key(name)))
    return await run_in_threadpool(_log_in, request, name, form.text("password"))


def _log_in(request: Request, name: str, password: str) -> Response:
    site, visitor = site_of(request), visitor_of(request)
    with site.store.read() as conn:
        account = people.find_user(conn, name)
    # One message for every reason, and the same time for each: the reply must not tell which names exist.
    right = is_right(password, account[1] if account else None)
    if not right or account is None or account[0].disabled or account[0].name == people.LOCAL_USER:
        with site.store.write() as conn:
            people.record(conn, "login failed", name, by=None, address=visitor.address)
        return site.page(request, "login.html", status=401, message="Name or password is wrong.")
    return _begin(request, site, account[0], "login")


@router.post("/logout", openapi_extra=needs("public"))
def logout(request: Request) -> Response:
    """End this session."""
    visitor = visitor_of(request)
    if visitor.user:
        with site_of(request).store.write() as conn:
            people.revoke(conn, visitor.secret)
            people.record(conn, "logout", by=visitor.user.id, address=visitor.address)
    request.state.cookies[SESSION] = ""
    return see("/login")


@router.get("/join/{secret}", openapi_extra=needs("public"))
def join_page(request: Request, secret: str) -> Response:
    """The form to join by an invitation."""
    site = site_of(request)
    with site.store.read() as conn:
        invited = people.invitation(conn, secret)
    return site.page(request, "join.html", invited=invited, secret=secret, message="", chosen_name="")


@router.post("/join/{secret}", openapi_extra=needs("public", "name", "password"))
def join(request: Request, secret: str, form: Posted) -> Response:
    """Use an invitation: the person chooses a name and a password."""
    site, visitor = site_of(request), visitor_of(request)
    site.limiter.take(LOGIN_ADDRESS, visitor.address)
    name = form.text("name").strip()
    with site.store.read() as conn:
        invited = people.invitation(conn, secret)
    try:
        hashed = hash_password(form.text("password"), name)
        with site.store.write() as conn:
            user = people.join(conn, secret, name, hashed)
    except DataError as error:
        message = f"{error.what}: {error.cure}"
        return site.page(
            request, "join.html", status=422, invited=invited, secret=secret, message=message, chosen_name=name
        )
    return _begin(request, site, user, "joined")


@router.get("/account", openapi_extra=needs("person"))
def account(request: Request) -> Response:
    """Password and tokens of the person."""
    site, me = site_of(request), visitor_of(request).me
    with site.store.read() as conn:
        mine = people.list_tokens(conn, me.id)
    return site.page(request, "account.html", tokens=mine, fresh="")


@router.post("/account/password", openapi_extra=needs("person", "old", "new"))
def change_password(request: Request, form: Posted) -> Response:
    """Set a new password; every other session and token of the person ends."""
    site, me, visitor = site_of(request), visitor_of(request).me, visitor_of(request)
    site.limiter.take(LOGIN, f"{people.name_key(me.name)} {visitor.address}")
    with site.store.read() as conn:
        account = people.find_user(conn, me.name)
    # The old password is asked for even though the person is logged in: it may be somebody at an unlocked screen.
    if account is None or (account[1] is not None and not is_right(form.text("old"), account[1])):
        raise DataError("the old password is wrong", where="old", cure="enter the password you log in with")
    hashed = hash_password(form.text("new"), me.name)
    with site.store.write() as conn:
        people.set_password(conn, me.id, hashed)
    return _begin(request, site, me, "password changed")


@router.post("/account/tokens", openapi_extra=needs("person", "label"))
def add_token(request: Request, form: Posted) -> Response:
    """Make an API token, which is shown once."""
    site, me, visitor = site_of(request), visitor_of(request).me, visitor_of(request)
    with site.store.write() as conn:
        secret = people.issue_token(conn, me.id, "api", form.text("label").strip() or "token")
        people.record(conn, "token made", form.text("label")[:80], by=me.id, address=visitor.address)
        mine = people.list_tokens(conn, me.id)
    return site.page(request, "account.html", tokens=mine, fresh=secret)


@router.post("/account/tokens/{number}/revoke", openapi_extra=needs("person"))
def end_token(request: Request, number: Number) -> Response:
    """End one of the person's own tokens."""
    me, visitor = visitor_of(request).me, visitor_of(request)
    with site_of(request).store.write() as conn:
        people.revoke_token(conn, me.id, number)
        people.record(conn, "token ended", str(number), by=me.id, address=visitor.address)
    return see("/account")


def _begin(request: Request, site: Site, user: User, action: str) -> Response:
    """Begin a session with a new secret."""
    # Never with the secret that the browser sent: somebody else could have planted that cookie (session fixation).
    visitor = visitor_of(request)
    with site.store.write() as conn:
        if visitor.user:
            people.revoke(conn, visitor.secret)
        request.state.cookies[SESSION] = people.issue_token(conn, user.id, "session")
        people.record(conn, action, by=user.id, address=visitor.address)
    return see("/")
