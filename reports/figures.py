"""Figures of a report as SVG: what was claimed against what was measured, growth, and series."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.record import Record
from reports.collect import PaperPart, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is kept for the paper's figure.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8c6d1f", "#5b5b5b")
OUTCOME_COLOURS = {
    "reproduced": "#00724f",
    "consistent": "#009E73",
    "contradicted": "#D55E00",
    "inconclusive": "#b58900",
    "not measured": "#777777",
}
WIDTH = 6.6
FARTHEST = 100.0
"""A ratio beyond this, either way, is drawn as an arrow with its value, so that it does not squeeze the others."""


def colours(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each method that it keeps in every figure of a paper."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(labels))}


def _axes(height: float) -> tuple[Figure, Axes]:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "harness"
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="white")
    text = stream.getvalue()
    return text[text.index("<svg") :]


def forest(rows: Sequence[Row]) -> str | None:
    """Claimed against measured, as a ratio: 1 is the paper's figure. None when no claim has both as numbers."""
    shown = [r for r in rows if _ratio(r) is not None]
    if not shown:
        return None
    figure, axes = _axes(1.1 + 0.26 * len(shown))
    for i, row in enumerate(reversed(shown)):
        claimed, measured = row.claim.claimed.value, row.verdict.figure
        assert claimed is not None
        assert measured is not None
        colour = OUTCOME_COLOURS[row.verdict.outcome]
        value = measured.value / claimed
        if measured.low is not None and measured.high is not None:
            ends = [min(max(end / claimed, 1 / FARTHEST), FARTHEST) for end in (measured.low, measured.high)]
            axes.plot(ends, [i, i], color=colour, linewidth=2, solid_capstyle="butt")
        place = min(max(value, 1 / FARTHEST), FARTHEST)
        marker = "o" if place == value else "<" if value < place else ">"
        axes.plot([place], [i], marker, color=colour, markersize=5)
        if place != value:
            axes.annotate(f"{value:.1e}", (place, i), (6, -3), textcoords="offset points", fontsize=7)
    axes.axvline(1, color="black", linewidth=1, zorder=0)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.25))
    _plain_ratio_ticks(axes)
    axes.set_yticks(range(len(shown)), [r.claim.id for r in reversed(shown)], fontsize=8)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("measured / claimed (line: the paper's figure; bar: 95 % interval)", fontsize=8)
    for outcome in dict.fromkeys(r.verdict.outcome for r in shown):
        axes.plot([], [], "o", color=OUTCOME_COLOURS[outcome], markersize=5, label=outcome)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return _svg(figure)


def _ratio(row: Row) -> float | None:
    claimed, figure = row.claim.claimed.value, row.verdict.figure
    if not claimed or figure is None or claimed * figure.value <= 0:
        return None
    if figure.unit != row.claim.claimed.unit:
        return None  # the rule looks at another quantity than the paper's figure
    return figure.value / claimed


def _plain_ratio_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def growth(part: PaperPart) -> list[tuple[str, str]]:
    """Latency over each numeric task parameter that was varied, on log axes: (title, SVG)."""
    found = []
    comparisons: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in part.records:
        if record.status == "ok" and record.latency:
            comparisons[(record.profile, record.comparison)].append(record)
    for (place, name), records in comparisons.items():
        for parameter in _varied(records):
            svg = _growth(records, parameter)
            if svg is not None:
                found.append((f"{name}: latency over {parameter} ({place})", svg))
    return found


def _varied(records: Sequence[Record]) -> list[str]:
    values: dict[str, set[float]] = defaultdict(set)
    for record in records:
        for name, value in record.task_parameters.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                values[name].add(float(value))
    return [name for name, seen in values.items() if len(seen) >= 3]


def _growth(records: Sequence[Record], parameter: str) -> str | None:
    lines: dict[tuple[str, tuple[Any, ...]], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    others = _other_parameters(records, parameter)
    for record in records:
        value = record.instrument("latency")
        if value is not None:
            setting = tuple(record.parameters.get(n) for n in others)
            lines[(record.label, setting)][float(record.parameters[parameter])].append(value)
    lines = {k: v for k, v in lines.items() if len(v) >= 2}
    if not lines or len(lines) > 14:
        return None
    figure, axes = _axes(3.4)
    colour = colours(sorted({label for label, _ in lines}))
    styles: dict[tuple[Any, ...], Any] = {}
    for (label, setting), points in sorted(lines.items(), key=str):
        style = styles.setdefault(setting, ("-", "--", ":", "-.")[len(styles) % 4])
        x = sorted(points)
        y = [sum(points[v]) / len(points[v]) for v in x]
        extra = ", ".join(f"{n}={v}" for n, v in zip(others, setting, strict=True))
        axes.plot(
            x, y, style, marker="o", markersize=3.5, color=colour[label], label=f"{label} {extra}".strip()
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(parameter, fontsize=8)
    axes.set_ylabel("latency (s)", fontsize=8)
    ticks = sorted({v for points in lines.values() for v in points})
    axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


def _other_parameters(records: Sequence[Record], parameter: str) -> list[str]:
    values: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, value in record.parameters.items():
            values[name].add(repr(value))
    return sorted(n for n, seen in values.items() if len(seen) > 1 and n != parameter)


def series(part: PaperPart) -> list[tuple[str, str]]:
    """Series over epochs or steps, the mean over seeds of every method: (title, SVG)."""
    curves: dict[tuple[str, str, str], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for record in part.records:
        if record.status != "ok":
            continue
        for name, curve in record.series.items():
            curves[(record.comparison, record.profile, name)][_variant(record, part.records)].append(curve)
    found = []
    for (comparison, place, name), by_label in curves.items():
        if len(by_label) > 10:
            continue  # a grid of dozens of lines is better read in the table
        found.append((f"{comparison}: {name} ({place})", _series(by_label, name)))
    return found


def _variant(record: Record, records: Sequence[Record]) -> str:
    same = [r for r in records if r.comparison == record.comparison]
    others = _other_parameters(same, "")
    extra = ", ".join(f"{n}={record.parameters[n]}" for n in others if n in record.parameters)
    return f"{record.label} {extra}".strip()


def _series(by_label: dict[str, list[Any]], name: str) -> str:
    figure, axes = _axes(3.0)
    colour = colours(sorted(by_label))
    for label, curves in sorted(by_label.items()):
        for curve in curves:
            axes.plot(curve.x, curve.y, color=colour[label], linewidth=0.6, alpha=0.35)
        length = min(len(c.x) for c in curves)
        if all(list(c.x[:length]) == list(curves[0].x[:length]) for c in curves):
            mean = [sum(c.y[i] for c in curves) / len(curves) for i in range(length)]
            axes.plot(curves[0].x[:length], mean, color=colour[label], linewidth=1.8, label=label)
        else:
            axes.plot([], [], color=colour[label], linewidth=1.8, label=label)
    sample = next(iter(by_label.values()))[0]
    axes.set_xlabel(sample.x_label, fontsize=8)
    axes.set_ylabel(sample.y_label or name, fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    return _svg(figure)
