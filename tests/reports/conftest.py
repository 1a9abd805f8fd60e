"""A page of the toy paper with something of everything: growth, curves, trouble, and text that would like to be HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import Catalog
from harness.record import Latency, Memory, Record, SeriesRecord
from harness.store import Store
from reports.collect import Content, collect
from reports.write import write_page
from tests.reports.browser import Browser, browser, need_browser

TOYS = Path(__file__).resolve().parent.parent / "toys"
EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'> & \"quotes\" </script>\u2028"


def record(label: str = "timsort", size: int = 100, seed: int = 1000, **changes: Any) -> Record:
    """A record of the toy comparison "growth": latency a microsecond a number, the slowed one three times that."""
    latency = (3.0 if label == "slowed" else 1.0) * size * 1e-6 * (1 + (seed - 1000) * 0.01)
    fields: dict[str, Any] = {
        "key": f"{label}{size}{seed}".ljust(32, "0"),
        "suite": "toys",
        "comparison": "growth",
        "paper": "timsort",
        "task": "sorting",
        "task_parameters": {"size": size, "source": "random"},
        "method": "timsort",
        "label": label,
        "method_parameters": {"delay": 0.0},
        "seed": seed,
        "profile": "cpu",
        "source": "",
        "status": "ok",
        "latency": Latency(samples=[latency, latency * 1.01, latency * 0.99] * 5, first=latency),
        "memory": Memory(peak=size * 1000, run=size * 100),
        "metrics": {"disorder": 0.0 if label == "timsort" else 0.25, "length": float(size)},
        "series": {
            "curve": SeriesRecord(
                x=[1, 2, 3], y=[0.1, 0.2 + seed / 1e5, 0.3], x_label="epoch", y_label="accuracy"
            )
        },
        "environment": {
            "machine": {"cpu": "A CPU", "threads": 2, "memory": 2**33, "gpus": [], "system": "Linux"},
            "versions": {"python": "3.12.1"},
            "source": {"revision": "abc123", "clean": True},
        },
        "started": "2026-01-01T00:00:00",
        "duration": 1.0,
    }
    return Record(**fields | changes)


def records() -> list[Record]:
    """The toy store: two methods at three sizes with three seeds, a failed one with hostile names, a skipped one."""
    found = [
        record(label, size, seed)
        for label in ("timsort", "slowed")
        for size in (100, 1000, 10000)
        for seed in (1000, 1001, 1002)
    ]
    nothing: dict[str, Any] = {"latency": None, "metrics": {}, "series": {}}
    found.append(record(EVIL, 100, comparison="trouble", status="failed", reason=EVIL, **nothing))
    nothing["key"] = "skipped".ljust(32, "0")
    reason = "data set 'numbers' is not here"
    found.append(record("timsort", 100, comparison="from-file", status="skipped", reason=reason, **nothing))
    return found


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """Only the toys."""
    return Catalog([TOYS], builtin=False, entry_point_roots=False)


@pytest.fixture(scope="session")
def content(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What a report of the toy store shows."""
    store = Store(tmp_path_factory.mktemp("store") / "r.sqlite")
    for each in records():
        store.add(each)
    return collect(catalog, store, [], ["cpu"])


@pytest.fixture(scope="session")
def page(catalog: Catalog, content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the toy store."""
    return write_page(catalog, content, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser for all tests of a process; a test that finds none is skipped."""
    need_browser()
    with browser() as one:
        yield one
