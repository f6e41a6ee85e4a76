"""The tables. Times are Unix seconds (UTC), JSON is text, flags are 0 or 1: on SQLite (STRICT) as on PostgreSQL."""

# Both databases get the same plain types, so that one set of statements and tests serves both and an export does not
# depend on the database. STRICT makes SQLite refuse a text in a column of numbers, as PostgreSQL does.

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    REAL,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

Number: Any = Double().with_variant(REAL(), "sqlite")


class Json(TypeDecorator[Any]):
    """JSON kept as ASCII text, so that both databases hold the same bytes, NUL and lone surrogates included."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """From the database."""
        return None if value is None else json.loads(value)


class Words(TypeDecorator[str]):
    """Text as both databases can hold it: NUL and halves of surrogate pairs become U+FFFD."""

    # PostgreSQL refuses both in a text column. Names and titles come from people; a strange character in one must not
    # make an error of a request that is otherwise right.

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To the database."""
        if value is None:
            return None
        whole = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return whole.replace("\x00", "\ufffd")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns, sqlite_strict=True)


def _ref(name: str, target: str, **options: Any) -> Column[Any]:
    return Column(
        name, Integer, ForeignKey(f"{target}.id"), nullable=options.pop("nullable", False), **options
    )


def _required(name: str, kind: Any, **options: Any) -> Column[Any]:
    return Column(name, kind, nullable=False, **options)


users = _table(
    "users",
    _required("name", Words, unique=True),
    _required("name_key", Words),  # the name in its normal form: SQLite's lower() knows ASCII letters only
    Column("password", Words),  # argon2id; null: cannot log in with a password
    _required("role", Words),  # annotator | reviewer | admin
    _required("created_at", Number),
    Column("disabled_at", Number),
    _required("everywhere", Integer, server_default="0"),  # 1: a reviewer of all projects
    Index("uq_users_name_key", "name_key", unique=True),
)

tokens = _table(
    "tokens",
    _ref("user_id", "users", index=True),
    _required("kind", Words),  # session | api
    _required("digest", Words, unique=True),  # SHA-256 of the secret; the secret itself is not kept
    _required("label", Words),
    _required("created_at", Number),
    _required("expires_at", Number),
    Column("revoked_at", Number),
)

projects = _table(
    "projects",
    _required("slug", Words, unique=True),
    _required("title", Words),
    _required("task", Words),  # pairwise | ranking | rating | demonstration | thumbs
    _required("settings", Json),
    _required("guideline_version", Integer),
    _required("created_at", Number),
    Column("closed_at", Number),
    _required("read_up_to", Integer, server_default="0"),  # the newest judgement that ``disputes`` takes into account
)

guidelines = _table(
    "guidelines",
    _ref("project_id", "projects"),
    _required("version", Integer),
    _required("body", Words),
    _required("created_at", Number),
    _ref("user_id", "users", nullable=True),
    UniqueConstraint("project_id", "version"),
)

members = _table(
    "members",
    _ref("project_id", "projects"),
    _ref("user_id", "users", index=True),
    UniqueConstraint("project_id", "user_id"),
)

invitations = _table(
    "invitations",
    _required("digest", Words, unique=True),
    _required("role", Words),
    _ref("project_id", "projects", nullable=True),
    _ref("created_by", "users", nullable=True),
    _required("created_at", Number),
    _required("expires_at", Number),
    Column("used_at", Number),
    _ref("used_by", "users", nullable=True),
)

items = _table(
    "items",
    _ref("project_id", "projects"),
    _required("key", Words),
    _required("prompt", Json),
    Column("gold", Json),  # the known answer
    _required("is_gold", Integer),
    _required("priority", Number),
    _required("shuffle", Number),  # 0 to 1, drawn from the project's seed and the key
    _required("taken", Integer),  # assignments leased or done in round 0
    _required("meta", Json),
    _required("created_at", Number),
    UniqueConstraint("project_id", "key"),
    Index("ix_items_queue", "project_id", "is_gold", "taken", "shuffle"),
    Index("ix_items_shuffle", "project_id", "is_gold", "shuffle"),
    Index("ix_items_priority", "project_id", "is_gold", "priority", "shuffle"),
)

responses = _table(
    "responses",
    _ref("item_id", "items"),
    _required("number", Integer),
    _required("content", Json),
    _required("model", Words),
    _required("provenance", Json),
    UniqueConstraint("item_id", "number"),
)

# Conditions of indexes that hold few rows. A query must repeat them word for word for SQLite to use the index.
DECIDED = text("assignments.round = -1")
FLAGGED = text("judgements.flags <> '[]'")
SKIPPED = text("substr(judgements.answer, 1, 14) = '{\"type\":\"skip\"'")
_DECIDED, _FLAGGED, _SKIPPED = (
    text(mark.text.replace("assignments.", "").replace("judgements.", "")) for mark in (DECIDED, FLAGGED, SKIPPED)
)

assignments = _table(
    "assignments",
    _ref("project_id", "projects"),
    _ref("item_id", "items"),
    _ref("user_id", "users"),
    _required("round", Integer),  # 0 first, 1, 2 ... asked again; -1 adjudication
    _required("order", Json),
    _required("state", Words),  # leased | done | skipped | expired
    _required("shown_at", Number),
    _required("expires_at", Number),
    UniqueConstraint("item_id", "user_id", "round"),
    Index("ix_assignments_lease", "state", "expires_at"),
    Index("ix_assignments_user", "project_id", "user_id", "state"),
    Index(
        "ix_assignments_decided", "project_id", "state", "item_id", sqlite_where=_DECIDED, postgresql_where=_DECIDED
    ),
)

judgements = _table(
    "judgements",
    _ref("assignment_id", "assignments"),
    _ref("project_id", "projects"),
    _ref("item_id", "items"),
    _ref("user_id", "users"),
    _required("key", Words, unique=True),  # made by the client: the same answer sent twice is stored once
    Column("answer", Json),  # null: taken back
    _required("flags", Json),
    _required("comment", Words),
    _required("seconds", Number),
    _required("guideline_version", Integer),
    _required("created_at", Number),
    # Unique, and one row without it for each assignment (uq_judgements_first): the rows of an assignment form a chain
    # without branches. Two windows cannot both correct the same row, whatever the program does.
    _ref("supersedes", "judgements", nullable=True, unique=True),
    Index(
        "uq_judgements_first",
        "assignment_id",
        unique=True,
        sqlite_where=text("supersedes IS NULL"),
        postgresql_where=text("supersedes IS NULL"),
    ),
    Index("ix_judgements_assignment", "assignment_id"),
    Index(
        "ix_judgements_flagged", "project_id", "item_id", sqlite_where=_FLAGGED, postgresql_where=_FLAGGED
    ),
    Index(
        "ix_judgements_skipped", "project_id", "item_id", sqlite_where=_SKIPPED, postgresql_where=_SKIPPED
    ),
    Index("ix_judgements_project", "project_id", "id"),
    Index("ix_judgements_user", "user_id", "project_id"),
)

disputes = _table(
    "disputes",
    _ref("project_id", "projects"),
    _ref("item_id", "items", unique=True),
    _required("summary", Words),
    _required("agreement", Number),
    Index("ix_disputes_project", "project_id", "agreement"),
)
"""Items on which people differ, as of the row ``projects.read_up_to``; ``store.digest`` keeps it up to date."""

audit = _table(
    "audit",
    _required("at", Number),
    _ref("user_id", "users", nullable=True),
    _required("action", Words),
    _required("target", Words),
    _required("detail", Json),
    _required("address", Words),
)
