"""What ``harness list`` shows, collected without importing a method."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from harness.catalog import Catalog, PaperEntry

_TITLE = "title:"
_ONLY_IN_JSON = ("file", "line", "parameters", "metrics", "packages", "data")


def collect(catalog: Catalog, kinds: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The entries of each kind, as plain data."""
    makers = {
        "papers": _papers,
        "methods": _methods,
        "tasks": _tasks,
        "suites": _suites,
        "profiles": _profiles,
    }
    return {kind: makers[kind](catalog) for kind in kinds}


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the entries of each kind in columns, the last of which is cut to the width of the terminal.

    Plain text: drawing tables would take longer than all the rest of listing.
    """
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((140, 24)).columns if terminal else None
    for kind, rows in found.items():
        if not rows:
            continue
        columns = [c for c in rows[0] if c not in _ONLY_IN_JSON]
        cells = [[_cell(row[c]) for c in columns] for row in rows]
        widths = [max(len(columns[i]), *(len(line[i]) for line in cells)) for i in range(len(columns))]
        print(_bold(f"{kind} ({len(rows)})", terminal))
        for line in [columns, *cells]:
            text = "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            if width is not None and len(text) > width:
                text = text[: width - 1] + "…"
            print(_dim(text, terminal) if line is columns else text)
        print()


def _bold(text: str, terminal: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if terminal else text


def _dim(text: str, terminal: bool) -> str:
    return f"\x1b[2m{text}\x1b[0m" if terminal else text


def _papers(catalog: Catalog) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    for method in catalog.methods.values():
        if method.paper:
            counts[method.paper] = counts.get(method.paper, 0) + 1
    return [
        {
            "name": p.slug,
            "family": p.family,
            "methods": counts.get(p.slug, 0),
            "claims": claims,
            "title": title,
            "file": str(p.file),
        }
        for p in catalog.papers.values()
        for title, claims in [_glance(p)]
    ]


def _glance(entry: PaperEntry) -> tuple[str, int]:
    """Title and number of claims, read off the lines: parsing all papers would take longer than listing may."""
    title, claims = "", 0
    with open(entry.file, encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(_TITLE) and not title:
                title = line[len(_TITLE) :].strip().strip("\"'")
            claims += line.lstrip().startswith("- id:")
    return title, claims


def _methods(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        {
            "name": m.name,
            "family": m.family,
            "role": m.role,
            "paper": m.paper,
            "tasks": list(m.attempts),
            "about": m.source.summary,
            "parameters": {
                f.name: {"type": f.annotation, "default": f.default, "about": f.doc} for f in m.fields.values()
            },
            "packages": list(m.packages),
            "file": str(m.source.file),
            "line": m.source.line,
        }
        for m in catalog.methods.values()
    ]


def _tasks(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        {
            "name": t.name,
            "family": t.family,
            "metrics": [m.name for m in t.metrics],
            "measures": len(t.metrics),
            "about": t.source.summary,
            "parameters": {
                f.name: {"type": f.annotation, "default": f.default, "about": f.doc} for f in t.fields.values()
            },
            "data": list(t.data),
            "file": str(t.source.file),
            "line": t.source.line,
        }
        for t in catalog.tasks.values()
    ]


def _suites(catalog: Catalog) -> list[dict[str, Any]]:
    found = []
    for name, path in catalog.suites.items():
        title = ""
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                if line.startswith(_TITLE):
                    title = line[len(_TITLE) :].strip().strip("\"'")
                    break
        found.append({"name": name, "title": title, "file": str(path)})
    return found


def _profiles(catalog: Catalog) -> list[dict[str, Any]]:
    from harness.profile import PROFILES

    return [
        {"name": p.name, "device": p.device, "about": p.about, "here": seen.here, "found": seen.reason}
        for p in PROFILES.values()
        for seen in [p.recognise()]
    ]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
