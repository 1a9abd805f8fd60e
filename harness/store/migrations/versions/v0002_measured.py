"""What was measured and where as columns, a digest of every document, and indexes for a million records."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sql
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_PORTION = 1000
_Text = sql.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_KEPT = ("key", "paper", "task", "method", "profile", "status", "source", "started", "document")


def upgrade() -> None:
    """Copy every record into the new table; one whose document cannot be read is kept as it is."""
    connection = op.get_bind()
    new = op.create_table(
        "records_new",
        sql.Column("key", _Text, nullable=False),
        sql.Column("paper", _Text),
        *(
            sql.Column(name, _Text, nullable=False)
            for name in (
                "comparison", "task", "method", "label", "profile", "status", "source", "host", "started", "measured",
                "digest", "document",
            )
        ),
        sql.PrimaryKeyConstraint("key", name="pk_records"),
    )  # fmt: skip
    old = sql.table("records", *(sql.column(name) for name in _KEPT))
    query = sql.select(old).order_by(old.c.key).limit(_PORTION)
    last: str | None = None
    while True:
        # By key, and not with one cursor: writing in the middle of reading is not for every driver.
        portion = query if last is None else query.where(old.c.key > last)
        rows = [_row(dict(row)) for row in connection.execute(portion).mappings()]
        if not rows:
            break
        connection.execute(sql.insert(new), rows)
        last = rows[-1]["key"]
    op.drop_table("records")
    op.rename_table("records_new", "records")
    op.create_index("ix_records_started", "records", ["started", "key"])
    op.create_index(
        "ix_records_task", "records", ["task", "comparison", "profile", "measured", "status", "started", "key"]
    )
    op.create_index("ix_records_paper", "records", ["paper", "profile"])
    op.execute("UPDATE harness SET value = '2' WHERE name = 'version'")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(row["document"].encode()).hexdigest()[:32]
    try:
        document = json.loads(row["document"])
        text = "\n".join(
            (
                document["comparison"],
                document["profile"],
                document["task"],
                _as_text(document["task_parameters"]),
                document["method"],
                document["label"],
                _as_text(document["method_parameters"]),
                str(document["seed"]),
            )
        )
        found = {
            "comparison": document["comparison"],
            "label": document["label"],
            "host": str(document.get("environment", {}).get("machine", {}).get("host") or ""),
            "measured": hashlib.sha256(text.encode()).hexdigest()[:32],
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        # Shown by `harness store check`, and removed by nobody but its owner.
        found = {"comparison": "", "label": row["method"], "host": "", "measured": row["key"]}
    return {**row, **found, "digest": digest}


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
