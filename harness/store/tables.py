"""The tables of a store, as its newest version has them; ``migrations`` leads earlier ones here."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql

from harness.current import identity_of
from harness.record import Record

VERSION = 2
"""Version of the tables. Each has its migration of the same number."""

REVISION = f"{VERSION:04d}"
"""What Alembic calls it."""

# In the order of code points on both databases: a server's language must not decide which record is newest.
_Text = sql.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = sql.MetaData()

records = sql.Table(
    "records",
    metadata,
    sql.Column("key", _Text, nullable=False),
    sql.Column("paper", _Text),
    sql.Column("comparison", _Text, nullable=False),
    sql.Column("task", _Text, nullable=False),
    sql.Column("method", _Text, nullable=False),
    sql.Column("label", _Text, nullable=False),
    sql.Column("profile", _Text, nullable=False),
    sql.Column("status", _Text, nullable=False),
    sql.Column("source", _Text, nullable=False),
    sql.Column("host", _Text, nullable=False),
    sql.Column("started", _Text, nullable=False),
    # What was measured, whatever the source and versions: a later record of the same supersedes an earlier one.
    sql.Column("measured", _Text, nullable=False),
    # Of the document, so that a bit that flipped on a disk is found.
    sql.Column("digest", _Text, nullable=False),
    sql.Column("document", _Text, nullable=False),
    sql.PrimaryKeyConstraint("key", name="pk_records"),
    sql.Index("ix_records_started", "started", "key"),
    # All that it takes to find the newest record of each measurement of a comparison, so that no other row is read.
    sql.Index("ix_records_task", "task", "comparison", "profile", "measured", "status", "started", "key"),
    sql.Index("ix_records_paper", "paper", "profile"),
)
"""A record each: what queries select by as columns, everything as JSON. A newer record of a key replaces the older."""

about = sql.Table(
    "harness",
    metadata,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("value", sql.String, nullable=False),
)
"""The version, where every version of the harness looks for it."""

alembic_version = sql.Table(
    "alembic_version",
    metadata,
    sql.Column("version_num", sql.String(32), nullable=False),
    sql.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own note of the same."""


def measured_of(record: Record) -> str:
    """A digest of what a record measured, whatever the source and versions."""
    text = "\n".join((record.comparison, record.profile, identity_of(record)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(document: str) -> str:
    """The digest of a document."""
    return hashlib.sha256(document.encode()).hexdigest()[:32]


def row_of(record: Record) -> dict[str, Any]:
    """A record as a row of `records`."""
    document = record.model_dump_json(exclude_none=True)
    return {
        **columns_of(record),
        "digest": digest_of(document),
        "document": document,
    }


def columns_of(record: Record) -> dict[str, Any]:
    """What a row of `records` repeats from its document."""
    machine = record.environment.get("machine")
    return {
        "key": record.key,
        "paper": record.paper,
        "comparison": record.comparison,
        "task": record.task,
        "method": record.method,
        "label": record.label,
        "profile": record.profile,
        "status": record.status,
        "source": record.source,
        "host": str(machine.get("host") or "") if isinstance(machine, dict) else "",
        "started": record.started,
        "measured": measured_of(record),
    }
