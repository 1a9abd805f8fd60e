"""The command ``harness``.

Imports that cost time are made inside the commands, so that ``harness list`` and ``--help`` answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness import cli_gate, cli_store
from harness.cli_options import (
    Address,
    Cluster,
    ExecutorName,
    Json,
    Methods,
    Only,
    Papers,
    Profiles,
    StoreOption,
    Tags,
    catalog_of,
    print_json,
)
from harness.errors import HarnessError, RequestError, RequestErrors, nearest

EXIT_CODES = (
    "Exit codes: 0 all ran; 1 something failed, or a claim was contradicted and --fail-on-contradicted was given;"
    " 2 the request itself was wrong, and nothing was run or written."
)

app = typer.Typer(
    name="harness",
    help="Find out whether the numbers that machine-learning papers claim hold on this machine.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

KINDS = ("papers", "methods", "tasks", "suites", "profiles")


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(KINDS)}.")] = None,
    methods: Methods = None,
    as_json: Json = False,
) -> None:
    """List papers, methods, tasks, suites and profiles."""
    from harness import listing

    if kind is not None and kind not in KINDS:
        raise RequestError(f"'{kind}' cannot be listed", hint=nearest(kind, KINDS))
    catalog = catalog_of(methods)
    found = listing.collect(catalog, [kind] if kind else list(KINDS))
    catalog.save_index()
    if as_json:
        print_json(found[kind] if kind else found)
    else:
        listing.show(found)


@app.command()
def show(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="A paper's name, as in 'harness list papers'.")],
    methods: Methods = None,
    store: StoreOption = None,
    profiles: Profiles = None,
    as_json: Json = False,
) -> None:
    """Show a paper: its claims, their rules, and what the store knows about them."""
    from harness import show as showing

    catalog = catalog_of(methods)
    showing.paper(catalog, paper, store, profiles or [], as_json)


@app.command()
def run(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE...", help="Names or files of suites.")],
    methods: Methods = None,
    store: StoreOption = None,
    papers: Papers = None,
    tags: Tags = None,
    only: Only = None,
    profiles: Profiles = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is stored.")] = False,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Measure again what is stored as failed, timed out or out of memory."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be measured, and stop.")] = False,
    executor: ExecutorName = "local",
    address: Address = None,
    cluster: Cluster = None,
    fail_on_contradicted: Annotated[
        bool, typer.Option("--fail-on-contradicted", help="Exit with 1 when a claim is contradicted.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write the report there when done.")
    ] = None,
    allow_generated_code: Annotated[
        bool,
        typer.Option(
            "--allow-generated-code",
            envvar="HARNESS_ALLOW_GENERATED_CODE",
            help="Let methods run programs that language models write, locked in; they are skipped otherwise.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run suites: measure what is not stored yet, then say which claims hold.

    The profile is cpu unless --profile names others. Interrupting loses nothing that was measured; the same
    command goes on where it stopped.
    """
    from harness import running, sandbox

    with sandbox.allowing(allow_generated_code):
        code = running.main(
            catalog_of(methods),
            suites,
            store=store,
            papers=papers or [],
            tags=tags or [],
            only=only or [],
            profiles=profiles or ["cpu"],
            fresh=fresh,
            retry=retry,
            dry_run=dry_run,
            executor=executor,
            address=address,
            cluster=cluster,
            fail_on_contradicted=fail_on_contradicted,
            report=report,
            as_json=as_json,
        )
    raise typer.Exit(code)


@app.command()
def claims(
    methods: Methods = None,
    store: StoreOption = None,
    papers: Papers = None,
    profiles: Profiles = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option("--verdict", metavar="VERDICT", help="Only claims with this verdict. May be repeated."),
    ] = None,
    fail_on_contradicted: Annotated[
        bool, typer.Option("--fail-on-contradicted", help="Exit with 1 when a claim is contradicted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say for every claim of every paper whether it holds, from the records in the store."""
    from harness import show as showing
    from harness.selecting import records_behind
    from harness.store import Store
    from harness.verdict import OUTCOMES, decide

    for outcome in outcomes or ():
        if outcome not in OUTCOMES:
            raise RequestError(f"'{outcome}' is not a verdict", hint=nearest(outcome, OUTCOMES))
    catalog = catalog_of(methods)
    records = records_behind(catalog, Store(store), papers or (), profiles or ())
    found = decide(catalog, records, papers=papers or (), profiles=profiles or ())
    catalog.save_index()
    chosen = [v for v in found if not outcomes or v.outcome in outcomes]
    if as_json:
        print_json([v.model_dump(mode="json") for v in chosen])
    else:
        showing.claims_table(catalog, chosen)
    if fail_on_contradicted and any(v.outcome == "contradicted" for v in chosen):
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(
        "harness-report"
    ),
    methods: Methods = None,
    store: StoreOption = None,
    papers: Papers = None,
    profiles: Profiles = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="html, markdown, csv, parquet, json, jsonl, latex, svg, pdf or badge. May be repeated."
            " Default: html, markdown, csv, json and badge.",
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Compare two stores (files or URLs), exports (JSON lines or Parquet), or parts of the store:"
            " revision:REV, machine:HOST, profile:NAME. Formats: html, markdown, json, csv.",
        ),
    ] = None,
) -> None:
    """Write the report: a page, and tables and figures for other tools; or compare two sets of records.

    With --compare, what changed in verdicts and figures comes first. Latencies of different machines stand side by
    side and are never subtracted or divided.
    """
    from harness import running
    from harness.store import Store

    chosen = (papers or (), profiles or (), formats or ())
    if compare is not None:
        path = running.write_comparison(catalog_of(methods), Store(store), out, compare, *chosen)
        typer.echo(f"comparison: {path}")
        return
    page = running.write_report(catalog_of(methods), Store(store), out, *chosen)
    typer.echo(f"report: {page}")


app.command()(cli_gate.gate)
app.command()(cli_gate.qualify)
app.add_typer(cli_store.app)


@app.command()
def doctor(methods: Methods = None, as_json: Json = False) -> None:
    """Say what this machine can and cannot run, and how to get what is missing."""
    from harness import doctor as doctoring

    found = doctoring.examine(catalog_of(methods))
    if as_json:
        print_json(found)
    else:
        doctoring.show(found)


@app.command()
def check(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Further suite files to check.")
    ] = None,
    methods: Methods = None,
) -> None:
    """Check that all papers and suites are well-formed and fit together. Runs nothing."""
    from harness import check as checking

    catalog = catalog_of(methods)
    errors = checking.everything(catalog, suites or ())
    catalog.save_index()
    if errors:
        raise RequestErrors(errors)
    count = f"{len(catalog.papers)} papers, {len(catalog.methods)} methods, {len(catalog.tasks)} tasks"
    typer.echo(f"all well: {count}, {len(catalog.suites)} suites")


@app.command()
def schema(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write the JSON Schemas to.")],
) -> None:
    """Write the JSON Schemas: of paper.yaml and suites, for editors, and of the files of verdicts and gates."""
    from harness.schema import write

    for path in write(out):
        typer.echo(str(path))


def _version(value: bool) -> None:
    if value:
        from harness import __version__

        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


_debug = False


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors that the harness raises on purpose become one line each and an exit code."""
    try:
        app(args=arguments)
    except RequestErrors as error:
        if _debug:
            raise
        for each in error.errors:
            typer.echo(f"error: {each}", err=True)
        sys.exit(2)
    except HarnessError as error:
        if _debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, RequestError) else 1)


if __name__ == "__main__":
    main()
