"""People, their tokens, invitations, and the audit log. Secrets are stored as digests; passwords arrive hashed."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from plaudit.errors import DataError
from plaudit.preferences.store.projects import add_member
from plaudit.preferences.store.schema import audit, invitations, projects, tokens, users
from plaudit.preferences.store.transaction import Conflict, NotFound, lock_history

UserRole = Literal["annotator", "reviewer", "admin"]
ROLES: tuple[UserRole, ...] = get_args(UserRole)
NAME = re.compile(r"[\w][\w .@+-]{0,62}[\w.]|[\w]")
LOCAL_USER = "local"
"""The one person of an app without logging in. Where people log in, nobody can have this name or use its rights."""
SESSION_SECONDS = 14 * 86400
INVITATION_SECONDS = 7 * 86400
API_SECONDS = 365 * 86400


@dataclass(frozen=True, slots=True)
class User:
    """A person who may use the app, in the projects they are members of; an ``admin`` in all."""

    id: int
    name: str
    role: UserRole
    disabled: bool = False
    everywhere: bool = False
    """Whether a reviewer may review all projects, not only those they are a member of."""

    def may(self, role: UserRole) -> bool:
        """Whether the person has this role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def sees_all(self) -> bool:
        """Whether the person may open every project without being a member of it."""
        return self.role == "admin" or (self.role == "reviewer" and self.everywhere)


def name_key(name: str) -> str:
    """The name in one normal form. Two names with the same form count as the same, so nobody can pose as somebody else.

    Forms differ neither in capitals nor in the width of letters.
    """
    # Folding can make letters that normalisation changes again, hence NFKC before and after it.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def digest(secret: str) -> str:
    """The digest by which a secret is stored and looked up."""
    # Session and API secrets have 256 random bits, so nobody can find one by trying, and a fast hash will do: it
    # runs at every request. Passwords are chosen by people and need a slow hash (annotate/server/security.py).
    return sha256(secret.encode()).hexdigest()


def add_user(
    conn: Connection, name: str, role: UserRole, password: str | None = None, *, everywhere: bool = False
) -> User:
    """Add a person.

    Args:
        conn: a writing transaction.
        name: 1 to 64 letters, digits, spaces and . @ + - _
        role: annotator, reviewer or admin.
        password: already hashed; None: nobody can log in as this person with a password.
        everywhere: a reviewer of all projects.

    Raises:
        DataError: a name that is not allowed, or an unknown role.
        Conflict: the name is taken.
    """
    if not NAME.fullmatch(name):
        cure = "1 to 64 letters, digits, spaces and . @ + - _"
        raise DataError(f"{name[:70]!r} cannot be a name", where="name", cure=cure)
    if role not in ROLES:
        raise DataError(f"there is no role {role!r}", where="role", cure=f"one of {', '.join(ROLES)}")
    taken = Conflict("the name is taken", where="name", cure="choose another one")
    key = name_key(name)
    if conn.scalar(select(users.c.id).where(users.c.name_key == key)) is not None:
        raise taken
    row = {"name": name, "name_key": key, "password": password, "role": role, "created_at": time.time()}
    row["everywhere"] = int(everywhere)
    try:
        made = int(conn.execute(insert(users).values(row).returning(users.c.id)).scalar_one())
    except IntegrityError as error:  # PostgreSQL: another transaction took the name after the check above
        raise taken from error
    return User(made, name, role, everywhere=everywhere)


def find_user(conn: Connection, name: str) -> tuple[User, str | None] | None:
    """The person of this name and the hash of their password; None if there is none. Capitals do not matter."""
    row = conn.execute(select(users).where(users.c.name_key == name_key(name))).one_or_none()
    return None if row is None else (_user(row), row.password)


def local_user(conn: Connection) -> User:
    """The admin of an app in which nobody logs in; added if need be."""
    existing = find_user(conn, LOCAL_USER)
    return existing[0] if existing else add_user(conn, LOCAL_USER, "admin")


def get_user(conn: Connection, user_id: int) -> User:
    """The person of this number, or NotFound."""
    row = conn.execute(select(users).where(users.c.id == user_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no person {user_id}", cure="see the list of people")
    return _user(row)


def list_users(conn: Connection) -> list[User]:
    """All people, in the order in which they were added."""
    return [_user(row) for row in conn.execute(select(users).order_by(users.c.id))]


def change_user(
    conn: Connection, user_id: int, *, role: UserRole, disabled: bool, everywhere: bool = False
) -> None:
    """Give a person another role, or disable them; ``everywhere`` makes a reviewer one of all projects.

    A disabled person is logged out of all sessions. The open invitations of a person who is no longer admin end.

    Raises:
        NotFound: there is no such person.
        Conflict: nobody would be admin any more.
    """
    if role not in ROLES:
        raise DataError(f"there is no role {role!r}", where="role", cure=f"one of {', '.join(ROLES)}")
    # Two admins who demote each other at the same moment would each still see the other one as admin.
    lock_history(conn)
    get_user(conn, user_id)
    # The local user does not count as an admin here: where people log in, nobody can log in as that user.
    others = (users.c.role == "admin") & users.c.disabled_at.is_(None) & (users.c.id != user_id)
    others &= users.c.name != LOCAL_USER
    if (role != "admin" or disabled) and not conn.scalar(select(func.count()).where(others)):
        raise Conflict("somebody must be admin", cure="make somebody else admin first")
    now = time.time()
    values = {"role": role, "disabled_at": now if disabled else None, "everywhere": int(everywhere)}
    conn.execute(update(users).where(users.c.id == user_id).values(values))
    if disabled:
        revoke_all(conn, user_id)
    if disabled or role != "admin":
        # An admin could keep an invitation for the role admin, and use it to come back.
        theirs = _OPEN & (invitations.c.created_by == user_id)
        conn.execute(update(invitations).where(theirs, invitations.c.expires_at > now).values(expires_at=now))


def set_password(conn: Connection, user_id: int, hashed: str) -> None:
    """Store a new password, and end all sessions and tokens of the person."""
    # People change a password when they fear that somebody else knows it; that somebody may be logged in.
    conn.execute(update(users).where(users.c.id == user_id).values(password=hashed))
    revoke_all(conn, user_id)


# Tokens


def issue_token(conn: Connection, user_id: int, kind: Literal["session", "api"], label: str = "") -> str:
    """A new secret of this person. The database keeps only its digest, so it cannot be shown again."""
    secret = secrets.token_urlsafe(32)
    now = time.time()
    expires = now + (SESSION_SECONDS if kind == "session" else API_SECONDS)
    row = {"user_id": user_id, "kind": kind, "digest": digest(secret), "label": label[:80]}
    conn.execute(insert(tokens).values(**row, created_at=now, expires_at=expires))
    return secret


_OF_SECRET = (
    select(users)
    .join(tokens)
    .where(
        tokens.c.digest == bindparam("b_digest"),
        tokens.c.kind == bindparam("b_kind"),
        tokens.c.revoked_at.is_(None),
        tokens.c.expires_at > bindparam("b_now"),
        users.c.disabled_at.is_(None),
    )
)


def user_of(conn: Connection, secret: str, kind: Literal["session", "api"]) -> User | None:
    """The person whose secret this is, if it is valid now and they are not disabled; else None."""
    # Asked at every request, without a cache: somebody who was disabled a moment ago must not answer on.
    parameters = {"b_digest": digest(secret), "b_kind": kind, "b_now": time.time()}
    row = conn.execute(_OF_SECRET, parameters).one_or_none()
    return None if row is None else _user(row)


def revoke(conn: Connection, secret: str) -> None:
    """End one session."""
    conn.execute(update(tokens).where(tokens.c.digest == digest(secret)).values(revoked_at=time.time()))


def revoke_token(conn: Connection, user_id: int, token_id: int) -> None:
    """End one API token of this person, or NotFound."""
    mine = (tokens.c.id == token_id) & (tokens.c.user_id == user_id) & (tokens.c.kind == "api")
    if conn.execute(update(tokens).where(mine).values(revoked_at=time.time())).rowcount == 0:
        raise NotFound(f"there is no token {token_id} of yours", cure="see your tokens")


def revoke_all(conn: Connection, user_id: int) -> None:
    """End all sessions and tokens of a person."""
    mine = (tokens.c.user_id == user_id) & tokens.c.revoked_at.is_(None)
    conn.execute(update(tokens).where(mine).values(revoked_at=time.time()))


def list_tokens(conn: Connection, user_id: int) -> list[dict[str, Any]]:
    """The API tokens of a person that are valid: number, label, since when, until when."""
    query = select(tokens.c.id, tokens.c.label, tokens.c.created_at, tokens.c.expires_at).where(
        tokens.c.user_id == user_id,
        tokens.c.kind == "api",
        tokens.c.revoked_at.is_(None),
        tokens.c.expires_at > time.time(),
    )
    return [dict(row) for row in conn.execute(query.order_by(tokens.c.id)).mappings()]


# Invitations


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that can be used."""

    id: int
    role: UserRole
    project_id: int | None
    title: str | None
    """Title of the project; None without one."""


_OPEN = invitations.c.used_at.is_(None)


def invite(conn: Connection, role: UserRole, project_id: int | None = None, by: int | None = None) -> str:
    """The secret of a new invitation. It works once, for a week."""
    if role not in ROLES:
        raise DataError(f"there is no role {role!r}", where="role", cure=f"one of {', '.join(ROLES)}")
    secret = secrets.token_urlsafe(32)
    now = time.time()
    row = {"digest": digest(secret), "role": role, "project_id": project_id, "created_by": by}
    conn.execute(insert(invitations).values(**row, created_at=now, expires_at=now + INVITATION_SECONDS))
    return secret


def invitation(conn: Connection, secret: str) -> Invitation:
    """The invitation of this secret while it can be used, or NotFound."""
    row = conn.execute(
        select(invitations, projects.c.title)
        .outerjoin(projects, invitations.c.project_id == projects.c.id)
        .where(
            invitations.c.digest == digest(secret),
            invitations.c.used_at.is_(None),
            invitations.c.expires_at > time.time(),
        )
    ).one_or_none()
    if row is None:
        raise NotFound("the invitation was used, has expired, or never existed", cure="ask for a new link")
    return Invitation(row.id, row.role, row.project_id, row.title)


def open_invitations(conn: Connection) -> list[dict[str, Any]]:
    """The invitations that can still be used: number, role, project's slug, who made them, until when."""
    query = (
        select(invitations.c.id, invitations.c.role, projects.c.slug, users.c.name, invitations.c.expires_at)
        .outerjoin(projects, invitations.c.project_id == projects.c.id)
        .outerjoin(users, invitations.c.created_by == users.c.id)
        .where(_OPEN, invitations.c.expires_at > time.time())
    )
    return [dict(row) for row in conn.execute(query.order_by(invitations.c.id)).mappings()]


def end_invitation(conn: Connection, number: int) -> None:
    """Take an invitation back, or NotFound where it is not open."""
    now = time.time()
    here = _OPEN & (invitations.c.id == number) & (invitations.c.expires_at > now)
    if conn.execute(update(invitations).where(here).values(expires_at=now)).rowcount == 0:
        raise NotFound(f"there is no open invitation {number}", cure="see the list of people")


def join(conn: Connection, secret: str, name: str, password: str) -> User:
    """Use an invitation: add a person with its role, as a member of its project. ``password`` is already hashed.

    A reviewer who is invited to no project reviews all of them.

    Raises:
        NotFound: the invitation cannot be used (any more).
        DataError: the name cannot be used; a Conflict if it is taken.
    """
    invited = invitation(conn, secret)
    if name_key(name) == LOCAL_USER:
        raise Conflict("the name is taken", where="name", cure="choose another one")
    everywhere = invited.role == "reviewer" and invited.project_id is None
    user = add_user(conn, name, invited.role, password, everywhere=everywhere)
    # The condition is repeated in the UPDATE: two people may use the same link at the same moment, and one of them must
    # be refused. The exception rolls the new person back.
    unused = (invitations.c.id == invited.id) & invitations.c.used_at.is_(None)
    used = update(invitations).where(unused).values(used_at=time.time(), used_by=user.id)
    if conn.execute(used).rowcount == 0:
        raise NotFound("the invitation was used meanwhile", cure="ask for a new link")
    if invited.project_id is not None:
        add_member(conn, invited.project_id, user.id)
    return user


# Audit


def record(
    conn: Connection, action: str, target: str = "", *, by: int | None, address: str = "", **detail: Any
) -> None:
    """Add a line to the audit log. Triggers in the database refuse to change or delete it."""
    row = {"action": action, "target": target[:400], "detail": detail, "address": address[:80]}
    conn.execute(insert(audit).values(**row, at=time.time(), user_id=by))


def audit_log(conn: Connection, limit: int = 200) -> list[dict[str, Any]]:
    """The newest lines of the audit log."""
    query = select(audit, users.c.name).outerjoin(users, audit.c.user_id == users.c.id)
    return [dict(row) for row in conn.execute(query.order_by(audit.c.id.desc()).limit(limit)).mappings()]


def _user(row: Any) -> User:
    return User(row.id, row.name, row.role, row.disabled_at is not None, bool(row.everywhere))
