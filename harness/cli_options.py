"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Methods = Annotated[
    list[Path] | None,
    typer.Option("--methods", metavar="DIR", help="A folder with further papers and methods. May be repeated."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Where records are kept (default $HARNESS_STORE or .harness/records.sqlite).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Papers = Annotated[
    list[str] | None, typer.Option("--paper", metavar="PAPER", help="Only this paper. May be repeated.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Only comparisons with this tag.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--comparison", metavar="NAME", help="Only this comparison. May be repeated."),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="PROFILE", help="cpu, edge-gpu or datacenter-gpu. May be repeated."),
]
ExecutorName = Annotated[
    str,
    typer.Option("--executor", metavar="NAME", help="Where comparisons run: local, ray or slurm."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Of a Ray cluster, e.g. HOST:6379 or auto (default $RAY_ADDRESS or auto).",
    ),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        metavar="FILE",
        help="What comparisons of each profile ask the cluster for; see docs/clusters.md.",
    ),
]


def catalog_of(methods: list[Path] | None) -> Any:
    """The catalog with the folders of ``--methods``."""
    from harness.catalog import Catalog

    return Catalog(tuple(methods or ()))


def print_json(value: Any) -> None:
    """Print plain data as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
