from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.record import Record
from harness.store import Store
from harness.store.checking import check
from harness.store.transfer import bring_in, export, merge, read
from tests.harness.stored import record

NAMES = ["r.jsonl", "r.ndjson", "r.jsonl.gz", "r.parquet"]


@pytest.fixture
def full(store: Store) -> Store:
    """A store with a few records, some of them odd."""
    store.add(
        record("a", paper=None, log="line\nline\u2028 \x00 ü", started="2026-01-01"),
        record("b", status="skipped", latency=None, metrics={}, reason="no GPU", started="2026-01-02"),
        record("c", task_parameters={"x": [1, 2.5, None, "t"]}, started="2026-01-03"),
    )
    return store


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(full: Store, tmp_path: Path, name: str) -> None:
    told: list[int] = []
    assert export(full, tmp_path / "deep" / name, {}, told.append) == 3
    other = Store(tmp_path / "other.sqlite")
    added = bring_in(other, tmp_path / "deep" / name)
    assert (added.new, added.same, added.replaced, added.kept) == (3, 0, 0, 0)
    assert list(other.records()) == list(full.records())
    assert list(check(other)) == []
    again = bring_in(other, tmp_path / "deep" / name)
    assert (again.new, again.same) == (0, 3)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_filters_and_nothing(full: Store, tmp_path: Path, name: str) -> None:
    assert export(full, tmp_path / name, {"papers": ["p"], "after": "2026-01-03"}) == 1
    assert [r.key for r in read(tmp_path / name)] == ["c"]
    assert export(full, tmp_path / name, {"papers": ["none"]}) == 0
    assert list(read(tmp_path / name)) == []


def test_the_same_records_make_the_same_file(full: Store, tmp_path: Path) -> None:
    for name in NAMES:
        export(full, tmp_path / f"1{name}", {})
        export(full, tmp_path / f"2{name}", {})
        assert (tmp_path / f"1{name}").read_bytes() == (tmp_path / f"2{name}").read_bytes()


def test_exports_of_a_report_can_be_imported(full: Store, tmp_path: Path) -> None:
    from reports.frames import Export

    with Export(full.records(), documents=True) as made:
        made.tables(parquet=tmp_path / "records.parquet")
        made.json_lines(tmp_path / "records.jsonl")
    for name in ("records.parquet", "records.jsonl"):
        assert list(read(tmp_path / name)) == list(full.records())


@pytest.mark.parametrize(("keep", "stays"), [("newest", "2026-03"), ("ours", "2026-01"), ("theirs", "2026-02")])
def test_which_of_two_stays(store: Store, tmp_path: Path, keep: str, stays: str) -> None:
    other = Store(tmp_path / "other.sqlite")
    store.add(
        record("a", started="2026-01" if keep != "newest" else "2026-03"), record("skip", status="skipped")
    )
    other.add(record("a", started="2026-02"), record("skip", status="ok"), record("new"))
    added = merge(store, str(other.location), keep)  # type: ignore[arg-type]
    found = store.get(["a", "skip", "new"])
    assert found["a"].started == stays
    assert found["skip"].status == "ok"
    assert len(found) == 3
    replaced = 2 if keep == "theirs" else 1
    assert (added.new, added.replaced, added.kept) == (1, replaced, 2 - replaced)
    # A measurement is not replaced by a skip, whichever is to stay.
    other.add(record("late", status="skipped", started="2027"))
    store.add(record("late", started="2026"))
    merge(store, str(other.location), keep)  # type: ignore[arg-type]
    assert store.get(["late"])["late"].status == "ok"


def test_merging_in_any_order_is_the_same(tmp_path: Path) -> None:
    parts = [Store(tmp_path / f"{i}.sqlite") for i in range(3)]
    for i, part in enumerate(parts):
        part.add(*(record(f"k{j}", started=f"2026-{(i * 5 + j * 3) % 7}-{i}") for j in range(8) if (i + j) % 3))
    found = []
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0, 2, 1)):
        into = Store(tmp_path / f"into-{'-'.join(map(str, order))}.sqlite")
        for i in order:
            merge(into, parts[i].location)
        found.append(list(into.records()))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 8


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.jsonl", b'{"key": 1}\n', r"r\.jsonl:1: .*is not a record"),
        ("r.jsonl", b"\xff\xfe\n", r"r\.jsonl:1: .*is not a record"),
        ("r.jsonl", b"[" * 100_000, r"r\.jsonl:1: .*is not a record"),
        ("r.jsonl.gz", b"not packed", "cannot be read"),
        ("r.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], "cannot be read|is not a record"),
        ("r.parquet", b"PAR1 and no more", "cannot be read"),
        ("r.csv", b"key\n", "is neither Parquet nor JSON lines"),
        ("r.pkl", b"", "is neither Parquet nor JSON lines"),
    ],
)
def test_files_that_are_no_export(store: Store, tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RequestError, match=says) as failure:
        bring_in(store, path)
    assert "\n" not in str(failure.value)
    assert store.count() == 0
    with pytest.raises(RequestError, match="there is no file"):
        bring_in(store, tmp_path / "gone.jsonl")


def test_a_bad_line_is_named_and_what_came_before_stays(store: Store, tmp_path: Path) -> None:
    lines = [record(f"k{i}").model_dump_json() for i in range(1200)]
    broken = json.loads(lines[700])
    broken["status"] = "splendid"
    lines[700] = json.dumps(broken)
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        RequestError, match=r"r\.jsonl:701: status: is not a record: Input should be 'ok', 'failed'"
    ):
        bring_in(store, tmp_path / "r.jsonl")
    assert store.count() == 500


def test_a_parquet_file_without_records(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"key": ["a"]}), tmp_path / "r.parquet")
    with pytest.raises(RequestError, match="has no column 'document'"):
        list(read(tmp_path / "r.parquet"))
    parquet.write_table(pa.table({"document": [1]}), tmp_path / "r.parquet")
    with pytest.raises(RequestError, match="has no column 'document'"):
        list(read(tmp_path / "r.parquet"))


def test_a_folder_that_cannot_be_written(full: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        export(full, tmp_path / "file" / "r.jsonl", {})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.binary(max_size=60) | st.just(record().model_dump_json().encode()), max_size=5))
def test_any_bytes_are_records_or_one_error(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n".join(lines))
    error = None
    try:
        assert all(isinstance(r, Record) for r in read(path))
    except RequestError as refused:
        error = refused
    assert error is None or (error.file == path and error.line)
