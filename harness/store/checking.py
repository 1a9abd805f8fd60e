"""Whether a store is sound: the file, the tables, and every record in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from pydantic import ValidationError

from harness.errors import RequestError
from harness.record import Record
from harness.store import tables
from harness.store.store import Store


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes:
        what: one sentence.
        key: the record that it is about; None where it is about the store as a whole.
    """

    what: str
    key: str | None = None


def check(store: Store, tell: Callable[[int], None] = lambda count: None) -> Iterator[Fault]:
    """Everything that is wrong with a store; nothing, where it is sound.

    Checked are the pages of an SQLite file and its indexes, that the tables are those of this version, and of every
    record that its document is the one that was written, is a record, and says what the columns say.

    Args:
        store: what is checked. It is not changed, unless it is of an earlier version.
        tell: told how many records were checked so far.

    Raises:
        RequestError: there is no such store, or it cannot be opened at all.
    """
    engine = store.database.engine(create=False)
    if engine is None:
        raise RequestError(f"there is no store '{store.location}'")
    damaged = False
    for fault in _database(store, engine):
        damaged = True
        yield fault
    try:
        for number, row in enumerate(store.documents(), 1):
            what = fault_of(row)
            if what is not None:
                yield Fault(what, str(row["key"]))
            if number % 1000 == 0:
                tell(number)
    except RequestError as error:
        # Pages that cannot be read end the reading of rows; that they cannot has been said above.
        if not damaged:
            yield Fault(str(error))


def damaged(store: Store) -> list[str]:
    """Keys of the records that are not as they were written, or cannot be read."""
    return [str(row["key"]) for row in store.documents() if fault_of(row) is not None]


def fault_of(row: dict[str, Any]) -> str | None:
    """What is wrong with a row of the table of records; None where it is sound."""
    document = row["document"]
    if not isinstance(document, str):
        return "its document is not text"
    if row["digest"] != tables.digest_of(document):
        return "its document is not the one that was written"
    try:
        record = Record.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"its document is not a record: {'.'.join(map(str, first['loc']))} {first['msg']}".replace(
            "  ", " "
        )
    for name, value in tables.columns_of(record).items():
        if row[name] != value:
            return f"its column '{name}' says {row[name]!r} and its document {value!r}"
    return None


def _database(store: Store, engine: sql.Engine) -> Iterator[Fault]:
    try:
        with store.database.explained(), engine.connect() as connection:
            if store.database.path is not None:
                raw: Any = connection.connection.driver_connection
                assert isinstance(raw, sqlite3.Connection)
                for (text,) in raw.execute("PRAGMA integrity_check"):
                    if text != "ok":
                        yield Fault(str(text))
            inspector = sql.inspect(connection)
            for table in tables.metadata.sorted_tables:
                there = {c["name"] for c in inspector.get_columns(table.name)}
                for name in sorted({c.name for c in table.columns} - there):
                    yield Fault(f"the table '{table.name}' has no column '{name}'")
            missing = {str(i.name) for i in tables.records.indexes} - {
                str(i["name"]) for i in inspector.get_indexes(tables.records.name)
            }
            for name in sorted(missing):
                yield Fault(f"the index '{name}' is missing, which makes the store slow")
    except RequestError as error:
        yield Fault(str(error))
