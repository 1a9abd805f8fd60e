"""Records and verdicts as tables for other tools: pandas data frames, CSV and Parquet.

A table of records has one row per record; parameters, metrics and versions are columns with a prefix. Columns are only
known when the last record has been read, so values are first gathered per column, compactly, and then written in
batches: a store of 100,000 records needs neither a wide frame nor all its documents in memory. ``docs/reports.md`` lists
the columns.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.record import INSTRUMENT_METRICS, Record
from reports.collect import Content, without_collector
from reports.samples import Samples

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BATCH = 10_000
"""Rows that are written at a time."""

Progress = Callable[[str], None]

_OWN = (
    "key", "suite", "comparison", "paper", "task", "method", "label", "seed", "profile", "emulated", "status",
    "reason", "source", "started", "duration", "amount", "amount_unit",
)  # fmt: skip
_own = attrgetter(*_OWN)
_ROW = (
    *_OWN,
    "unstable",
    "current",
    "samples",
    "launches",
    "clock",
    "runs_per_sample",
    "preempted",
    "device_reserved",
    *INSTRUMENT_METRICS,
)
"""What `Columns` keeps of every record, in the order of its tuples."""
_PREFIXES = ("task", "method", "metric")
FIXED: dict[str, str] = {
    **dict.fromkeys(("key", "suite", "comparison", "paper", "task", "method", "label"), "string"),
    "seed": "int64",
    "profile": "string",
    "emulated": "bool",
    **dict.fromkeys(("status", "reason", "unstable"), "string"),
    "current": "bool",
    "started": "string",
    "duration": "double",
    "samples": "int64",
    "launches": "int64",
    "clock": "string",
    "runs_per_sample": "int64",
    "preempted": "int64",
    **dict.fromkeys(INSTRUMENT_METRICS, "double"),
    "device_reserved": "double",
    "amount": "double",
    "amount_unit": "string",
    "source": "string",
    "machine.host": "string",
    "machine.cpu": "string",
    "machine.gpus": "string",
    "machine.threads": "int64",
    "source.revision": "string",
    "source.clean": "bool",
}
"""The columns that every table of records has, in order, and their types."""


def verdicts(content: Content) -> pd.DataFrame:
    """One row per claim and profile: the verdict, the measured figure with its interval, and the paper's figure."""
    import pandas as pd

    columns = [
        "family", "paper", "claim", "profile", "outcome", "reason", "rule", "kind", "statement", "source",
        "claimed", "claimed_value", "claimed_low", "claimed_high", "claimed_unit", "claimed_setting",
        "quantity", "value", "low", "high", "unit", "seeds", "samples", "records", "setting",
    ]  # fmt: skip
    rows = []
    for part in content.parts:
        for row in part.rows:
            claim, verdict, figure = row.claim, row.verdict, row.verdict.figure
            rows.append(
                {
                    "family": part.family,
                    "claim": claim.id,
                    **{n: getattr(claim, n) for n in ("kind", "statement", "source")},
                    **{n: getattr(verdict, n) for n in ("paper", "profile", "outcome", "reason", "rule")},
                    "claimed": claim.claimed.text,
                    **{f"claimed_{n}": getattr(claim.claimed, n) for n in ("value", "low", "high", "unit")},
                    "claimed_setting": claim.setting.text,
                    **{
                        n: getattr(figure, n) if figure else None
                        for n in ("quantity", "value", "low", "high", "unit", "seeds", "samples")
                    },
                    "records": len(verdict.keys),
                    "setting": json.dumps(verdict.setting, ensure_ascii=False) if verdict.setting else None,
                }
            )
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("claimed_value", "claimed_low", "claimed_high", "value", "low", "high"):
        frame[name] = frame[name].astype("float64")
    for name in ("seeds", "samples", "records"):
        frame[name] = frame[name].astype("Int64")
    text = [c for c in columns if frame[c].dtype.kind == "O" or str(frame[c].dtype) == "str"]
    return frame.astype(dict.fromkeys(text, "string"))


class Columns:
    """Records gathered per column.

    Args:
        current: keys of the records that verdicts may rest on; None when that is not known.
    """

    def __init__(self, current: set[str] | None = None) -> None:
        self._current = current
        self._rows: list[tuple[Any, ...]] = []
        self._others: dict[tuple[str, str], tuple[array[int], list[Any]]] = {}
        # A store says the same few environments again and again: each is kept once and rows name it by number.
        self._environments: dict[str, int] = {}
        self._flat: list[dict[str, Any]] = []
        self._where = array("l")

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, record: Record) -> None:
        """Take a record in as the next row."""
        latency = record.latency
        self._rows.append(
            (
                *_own(record),
                record.unstable,
                # Only a paper's records serve claims; of the others there is nothing to say.
                None if self._current is None or not record.paper else record.key in self._current,
                len(latency.samples) if latency else None,
                len(record.launches) or None,
                *(
                    (latency.clock, latency.runs_per_sample, latency.preempted)
                    if latency
                    else (None, None, None)
                ),
                record.memory.device_reserved,
                *[record.instrument(name) for name in INSTRUMENT_METRICS],
            )
        )
        self._where.append(self._environment(record.environment))
        number = len(self._rows) - 1
        others = self._others
        for prefix, values in (
            ("task", record.task_parameters),
            ("method", record.method_parameters),
            ("metric", record.metrics),
        ):
            for name, value in values.items():
                column = others.get((prefix, name))
                if column is None:
                    column = others[(prefix, name)] = (array("q"), [])
                column[0].append(number)
                column[1].append(value)

    def _environment(self, environment: dict[str, Any]) -> int:
        machine, source = environment.get("machine", {}), environment.get("source", {})
        versions = environment.get("versions", {})
        name = repr((machine, source, versions))
        if name not in self._environments:
            self._environments[name] = len(self._flat)
            self._flat.append(
                {
                    **{f"machine.{n}": machine.get(n) for n in ("host", "cpu", "threads")},
                    "machine.gpus": ", ".join(machine.get("gpus") or ()) or None,
                    **{f"source.{n}": source.get(n) for n in ("revision", "clean")},
                    **{f"version.{n}": v for n, v in versions.items()},
                }
            )
        return self._environments[name]

    def schema(self) -> pa.Schema:
        """Names and types of all columns: the fixed ones, then parameters, metrics and versions by name."""
        import pyarrow as pa

        types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
        names = sorted(self._others, key=lambda name: (_PREFIXES.index(name[0]), name[1]))
        packages = sorted({n for flat in self._flat for n in flat if n.startswith("version.")})
        fields = [pa.field(name, types[kind]) for name, kind in FIXED.items()]
        fields += [pa.field(".".join(n), types[_kind(self._others[n][1])]) for n in names]
        return pa.schema(fields + [pa.field(name, types["string"]) for name in packages])

    def batch(self, start: int, stop: int, schema: pa.Schema) -> pa.Table:
        """Rows `start` to `stop` as a table."""
        import numpy as np
        import pyarrow as pa

        by_name = dict(zip(_ROW, zip(*self._rows[start:stop], strict=True), strict=False))
        where = pa.array(np.array(self._where[start:stop], dtype=np.int64))
        columns = []
        for field in schema:
            if field.name in _ROW:
                columns.append(pa.array(by_name.get(field.name, ()), field.type))
                continue
            if field.name.startswith(("machine.", "source.", "version.")):
                columns.append(pa.array([flat.get(field.name) for flat in self._flat], field.type).take(where))
                continue
            prefix, _, name = field.name.partition(".")
            places, values = self._others[(prefix, name)]
            rows = np.frombuffer(places, dtype=np.int64)
            low, high = np.searchsorted(rows, [start, stop])
            if low == high:
                columns.append(pa.nulls(stop - start, field.type))
                continue
            convert = _CONVERT[str(field.type)]
            filled = pa.array([None if v is None else convert(v) for v in values[low:high]], field.type)
            # Values of the few rows that have any, spread over all rows; the others stay empty.
            place = np.zeros(stop - start, dtype=np.int64)
            absent = np.ones(stop - start, dtype=bool)
            place[rows[low:high] - start] = np.arange(high - low)
            absent[rows[low:high] - start] = False
            columns.append(filled.take(pa.array(place, mask=absent)))
        return pa.table(columns, schema=schema)

    def batches(self, schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
        """All rows, `BATCH` at a time, each with the number of its first row. No rows make one empty table."""
        for start in range(0, max(len(self), 1), BATCH):
            yield start, self.batch(start, min(start + BATCH, len(self)), schema)


def _kind(values: Iterable[Any]) -> str:
    """The narrowest type that holds all values: integers beside fractions are fractions, other mixtures text."""
    seen = {type(v) for v in values if v is not None}
    if seen == {bool}:
        return "bool"
    if seen == {int}:
        return "int64" if all(v is None or -(2**63) <= v < 2**63 for v in values) else "string"
    return "double" if seen and seen <= {int, float} else "string"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_CONVERT: dict[str, Callable[[Any], Any]] = {"string": _as_text, "int64": int, "double": float, "bool": bool}


def records(found: Iterable[Record], current: set[str] | None = None) -> pd.DataFrame:
    """Records as one data frame, with the columns of the files."""
    columns = Columns(current)
    for record in found:
        columns.add(record)
    frame: pd.DataFrame = columns.batch(0, len(columns), columns.schema()).to_pandas()
    return frame


class Export:
    """Reads records once and writes them as CSV, Parquet and JSON lines.

    Args:
        found: the records, read once.
        current: keys of the records that verdicts may rest on.
        documents: whether JSON lines, Parquet or samples will be asked for; the first two carry every record whole.
        progress: is told what is being done.
    """

    def __init__(
        self,
        found: Iterable[Record],
        current: set[str] | None = None,
        *,
        documents: bool = False,
        progress: Progress = lambda text: None,
    ) -> None:
        self._columns = Columns(current)
        self._progress = progress
        self._samples = Samples()
        self._spool: IO[bytes] | None = tempfile.TemporaryFile() if documents else None  # noqa: SIM115
        with without_collector():
            for record in found:
                self._columns.add(record)
                if self._spool is not None:
                    self._samples.add(record)
                    self._spool.write(record.model_dump_json().encode() + b"\n")
                if len(self._columns) % 1000 == 0:
                    progress(f"reading records: {len(self._columns):,}")

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()

    def __len__(self) -> int:
        return len(self._columns)

    def tables(self, *, csv: Path | None = None, parquet: Path | None = None) -> None:
        """Write records as tables, one row each: as CSV and as Parquet, which has whole records in its last column."""
        import contextlib

        import pyarrow as pa
        from pyarrow import csv as comma
        from pyarrow import parquet as columnar

        schema = self._columns.schema()
        with contextlib.ExitStack() as stack:
            rows = whole = None
            if csv is not None:
                options = comma.WriteOptions(quoting_style="needed")
                rows = stack.enter_context(comma.CSVWriter(str(csv), schema, write_options=options))
            if parquet is not None:
                lines = self._documents()
                fields = schema.append(pa.field("document", pa.string()))
                whole = stack.enter_context(columnar.ParquetWriter(str(parquet), fields, compression="zstd"))
            for start, table in self._columns.batches(schema):
                if rows is not None:
                    rows.write_table(table)
                if whole is not None:
                    texts = [next(lines).decode() for _ in range(table.num_rows)]
                    whole.write_table(table.append_column("document", pa.array(texts, pa.string())))
                self._progress(f"writing records: {start + table.num_rows:,} of {len(self):,}")

    def samples(self, path: Path) -> None:
        """Write ``samples.parquet``: one row per latency sample, in the order of the runs."""
        from pyarrow import parquet

        if self._spool is None:
            raise ValueError("this export was made without documents")
        with parquet.ParquetWriter(str(path), Samples.schema(), compression="zstd") as writer:
            for start, table in self._samples.tables(BATCH):
                writer.write_table(table)
                self._progress(f"writing {path.name}: records from {start:,} of {len(self):,}")

    def json_lines(self, path: Path) -> None:
        """Write ``records.jsonl``: every record whole, one a line."""
        with path.open("wb") as file:
            for line in self._documents():
                file.write(line + b"\n")

    def _documents(self) -> Iterator[bytes]:
        if self._spool is None:
            raise ValueError("this export was made without documents")
        self._spool.seek(0)
        return (line.rstrip(b"\n") for line in self._spool)
