"""What the commands ``harness store ...`` do and print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import typer

from harness.catalog import Catalog
from harness.cli_options import print_json
from harness.console import console, styled, table
from harness.errors import RequestError
from harness.stale import is_stale
from harness.store import checking, transfer
from harness.store.queries import Added, Filters, Keep
from harness.store.store import Group, Store


def list_(
    location: str | None,
    folders: Sequence[Path],
    filters: Mapping[str, object],
    *,
    stale: bool,
    each: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Print what is stored, by comparison or record by record."""
    store, catalog = Store(location), Catalog(tuple(folders))
    chosen = cast(Filters, filters)
    if each:
        rows = _records(store, catalog, chosen, stale, limit)
    else:
        rows = _comparisons(store.groups(**chosen), catalog, stale)
    catalog.save_index()
    if as_json:
        print_json(rows)
        return
    out = console()
    if not rows:
        out.print(f"no records in {store.location}", markup=False)
        return
    _show(rows, "records" if each else "stored")
    if each:
        out.print(f"{len(rows)} of {store.count(**chosen)} records in {store.location}", markup=False)
    else:
        count, old = sum(r["records"] for r in rows), sum(r["stale"] for r in rows)
        text = f"{count} records in {store.location}" + (
            f"; {old} stale, their source has changed since" if old else ""
        )
        out.print(text, markup=False)


def prune(
    location: str | None,
    folders: Sequence[Path],
    filters: Mapping[str, object],
    *,
    stale: bool,
    superseded: bool,
    damaged: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the records to which everything asked applies, after asking."""
    store, catalog = Store(location), Catalog(tuple(folders))
    marks = store.marks(**cast(Filters, filters))
    keys = [m.key for m in marks if not stale or _is_stale(catalog, m.task, m.method, m.source, m.status)]
    if superseded and keys:
        newest = set(store.keys(newest=True))
        keys = [key for key in keys if key not in newest]
    if damaged and keys:
        unreadable = set(checking.damaged(store))
        keys = [key for key in keys if key in unreadable]
    catalog.save_index()
    deleted = 0
    if keys and not dry_run:
        if not yes:
            if not sys.stdin.isatty():
                raise RequestError(
                    f"{len(keys)} records would be deleted", hint="say --yes, or --dry-run to see how many"
                )
            typer.confirm(f"delete {len(keys)} records from {store.location}?", abort=True, err=True)
        deleted = store.delete(keys)
        if not store.compact() and not as_json:
            typer.echo("the file keeps its size for now, since another process uses it", err=True)
    if as_json:
        print_json({"chosen": len(keys), "deleted": deleted, "store": store.location})
    else:
        what = f"{len(keys)} records would be deleted from" if dry_run else f"{deleted} records deleted from"
        typer.echo(f"{what} {store.location}")


def export(location: str | None, file: Path, filters: Mapping[str, object], *, as_json: bool) -> None:
    """Write records to a file."""
    store = Store(location)
    with _telling(f"export to {file}") as tell:
        count = transfer.export(store, file, cast(Filters, filters), tell)
    if as_json:
        print_json({"records": count, "file": str(file)})
    else:
        typer.echo(f"{count} records: {file}")


def bring_in(location: str | None, files: Sequence[Path], keep: str, *, as_json: bool) -> None:
    """Put the records of files into the store."""
    store = Store(location)
    found = []
    for file in files:
        with _telling(f"import of {file}") as tell:
            found.append((str(file), transfer.bring_in(store, file, cast(Keep, keep), tell)))
    _added(store, found, as_json)


def merge(location: str | None, others: Sequence[str], keep: str, *, as_json: bool) -> None:
    """Put the records of other stores into the store."""
    store = Store(location)
    found = []
    for other in others:
        with _telling("merge") as tell:
            found.append((Store(other).location, transfer.merge(store, other, cast(Keep, keep), tell)))
    _added(store, found, as_json)


def check(location: str | None, *, as_json: bool) -> int:
    """Say what is wrong with the store. Returns the exit code."""
    store = Store(location)
    with _telling("check") as tell:
        faults = list(checking.check(store, tell))
    if as_json:
        print_json({"store": store.location, "sound": not faults, "faults": [asdict(f) for f in faults]})
        return 1 if faults else 0
    for fault in faults:
        where = f"record {_plain(fault.key)}: " if fault.key is not None else ""
        typer.echo(f"{where}{_plain(fault.what)}")
    if faults:
        typer.echo(f"{len(faults)} faults in {store.location}")
        return 1
    typer.echo(f"{store.count()} records in {store.location}; all sound")
    return 0


def _is_stale(catalog: Catalog, task: str, method: str, source: str, status: str) -> bool:
    return status != "skipped" and is_stale(catalog, task, method, source)


def _comparisons(groups: Sequence[Group], catalog: Catalog, only_stale: bool) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        old = _is_stale(catalog, group.task, group.method, group.source, group.status)
        if only_stale and not old:
            continue
        row = rows.setdefault(
            (group.paper, group.comparison, group.profile),
            {
                "paper": group.paper, "comparison": group.comparison, "profile": group.profile, "records": 0, "ok": 0,
                "failed": 0, "skipped": 0, "stale": 0, "last": "",
            },
        )  # fmt: skip
        status = group.status if group.status in ("ok", "skipped") else "failed"
        row["records"] += group.count
        row[status] += group.count
        row["stale"] += group.count if old else 0
        row["last"] = max(row["last"], group.last[:16])
    return list(rows.values())


def _records(
    store: Store, catalog: Catalog, filters: Filters, only_stale: bool, limit: int
) -> list[dict[str, Any]]:
    marks = list(store.marks(**filters))[::-1]
    old = {m.key: _is_stale(catalog, m.task, m.method, m.source, m.status) for m in marks}
    keys = [m.key for m in marks if old[m.key] or not only_stale]
    keys = keys[:limit] if limit else keys
    found = store.get(keys)
    return [
        {
            "started": r.started[:16], "paper": r.paper, "comparison": r.comparison, "method": r.label,
            "seed": r.seed, "profile": r.profile, "status": r.status, "stale": old[r.key],
            "host": (r.environment.get("machine") or {}).get("host"), "reason": r.reason, "key": r.key,
        }
        for r in (found[key] for key in keys if key in found)
    ]  # fmt: skip


def _show(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    from rich.markup import escape

    # Columns in which nothing is said take room from those in which something is.
    columns = [name for name in rows[0] if name != "key" and any(row[name] for row in rows)]
    made = table(title, columns)
    for row in rows:
        cells = []
        for name in columns:
            value = row[name]
            if name == "status":
                cells.append(styled(str(value)))
            elif isinstance(value, bool):
                cells.append(name if value else "")
            else:
                cells.append("" if value in (None, 0) else escape(_plain(str(value))))
        made.add_row(*cells)
    console().print(made)


def _plain(text: str) -> str:
    """Text of a record, which may come from anywhere, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _added(store: Store, found: Sequence[tuple[str, Added]], as_json: bool) -> None:
    if as_json:
        print_json([{"from": name, **asdict(added)} for name, added in found])
        return
    for name, added in found:
        typer.echo(
            f"{name}: {added.new} new, {added.same} here already, {added.replaced} took the place of another of the"
            f" same measurement, {added.kept} did not"
        )
    typer.echo(f"{store.count()} records in {store.location}")


@contextmanager
def _telling(what: str) -> Iterator[transfer.Tell]:
    from harness.running import progress

    with progress(what) as say:
        yield lambda count: say(f"{count:,} records")
