"""The store: what is written to it and asked of it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import sqlalchemy as sql
from pydantic import ValidationError

from harness.errors import HarnessError, RequestError
from harness.record import Record
from harness.store.database import VARIABLE, Database, Gone, default_location, log
from harness.store.queries import Added, Filters, Keep, chosen, conditions, merge, newest_of, put
from harness.store.tables import records as table
from harness.store.tables import row_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "VARIABLE",
    "Added",
    "Database",
    "Filters",
    "Gone",
    "Group",
    "Keep",
    "Store",
    "Stored",
    "default_location",
]

_PORTION = 500
_READ = 1000
_MARK = ("key", "measured", "task", "method", "source", "status", "started")


class Measurement(NamedTuple):
    """What is measured, whatever the source: `measured` is the digest that `harness.store.tables.measured_of` gives."""

    task: str
    profile: str
    comparison: str
    measured: str


class Stored(NamedTuple):
    """What is known of a stored record without reading it whole; see `harness.record.Record`."""

    key: str
    measured: str
    task: str
    method: str
    source: str
    status: str
    started: str


@dataclass(frozen=True)
class Group:
    """Records that share what is named here: how many there are, when the first and the last were started."""

    paper: str | None
    comparison: str
    profile: str
    task: str
    method: str
    source: str
    status: str
    count: int
    first: str
    last: str


class Store:
    """Records of one database.

    Args:
        location: a path of an SQLite file or the URL of a PostgreSQL database; default `default_location`. The file and
            its folder are made on the first write, so that reading an absent store shows no records and leaves nothing
            behind.
        patience: seconds to wait for a database that was there and is gone or busy; default ``HARNESS_STORE_PATIENCE``
            or 60.

    Every method raises `RequestError` where the database is no store or cannot be reached, and `HarnessError` where it
    was there and did not come back in time.
    """

    def __init__(self, location: str | Path | None = None, *, patience: float | None = None) -> None:
        self.database = Database(location if location is not None else default_location(), patience)
        self.location = self.database.location

    def open(self) -> None:
        """Make the store if there is none, and find out that it can be written before anything is measured."""
        self.database.write(lambda connection: None)

    def close(self) -> None:
        """Give up connections; the store can be used again."""
        self.database.close()

    def add(self, *records: Record) -> None:
        """Write records, all or none; one with the same key is replaced, but never a measurement by a skip.

        Records that cannot be written even after waiting are put into a file, which the error names.

        Raises:
            HarnessError: they could not be written.
        """
        rows = [row_of(record) for record in records]
        # In one order, so that two processes that write the same ones do not wait for each other for ever.
        rows.sort(key=lambda row: str(row["key"]))
        try:
            self.database.write(lambda connection: put(connection, rows, "theirs"))
        except (HarnessError, KeyboardInterrupt) as error:
            if not rows:
                raise
            kept = self._set_aside(records)
            if isinstance(error, KeyboardInterrupt):
                log.warning("%s", kept)
                raise
            raise HarnessError(f"{error}. {kept}") from error

    def bring_in(self, records: Iterable[Record], keep: Keep = "newest") -> Added:
        """Write records from elsewhere in portions, each as a whole.

        Args:
            records: read once.
            keep: which one stays where the store has another record of the same key: the one that was started last,
                the store's own, or the other. A measurement is never replaced by a skip, and always replaces one.
        """
        total = Added()
        portion: dict[str, dict[str, Any]] = {}

        def flush() -> None:
            rows = [portion[key] for key in sorted(portion)]
            added = self.database.write(lambda connection: merge(connection, rows, keep))
            for name in ("new", "same", "replaced", "kept"):
                setattr(total, name, getattr(total, name) + getattr(added, name))
            portion.clear()

        for record in records:
            if record.key in portion or len(portion) >= _PORTION:
                flush()
            portion[record.key] = row_of(record)
        if portion:
            flush()
        return total

    def delete(self, keys: Iterable[str]) -> int:
        """Delete records. Returns how many there were."""
        wanted = list(dict.fromkeys(keys))

        def work(connection: sql.Connection) -> int:
            parts = (wanted[i : i + _PORTION] for i in range(0, len(wanted), _PORTION))
            return sum(connection.execute(sql.delete(table).where(table.c.key.in_(p))).rowcount for p in parts)

        return self.database.write(work) if wanted else 0

    def compact(self) -> bool:
        """Give the space of deleted records back to the file system; PostgreSQL does so by itself.

        Returns:
            Whether that was possible, which it is not while another process uses an SQLite file.
        """
        engine = self.database.engine(create=False)
        if engine is None or self.database.path is None:
            return True
        try:
            with self.database.explained(), engine.connect() as connection:
                raw: Any = connection.connection.driver_connection
                raw.execute("VACUUM")
        except Gone:
            return False
        return True

    def get(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records among `keys` that are stored, by key."""
        found: dict[str, Record] = {}
        for key, document in self._rows(keys, table.c.key, ("key", "document")):
            found[key] = self._record(key, document)
        return found

    def latest(self, wanted: Iterable[Measurement]) -> dict[str, Stored]:
        """The newest record of each measurement that has any, by the digest in it."""
        places: dict[tuple[str, str, str], list[str]] = {}
        for each in wanted:
            places.setdefault((each.task, each.profile, each.comparison), []).append(each.measured)
        found: dict[str, Stored] = {}
        for (task, profile, comparison), measured in places.items():
            of = (table.c.task == task, table.c.profile == profile, table.c.comparison == comparison)
            for stored in map(_stored, self._rows(measured, table.c.measured, _MARK, *of)):
                other = found.get(stored.measured)
                if other is None or _rank(stored) > _rank(other):
                    found[stored.measured] = stored
        return found

    def records(self, *, newest: bool = False, **filters: Unpack[Filters]) -> Iterator[Record]:
        """Records in the order they were measured; an empty filter selects all.

        Args:
            newest: only the latest record of each measurement, as `harness.current.newest` finds it.
        """
        query = sql.select(table.c.key, table.c.document)
        query = newest_of(query, filters, self.database.dialect) if newest else chosen(query, filters)
        with self.database.reading() as connection:
            if connection is None:
                return
            # In portions: the driver would otherwise hold every document of a large store at once.
            rows: Iterable[Any] = connection.execution_options(yield_per=_READ).execute(query)
            for key, document in rows:
                yield self._record(key, document)

    def documents(self, **filters: Unpack[Filters]) -> Iterator[dict[str, Any]]:
        """Rows of the table as they are, in the order they were measured, for checking and exporting."""
        with self.database.reading() as connection:
            if connection is not None:
                rows = connection.execution_options(yield_per=_READ).execute(chosen(sql.select(table), filters))
                yield from (dict(row) for row in rows.mappings())

    def keys(self, *, newest: bool = False, **filters: Unpack[Filters]) -> list[str]:
        """Keys of records in the order they were measured; an empty filter selects all."""
        query = sql.select(table.c.key)
        query = newest_of(query, filters, self.database.dialect) if newest else chosen(query, filters)
        return [row[0] for row in self._all(query)]

    def marks(self, **filters: Unpack[Filters]) -> Iterator[Stored]:
        """Records without their documents, in the order they were measured."""
        query = chosen(sql.select(*(table.c[name] for name in _MARK)), filters)
        with self.database.reading() as connection:
            if connection is not None:
                rows = connection.execution_options(yield_per=_READ).execute(query)
                yield from map(_stored, rows)

    def groups(self, **filters: Unpack[Filters]) -> list[Group]:
        """How many records there are of each paper, comparison, profile, method, source and status."""
        names = [field.name for field in fields(Group)]
        by = [table.c[name] for name in names[:7]]
        times = (sql.func.count(), sql.func.min(table.c.started), sql.func.max(table.c.started))
        query = sql.select(*by, *times).group_by(*by)
        query = query.where(*conditions(filters))
        found = [
            Group(**dict(zip(names, (*map(_text, row[:7]), row[7], *map(_text, row[8:])), strict=True)))
            for row in self._all(query)
        ]
        return sorted(found, key=lambda g: (g.paper or "", g.comparison, g.profile, g.task, g.method, g.status))

    def count(self, **filters: Unpack[Filters]) -> int:
        """How many records there are; an empty filter selects all."""
        query = sql.select(sql.func.count()).select_from(table).where(*conditions(filters))
        return int(next((row[0] for row in self._all(query)), 0))

    def frame(self, **filters: Unpack[Filters]) -> pd.DataFrame:
        """Records as a data frame: one row each, parameters and metrics as columns with their own prefixes.

        Columns: key, suite, comparison, paper, task, method, label, seed, profile, status, reason, the metrics of the
        instrument (seconds, bytes), ``task.<parameter>``, ``method.<parameter>`` and ``metric.<name>``.
        """
        import pandas as pd

        from harness.record import INSTRUMENT_METRICS

        rows = []
        for r in self.records(**filters):
            row: dict[str, Any] = {
                name: getattr(r, name)
                for name in (
                    "key", "suite", "comparison", "paper", "task", "method", "label", "seed", "profile", "status",
                    "reason", "started", "duration",
                )
            }  # fmt: skip
            row |= {name: r.instrument(name) for name in INSTRUMENT_METRICS}
            row |= {f"task.{k}": v for k, v in r.task_parameters.items()}
            row |= {f"method.{k}": v for k, v in r.method_parameters.items()}
            row |= {f"metric.{k}": v for k, v in r.metrics.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def _rows(
        self, values: Iterable[str], column: sql.Column[Any], names: Sequence[str], *of: sql.ColumnElement[bool]
    ) -> Iterator[Any]:
        """Columns of the rows whose `column` has one of some values, and for which all of `of` holds."""
        wanted = list(dict.fromkeys(values))
        query = sql.select(*(table.c[name] for name in names)).where(*of)
        for start in range(0, len(wanted), _PORTION):
            portion = query.where(column.in_(wanted[start : start + _PORTION]))
            yield from self._all(portion)

    def _all(self, query: sql.Select[Any]) -> Sequence[Any]:
        """All rows of a query; none where there is no store."""
        return self.database.read(lambda connection: connection.execute(query).all(), [])

    def _record(self, key: str, document: Any) -> Record:
        try:
            return Record.model_validate_json(document)
        except (ValidationError, TypeError) as error:
            raise RequestError(
                f"the record {key!r} in the store '{self.location}' cannot be read: {_why(error)}",
                hint="harness store check lists all such records, harness store prune --damaged removes them",
            ) from error

    def _set_aside(self, records: Sequence[Record]) -> str:
        """Keep records that cannot be stored in a file; says where."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"unsaved-{socket.gethostname()}-{os.getpid()}-{stamp}.jsonl"
        path = self.database.path
        lines = "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records)
        for folder in (path.parent if path else Path(".harness"), Path(tempfile.gettempdir())):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / name, "a", encoding="utf-8") as file:
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                continue
            return f"What was measured is kept: harness store import '{folder / name}'"
        return f"{len(records)} records could be written nowhere and are lost"


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return str(error).splitlines()[0]


def _stored(row: Iterable[Any]) -> Stored:
    return Stored(*map(_text, row))


def _text(value: Any) -> Any:
    """A value of a column of text, which in a damaged SQLite file may be something else."""
    return value if value is None or isinstance(value, str) else str(value)


def _rank(stored: Stored) -> tuple[bool, str, str]:
    return stored.status != "skipped", stored.started, stored.key
