"""A catalog of toys, a store in a temporary folder, and a PostgreSQL server where there can be one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import comparing
from harness.catalog import Catalog
from harness.store import Store
from tests.harness import postgres as servers

TOYS = Path(__file__).resolve().parent.parent / "toys"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the catalog's index and artefacts of tests away from the user's."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_STORE", raising=False)


@pytest.fixture(autouse=True)
def _light_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, which few of the methods of these tests need, a nursery starts in a fraction of a second."""
    monkeypatch.setattr(comparing, "PRELOAD", ("numpy", "harness.method", "harness.measure.memory"))


@pytest.fixture
def toys() -> Catalog:
    """Only the toys; none of the real papers."""
    return Catalog([TOYS], builtin=False, entry_point_roots=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "records.sqlite")


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Server]:
    """A PostgreSQL server; tests that ask for it are skipped where there can be none."""
    if reason := servers.why_not():
        pytest.skip(reason)
    with servers.server() as running:
        yield running


@pytest.fixture
def database(postgres: servers.Server) -> str:
    """The URL of an empty database of that server."""
    import psycopg

    name = f"store_{next(_numbers)}"
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


_numbers = itertools.count()
