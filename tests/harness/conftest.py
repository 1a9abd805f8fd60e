"""A catalog of toys, and a store in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.store import Store

TOYS = Path(__file__).resolve().parent.parent / "toys"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the catalog's index and artefacts of tests away from the user's."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_STORE", raising=False)


@pytest.fixture
def toys() -> Catalog:
    """Only the toys; none of the real papers."""
    return Catalog([TOYS], builtin=False, entry_point_roots=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "records.sqlite")
