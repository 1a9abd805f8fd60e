"""Records as files, out of a store and into one, and from store to store.

Files are JSON lines (a record a line) or Parquet (a record a row, whole in its last column). What is read may come
from anywhere: it is checked record by record, and nothing in it is ever run.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from harness.errors import RequestError
from harness.record import Record
from harness.store import tables
from harness.store.store import Added, Filters, Keep, Store

Tell = Callable[[int], None]

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TABLES = (".parquet",)
LONGEST = 64 << 20
"""Bytes of the longest record that is read from a file."""

_BATCH = 5000
_COLUMNS = (
    "key",
    "paper",
    "comparison",
    "task",
    "method",
    "label",
    "profile",
    "status",
    "source",
    "host",
    "started",
)


def nobody(count: int) -> None:
    """Tells nobody how many records were handled."""


def kind_of(path: Path) -> str:
    """ "lines" or "table", by a file's name.

    Raises:
        RequestError: it is neither.
    """
    if path.name.endswith(LINES):
        return "lines"
    if path.name.endswith(TABLES):
        return "table"
    raise RequestError(
        f"'{path}' is neither Parquet nor JSON lines",
        hint=f"its name ends with one of {', '.join(LINES + TABLES)}",
    )


def export(store: Store, path: Path, filters: Filters, tell: Tell = nobody) -> int:
    """Write records to a file, in the order they were measured; the file is whole or not there.

    Args:
        store: where they come from.
        path: ``.jsonl`` or ``.parquet`` (``.jsonl.gz`` compressed); what was there is replaced.
        filters: which records.
        tell: told how many were written so far.

    Returns:
        How many there were.

    Raises:
        RequestError: the file cannot be written.
    """
    write = _write_lines if kind_of(path) == "lines" else _write_table
    unfinished: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        unfinished = Path(name)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            count = write(store.documents(**filters), file, path.name.endswith(".gz"), tell)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise RequestError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
    return count


def bring_in(store: Store, path: Path, keep: Keep = "newest", tell: Tell = nobody) -> Added:
    """Put the records of a file into a store; see `Store.bring_in`.

    Raises:
        RequestError: the file cannot be read, or something in it is no record; what came before that is in the store.
    """
    return store.bring_in(_counted(read(path), tell), keep)


def merge(store: Store, other: str, keep: Keep = "newest", tell: Tell = nobody) -> Added:
    """Put the records of another store into one; the other is left as it is.

    Raises:
        RequestError: there is no other store, it cannot be read, or it is the same one.
    """
    with elsewhere(other) as source:
        ours, theirs = store.database, source.database
        same = (
            ours.path.resolve() == theirs.path.resolve()
            if ours.path and theirs.path
            else other == store.location
        )
        if same:
            raise RequestError(f"'{other}' is the store that it would be merged into")
        return store.bring_in(_counted(source.records(), tell), keep)


@contextlib.contextmanager
def elsewhere(location: str) -> Iterator[Store]:
    """A store that is only read. One of an earlier version is copied and the copy migrated.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    store = Store(location)
    path = store.database.path
    if path is None:
        yield store
        return
    if not path.is_file():
        raise RequestError(f"there is no store '{location}'")
    with store.database.explained(), contextlib.closing(_reader(path)) as connection:
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise RequestError(
                f"the store '{location}' is damaged: {damage}", hint="harness store check --store it"
            )
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "harness" not in names:
            raise RequestError(f"'{location}' is the database of something else, and not a store")
        found = connection.execute("SELECT value FROM harness WHERE name = 'version'").fetchone()
        if found is None or str(found[0]) == str(tables.VERSION):
            yield store
            return
        with tempfile.TemporaryDirectory(prefix="harness-store-") as folder:
            with contextlib.closing(sqlite3.connect(Path(folder, path.name))) as copy:
                connection.backup(copy)
            copied = Store(Path(folder, path.name))
            copied.location = copied.database.location = location
            copied.database.keep_earlier = False
            yield copied
            copied.close()


def read(path: Path) -> Iterator[Record]:
    """The records of a file, one after another.

    Raises:
        RequestError: it cannot be read, or something in it is no record; with the line.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise RequestError(f"there is no file '{path}'")
    texts = _lines(path) if kind == "lines" else _rows(path)
    for number, text in texts:
        try:
            yield Record.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or None
            raise RequestError(
                f"is not a record: {first['msg']}", file=path, line=number, field=field
            ) from error


def _reader(path: Path) -> sqlite3.Connection:
    # A reader that may not write leaves the journal's files behind, where it may make them.
    mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _counted(records: Iterable[Record], tell: Tell) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        yield record
        if number % 1000 == 0:
            tell(number)


def _write_lines(rows: Iterable[dict[str, Any]], file: IO[bytes], packed: bool, tell: Tell) -> int:
    count = 0
    with contextlib.ExitStack() as stack:
        # Without a time in it, the same records make the same file.
        out = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)) if packed else file
        for row in rows:
            out.write(_line(row).encode() + b"\n")
            count += 1
            if count % 1000 == 0:
                tell(count)
    return count


def _line(row: dict[str, Any]) -> str:
    """A document as one line, which ours always are."""
    text = str(row["document"])
    return json.dumps(json.loads(text)) if "\n" in text else text


def _write_table(rows: Iterable[dict[str, Any]], file: IO[bytes], packed: bool, tell: Tell) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    names = (*_COLUMNS, "document")
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_table(pa.table({n: [row[n] for row in batch] for n in names}, schema=schema))
            batch.clear()

        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == _BATCH:
                flush()
                tell(count)
        flush()
    return count


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise RequestError(f"is longer than {LONGEST >> 20} MiB", file=path, line=number)
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(f"cannot be read: {error}", file=path) from error


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if (
                "document" not in file.schema_arrow.names
                or file.schema_arrow.field("document").type != pa.string()
            ):
                raise RequestError(
                    "has no column 'document' with whole records",
                    file=path,
                    hint="write it with harness store export or harness report --format parquet",
                )
            number = 0
            for batch in file.iter_batches(_BATCH, columns=["document"]):
                for value in batch.column(0):
                    number += 1
                    text = value.as_py()
                    if text is None or len(text) > LONGEST:
                        raise RequestError("is no record", file=path, line=number)
                    yield number, text.encode()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot be read: {str(error).splitlines()[0]}", file=path) from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
