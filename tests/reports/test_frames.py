from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.record import INSTRUMENT_METRICS, Blocks, Record
from reports import frames
from reports.collect import Content
from tests.reports.conftest import EVIL, record, records

VALUES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with frames.Export(records(), {records()[0].key}, documents=True) as export:
        export.tables(csv=tmp_path / "records.csv", parquet=tmp_path / "records.parquet")
        export.samples(tmp_path / "samples.parquet")
        export.json_lines(tmp_path / "records.jsonl")
    return tmp_path


def test_one_row_per_record_with_stable_columns(written: Path) -> None:
    for frame in (pd.read_csv(written / "records.csv"), pd.read_parquet(written / "records.parquet")):
        assert len(frame) == len(records())
        assert list(frame.columns[: len(frames.FIXED)]) == list(frames.FIXED)
        assert {"task.size", "task.source", "method.delay", "metric.disorder", "version.python"} < set(
            frame.columns
        )
        one = frame[frame["label"] == "slowed"].iloc[0]
        assert one["latency"] == pytest.approx(300e-6)
        assert one["samples"] == 15
        assert one["machine.cpu"] == "A CPU"
    assert EVIL.rstrip("\u2028") in written.joinpath("records.csv").read_text().replace('""', '"')


def test_says_which_records_count(written: Path) -> None:
    frame = pd.read_parquet(written / "records.parquet")
    assert frame["current"].sum() == 1


def test_whole_records_come_back(written: Path) -> None:
    frame = pd.read_parquet(written / "records.parquet")
    assert [Record.model_validate_json(d) for d in frame["document"]] == records()
    lines = written.joinpath("records.jsonl").read_text().split("\n")
    assert [Record.model_validate_json(line) for line in lines if line] == records()


def test_samples_in_long_form(written: Path) -> None:
    frame = pd.read_parquet(written / "samples.parquet")
    for each in records():
        taken = frame[frame["key"] == each.key]
        assert list(taken["seconds"]) == (each.latency.samples if each.latency else [])
        assert list(taken["run"]) == list(range(len(taken)))


def test_samples_say_their_launch_and_round(tmp_path: Path) -> None:
    plain = record()
    assert plain.latency is not None
    blocks = Blocks(launch=[0, 1, 0], round=[0, 0, 1], size=[4, 6, 5])
    latency = plain.latency.model_copy(update={"blocks": blocks})
    taken = [plain.model_copy(update={"key": "b" * 32, "latency": latency}), plain]
    with frames.Export(taken, documents=True) as export:
        export.samples(tmp_path / "s.parquet")
    frame = pd.read_parquet(tmp_path / "s.parquet")
    first = frame[frame["key"] == "b" * 32]
    assert list(first["launch"]) == [0] * 4 + [1] * 6 + [0] * 5
    assert list(first["round"]) == [0] * 10 + [1] * 5
    assert set(frame[frame["key"] == plain.key]["launch"]) == {0}


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = frames.Columns()
    for each in records():
        columns.add(each)
    schema = columns.schema()
    whole = columns.batch(0, len(columns), schema)
    monkeypatch.setattr(frames, "BATCH", 3)
    import pyarrow as pa

    assert pa.concat_tables(table for _, table in columns.batches(schema)).equals(whole)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=8))
def test_parameters_of_any_type_keep_their_values(parameters: list[dict[str, Any]]) -> None:
    made = [record(seed=1000 + i, task_parameters=p) for i, p in enumerate(parameters)]
    frame = frames.records(made)
    for i, given_ in enumerate(parameters):
        for name, value in given_.items():
            cell = frame.loc[i, f"task.{name}"]
            if value is None:
                assert pd.isna(cell)
            elif isinstance(value, str):
                assert cell == value
            elif isinstance(cell, str):
                assert json.loads(cell) == value
            else:
                assert cell == value


def test_no_records_make_an_empty_table(tmp_path: Path) -> None:
    with frames.Export([], documents=True) as export:
        export.tables(csv=tmp_path / "r.csv", parquet=tmp_path / "r.parquet")
        export.samples(tmp_path / "s.parquet")
    assert list(pd.read_csv(tmp_path / "r.csv").columns) == list(frames.FIXED)
    assert pd.read_parquet(tmp_path / "r.parquet").empty
    assert pd.read_parquet(tmp_path / "s.parquet").empty


def test_documents_have_to_be_asked_for(tmp_path: Path) -> None:
    with frames.Export(records()) as export, pytest.raises(ValueError, match="without documents"):
        export.json_lines(tmp_path / "r.jsonl")


def test_one_row_per_verdict(content: Content) -> None:
    frame = frames.verdicts(content).set_index("claim")
    assert len(frame) == len(content.verdicts)
    assert frame.loc["faster", "value"] == pytest.approx(3.0)
    assert frame.loc["unknowable", "outcome"] == "not measured"
    assert frame["value"].dtype == "float64"


def test_columns_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    for name in (*frames.FIXED, *INSTRUMENT_METRICS):
        assert f"`{name}`" in text, f"docs/reports.md does not explain the column {name}"


def test_verdict_columns_are_documented(content: Content) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    for name in frames.verdicts(content).columns:
        assert f"`{name}`" in text, f"docs/reports.md does not explain the column {name}"
