"""Stores in SQLite files: earlier versions, files from elsewhere, damaged and hostile ones, full disks."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from harness.errors import HarnessError, RequestError
from harness.record import Record
from harness.store import Store
from harness.store.checking import check
from harness.store.database import writing
from harness.store.migrate import upgrade
from harness.store.tables import columns_of, metadata
from harness.store.tables import records as table
from harness.store.transfer import elsewhere, merge
from tests.harness.stored import record

VERSION_1 = """
CREATE TABLE records (key VARCHAR NOT NULL, paper VARCHAR, task VARCHAR NOT NULL, method VARCHAR NOT NULL,
  profile VARCHAR NOT NULL, status VARCHAR NOT NULL, source VARCHAR NOT NULL, started VARCHAR NOT NULL,
  document VARCHAR NOT NULL, PRIMARY KEY (key));
CREATE INDEX ix_records_task ON records (task);
CREATE INDEX ix_records_paper ON records (paper);
CREATE TABLE harness (name VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY (name));
INSERT INTO harness VALUES ('version', '1');
"""


def earlier(path: Path, *records: Record) -> Path:
    """A store as the first version of the harness made it."""
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (r.key, r.paper, r.task, r.method, r.profile, r.status, r.source, r.started,
                 r.model_dump_json(exclude_none=True))
                for r in records
            ],
        )  # fmt: skip
    connection.close()
    return path


def some(count: int) -> list[Record]:
    environment = {"machine": {"host": "lab3"}}
    return [record(f"k{i:04d}", seed=i, environment=environment, started=f"2026-{i:04d}") for i in range(count)]


def test_an_earlier_version_is_migrated_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = some(2500)
    path = earlier(tmp_path / "records.sqlite", *stored)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert list(Store(path).records()) == stored
    assert "was of format 1 and is now of format 2; the earlier one is kept as" in caplog.text
    (kept,) = tmp_path.glob("records.v1-*.sqlite")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("SELECT count(*), max(started) FROM records").fetchone() == (
            2500,
            "2026-2499",
        )
    assert len(before) > 0
    store = Store(path)
    assert list(check(store)) == []
    # Rows are what they would be had this version written them.
    row = next(iter(store.documents(keys=["k0001"])))
    assert {name: row[name] for name in columns_of(stored[1])} == columns_of(stored[1])
    assert len(list(tmp_path.glob("*.v1-*"))) == 1


def test_a_migrated_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    store = Store(earlier(tmp_path / "old.sqlite", record()))
    engine = store.database.engine(create=False)
    assert engine is not None
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    new = Store(tmp_path / "new.sqlite")
    new.open()
    fresh = new.database.engine(create=False)
    assert fresh is not None
    with fresh.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        indexes = {i["name"]: i["column_names"] for i in sql.inspect(connection).get_indexes("records")}
    with engine.connect() as connection:
        assert {i["name"]: i["column_names"] for i in sql.inspect(connection).get_indexes("records")} == indexes


def test_all_migrations_from_nothing_make_the_same_tables(tmp_path: Path) -> None:
    engine = sql.create_engine(f"sqlite:///{tmp_path / 'r.sqlite'}")
    with writing(engine) as connection:
        from alembic import command

        from harness.store.migrate import configuration

        command.upgrade(configuration(connection), "head")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    Store(tmp_path / "r.sqlite").add(record())


def test_a_migration_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = earlier(tmp_path / "records.sqlite", *some(10))

    def fail(connection: sql.Connection, found: int) -> None:
        upgrade(connection, found)
        raise RuntimeError("the power went")

    monkeypatch.setattr("harness.store.migrate.upgrade", fail)
    with pytest.raises(RuntimeError, match="the power went"):
        list(Store(path).records())
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["records.sqlite"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM harness").fetchone() == ("1",)
    assert len(list(Store(path).records())) == 10


def test_what_cannot_be_read_survives_a_migration(tmp_path: Path) -> None:
    path = earlier(tmp_path / "records.sqlite", *some(3))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET document = '{\"broken' WHERE key = 'k0001'")
    connection.close()
    store = Store(path)
    assert [(f.key, f.what[:30]) for f in check(store)] == [("k0001", "its document is not a record: ")]
    with pytest.raises(RequestError, match=r"the record 'k0001' .* cannot be read: .*harness store check"):
        list(store.records())


def _open(path: Path) -> None:
    assert Store(path).count() == 50


def test_processes_that_open_an_earlier_store_at_once_migrate_it_once(tmp_path: Path) -> None:
    path = earlier(tmp_path / "records.sqlite", *some(50))
    processes = [multiprocessing.get_context("fork").Process(target=_open, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("*.v1-*"))) == 1


def test_another_store_of_an_earlier_version_is_merged_and_stays_as_it_is(tmp_path: Path) -> None:
    path = earlier(tmp_path / "theirs.sqlite", *some(5))
    before = path.read_bytes()
    ours = Store(tmp_path / "ours.sqlite")
    assert merge(ours, str(path)).new == 5
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("theirs")) == ["theirs.sqlite"]
    with pytest.raises(RequestError, match="is the store that it would be merged into"):
        merge(ours, str(tmp_path / "ours.sqlite"))
    with pytest.raises(RequestError, match="there is no store"):
        merge(ours, str(tmp_path / "gone.sqlite"))


def test_reading_an_absent_store_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "records.sqlite")
    assert list(store.records()) == []
    assert store.get(["k"]) == {}
    assert store.keys() == store.groups() == []
    assert store.count() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_store_on_a_medium_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "medium"
    store = Store(folder / "r.sqlite")
    store.add(record())
    store.close()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    folder.chmod(0o555)
    try:
        assert store.keys() == ["k"]
        store.close()
    finally:
        folder.chmod(0o755)
    assert [p.name for p in folder.iterdir()] == ["r.sqlite"]


def _other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER)")


def _with(statement: str) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        Store(path).add(record())
        with sqlite3.connect(path) as connection:
            connection.executescript(statement)
        connection.close()

    return tamper


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda path: path.write_text("this is not a database, and long enough to be sure of it" * 20),
            "not a database",
        ),
        (lambda path: path.write_bytes(os.urandom(8192)), "not a database"),
        (lambda path: path.mkdir(), "unable to open database file"),
        (_other_database, "is the database of something else"),
        (_with("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END"), "has a trigger 't'"),
        (_with("CREATE VIEW v AS SELECT load_extension('x')"), "has a view 'v'"),
        (_with("CREATE VIRTUAL TABLE f USING fts5(x)"), "has a table 'f'"),
        (_with("UPDATE harness SET value = 'many'"), "does not say which version"),
        (_with("DROP TABLE records"), "does not say which version"),
        (_with("UPDATE harness SET value = '3'"), "later version"),
    ],
)
def test_one_clear_error(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "records.sqlite"
    make(path)
    for use in (
        lambda: list(Store(path).records()),
        lambda: Store(path).add(record()),
        lambda: Store(path).open(),
    ):
        with pytest.raises(HarnessError, match=says) as failure:
            use()
        assert str(path) in str(failure.value)
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "value",
    ["x'00ff'", "''", "'null'", "'[]'", "'{}'", "1e400", "'{\"key\": ' || hex(zeroblob(100)) || '}'",
     "replace(hex(zeroblob(50000)), '0', '[')", "cast(x'80fe' as text)"],
)  # fmt: skip
def test_a_document_that_is_none(tmp_path: Path, value: str) -> None:
    path = tmp_path / "records.sqlite"
    Store(path).add(record("a"), record("b", started="2027"))
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE records SET document = {value} WHERE key = 'a'")
    connection.close()
    store = Store(path)
    with pytest.raises(RequestError, match=r"cannot be (read|opened)"):
        list(store.records())
    assert list(check(store))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    store = Store(path)
    store.add(record("a", reason="thirteen"), record("b"))
    store.close()
    content = path.read_bytes()
    assert content.count(b"thirteen") == 1
    path.write_bytes(content.replace(b"thirteen", b"thirteem"))
    (fault,) = check(Store(path))
    assert (fault.key, fault.what) == ("a", "its document is not the one that was written")


def test_columns_that_differ_from_the_document_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.sqlite")
    store.add(record("a"), record("b"))
    engine = store.database.engine(create=False)
    assert engine is not None
    with writing(engine) as connection:
        connection.execute(sql.update(table).where(table.c.key == "b").values(profile="datacenter-gpu"))
    (fault,) = check(store)
    assert (fault.key, fault.what) == ("b", "its column 'profile' says 'datacenter-gpu' and its document 'cpu'")


def test_pages_overwritten_with_noise(tmp_path: Path) -> None:
    """Whatever is damaged: reading gives records that were written, or one error of ours; checking says so."""
    path = tmp_path / "records.sqlite"
    store = Store(path)
    stored = {r.key: r for r in some(200)}
    store.add(*stored.values())
    store.close()
    sound = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        noisy = bytearray(sound)
        for _ in range(rng.choice((1, 20, 4000))):
            noisy[rng.randrange(16, len(noisy))] = rng.randrange(256)
        for rest in tmp_path.iterdir():
            rest.unlink()
        path.write_bytes(noisy)
        try:
            faults = list(check(Store(path)))
        except RequestError:
            continue
        try:
            found = {r.key: r for r in Store(path).records()}
        except HarnessError:
            assert faults
            continue
        if not faults:
            assert found == stored


def test_what_cannot_be_written_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.sqlite", patience=0.2)
    store.add(record("a"))
    engine = store.database.engine(create=False)
    assert engine is not None
    with engine.connect() as connection:
        limit = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sql.event.listen(engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={limit}"))
    big = record("b", log="x" * 200_000)
    with pytest.raises(
        HarnessError, match=r"full, for 0\.2 s\. What was measured is kept: harness store import '"
    ) as failure:
        store.add(big)
    kept = Path(str(failure.value).partition("import '")[2].rstrip("'"))
    assert kept.parent == tmp_path
    assert json.loads(kept.read_text())["key"] == "b"
    assert Store(tmp_path / "records.sqlite").keys() == ["a"]


def test_elsewhere_refuses_a_damaged_store(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    store = Store(path)
    store.add(*some(200))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 8] = os.urandom(4096 * 3)
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"is damaged|cannot be opened"), elsewhere(str(path)):
        pass


@pytest.mark.parametrize(
    ("location", "says"),
    [
        (
            "mysql://root:secret@host/db",
            r"SQLite file or a PostgreSQL database, not 'mysql://root:\*\*\*@host/db'",
        ),
        ("sqlite://", "SQLite file or a PostgreSQL"),
        ("sqlite:///:memory:", "SQLite file or a PostgreSQL"),
        ("://", "cannot be understood"),
        ("postgresql://u:secret@127.0.0.1:1/db", "cannot be opened"),
    ],
)
def test_locations_that_are_none(location: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as failure:
        Store(location).open()
    assert "secret" not in str(failure.value)
