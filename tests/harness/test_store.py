from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RequestError
from harness.record import Latency, Record, key_of
from harness.store import Store


def record(key: str = "k", **changes: object) -> Record:
    base = {
        "key": key, "suite": "s", "comparison": "c", "paper": "p", "task": "t", "task_parameters": {"n": 3},
        "method": "m", "label": "m", "method_parameters": {"lr": 0.1}, "seed": 1000, "profile": "cpu", "source": "x",
        "status": "ok", "latency": Latency(samples=[2.0, 4.0, 3.0], first=9.0), "metrics": {"accuracy": 0.5},
        "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Record.model_validate({**base, **changes})


def test_round_trip_and_idempotence(store: Store) -> None:
    store.add(record())
    store.add(record())
    store.add(record(metrics={"accuracy": 0.75}))
    assert [r.metrics for r in store.records()] == [{"accuracy": 0.75}]
    assert store.get(["k", "missing"])["k"] == record(metrics={"accuracy": 0.75})


def test_filters_and_order(store: Store) -> None:
    store.add(record("b", started="2026-01-02"))
    store.add(record("a", started="2026-01-03", task="u", status="failed"))
    assert [r.key for r in store.records()] == ["b", "a"]
    assert [r.key for r in store.records(tasks=["u"])] == ["a"]
    assert [r.key for r in store.records(statuses=["ok"])] == ["b"]
    assert [r.key for r in store.records(papers=["q"])] == []


def test_frame(store: Store) -> None:
    store.add(record())
    row = store.frame().iloc[0]
    assert row["latency"] == 3.0
    assert row["first_latency"] == 9.0
    assert row["task.n"] == 3
    assert row["method.lr"] == 0.1
    assert row["metric.accuracy"] == 0.5


def test_reading_an_absent_store_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "records.sqlite")
    assert list(store.records()) == []
    assert store.get(["k"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_text("this is not a database, and long enough to be sure of it" * 20)
    with pytest.raises(RequestError, match="cannot be opened"):
        list(Store(path).records())


def test_refuses_a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.store

    path = tmp_path / "records.sqlite"
    monkeypatch.setattr(harness.store, "VERSION", 99)
    Store(path).add(record())
    monkeypatch.undo()
    with pytest.raises(RequestError, match="later version"):
        list(Store(path).records())


def test_keys_depend_on_content_and_not_on_order() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
