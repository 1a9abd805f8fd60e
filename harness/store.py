"""Records in a database: one SQLite file by default, any database of SQLAlchemy by URL.

Writing is idempotent: the same measurement has the same key, and a later record of it takes the place of the
earlier one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness.errors import RequestError
from harness.record import Record

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "HARNESS_STORE"
VERSION = 1


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    """A record: what queries select by as columns, everything as JSON."""

    __tablename__ = "records"

    key: Mapped[str] = mapped_column(primary_key=True)
    paper: Mapped[str | None] = mapped_column(index=True)
    task: Mapped[str] = mapped_column(index=True)
    method: Mapped[str]
    profile: Mapped[str]
    status: Mapped[str]
    source: Mapped[str]
    started: Mapped[str]
    document: Mapped[str]


class _Meta(_Base):
    __tablename__ = "harness"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


def default_location() -> str:
    """``HARNESS_STORE``, or ``.harness/records.sqlite`` in the current directory."""
    return os.environ.get(VARIABLE) or str(Path(".harness") / "records.sqlite")


class Store:
    """Records of one database.

    Args:
        location: a path of an SQLite file or an SQLAlchemy URL. The file and its folder are made on the first
            write, so that reading an absent store shows no records and leaves nothing behind.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        text = str(location) if location is not None else default_location()
        self._path = None if "://" in text else Path(text).expanduser()
        self._url = text if self._path is None else f"sqlite:///{self._path}"
        self._engine: sql.Engine | None = None
        self.location = text

    def add(self, *records: Record) -> None:
        """Write records, all or none; one with the same key is replaced."""
        rows = [
            _Row(
                key=record.key,
                paper=record.paper,
                task=record.task,
                method=record.method,
                profile=record.profile,
                status=record.status,
                source=record.source,
                started=record.started,
                document=record.model_dump_json(exclude_none=True),
            )
            for record in records
        ]
        with Session(self._open(create=True)) as session, session.begin():
            for row in rows:
                session.merge(row)

    def get(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records among `keys` that are stored, by key."""
        engine = self._open(create=False)
        if engine is None:
            return {}
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Record] = {}
        with Session(engine) as session:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                for (document,) in session.execute(sql.select(_Row.document).where(_Row.key.in_(part))):
                    record = Record.model_validate_json(document)
                    found[record.key] = record
        return found

    def records(
        self,
        *,
        papers: Sequence[str] = (),
        tasks: Sequence[str] = (),
        methods: Sequence[str] = (),
        profiles: Sequence[str] = (),
        statuses: Sequence[str] = (),
    ) -> Iterator[Record]:
        """Records in the order they were measured; an empty filter selects all."""
        engine = self._open(create=False)
        if engine is None:
            return
        query = _chosen(sql.select(_Row.document), papers, tasks, methods, profiles, statuses)
        with Session(engine) as session:
            # In portions: the driver would otherwise hold every document of a large store at once.
            for document in session.scalars(query.execution_options(yield_per=1000)):
                yield Record.model_validate_json(document)

    def keys(self, *, papers: Sequence[str] = (), profiles: Sequence[str] = ()) -> list[str]:
        """Keys of records in the order they were measured; an empty filter selects all."""
        engine = self._open(create=False)
        if engine is None:
            return []
        with Session(engine) as session:
            return list(session.scalars(_chosen(sql.select(_Row.key), papers, (), (), profiles, ())))

    def frame(self, **filters: Any) -> pd.DataFrame:
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

    def _open(self, *, create: bool) -> Any:
        if self._engine is not None:
            return self._engine
        if self._path is not None and not self._path.exists() and not create:
            return None
        if self._path is not None and create:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RequestError(
                    f"the store '{self.location}' cannot be made: {error.strerror}",
                    hint=f"name another with --store or {VARIABLE}",
                ) from error
        try:
            engine = sql.create_engine(self._url)
            if engine.dialect.name == "sqlite":
                sql.event.listen(engine, "connect", _durable)
            _Base.metadata.create_all(engine)
            with Session(engine) as session, session.begin():
                version = session.get(_Meta, "version")
                if version is None:
                    session.add(_Meta(name="version", value=str(VERSION)))
                elif int(version.value) > VERSION:
                    raise RequestError(
                        f"the store '{self.location}' was written by a later version of the harness"
                        f" (format {version.value}, this one reads up to {VERSION})",
                        hint="upgrade the harness, or name another store",
                    )
        except (sql.exc.DatabaseError, sql.exc.ArgumentError, ImportError) as error:
            raise RequestError(
                f"the store '{self.location}' cannot be opened: {str(error).splitlines()[0]}",
                hint="a store is an SQLite file of ours or an SQLAlchemy URL",
            ) from error
        self._engine = engine
        return engine


def _chosen(
    query: sql.Select[Any],
    papers: Sequence[str],
    tasks: Sequence[str],
    methods: Sequence[str],
    profiles: Sequence[str],
    statuses: Sequence[str],
) -> sql.Select[Any]:
    """`query` for the records that filters select, in the order they were measured."""
    for column, values in (
        (_Row.paper, papers),
        (_Row.task, tasks),
        (_Row.method, methods),
        (_Row.profile, profiles),
        (_Row.status, statuses),
    ):
        if values:
            query = query.where(column.in_(values))
    return query.order_by(_Row.started, _Row.key)


def _durable(connection: Any, _: Any) -> None:
    """Several readers and one writer at a time, without waiting for each other longer than they must."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
