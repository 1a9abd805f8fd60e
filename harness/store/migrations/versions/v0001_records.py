"""Records by key, with what the first queries selected by."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of version 1."""
    op.create_table(
        "records",
        sql.Column("key", sql.String, primary_key=True),
        sql.Column("paper", sql.String, index=True),
        sql.Column("task", sql.String, nullable=False, index=True),
        sql.Column("method", sql.String, nullable=False),
        sql.Column("profile", sql.String, nullable=False),
        sql.Column("status", sql.String, nullable=False),
        sql.Column("source", sql.String, nullable=False),
        sql.Column("started", sql.String, nullable=False),
        sql.Column("document", sql.String, nullable=False),
    )
    op.create_table(
        "harness",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("value", sql.String, nullable=False),
    )
    op.execute("INSERT INTO harness (name, value) VALUES ('version', '1')")
