"""Writes a comparison of two sets of records: Markdown, JSON, CSV and a page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from harness import __version__
from harness.catalog import Catalog
from harness.store import Store
from harness.verdict import OUTCOMES, Verdict
from reports import formats as report_formats
from reports import sides, tables
from reports.compare import Comparison, FigureChange, compare
from reports.intervals import Summary

FORMATS = ("html", "markdown", "json", "csv")
MOST_ROWS = 2000
"""Rows of one table of the page; the CSV has all."""
MOST_LINES = 200
"""Rows of one table in Markdown."""


@dataclass(frozen=True)
class Section:
    """A table of a comparison: what changed stands open, what did not is folded away."""

    title: str
    text: str
    head: list[str]
    rows: list[list[str]]
    folded: bool = False


def write(
    catalog: Catalog,
    store: Store,
    out: Path,
    names: tuple[str, str],
    *,
    papers: Sequence[str] = (),
    profiles: Sequence[str] = (),
    formats: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Compare the two sides that `names` names (`reports.sides.load`) and write the comparison into `out`.

    Args:
        catalog: where papers are.
        store: where selections such as ``machine:lab3`` come from.
        out: the folder; it is made where it is missing.
        names: A and B.
        papers: slugs; empty for all.
        profiles: names; empty for those that have records.
        formats: of `FORMATS`; empty for all.
        progress: is told what is being done.

    Returns:
        The files that were written.

    Raises:
        RequestError: a side, paper, profile or format is unknown, or `out` cannot be written to.
    """
    asked = _chosen(formats)
    for slug in papers:
        catalog.paper(slug)
    loaded = []
    for name in names:
        progress(f"reading {name}")
        loaded.append(sides.load(name, store, papers=papers, profiles=profiles))
    progress("comparing")
    found = compare(catalog, loaded[0], loaded[1], papers=papers, profiles=profiles)
    _folder(out)
    written: list[Path] = []
    if "html" in asked:
        written.append(_text(out / "comparison.html", page(found)))
    if "markdown" in asked:
        written.append(_text(out / "comparison.md", markdown(found)))
    if "json" in asked:
        written.append(_text(out / "comparison.json", as_json(found)))
    if "csv" in asked:
        written += _csv(found, out)
    return written


def _chosen(names: Sequence[str]) -> tuple[str, ...]:
    return report_formats.chosen(names, FORMATS) or FORMATS


def _folder(out: Path) -> None:
    report_formats.folder_for(out)


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- what stands in it -------------------------------------------------------------------------------------


def headline(found: Comparison) -> str:
    """The comparison in one or two sentences."""
    changed = [c for c in found.claims if c.change == "verdict"]
    figures = Counter(f.outcome for f in found.figures)
    words = f"{len(changed)} of {len(found.claims)} verdicts changed."
    words += f" Of {len(found.figures)} figures, {figures['worse']} became worse, {figures['better']} better"
    words += f" and {figures['changed']} otherwise different"
    chance = found.chance()
    words += f"; about {chance:.0f} would by chance alone." if chance >= 0.5 else "."
    if figures["side by side"]:
        words += (
            f" {figures['side by side']} times of different machines stand side by side and are not compared."
        )
    if found.failures:
        many = len(found.failures)
        words += f" {many} method{'s' if many != 1 else ''} ended differently."
    return words


def both(found: Comparison) -> list[tuple[str, str, str]]:
    """What the two sides are, as rows."""
    a, b = found.a, found.b
    rows = [
        ("what", a.name, b.name),
        ("records", f"{len(a.records):,}", f"{len(b.records):,}"),
        ("machine", "; ".join(a.machines()), "; ".join(b.machines())),
        ("revision", ", ".join(a.revisions()), ", ".join(b.revisions())),
    ]
    versions = a.versions(), b.versions()
    rows += [
        (name, versions[0].get(name, "none"), versions[1].get(name, "none"))
        for name in sorted({*versions[0], *versions[1]})
        if versions[0].get(name) != versions[1].get(name)
    ]
    return rows


def sections(found: Comparison) -> list[Section]:
    """The tables, what changed first."""
    claims = {kind: [c for c in found.claims if c.change == kind] for kind in ("verdict", "figure", "none")}
    head = ["paper", "claim", "A", "measured in A", "B", "measured in B", "note"]

    def rows(kind: str) -> list[list[str]]:
        return [
            [c.paper, f"{c.claim}: {c.statement}", c.a.outcome, _figure(c.a), c.b.outcome, _figure(c.b), c.note]
            for c in claims[kind]
        ]

    by_outcome = {o: [f for f in found.figures if f.outcome == o] for o in {f.outcome for f in found.figures}}
    changed = [f for o in ("worse", "better", "changed") for f in by_outcome.get(o, ())]
    quiet = [f for o in ("undecided", "no change seen", "same") for f in by_outcome.get(o, ())]
    alone = [f for o in ("only in A", "only in B") for f in by_outcome.get(o, ())]
    beside = by_outcome.get("side by side", [])
    figure_head = ["paper", "comparison", "method", "setting", "metric", "A", "B", "B to A", "came out"]
    return [
        Section("Verdicts that changed", "" if claims["verdict"] else "None.", head, rows("verdict")),
        Section(
            "Claims whose figure changed", "The verdict is the same; the intervals lie apart.", head, rows("figure")
        ),
        Section(
            "Figures that changed",
            "Means over seeds with 95 % intervals. Times and bytes are compared as B divided by A, other figures as B"
            " minus A, each seed with itself where both sides have the same seeds. Listed is what an interval tells"
            " from no change." if changed else "None.",
            figure_head, [_figure_row(f) for f in changed],
        ),
        Section(
            "Ended differently", "", ["paper", "comparison", "method", "setting", "A", "B"],
            [[f.paper, f.comparison, f.method, f.setting, f.a, f.b] for f in found.failures],
        ),
        Section(
            "Times of different machines, side by side",
            "They are not compared: a machine's speed is no property of a method.",
            figure_head[:-2], [_figure_row(f)[:-2] for f in beside],
        ),
        Section("Verdicts that did not change", "", head, rows("none"), folded=True),
        Section("Figures without a clear change", "", figure_head, [_figure_row(f) for f in quiet], folded=True),
        Section("Figures of one side alone", "", figure_head, [_figure_row(f) for f in alone], folded=True),
    ]  # fmt: skip


def _figure(verdict: Verdict) -> str:
    return str(verdict.figure) if verdict.figure else ""


def _figure_row(f: FigureChange) -> list[str]:
    where = (
        f.comparison if f.profiles[0] == f.profiles[1] else f"{f.comparison} ({f.profiles[0]}, {f.profiles[1]})"
    )
    values = [_summary(s, f.unit) for s in (f.a, f.b)]
    return [f.paper, where, f.method, f.setting, f.metric, *values, _change(f), f.outcome]


def _summary(summary: Summary | None, unit: str) -> str:
    if summary is None:
        return ""
    size, unit = _scale(abs(summary.value), unit)
    low, high = (None if v is None else v / size for v in (summary.low, summary.high))
    scaled = Summary(summary.value / size, low, high, summary.seeds)
    return f"{_interval(scaled, '.4g')} {unit}".strip()


def _scale(value: float, unit: str) -> tuple[float, str]:
    """A unit in which `value` has few digits."""
    for size, name in _UNITS.get(unit, ()):
        if value >= size:
            return size, name
    return 1, unit


_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
}


def _change(f: FigureChange) -> str:
    if f.change is None:
        return ""
    if f.kind == "ratio":
        return f"× {_interval(f.change, '.4g')}"
    return f"{_interval(f.change, '+.4g')} {f.unit}".strip()


def _interval(summary: Summary, form: str) -> str:
    text = format(summary.value, form)
    if summary.low is not None and summary.high is not None:
        low, high = format(summary.low, form), format(summary.high, form)
        if low != high:
            text += f" [{low}, {high}]"
    return text


# -- forms ----------------------------------------------------------------------------------------------


def markdown(found: Comparison) -> str:
    """The comparison as Markdown, fit for a comment on a pull request."""
    lines = ["## What changed", "", tables.escape(headline(found)), ""]
    lines += tables.table(["", "A", "B"], [[tables.escape(cell) for cell in row] for row in both(found)])
    for section in sections(found):
        if not section.rows and section.text != "None.":
            continue
        lines += ["", f"### {section.title}", ""]
        if section.text:
            lines += [tables.escape(section.text), ""]
        if not section.rows:
            continue
        shown = [[tables.escape(cell) for cell in row] for row in section.rows[:MOST_LINES]]
        rest = len(section.rows) - len(shown)
        more = ["", f"{rest} further rows are in the page and the CSV."] if rest else []
        if section.folded:
            lines += [f"<details><summary>{len(section.rows)} rows</summary>", ""]
            lines += [*tables.table(section.head, shown), *more, "", "</details>"]
        else:
            lines += [*tables.table(section.head, shown), *more]
    return "\n".join(lines) + "\n"


def page(found: Comparison) -> str:
    """The comparison as one HTML file that loads nothing. Whatever came from a record or a YAML file is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    shown = []
    for section in sections(found):
        if not section.rows and section.text != "None.":
            continue
        rest = len(section.rows) - MOST_ROWS
        text = f"{section.text} {rest:,} further rows are in the CSV.".strip() if rest > 0 else section.text
        shown.append(Section(section.title, text, section.head, section.rows[:MOST_ROWS], section.folded))
    style = _read("static/page.css") + _read("static/compare.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read("compare.html.j2")).render(
        c=found,
        digest="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        style=Markup(style),
        headline=headline(found),
        sides=both(found),
        sections=shown,
        marks=(*OUTCOMES, "worse", "better", "changed"),
        version=__version__,
    )


def _read(name: str) -> str:
    return resources.files("reports").joinpath(*name.split("/")).read_text(encoding="utf-8")


def as_json(found: Comparison) -> str:
    """The comparison for other tools; infinite and missing numbers are null."""
    document = {
        "format": 1,
        "harness": __version__,
        **{
            name: {
                "name": side.name, "records": len(side.records), "machines": side.machines(),
                "revisions": side.revisions(), "versions": side.versions(),
            }
            for name, side in (("a", found.a), ("b", found.b))
        },
        "headline": headline(found),
        "same_machine": found.same_machine,
        "claims": [
            {
                "paper": c.paper, "claim": c.claim, "statement": c.statement, "change": c.change, "note": c.note,
                "a": c.a.model_dump(mode="json"), "b": c.b.model_dump(mode="json"),
            }
            for c in found.claims
        ],
        "not_measured_on_either": found.unmeasured,
        "figures": [asdict(f) for f in found.figures],
        "ended_differently": [asdict(f) for f in found.failures],
    }  # fmt: skip
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _csv(found: Comparison, out: Path) -> list[Path]:
    import pandas as pd

    claims = [
        {
            "paper": c.paper, "claim": c.claim, "change": c.change, "note": c.note,
            **{
                f"{name}_{side}": value
                for side, v in (("a", c.a), ("b", c.b))
                for name, value in (
                    ("profile", v.profile), ("outcome", v.outcome), ("reason", v.reason),
                    *((n, getattr(v.figure, n) if v.figure else None) for n in ("value", "low", "high", "unit")),
                )
            },
        }
        for c in found.claims
    ]  # fmt: skip
    figures = [
        {
            "paper": f.paper, "comparison": f.comparison, "profile_a": f.profiles[0], "profile_b": f.profiles[1],
            "method": f.method, "setting": f.setting, "metric": f.metric, "unit": f.unit, "better": f.better,
            **{
                f"{name}_{side}": getattr(s, name) if s else None
                for side, s in (("a", f.a), ("b", f.b))
                for name in ("value", "low", "high", "seeds")
            },
            "kind": f.kind,
            **{n: getattr(f.change, m) if f.change else None for n, m in _CHANGE.items()},
            "paired": f.paired, "outcome": f.outcome,
        }
        for f in found.figures
    ]  # fmt: skip
    paths = [out / "comparison-claims.csv", out / "comparison-figures.csv"]
    for path, rows in zip(paths, (claims, figures), strict=True):
        pd.DataFrame(rows).to_csv(path, index=False)
    return paths


_CHANGE = {"change": "value", "change_low": "low", "change_high": "high"}
