"""Series over epochs or steps: the mean over seeds and how far the seeds lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.record import Record, SeriesRecord
from reports.numbers import shorts

MOST_POINTS = 160
"""More points than this are not told apart in a plot of a page's width."""


def curves(cells: Sequence[Sequence[Record]], described: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The series of a comparison by name, with a curve or more for each cell.

    Args:
        cells: the records of each cell.
        described: the same cells as data, with method (``m``), setting (``s``) and variant (``v``).
    """
    found: dict[str, dict[str, Any]] = {}
    for cell, about in zip(cells, described, strict=True):
        by_name: dict[str, list[SeriesRecord]] = {}
        for record in cell:
            for name, curve in record.series.items() if record.status == "ok" else ():
                if curve.x:
                    by_name.setdefault(name, []).append(curve)
        for name, members in by_name.items():
            labels = {"name": name, "x_label": members[0].x_label, "y_label": members[0].y_label or name}
            series = found.setdefault(name, {**labels, "curves": []})
            series["curves"] += [{k: about[k] for k in ("m", "s", "v")} | c for c in _curves(members)]
    return [found[name] for name in sorted(found)]


def _curves(members: Sequence[SeriesRecord]) -> list[dict[str, Any]]:
    """One curve with a band over all seeds where they share x; else each seed's own, for nothing is made up between."""
    import numpy as np

    length = min(len(c.x) for c in members)
    if any(c.x[:length] != members[0].x[:length] for c in members):
        return [_thinned(c.x, {"y": c.y}) | {"n": 1} for c in members]
    table = np.array([c.y[:length] for c in members], dtype=float)
    columns: dict[str, Sequence[float]] = {"y": table.mean(axis=0).tolist()}
    if len(members) > 1:
        columns |= {"low": table.min(axis=0).tolist(), "high": table.max(axis=0).tolist()}
    return [_thinned(members[0].x[:length], columns) | {"n": len(members)}]


def _thinned(x: Sequence[float], columns: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Points evenly picked, the first and the last among them."""
    count = min(len(x), MOST_POINTS)
    picked = [round(i * (len(x) - 1) / max(count - 1, 1)) for i in range(count)]
    return {name: shorts(values[i] for i in picked) for name, values in {"x": x, **columns}.items()}
