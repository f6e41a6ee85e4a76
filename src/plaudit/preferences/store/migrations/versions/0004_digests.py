"""A table of disputed items, and indexes of flagged and skipped ones, for pages that list them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The table starts empty: it is filled in the background from the first row of each project on."""
    op.add_column("projects", sa.Column("read_up_to", sa.Integer(), nullable=False, server_default="0"))
    number: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.create_table(
        "disputes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("agreement", number, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_disputes_project_id_projects"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_disputes_item_id_items"),
        sa.PrimaryKeyConstraint("id", name="pk_disputes"),
        sa.UniqueConstraint("item_id", name="uq_disputes_item_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_disputes_project", "disputes", ["project_id", "agreement"])
    only = sa.text("round = -1")
    columns = ["project_id", "state", "item_id"]
    op.create_index(
        "ix_assignments_decided", "assignments", columns, sqlite_where=only, postgresql_where=only
    )
    for name, where in (("flagged", "flags <> '[]'"), ("skipped", "substr(answer, 1, 14) = '{\"type\":\"skip\"'")):
        only = sa.text(where)
        op.create_index(
            f"ix_judgements_{name}", "judgements", ["project_id", "item_id"], sqlite_where=only, postgresql_where=only
        )


def downgrade() -> None:
    """Not offered: restore a backup instead."""
    raise NotImplementedError
