"""From an earlier version of the tables to this one, with a backup of what was there."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sql

from harness.store import tables
from harness.store.database import Database, locked, log, writing

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).resolve().parent / "migrations"


def migrate(database: Database, engine: sql.Engine) -> None:
    """Bring the store of `database` to `tables.VERSION`; nothing, where another process has done so meanwhile.

    The backup is a file beside an SQLite store, and a table in a PostgreSQL database. A migration that fails
    leaves the store as it was.

    Raises:
        RequestError: the store is of a later version.
    """
    with writing(engine) as connection:
        locked(connection)
        found = database.version(connection)
        if found is None or found == tables.VERSION:
            return
        kept = _keep(database, connection, found) if database.keep_earlier else None
        try:
            upgrade(connection, found)
        except BaseException:
            if isinstance(kept, Path):
                kept.unlink(missing_ok=True)
            raise
    if kept is not None:
        log.warning(
            "the store '%s' was of format %d and is now of format %d; the earlier one is kept as %s",
            database.location, found, tables.VERSION, kept,
        )  # fmt: skip


def _keep(database: Database, connection: sql.Connection, found: int) -> Path | str:
    """Put a copy of what is there beside it. Returns its file or table."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    if database.path is not None:
        return _copy(database.path, f"{database.path.stem}.v{found}-{stamp}")
    name = f"records_v{found}_{stamp.lower()}"
    connection.execute(sql.text(f'CREATE TABLE "{name}" AS TABLE records'))
    return name


def upgrade(connection: sql.Connection, found: int) -> None:
    """Run the migrations from version `found` on, within the transaction of `connection`."""
    from alembic import command

    config = configuration(connection)
    if not sql.inspect(connection).has_table(tables.alembic_version.name):
        command.stamp(config, f"{found:04d}")
    command.upgrade(config, "head")


def configuration(connection: sql.Connection) -> Config:
    """What Alembic has to know; its commands then work on `connection`."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = tables.metadata
    return config


def _copy(path: Path, name: str) -> Path:
    """A copy of a store that nobody else can write meanwhile, its journal included."""
    target = path.with_name(name + path.suffix)
    with (
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target
