"""Figures of quality against latency and against memory, with the frontier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reports.figures import (
    DOUBLE,
    SINGLE,
    Drawing,
    canvas,
    cut,
    fitted,
    logarithmic,
    prefixed,
    round_ticks,
    slug,
)
from reports.plotted import Data, colour_of, marker_of, mean, setting_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_METRICS = 3
"""Metrics of a comparison that are drawn: those that claims are about come first."""


def quality(each: Data, labels: Sequence[str], name: str, about: str, wanted: set[str]) -> Iterator[Drawing]:
    """Quality against latency and against memory, with the methods that nothing beats in both joined by steps."""
    metrics = [m for m in each["metrics"] if m["better"] in ("higher", "lower")]
    chosen = [m for m in metrics if m["name"] in wanted] or metrics[:1]
    last = max((c["s"] for c in each["cells"]), default=0)
    cells = [c for c in each["cells"] if c["s"] == last]
    where = f", at {setting_of(each, last)}" if len(each["settings"]) > 1 else ""
    for metric in chosen[:MOST_METRICS]:
        there = [c for c in cells if mean(c.get("metrics", {}).get(metric["name"])) is not None]
        memory = "device" if any(mean(c.get("device")) for c in there) else "peak"
        costs: list[tuple[str, Literal["s", "B"], str]] = [
            ("latency", "s", "latency"),
            (memory, "B", "peak memory"),
        ]
        panels = [c for c in costs if sum(1 for cell in there if (mean(cell.get(c[0])) or 0) > 0) >= 2]
        if not panels:
            continue
        count = len({c["m"] for c in there})
        width = DOUBLE if len(panels) == 2 else SINGLE
        figure, axes = canvas(
            width, 2.15 + 0.15 * -(-count // (4 if width == DOUBLE else 2)), len(panels), sharey=True
        )
        for place, (column, kind, title) in zip(axes, panels, strict=True):
            _panel(place, there, column, metric, kind, title)
        values = [v for c in there for v in c["metrics"][metric["name"]] if v is not None]
        if min(values) > 0 and max(values) / min(values) > 50:
            logarithmic(axes[0].yaxis, min(values), max(values))
        unit = metric["unit"]
        if unit in ("s", "B"):
            unit = prefixed(axes[0].yaxis, unit, axes[0].get_ylim()[1])
            if metric["unit"] == "B":
                round_ticks(axes[0].yaxis, unit)
        axes[0].set_ylabel(cut(f"{metric['name']} ({unit})" if unit else metric["name"], 40))
        _legend(figure, there, labels, 4 if width == DOUBLE else 2)
        text = f"{about}: {metric['name']} against latency and memory{where}; {metric['better']} is better"
        yield Drawing(slug(name, "frontier", metric["name"]), text, figure)


def _panel(
    axes: Axes, cells: Sequence[Data], column: str, metric: Data, unit: Literal["s", "B"], title: str
) -> None:
    points: list[tuple[float, float]] = []
    for cell in cells:
        costs = [v for v in cell.get(column, ()) if v is not None and v > 0]
        values = [v for v in cell["metrics"][metric["name"]] if v is not None]
        if not costs or not values:
            continue
        x, y = sum(costs) / len(costs), sum(values) / len(values)
        points.append((x, y))
        colour = colour_of(cell["m"])
        axes.plot([min(costs), max(costs)], [y, y], color=colour, linewidth=0.8, zorder=2)
        axes.plot([x, x], [min(values), max(values)], color=colour, linewidth=0.8, zorder=2)
        axes.plot([x], [y], marker_of(cell["m"]), color=colour, markersize=4.5, markeredgecolor="white",
                  markeredgewidth=0.4, zorder=3)  # fmt: skip
    xs = [v for c in cells for v in c.get(column, ()) if v is not None and v > 0]
    low, high = min(xs), max(xs)
    if high / low > 6:
        logarithmic(axes.xaxis, low, high)
    else:
        fitted(axes.xaxis, low, high)
    name = prefixed(axes.xaxis, unit, high)
    if unit == "B":
        round_ticks(axes.xaxis, name)
    axes.set_xlabel(f"{title} ({name})")
    best = frontier(points, metric["better"])
    end = axes.get_xlim()[1]
    axes.step(
        [x for x, _ in best] + [end], [y for _, y in best] + [best[-1][1]], where="post", color="#888888",
        linewidth=0.8, linestyle="--", zorder=1,
    )  # fmt: skip
    axes.set_xlim(right=end)


def frontier(points: Sequence[tuple[float, float]], better: str) -> list[tuple[float, float]]:
    """The points (cost, quality) that no other point beats or equals in both, by rising cost."""
    sign = -1 if better == "higher" else 1
    kept: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda p: (p[0], sign * p[1])):
        if not kept or sign * y < sign * kept[-1][1]:
            kept.append((x, y))
    return kept


def _legend(figure: Any, cells: Sequence[Data], labels: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=colour_of(m),
            marker=marker_of(m),
            linestyle="",
            markersize=4.5,
            label=cut(labels[m], 34),
        )
        for m in sorted({c["m"] for c in cells})
    ]
    handles.append(Line2D([], [], color="#888888", linewidth=0.8, linestyle="--", label="frontier"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.0, handletextpad=0.4
    )
