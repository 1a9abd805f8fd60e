"""A PostgreSQL server that goes away and comes back. It is a server of its own, since others are using theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sql

from harness import runner, suite
from harness.catalog import Catalog
from harness.errors import HarnessError
from harness.record import Record
from harness.store import Store
from harness.store.checking import check
from harness.store.database import writing
from harness.store.tables import records as table
from harness.store.transfer import bring_in
from tests.harness import postgres as servers
from tests.harness.stored import record


@pytest.fixture(scope="module")
def shaky() -> Iterator[servers.Server]:
    """A server that tests may stop, as long as they start it again."""
    if reason := servers.why_not():
        pytest.skip(reason)
    with servers.server() as running:
        yield running


@pytest.fixture
def url(shaky: servers.Server, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    name = f"db_{abs(hash(request.node.name))}"
    with psycopg.connect(shaky.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return shaky.url(name)


def away(server: servers.Server, seconds: float) -> threading.Thread:
    """Stop a server now, and start it again in a while."""
    server.stop()

    def start() -> None:
        time.sleep(seconds)
        server.start()

    thread = threading.Thread(target=start)
    thread.start()
    return thread


def test_a_write_waits_until_it_is_back(
    shaky: servers.Server, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(url, patience=60)
    store.add(record("a"))
    thread = away(shaky, 1.0)
    store.add(record("b"))
    thread.join()
    assert store.keys() == ["a", "b"]
    assert "waiting for it for up to 60 s" in caplog.text
    assert "is back" in caplog.text
    thread = away(shaky, 1.0)
    assert store.keys() == ["a", "b"]
    thread.join()


def test_one_that_stays_away_is_an_error_and_nothing_is_lost(
    shaky: servers.Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(url, patience=0.5)
    store.add(record("a"))
    shaky.stop()
    try:
        with pytest.raises(
            HarnessError, match=r"cannot be reached: .*, for 0\.5 s\. What was measured is kept: "
        ) as failure:
            store.add(record("b"), record("c"))
        with pytest.raises(HarnessError, match=r"cannot be reached: .*, for 0\.5 s"):
            store.keys()
    finally:
        shaky.start()
    kept = Path(str(failure.value).partition("import '")[2].rstrip("'"))
    assert kept.resolve().is_relative_to(tmp_path)
    assert bring_in(store, kept).new == 2
    assert store.keys() == ["a", "b", "c"]


@pytest.mark.slow
def test_it_goes_away_during_a_run(shaky: servers.Server, url: str, toys: Catalog) -> None:
    """Stopped twice while nine comparisons are measured: every record is there exactly once."""
    comparisons = [c for c in suite.expand(toys, ["toys"], "cpu") if c.name == "training"]
    store = Store(url, patience=60)
    threads: list[threading.Thread] = []

    class Trouble(runner.Progress):
        done = 0

        def finish(self, step: runner.Step, record: Record) -> None:
            self.done += 1
            if self.done in (3, 6):
                threads.append(away(shaky, 0.5))

    summary = runner.run(toys, comparisons, store, progress=Trouble())
    for thread in threads:
        thread.join()
    assert len(threads) == 2
    assert summary.measured == len(summary.records) == 9
    assert sorted(store.keys()) == sorted(r.key for r in summary.records)
    assert list(check(store)) == []
    assert runner.run(toys, comparisons, store).measured == 0


def test_an_earlier_version_is_migrated_and_kept(database: str) -> None:
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from harness.store.migrate import configuration
    from harness.store.tables import metadata

    engine = sql.create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    stored = [record(f"k{i}", seed=i, started=f"2026-{i:02d}") for i in range(20)]
    with writing(engine) as connection:
        command.upgrade(configuration(connection), "0001")
        connection.execute(sql.text("DROP TABLE alembic_version"))
        for r in stored:
            connection.execute(
                sql.text("INSERT INTO records VALUES (:k, :p, :t, :m, :o, :s, :c, :w, :d)"),
                {"k": r.key, "p": r.paper, "t": r.task, "m": r.method, "o": r.profile, "s": r.status, "c": r.source,
                 "w": r.started, "d": r.model_dump_json(exclude_none=True)},
            )  # fmt: skip
    store = Store(database)
    assert list(store.records()) == stored
    assert list(check(store)) == []
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata)[1:] == []
        (kept,) = [n for n in sql.inspect(connection).get_table_names() if n.startswith("records_v1_")]
        assert connection.scalar(sql.text(f"SELECT count(*) FROM {kept}")) == 20
    engine.dispose()
    store.close()


def test_reading_an_absent_store_leaves_nothing_behind(database: str) -> None:
    store = Store(database)
    assert store.keys() == []
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (
            0,
        )


def test_other_tables_of_the_database_are_left_alone(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    store = Store(database)
    store.add(record())
    assert store.keys() == ["k"]
    assert list(check(store)) == []
    store.close()
    assert table.name == "records"
