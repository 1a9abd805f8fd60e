"""Writes a report: the page and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.catalog import Catalog
from harness.store import Store
from reports import page
from reports.collect import Content, without_collector


def write(
    catalog: Catalog, store: Store, out: Path, *, papers: Sequence[str] = (), profiles: Sequence[str] = ()
) -> Path:
    """Write the files of a report that are written by default (`reports.formats`) into the folder `out`.

    Returns:
        The page's path. It needs no network and no other file.
    """
    from reports import formats

    return formats.write(catalog, store, out, papers=papers, profiles=profiles)[0]


def write_page(catalog: Catalog, content: Content, out: Path) -> Path:
    """Write ``index.html`` alone into the folder `out`, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    # Line ends as they are: the page's content security policy holds digests of its script and style.
    with without_collector(), path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(page.pieces(catalog, content))
    return path
