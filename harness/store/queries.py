"""The statements of a store: which records filters select, which are newest, and which of two of one key stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypedDict

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from harness.store.tables import records as table

Keep = Literal["newest", "ours", "theirs"]
"""Which of two records of one key stays."""


class Filters(TypedDict, total=False):
    """Which records; what is empty or absent selects all.

    `comparisons` are pairs of a task and the names of its comparisons, none for all of them. `before` and `after` are
    times in ISO 8601, UTC; records started before, and at or after them.
    """

    keys: Sequence[str]
    papers: Sequence[str]
    tasks: Sequence[str]
    methods: Sequence[str]
    profiles: Sequence[str]
    statuses: Sequence[str]
    hosts: Sequence[str]
    comparisons: Mapping[str, Sequence[str]]
    before: str | None
    after: str | None


@dataclass
class Added:
    """What came of records from elsewhere, in numbers.

    Attributes:
        new: were not here.
        same: were here, the same to the letter.
        replaced: took the place of another record of the same key.
        kept: did not, since the one here stays.
    """

    new: int = 0
    same: int = 0
    replaced: int = 0
    kept: int = 0


def put(connection: sql.Connection, rows: Sequence[Mapping[str, Any]], keep: Keep) -> None:
    """Write rows; of two with one key `keep` says which stays, but a skip never replaces a measurement."""
    if not rows:
        return
    # As text, compiled once: what SQLAlchemy does for every row of a statement of its own takes longer than writing it.
    text, order = _upsert(connection.dialect.name, keep)
    if order is None:
        connection.exec_driver_sql(text, [dict(row) for row in rows])
    else:
        connection.exec_driver_sql(text, [tuple(row[name] for name in order) for row in rows])


@lru_cache(maxsize=8)
def _upsert(dialect: str, keep: Keep) -> tuple[str, tuple[str, ...] | None]:
    """The statement that `put` runs, and the columns in the order of its places; None where places have their names."""
    statement = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    new, old = statement.excluded, table.c
    skipped: sql.ColumnElement[str] = sql.literal_column("'skipped'")
    measured, was_skip = new.status != skipped, old.status == skipped
    wins: sql.ColumnElement[bool] = sql.and_(measured, was_skip)
    if keep == "theirs":
        wins = sql.or_(measured, was_skip)
    elif keep == "newest":
        wins = sql.or_(wins, sql.and_(sql.or_(measured, was_skip), new.started > old.started))
    changes = {column.name: new[column.name] for column in table.c if column.name != "key"}
    statement = statement.on_conflict_do_update(index_elements=[old.key], set_=changes, where=wins)
    if dialect == "sqlite":
        compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
        return str(compiled), tuple(compiled.positiontup)
    named = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    return str(statement.compile(dialect=named)), None


def merge(connection: sql.Connection, rows: Sequence[Mapping[str, Any]], keep: Keep) -> Added:
    """Write rows with different keys as `put` does, and count what came of them."""
    keys = [row["key"] for row in rows]
    query = sql.select(table.c.key, table.c.digest).where(table.c.key.in_(keys))
    before: dict[str, str] = {key: digest for key, digest in connection.execute(query)}  # noqa: C416
    others = [row for row in rows if before.get(row["key"]) != row["digest"]]
    put(connection, others, keep)
    after: dict[str, str] = {key: digest for key, digest in connection.execute(query)}  # noqa: C416
    replaced = sum(row["key"] in before and after[row["key"]] == row["digest"] for row in others)
    new = sum(row["key"] not in before for row in rows)
    return Added(new, len(rows) - len(others), replaced, len(others) - new - replaced)


def conditions(filters: Filters) -> list[sql.ColumnElement[bool]]:
    """What filters ask of a row."""
    found: list[sql.ColumnElement[bool]] = []
    for name, values in (
        ("key", filters.get("keys")),
        ("paper", filters.get("papers")),
        ("task", filters.get("tasks")),
        ("method", filters.get("methods")),
        ("profile", filters.get("profiles")),
        ("status", filters.get("statuses")),
        ("host", filters.get("hosts")),
    ):
        if values:
            found.append(table.c[name].in_(values))
    if comparisons := filters.get("comparisons"):
        found.append(
            sql.or_(
                *(
                    sql.and_(table.c.task == task, table.c.comparison.in_(names))
                    if names
                    else table.c.task == task
                    for task, names in comparisons.items()
                )
            )
        )
    if before := filters.get("before"):
        found.append(table.c.started < before)
    if after := filters.get("after"):
        found.append(table.c.started >= after)
    return found


def chosen(query: sql.Select[Any], filters: Filters) -> sql.Select[Any]:
    """`query` for the records that filters select, in the order they were measured."""
    return query.where(*conditions(filters)).order_by(table.c.started, table.c.key)


def newest_of(query: sql.Select[Any], filters: Filters, dialect: str) -> sql.Select[Any]:
    """`query` for the newest record of each measurement; a skip supersedes nothing that was measured.

    What comes last in the order of one text is the newest, so that one pass over an index finds it.
    """
    measured = sql.case((table.c.status == "skipped", "0"), else_="1")
    last = sql.func.max(measured.concat(table.c.started).concat("\n").concat(table.c.key)).label("last")
    by = (table.c.task, table.c.comparison, table.c.profile, table.c.measured)
    found = sql.select(last).where(*conditions(filters)).group_by(*by).subquery()
    key: sql.ColumnElement[str]
    if dialect == "sqlite":
        key = sql.func.substr(found.c.last, sql.func.instr(found.c.last, "\n") + 1)
    else:
        key = sql.func.split_part(found.c.last, "\n", 2)
    return query.where(table.c.key.in_(sql.select(key))).order_by(table.c.started, table.c.key)
