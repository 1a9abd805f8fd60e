"""The commands ``harness gate`` and ``harness qualify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Json, Methods, Only, Papers, Tags
from harness.errors import HarnessError, RequestError, RequestErrors


def gate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Name or file of the suite to gate.")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="REV", help="The git revision to compare with.")
    ] = None,
    base_env: Annotated[
        Path | None,
        typer.Option("--base-env", metavar="PATH", help="An environment that already has the base installed."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="STORE|FILE", help="Stored records to compare with: a store, or JSON lines."
        ),
    ] = None,
    methods: Methods = None,
    profile: Annotated[
        str, typer.Option("--profile", metavar="PROFILE", help="cpu, edge-gpu or datacenter-gpu.")
    ] = "cpu",
    papers: Papers = None,
    tags: Tags = None,
    only: Only = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--time", metavar="SECONDS", min=0.5, help="Machine time per method (default 10, or the suite's)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write Markdown, JSON, JUnit XML and pytest-benchmark's JSON there."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether a change made any method of a suite slower, larger or less accurate.

    Both revisions are measured here and now, taking turns. A method that looks worse is measured a second time before it
    fails the gate. With --against, accuracy and memory are compared with stored records, from any machine.

    Exit codes: 0 nothing regressed; 1 something did; 2 the request itself was wrong.
    """
    from harness.gate import command
    from harness.gate.run import Options
    from harness.gate.sides import Selection

    if against is None and base is None and base_env is None:
        raise RequestError(
            "the gate needs something to compare with", hint="--base REV, --base-env PATH or --against"
        )
    if against is not None and (base is not None or base_env is not None):
        raise RequestError("--against takes the place of a base", hint="leave out --base and --base-env")
    options = Options(
        suite=suite,
        base=base,
        base_env=base_env,
        profile=profile,
        selection=Selection(papers or (), tags or (), only or ()),
        folders=tuple(methods or ()),
        time=seconds,
    )
    try:
        code = command.main(options, against=against, out=out, as_json=as_json)
    except RequestErrors:
        raise
    except HarnessError as error:
        # In a gate 1 means a regression and nothing else.
        raise error if isinstance(error, RequestError) else RequestError(str(error)) from error
    raise typer.Exit(code)


def qualify(
    seconds: Annotated[
        float,
        typer.Option("--time", metavar="SECONDS", min=0.5, help="Machine time per method, as in the gate."),
    ] = 10.0,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Gates of each sort.")] = 1,
    slowdown: Annotated[
        float, typer.Option("--slowdown", metavar="SHARE", min=0.01, max=1.0, help="Whole percent, e.g. 0.05.")
    ] = 0.05,
    loads: Annotated[
        list[int] | None,
        typer.Option(
            "--load", metavar="N", min=0, help="Busy processes beside it. May be repeated (default 0)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--trials", metavar="FILE", help="Keep trials there as JSON lines; those in it count too."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the instrument on this machine: how often it errs, and the smallest change it finds.

    Twenty methods of ten kinds are gated against themselves and against copies slower by a known amount, exactly as
    'harness gate' does it. One repeat takes about ten minutes.
    """
    from harness.qualify import command

    raise typer.Exit(
        command.main(
            seconds=seconds, repeats=repeats, slowdown=slowdown, loads=loads or [0], out=out, as_json=as_json
        )
    )
