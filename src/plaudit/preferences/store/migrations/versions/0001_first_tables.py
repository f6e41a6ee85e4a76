"""The first tables, and triggers that keep the history append-only."""

# A migration spells the tables out and does not import ``schema.py``: it must do the same for ever, also when the
# schema has changed since.

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Number: Any = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Apply."""
    _projects()
    _users()
    _audit()
    _guidelines()
    _invitations()
    _items()
    _members()
    _tokens()
    _assignments()
    _responses()
    _judgements()
    _append_only("judgements")
    _append_only("audit")


def downgrade() -> None:
    """Not offered: answers of people are not thrown away. Restore a backup instead."""
    raise NotImplementedError


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("guideline_version", sa.Integer(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("closed_at", Number, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("slug", name="uq_projects_slug"),
        sqlite_strict=True,
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("disabled_at", Number, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
        sqlite_strict=True,
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", Number, nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_audit_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_strict=True,
    )


def _guidelines() -> None:
    op.create_table(
        "guidelines",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_guidelines_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_guidelines_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_guidelines"),
        sa.UniqueConstraint("project_id", "version", name="uq_guidelines_project_id_version"),
        sqlite_strict=True,
    )


def _invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("expires_at", Number, nullable=False),
        sa.Column("used_at", Number, nullable=True),
        sa.Column("used_by", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_invitations_created_by"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_invitations_project_id"),
        sa.ForeignKeyConstraint(["used_by"], ["users.id"], name="fk_invitations_used_by"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("digest", name="uq_invitations_digest"),
        sqlite_strict=True,
    )


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("gold", sa.Text(), nullable=True),
        sa.Column("is_gold", sa.Integer(), nullable=False),
        sa.Column("priority", Number, nullable=False),
        sa.Column("shuffle", Number, nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_items_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.UniqueConstraint("project_id", "key", name="uq_items_project_id_key"),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_items_priority", "items", ["project_id", "is_gold", "priority", "shuffle"], unique=False
    )
    op.create_index("ix_items_queue", "items", ["project_id", "is_gold", "taken", "shuffle"], unique=False)
    op.create_index("ix_items_shuffle", "items", ["project_id", "is_gold", "shuffle"], unique=False)


def _members() -> None:
    op.create_table(
        "members",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_members_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_members_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        sa.UniqueConstraint("project_id", "user_id", name="uq_members_project_id_user_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_members_user_id", "members", ["user_id"], unique=False)


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("expires_at", Number, nullable=False),
        sa.Column("revoked_at", Number, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
        sqlite_strict=True,
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"], unique=False)


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("shown_at", Number, nullable=False),
        sa.Column("expires_at", Number, nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_assignments_item_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_assignments_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_assignments_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assignments"),
        sa.UniqueConstraint("item_id", "user_id", "round", name="uq_assignments_item_id_user_id_round"),
        sqlite_strict=True,
    )
    op.create_index("ix_assignments_lease", "assignments", ["state", "expires_at"], unique=False)
    op.create_index("ix_assignments_user", "assignments", ["project_id", "user_id", "state"], unique=False)


def _responses() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_responses_item_id"),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        sa.UniqueConstraint("item_id", "number", name="uq_responses_item_id_number"),
        sqlite_strict=True,
    )


def _judgements() -> None:
    op.create_table(
        "judgements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("seconds", Number, nullable=False),
        sa.Column("guideline_version", sa.Integer(), nullable=False),
        sa.Column("created_at", Number, nullable=False),
        sa.Column("supersedes", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignments.id"], name="fk_judgements_assignment_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_judgements_item_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_judgements_project_id"),
        sa.ForeignKeyConstraint(["supersedes"], ["judgements.id"], name="fk_judgements_supersedes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_judgements_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_judgements"),
        sa.UniqueConstraint("key", name="uq_judgements_key"),
        sa.UniqueConstraint("supersedes", name="uq_judgements_supersedes"),
        sqlite_strict=True,
    )
    op.create_index("ix_judgements_assignment", "judgements", ["assignment_id"], unique=False)
    op.create_index("ix_judgements_project", "judgements", ["project_id", "id"], unique=False)
    op.create_index("ix_judgements_user", "judgements", ["user_id", "project_id"], unique=False)
    op.create_index(
        "uq_judgements_first",
        "judgements",
        ["assignment_id"],
        unique=True,
        sqlite_where=sa.text("supersedes IS NULL"),
        postgresql_where=sa.text("supersedes IS NULL"),
    )


def _append_only(table: str) -> None:
    """Make the database itself refuse to change or delete rows of this table."""
    # By a trigger and not only by the program's care: exports name revisions, and somebody with a database client could
    # otherwise change what a revision was.
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()"
    )
