"""Writes a report: the page and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.catalog import Catalog
from harness.store import Store
from reports import figures, page, tables
from reports.collect import Content, PaperPart, collect


def write(
    catalog: Catalog, store: Store, out: Path, *, papers: Sequence[str] = (), profiles: Sequence[str] = ()
) -> Path:
    """Write ``index.html``, figures and tables into the folder `out`.

    Returns:
        The page's path. It needs no network and no other file.
    """
    content = collect(catalog, store, papers, profiles)
    path = write_page(catalog, content, out)
    drawn = {part.slug: _figures(part) for part in content.parts}
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    overview = figures.forest([row for part in content.parts for row in part.rows])
    if overview is not None:
        (folder / "overview.svg").write_text(_standalone(overview), encoding="utf-8")
    for slug, found in drawn.items():
        for i, (_, svg) in enumerate(found):
            (folder / f"{slug}-{i + 1}.svg").write_text(_standalone(svg), encoding="utf-8")
    tables.write(content, store, out)
    return path


def write_page(catalog: Catalog, content: Content, out: Path) -> Path:
    """Write ``index.html`` alone into the folder `out`, which is made where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    # Line ends as they are: the page's content security policy holds digests of its script and style.
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(page.pieces(catalog, content))
    return path


def _figures(part: PaperPart) -> list[tuple[str, str]]:
    found = []
    forest = figures.forest(part.rows)
    if forest is not None:
        found.append(("Claimed and measured", forest))
    return found + figures.growth(part) + figures.series(part)


def _standalone(svg: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'
