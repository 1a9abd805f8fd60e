"""The commands ``harness store ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Json, Methods, Papers, Profiles, StoreOption
from harness.errors import RequestError, nearest

app = typer.Typer(
    name="store",
    help="Look after stored records: list, prune, export, import, merge, check.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

STATUSES = ("ok", "failed", "timeout", "out-of-memory", "skipped")
KEEP = ("newest", "ours", "theirs")

Tasks = Annotated[
    list[str] | None, typer.Option("--task", metavar="TASK", help="Only this task. May be repeated.")
]
Of = Annotated[
    list[str] | None, typer.Option("--method", metavar="METHOD", help="Only this method. May be repeated.")
]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATUS", help=f"One of {', '.join(STATUSES)}. May be repeated."),
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Only measured on this machine. May be repeated."),
]
Before = Annotated[
    str | None, typer.Option("--before", metavar="TIME", help="Only started before, e.g. 2026-01-31 (UTC).")
]
After = Annotated[str | None, typer.Option("--after", metavar="TIME", help="Only started then or later.")]
Stale = Annotated[
    bool, typer.Option("--stale", help="Only those whose method's or task's source has changed since.")
]
KeepOption = Annotated[
    str,
    typer.Option(
        "--keep",
        metavar="WHICH",
        help="Which of two records of the same measurement stays: newest, ours (the store's) or theirs.",
    ),
]


def _filters(
    papers: list[str] | None,
    profiles: list[str] | None,
    tasks: list[str] | None,
    methods: list[str] | None,
    statuses: list[str] | None,
    hosts: list[str] | None,
    before: str | None,
    after: str | None,
) -> dict[str, object]:
    for status in statuses or ():
        if status not in STATUSES:
            raise RequestError(f"'{status}' is not a status", hint=nearest(status, STATUSES))
    found = {
        "papers": papers, "profiles": profiles, "tasks": tasks, "methods": methods, "statuses": statuses,
        "hosts": hosts, "before": before and _time(before), "after": after and _time(after),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def _time(text: str) -> str:
    from datetime import UTC, datetime

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise RequestError(f"'{text}' is not a time", hint="write 2026-01-31 or 2026-01-31T18:00") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _keep(which: str) -> str:
    if which not in KEEP:
        raise RequestError(f"'{which}' cannot be kept", hint=nearest(which, KEEP))
    return which


@app.command("list")
def list_(
    store: StoreOption = None,
    methods: Methods = None,
    papers: Papers = None,
    profiles: Profiles = None,
    tasks: Tasks = None,
    of: Of = None,
    statuses: Statuses = None,
    hosts: Hosts = None,
    before: Before = None,
    after: After = None,
    stale: Stale = False,
    records: Annotated[
        bool, typer.Option("--records", help="A line for each record, the latest first.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="Records at most, with --records; 0 for all.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List what is stored, by paper, comparison and profile; say what of it is stale."""
    from harness.store import command

    filters = _filters(papers, profiles, tasks, of, statuses, hosts, before, after)
    command.list_(store, methods or [], filters, stale=stale, each=records, limit=limit, as_json=as_json)


@app.command()
def prune(
    store: StoreOption = None,
    methods: Methods = None,
    papers: Papers = None,
    profiles: Profiles = None,
    tasks: Tasks = None,
    of: Of = None,
    statuses: Statuses = None,
    hosts: Hosts = None,
    before: Before = None,
    after: After = None,
    stale: Stale = False,
    superseded: Annotated[
        bool,
        typer.Option("--superseded", help="Only those that a later record of the same measurement supersedes."),
    ] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Only those that cannot be read.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete records: those to which all the given options apply. Asks first."""
    from harness.store import command

    filters = _filters(papers, profiles, tasks, of, statuses, hosts, before, after)
    if not (filters or stale or superseded or damaged):
        raise RequestError(
            "prune needs to be told which records",
            hint="e.g. --superseded, --stale, --before 2026-01-31, --paper lion",
        )
    command.prune(
        store, methods or [], filters,
        stale=stale, superseded=superseded, damaged=damaged, dry_run=dry_run, yes=yes, as_json=as_json,
    )  # fmt: skip


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A name that ends with .parquet, .jsonl or .jsonl.gz.")
    ],
    store: StoreOption = None,
    papers: Papers = None,
    profiles: Profiles = None,
    tasks: Tasks = None,
    of: Of = None,
    statuses: Statuses = None,
    hosts: Hosts = None,
    before: Before = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """Write records to a file, whole: Parquet or JSON lines."""
    from harness.store import command

    filters = _filters(papers, profiles, tasks, of, statuses, hosts, before, after)
    command.export(store, file, filters, as_json=as_json)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Exports: Parquet or JSON lines.")],
    store: StoreOption = None,
    keep: KeepOption = "newest",
    as_json: Json = False,
) -> None:
    """Put the records of exported files into the store. What is there already is not there twice."""
    from harness.store import command

    command.bring_in(store, files, _keep(keep), as_json=as_json)


@app.command()
def merge(
    others: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Stores of other machines, files or URLs.")
    ],
    store: StoreOption = None,
    keep: KeepOption = "newest",
    as_json: Json = False,
) -> None:
    """Put the records of other stores into this one. The others stay as they are."""
    from harness.store import command

    command.merge(store, others, _keep(keep), as_json=as_json)


@app.command()
def check(store: StoreOption = None, as_json: Json = False) -> None:
    """Check that the store is sound: its file, its tables, and every record.

    Exit codes: 0 it is; 1 something is wrong with it; 2 it cannot be opened at all.
    """
    from harness.store import command

    raise typer.Exit(command.check(store, as_json=as_json))
