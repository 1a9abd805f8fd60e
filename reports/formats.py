"""Which files a report consists of, and what writes each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import verdictfile
from harness.catalog import Catalog
from harness.errors import RequestError, nearest
from harness.record import Record
from harness.store import Store
from reports import badge, tables
from reports.collect import Content, collect

FORMATS: dict[str, str] = {
    "html": "index.html, the page",
    "markdown": "claims.md with everything, comment.md for a pull request",
    "csv": "verdicts.csv and records.csv",
    "parquet": "verdicts.parquet, records.parquet (whole records) and samples.parquet",
    "json": "verdicts.json, which docs/schemas/verdicts.schema.json describes",
    "jsonl": "records.jsonl, whole records, one a line",
    "latex": "latex/<paper>.tex, a table per paper",
    "svg": "figures/*.svg",
    "pdf": "figures/*.pdf, for a paper's column",
    "badge": "badge.svg, one per paper, and summary.md for a README",
}
DEFAULT = ("html", "markdown", "csv", "json", "badge")
"""What is written when no format is named: everything that takes little time and room."""

PORTION = 1000
"""Records that are read at a time."""

Progress = Callable[[str], None]


def chosen(names: Sequence[str], known: Sequence[str] = tuple(FORMATS)) -> tuple[str, ...]:
    """The formats asked for, in the order they are written.

    Raises:
        RequestError: one of them is unknown.
    """
    for name in names:
        if name not in known:
            raise RequestError(f"'{name}' is not a format", hint=nearest(name, known))
    return tuple(n for n in known if n in names)


def write(
    catalog: Catalog,
    store: Store,
    out: Path,
    *,
    papers: Sequence[str] = (),
    profiles: Sequence[str] = (),
    formats: Sequence[str] = (),
    progress: Progress = lambda text: None,
) -> list[Path]:
    """Write a report into the folder `out`.

    Args:
        catalog: where papers are.
        store: the records.
        out: the folder; it is made where it is missing.
        papers: slugs; empty for all.
        profiles: names; empty for those that have records.
        formats: names of `FORMATS`; empty for `DEFAULT`.
        progress: is told what is being done.

    Returns:
        The files in the order they were written; the page first where there is one.

    Raises:
        RequestError: a paper, profile or format is unknown, or `out` cannot be written to.
    """
    asked = chosen(formats) or DEFAULT
    folder_for(out)
    progress("deciding claims")
    content = collect(catalog, store, papers, profiles)
    found: list[Path] = []
    if "html" in asked:
        from reports.write import write_page

        progress("writing index.html")
        found.append(write_page(catalog, content, out))
    if "markdown" in asked:
        found.append(_text(out / "claims.md", tables.markdown(content)))
        found.append(_text(out / "comment.md", tables.comment(content)))
    if "json" in asked:
        found.append(_text(out / "verdicts.json", verdicts_json(content)))
    if {"csv", "parquet", "jsonl"} & set(asked):
        found += _frames(content, store, out, asked, papers, progress)
    if "latex" in asked:
        found += _latex(content, out / "latex")
    if {"svg", "pdf"} & set(asked):
        found += _figures(catalog, content, out / "figures", asked, progress)
    if "badge" in asked:
        found += _badges(content, out, "index.html" if "html" in asked else None)
    return found


def folder_for(out: Path) -> None:
    """Make the folder `out`.

    Raises:
        RequestError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"'{out}' cannot be written to: {error.strerror}", hint="name another folder with --out"
        ) from error


def verdicts_json(content: Content) -> str:
    """The file of verdicts."""
    return verdictfile.text(
        verdictfile.ClaimVerdict.of(part.family, row.claim, row.verdict)
        for part in content.parts
        for row in part.rows
    )


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _frames(
    content: Content, store: Store, out: Path, asked: Sequence[str], papers: Sequence[str], progress: Progress
) -> list[Path]:
    from reports import frames

    found: list[Path] = []
    verdicts = frames.verdicts(content)
    if "csv" in asked:
        verdicts.to_csv(out / "verdicts.csv", index=False)
        found.append(out / "verdicts.csv")
    if "parquet" in asked:
        verdicts.to_parquet(out / "verdicts.parquet", index=False)
        found.append(out / "verdicts.parquet")
    current = {record.key: record for record in content.records}
    records = _stored(store, current, store.keys(papers=papers, profiles=content.profiles))
    whole = bool({"parquet", "jsonl"} & set(asked))
    with frames.Export(records, set(current), documents=whole, progress=progress) as export:
        paths = {name: out / f"records.{name}" for name in ("csv", "parquet", "jsonl") if name in asked}
        if {"csv", "parquet"} & set(asked):
            export.tables(csv=paths.get("csv"), parquet=paths.get("parquet"))
        if "parquet" in asked:
            export.samples(out / "samples.parquet")
            found.append(out / "samples.parquet")
        if "jsonl" in asked:
            export.json_lines(paths["jsonl"])
        found += paths.values()
    return found


def _stored(store: Store, known: dict[str, Record], keys: Sequence[str]) -> Iterator[Record]:
    """Every stored record, those that no longer count too; what was read already is not read again."""
    for start in range(0, len(keys), PORTION):
        portion = keys[start : start + PORTION]
        others = store.get(key for key in portion if key not in known)
        yield from (known[key] if key in known else others[key] for key in portion)


def _latex(content: Content, folder: Path) -> list[Path]:
    from reports import latex

    folder.mkdir(exist_ok=True)
    found = [_text(folder / f"{part.slug}.tex", latex.table(part)) for part in content.parts]
    names = [path.stem for path in found]
    return [*found, _text(folder / "all.tex", latex.document(names))]


def _figures(
    catalog: Catalog, content: Content, folder: Path, asked: Sequence[str], progress: Progress
) -> list[Path]:
    from reports import figures, plots

    folder.mkdir(exist_ok=True)
    found: list[Path] = []
    taken: set[str] = set()

    def save(drawing: figures.Drawing) -> None:
        name, number = drawing.name, 2
        while name in taken:
            name, number = f"{drawing.name}-{number}", number + 1
        taken.add(name)
        progress(f"drawing {name}")
        if "svg" in asked:
            found.append(_text(folder / f"{name}.svg", drawing.svg()))
        if "pdf" in asked:
            (folder / f"{name}.pdf").write_bytes(drawing.pdf())
            found.append(folder / f"{name}.pdf")

    overview = figures.forest(
        [row for part in content.parts for row in part.rows], "overview", "Claimed and measured, all papers"
    )
    if overview is not None:
        save(overview)
    for part in content.parts:
        for drawing in plots.figures(catalog, part):
            save(drawing)
    return found


def _badges(content: Content, out: Path, page: str | None) -> list[Path]:
    found = [_text(out / "badge.svg", badge.badge("claims", badge.counts_of(content)))]
    if len(content.parts) > 1:
        found += [
            _text(out / badge.name_of(part), badge.badge(part.slug, part.counts())) for part in content.parts
        ]
    return [*found, _text(out / "summary.md", badge.snippet(content, page))]
