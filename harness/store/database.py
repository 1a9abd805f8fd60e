"""The database of a store: how it is reached, made, recognised, and waited for."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sql

from harness import errors
from harness.errors import HarnessError, RequestError
from harness.store import tables

Result = TypeVar("Result")

VARIABLE = "HARNESS_STORE"
PATIENCE_VARIABLE = "HARNESS_STORE_PATIENCE"
PATIENCE = 60.0
"""Seconds that a database which was there and is gone is waited for."""

LARGEST = 256 << 20
"""Bytes of the largest value that is read from a file, which may come from anywhere."""

_BUSY = 30_000
_LOCK = 0x68_61_72_6E  # any number, as long as all harness processes take the same
_GONE = ("08", "57P", "53300", "40001", "40P01")
"""SQLSTATEs that pass: connection lost, server going down or coming up, too many connections, lost races."""

_NAMES = {t.name for t in tables.metadata.sorted_tables}
log = logging.getLogger("harness.store")


def default_location() -> str:
    """``HARNESS_STORE``, or ``.harness/records.sqlite`` in the current directory."""
    return os.environ.get(VARIABLE) or str(Path(".harness") / "records.sqlite")


class Gone(HarnessError):
    """The database was there and is not any longer, or is busy, and has been waited for long enough."""


class Database:
    """One database, reached when it is first needed.

    Args:
        location: a path of an SQLite file or the URL of a PostgreSQL database.
        patience: seconds to wait when a database that was there is gone or busy.

    Attributes:
        location: the same without its password.
        path: the SQLite file; None on PostgreSQL.
        keep_earlier: whether a migration keeps what was there before, and says so.
    """

    def __init__(self, location: str | Path, patience: float | None = None) -> None:
        self._url = _url(str(location))
        self.path = Path(str(self._url.database)) if self._url.get_backend_name() == "sqlite" else None
        self.location = str(location) if self.path else self._url.render_as_string(hide_password=True)
        self.patience = _patience() if patience is None else patience
        self.keep_earlier = True
        self._engine: sql.Engine | None = None
        self._process = 0
        self._reached = False

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        return "postgresql" if self.path is None else "sqlite"

    def engine(self, *, create: bool) -> sql.Engine | None:
        """The engine of a store that exists and is of this version; None where there is none and `create` is False.

        Raises:
            RequestError: it is no store, is of a later version, or cannot be reached or made.
        """
        if self._engine is not None:
            if self._process == os.getpid():
                return self._engine
            # A connection must not be shared with the process that this one was forked from.
            self._engine.dispose(close=False)
            self._engine = None
        if self.path is not None and not self.path.exists() and not create:
            return None
        with self.explained():
            if self.path is not None and create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            engine = _engine(self._url, self.path)
            try:
                there = self._recognise(engine, create)
            except BaseException:
                engine.dispose()
                raise
        if not there:
            engine.dispose()
            return None
        self._engine, self._process = engine, os.getpid()
        return engine

    def close(self) -> None:
        """Give up connections; the next use makes new ones."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def write(self, work: Callable[[sql.Connection], Result]) -> Result:
        """The result of `work` in a transaction, which is repeated while the database is gone or busy.

        Raises:
            Gone: it stayed so for longer than the patience.
            RequestError: it cannot be written.
        """

        def once() -> Result:
            engine = self.engine(create=True)
            assert engine is not None
            with writing(engine) as connection:
                return work(connection)

        return self._patiently(once)

    def read(self, work: Callable[[sql.Connection], Result], absent: Result) -> Result:
        """The result of `work`, which is repeated while the database is gone or busy; `absent` where there is no store.

        Raises:
            Gone: it stayed so for longer than the patience.
            RequestError: it cannot be read.
        """

        def once() -> Result:
            engine = self.engine(create=False)
            if engine is None:
                return absent
            with engine.connect() as connection:
                return work(connection)

        return self._patiently(once)

    @contextmanager
    def reading(self) -> Iterator[sql.Connection | None]:
        """A connection to read much from, a portion at a time, as of one moment; None where there is no store."""
        engine = self._patiently(lambda: self.engine(create=False))
        if engine is None:
            yield None
            return
        with self._patiently(engine.connect) as connection, self.explained():
            yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns errors of the database and of the file system into one sentence about the store."""
        try:
            yield
        except (sql.exc.SQLAlchemyError, sqlite3.Error, UnicodeError, ImportError, OSError) as error:
            if self._reached and passes(error):
                raise Gone(f"the store '{self.location}' cannot be reached: {first_line(error)}") from error
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> RequestError:
        text = first_line(error)
        if isinstance(error, ImportError):
            hint = "stores on PostgreSQL need: python -m pip install 'paper-harness[postgres]'"
        elif "malformed" in text or "not a database" in text or "decode" in text.lower():
            hint = "it is not a store, or is damaged: restore a copy, or name another store"
        elif isinstance(error, OSError) and error.strerror:
            text, hint = error.strerror, f"name another with --store or {VARIABLE}"
        else:
            hint = "a store is an SQLite file of ours or the URL of a PostgreSQL database"
        return RequestError(f"the store '{self.location}' cannot be opened: {text}", hint=hint)

    def _patiently(self, call: Callable[[], Result]) -> Result:
        until = time.monotonic() + self.patience
        pause, told = 0.05, False
        while True:
            try:
                with self.explained():
                    result = call()
                if told:
                    log.warning("the store '%s' is back", self.location)
                return result
            except Gone as error:
                if time.monotonic() + pause > until:
                    raise Gone(f"{error}, for {self.patience:g} s") from error.__cause__
                if not told:
                    log.warning("%s; waiting for it for up to %g s", error, self.patience)
                    told = True
            # Not all processes of a machine at the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 5.0)

    def _recognise(self, engine: sql.Engine, create: bool) -> bool:
        """Whether there is a store of this version, made or migrated where need be."""
        with engine.connect() as connection:
            self._reached = True
            found = self.version(connection)
        if found is None and not create:
            return False
        if found is None:
            if self.path is not None:
                with engine.connect() as connection:
                    _raw(connection).execute("PRAGMA journal_mode=WAL")
            with writing(engine) as connection:
                locked(connection)
                if self.version(connection) is None:
                    _make(connection)
                    return True
        elif found == tables.VERSION:
            return True
        from harness.store.migrate import migrate

        migrate(self, engine)
        return True

    def version(self, connection: sql.Connection) -> int | None:
        """Which version the tables are of; None where there are none.

        Raises:
            RequestError: a later version, or the database of something else.
        """
        there = self._tables(connection)
        if tables.about.name not in there:
            if self.path is not None and there:
                raise RequestError(
                    f"'{self.location}' is the database of something else, and not a store",
                    hint=f"name another with --store or {VARIABLE}",
                )
            return None
        text = connection.scalar(sql.select(tables.about.c.value).where(tables.about.c.name == "version"))
        if text is None or not str(text).isdecimal() or tables.records.name not in there:
            raise RequestError(
                f"the store '{self.location}' is damaged: it does not say which version it is of"
            )
        version = int(text)
        if version > tables.VERSION:
            raise RequestError(
                f"the store '{self.location}' was written by a later version of the harness"
                f" (format {version}, this one reads up to {tables.VERSION})",
                hint="upgrade the harness, or name another store",
            )
        return version

    def _tables(self, connection: sql.Connection) -> set[str]:
        if self.path is None:
            # Other tables may be there: a database server is shared.
            return set(sql.inspect(connection).get_table_names()) & _NAMES
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
        for kind, name, text in rows:
            # What runs by itself when a table is read or written has no business in a file that may come from anywhere.
            if kind not in ("table", "index") or str(text).lstrip().upper().startswith("CREATE VIRTUAL"):
                raise RequestError(
                    f"the store '{self.location}' has a {kind} '{name}', which a store of ours does not have",
                    hint="it is the database of something else, or was tampered with",
                )
        return {str(name) for kind, name, _ in rows if kind == "table"}


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """A transaction that may write, from its first statement on."""
    with engine.connect().execution_options(harness_writes=True) as connection, connection.begin():
        yield connection


def locked(connection: sql.Connection) -> None:
    """Let no other process make or migrate the tables until the transaction ends; SQLite has locked already."""
    if connection.dialect.name == "postgresql":
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))


def passes(error: BaseException) -> bool:
    """Whether an error may go away by itself: the server is gone, the file is busy, the disk is full."""
    if not isinstance(error, sql.exc.DBAPIError):
        return isinstance(error, sql.exc.TimeoutError)
    if error.connection_invalidated:
        return True
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
    state = getattr(original, "sqlstate", None)
    if state is None:
        return isinstance(error, sql.exc.OperationalError | sql.exc.InterfaceError)
    return str(state).startswith(_GONE)


def first_line(error: BaseException) -> str:
    """What went wrong, without the statement and the link that SQLAlchemy adds."""
    return errors.first_line(getattr(error, "orig", None) or error)


def _patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE)
    if not text:
        return PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise RequestError(f"{PATIENCE_VARIABLE} is a number of seconds, not '{text}'")
    return seconds


def _url(text: str) -> sql.URL:
    if "://" not in text:
        return sql.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = sql.make_url(text)
        backend = url.get_backend_name()
    except (sql.exc.ArgumentError, ValueError) as error:
        raise RequestError(
            "the store's URL cannot be understood", hint="postgresql://user@host/database"
        ) from error
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return sql.URL.create("sqlite", database=url.database)
    if backend in ("postgresql", "postgres"):
        driver = url.drivername if "+" in url.drivername else "postgresql+psycopg"
        return url.set(drivername=driver.replace("postgres+", "postgresql+"))
    raise RequestError(
        f"a store is an SQLite file or a PostgreSQL database, not '{url.render_as_string(hide_password=True)}'",
        hint="postgresql://user@host/database",
    )


def _engine(url: sql.URL, path: Path | None) -> sql.Engine:
    if path is None:
        return sql.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    if path.exists() and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        # A reader makes files beside the store, which is not possible on a medium that cannot be written.
        url = url.set(
            database=f"file:{quote(str(path.absolute()))}",
            query={"mode": "ro", "immutable": "1", "uri": "true"},
        )
    engine = sql.create_engine(url, connect_args={"timeout": _BUSY / 1000})
    sql.event.listen(engine, "connect", _prepare)
    sql.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, on all versions of Python alike
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    for pragma in (
        "trusted_schema=OFF", "cell_size_check=ON", "synchronous=NORMAL", f"busy_timeout={_BUSY}",
        # In a large store every write touches pages all over its indexes: many writes' worth are put in place at once.
        "cache_size=-65536", "wal_autocheckpoint=8192",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sql.Connection) -> None:
    # A reader that turns into a writer can only fail where another one writes; a writer that says so at once waits.
    writes = connection.get_execution_options().get("harness_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _raw(connection: sql.Connection) -> sqlite3.Connection:
    raw: Any = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def _make(connection: sql.Connection) -> None:
    tables.metadata.create_all(connection)
    connection.execute(sql.insert(tables.about).values(name="version", value=str(tables.VERSION)))
    connection.execute(sql.insert(tables.alembic_version).values(version_num=tables.REVISION))
