"""Two names that differ in capitals only are one person's, in every alphabet: SQLite's lower() knows ASCII only."""

from __future__ import annotations

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Of two people whose names now count as the same, the later one logs in with their name and a number."""
    op.add_column("users", sa.Column("name_key", sa.Text(), nullable=False, server_default=""))
    conn = op.get_bind()
    users = sa.table("users", sa.column("id"), sa.column("name"), sa.column("name_key"))
    seen: set[str] = set()
    for number, name in conn.execute(sa.select(users.c.id, users.c.name).order_by(users.c.id)).all():
        # The formula of ``people.name_key``, written out: that function may change, this migration may not.
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        key = f"{key} {number}" if key in seen else key
        seen.add(key)
        conn.execute(sa.update(users).where(users.c.id == number).values(name_key=key))
    op.create_index("uq_users_name_key", "users", ["name_key"], unique=True)


def downgrade() -> None:
    """Not offered: restore a backup instead."""
    raise NotImplementedError
