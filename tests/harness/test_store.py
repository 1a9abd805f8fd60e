"""What holds of every store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.current import newest
from harness.errors import HarnessError
from harness.record import Latency, SeriesRecord, key_of
from harness.store import Store
from harness.store.checking import check
from harness.store.database import writing
from harness.store.store import Measurement
from harness.store.tables import about, measured_of
from harness.store.tables import records as table
from tests.harness.stored import record


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of either kind."""
    sqlite = request.param == "sqlite"
    made = Store(tmp_path / "records.sqlite" if sqlite else request.getfixturevalue("database"), patience=1.0)
    yield made
    made.close()


def test_round_trip_and_idempotence(store: Store) -> None:
    store.add(record())
    store.add(record())
    store.add(record(metrics={"accuracy": 0.75}))
    assert [r.metrics for r in store.records()] == [{"accuracy": 0.75}]
    assert store.get(["k", "missing"])["k"] == record(metrics={"accuracy": 0.75})
    assert store.count() == 1
    assert list(check(store)) == []


def test_a_skip_replaces_no_measurement(store: Store) -> None:
    store.add(record(status="skipped", reason="no GPU"))
    store.add(record(status="failed", reason="no luck"))
    assert [r.status for r in store.records()] == ["failed"]
    store.add(record(status="skipped", reason="no data"))
    assert [r.status for r in store.records()] == ["failed"]


def test_filters_and_order(store: Store) -> None:
    host = {"machine": {"host": "lab3"}}
    store.add(record("b", started="2026-01-02", environment=host))
    store.add(record("a", started="2026-01-03", task="u", status="failed", comparison="d"))
    assert [r.key for r in store.records()] == ["b", "a"]
    assert [r.key for r in store.records(tasks=["u"])] == ["a"]
    assert [r.key for r in store.records(statuses=["ok"])] == ["b"]
    assert [r.key for r in store.records(papers=["q"])] == []
    assert store.keys(hosts=["lab3"]) == ["b"]
    assert store.keys(before="2026-01-03") == ["b"]
    assert store.keys(after="2026-01-03") == ["a"]
    assert store.keys(comparisons={"u": [], "t": ["d"]}) == ["a"]
    assert store.keys(comparisons={"u": ["d"], "t": ["c"]}) == ["b", "a"]
    assert [(g.comparison, g.count, g.status) for g in store.groups()] == [("c", 1, "ok"), ("d", 1, "failed")]


def test_frame(store: Store) -> None:
    store.add(record())
    row = store.frame().iloc[0]
    assert row["latency"] == 3.0
    assert row["first_latency"] == 9.0
    assert row["task.n"] == 3
    assert row["method.lr"] == 0.1
    assert row["metric.accuracy"] == 0.5


def test_what_json_has_no_number_for(store: Store) -> None:
    """A curve may diverge; a store that wrote null for it could not be read again."""
    series = {"loss": SeriesRecord(x=[0.0, 1.0, 2.0], y=[1.0, math.inf, -math.inf])}
    store.add(record(series=series, log="\x00\x1b[31m \u2028 \U0001f600"))
    (found,) = store.records()
    assert found.series == series
    assert found.log == "\x00\x1b[31m \u2028 \U0001f600"
    store.add(record("n", series={"loss": SeriesRecord(x=[0.0], y=[math.nan])}))
    assert math.isnan(store.get(["n"])["n"].series["loss"].y[0])


def test_newest_in_the_database_is_newest_in_python(store: Store) -> None:
    statuses = ["ok", "skipped", "failed"]
    every = [
        record(
            f"{seed}-{i}", seed=seed, status=statuses[(seed + i) % 3], started=f"2026-01-0{1 + (i * seed) % 5}"
        )
        for seed in range(6)
        for i in range(5)
    ]
    store.add(*every)
    expected = {r.key for r in newest(store.records())}
    assert {r.key for r in store.records(newest=True)} == expected == set(store.keys(newest=True))
    latest = store.latest(Measurement(r.task, r.profile, r.comparison, measured_of(r)) for r in every)
    assert {stored.key for stored in latest.values()} == expected


def test_deleting(store: Store) -> None:
    store.add(record("a"), record("b"), record("c"))
    assert store.delete(["a", "c", "missing"]) == 2
    assert store.keys() == ["b"]
    store.compact()
    assert store.delete([]) == 0


def test_all_or_none(store: Store) -> None:
    broken = record("b").model_copy(update={"paper": object()})
    with pytest.raises(Exception, match=r"paper|object|adapt"):
        store.add(record("a"), broken)
    assert store.keys() == []


def test_refuses_a_later_version(store: Store) -> None:
    store.add(record())
    engine = store.database.engine(create=False)
    assert engine is not None
    with writing(engine) as connection:
        connection.execute(sql.update(about).values(value="99"))
    location = store.database._url.render_as_string(hide_password=False)
    for use in (lambda s: list(s.records()), lambda s: s.add(record()), lambda s: s.open()):
        with pytest.raises(HarnessError, match=r"later version of the harness \(format 99") as failure:
            use(Store(location))
        assert "upgrade the harness" in str(failure.value)


def test_every_record_is_there_once_after_many_writers(store: Store) -> None:
    """Four processes write the same thirty comparisons of four methods each, in different orders."""
    location = store.database._url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_in_some_order, args=(location, i)) for i in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [p.exitcode for p in writers] == [0] * 4
    assert sorted(store.keys()) == sorted(f"{c}-{m}" for c in range(30) for m in range(4))
    assert list(check(store)) == []
    # Methods that took turns with each other are those of one writer.
    for c in range(30):
        assert len({r.turns for r in store.get(f"{c}-{m}" for m in range(4)).values()}) == 1


def _write_in_some_order(location: str, number: int) -> None:
    import random

    store = Store(location)
    comparisons = list(range(30))
    random.Random(number).shuffle(comparisons)
    for c in comparisons:
        store.add(*(record(f"{c}-{m}", comparison=str(c), label=str(m), turns=str(number)) for m in range(4)))


_texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | _finite | _texts


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parameters=st.dictionaries(_texts, st.recursive(_scalars, st.lists, max_leaves=5), max_size=4),
    metrics=st.dictionaries(_texts, _finite, max_size=4),
    reason=_texts,
    samples=st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
)
def test_any_record_comes_back_as_it_went(
    store: Store, parameters: dict[str, object], metrics: dict[str, float], reason: str, samples: list[float]
) -> None:
    one = record(
        task_parameters=parameters,
        metrics=metrics,
        reason=reason,
        latency=Latency(samples=samples, first=samples[0]),
    )
    store.add(one)
    assert store.get(["k"])["k"] == one
    with store.database.reading() as connection:
        assert connection is not None
        assert connection.scalar(sql.select(table.c.measured)) == measured_of(store.get(["k"])["k"])


def test_keys_depend_on_content_and_not_on_order() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
