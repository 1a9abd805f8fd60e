"""What ``harness report --compare A B`` compares: stores, exports, or parts of one store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import profile
from harness.errors import RequestError, nearest
from harness.record import Record
from harness.store import Store, transfer

KINDS = ("revision", "machine", "profile")
"""What can be selected from one store, as in ``machine:lab3``."""

Machine = tuple[str, str, str, int]
"""Host, processor, GPUs and threads: times are only comparable where all of them agree."""


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        name: as it was asked for.
        profile: the one profile of a ``profile:`` selection, else None.
        records: its records.
    """

    name: str
    profile: str | None
    records: list[Record]

    def machines(self) -> list[str]:
        """The machines its records were made on, in words."""
        found = {machine_of(r) for r in self.records if r.status == "ok"}
        return sorted(", ".join(str(p) for p in m[:3] if p) + f", {m[3]} threads" for m in found if m)

    def versions(self) -> dict[str, str]:
        """Versions of packages, several joined where its records differ."""
        found: dict[str, dict[str, None]] = {}
        for record in self.records:
            for name, version in record.environment.get("versions", {}).items():
                found.setdefault(name, {})[str(version)] = None
        return {name: " and ".join(versions) for name, versions in found.items()}

    def revisions(self) -> list[str]:
        """The source revisions of its records, shortened."""
        return sorted({_revision(r)[:12] for r in self.records if _revision(r)})


def machine_of(record: Record) -> Machine | None:
    """Where a record was made; None where it does not say, which is like no other machine."""
    machine = record.environment.get("machine", {})
    if not machine.get("host"):
        return None
    gpus = ", ".join(machine.get("gpus") or ())
    return str(machine["host"]), str(machine.get("cpu", "")), gpus, int(machine.get("threads") or 0)


def load(text: str, store: Store, *, papers: Sequence[str] = (), profiles: Sequence[str] = ()) -> Side:
    """The side that `text` names.

    Args:
        text: a store (SQLite file or SQLAlchemy URL), an export (``.jsonl`` or ``.parquet``, or a folder with one), or
            ``revision:REV``, ``machine:HOST`` or ``profile:NAME`` in `store`.
        store: where selections come from.
        papers: only records of these papers; empty for all.
        profiles: only records of these profiles, unless `text` selects one; empty for all.

    Raises:
        RequestError: there is nothing of that name, or it cannot be read.
    """
    kind, _, value = text.partition(":")
    if kind in KINDS and "://" not in text:
        return _selection(text, kind, value, store, papers, profiles)
    found: Iterable[Record]
    found = Store(text).records() if "://" in text else _file(Path(text).expanduser())
    records = [
        r for r in found if (not papers or r.paper in papers) and (not profiles or r.profile in profiles)
    ]
    if not records:
        raise RequestError(f"'{text}' has no record of the papers and profiles asked for")
    return Side(text, None, records)


def _selection(
    text: str, kind: str, value: str, store: Store, papers: Sequence[str], profiles: Sequence[str]
) -> Side:
    if kind == "profile":
        profile.get(value)
        records = list(store.records(papers=papers, profiles=[value]))
        if not records:
            raise RequestError(f"'{store.location}' has no record of the profile {value}", hint=_stores())
        return Side(text, value, records)
    every = list(store.records(papers=papers, profiles=profiles))
    of: Callable[[Record], str] = _revision if kind == "revision" else _host
    known = sorted({of(r) for r in every if of(r)})
    if kind == "machine":
        matching = [name for name in known if name == value]
    else:
        matching = [name for name in known if value and name.startswith(value)]
    if len(matching) > 1:
        raise RequestError(
            f"'{text}' could be {' or '.join(m[:12] for m in matching)}", hint="write more of it"
        )
    if not matching:
        hint = nearest(value, [k[:12] if kind == "revision" else k for k in known]) or _stores()
        raise RequestError(f"'{store.location}' has no record of the {kind} '{value}'", hint=hint)
    return Side(text, None, [r for r in every if of(r) == matching[0]])


def _stores() -> str:
    return "name another store with --store"


def _revision(record: Record) -> str:
    return str(record.environment.get("source", {}).get("revision") or "")


def _host(record: Record) -> str:
    return str(record.environment.get("machine", {}).get("host") or "")


def _file(path: Path) -> Iterator[Record]:
    if path.is_dir():
        inside = [path / name for name in ("records.parquet", "records.jsonl") if (path / name).is_file()]
        if not inside:
            raise RequestError(
                f"the folder '{path}' has neither records.parquet nor records.jsonl",
                hint="write them with harness report --format parquet or --format jsonl",
            )
        path = inside[0]
    if not path.is_file():
        hint = f"a store, an export, or {', '.join(k + ':…' for k in KINDS)}"
        raise RequestError(f"there is no '{path}' to compare", hint=hint)
    if path.name.endswith((*transfer.LINES, *transfer.TABLES)):
        return transfer.read(path)
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\x00":
            raise RequestError(
                f"'{path}' is neither a store nor an export with whole records",
                hint="those are .jsonl and .parquet; a .csv has no samples",
            )
    return _stored(path)


def _stored(path: Path) -> Iterator[Record]:
    with transfer.elsewhere(str(path)) as store:
        yield from store.records()
