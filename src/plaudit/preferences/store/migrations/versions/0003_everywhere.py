"""Reviewers of all projects, and reviewers of those they were added to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. People who were reviewers before saw every project, and still do."""
    op.add_column("users", sa.Column("everywhere", sa.Integer(), nullable=False, server_default="0"))
    users = sa.table("users", sa.column("role"), sa.column("everywhere"))
    op.get_bind().execute(sa.update(users).where(users.c.role == "reviewer").values(everywhere=1))


def downgrade() -> None:
    """Not offered: restore a backup instead."""
    raise NotImplementedError
