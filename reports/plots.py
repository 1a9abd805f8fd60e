"""Figures of one paper: latency, its growth, quality against latency and memory, memory, and series.

They are drawn from the same numbers as the page (`reports.aggregate`). A method has one colour and one marker in all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.catalog import Catalog
from reports import lineplots, tradeoff
from reports.aggregate import aggregate
from reports.collect import PaperPart
from reports.figures import (
    DOUBLE,
    SINGLE,
    Drawing,
    canvas,
    cut,
    fitted,
    forest,
    logarithmic,
    prefixed,
    round_ticks,
    slug,
    style,
)
from reports.plotted import Data, colour_of, mean, named, setting_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 26


def figures(catalog: Catalog, part: PaperPart) -> Iterator[Drawing]:
    """All figures of a paper, drawn one at a time."""
    claims = forest(part.rows, f"{part.slug}-claims", f"{part.slug}: claimed and measured")
    if claims is not None:
        yield claims
    wanted = {c.metric for c in part.paper.claims if c.metric}
    labels = part.labels
    comparisons, _ = aggregate(catalog, part)
    for each in comparisons:
        about = f"{each['name']} on {each['profile']}" + (" (emulated)" if each["emulated"] else "")
        name = slug(part.slug, each["name"], each["profile"])
        with style():  # left again before anything is yielded: a caller may draw figures of its own in between
            drawn = [
                *_latency(each, labels, name, about),
                *lineplots.growth(each, labels, name, about),
                *tradeoff.quality(each, labels, name, about, wanted),
                *_memory(each, labels, name, about),
                *lineplots.series(each, labels, name, about),
            ]
        yield from drawn


# -- a row for each method -----------------------------------------------------------------------------------


def _rows(each: Data, has: Callable[[Data], bool]) -> tuple[list[Data], str]:
    """The cells that become rows, and which settings were left for lack of room, as text."""
    cells = [c for c in each["cells"] if has(c)]
    if len(cells) <= MOST_ROWS:
        return cells, ""
    last = max(c["s"] for c in cells)
    kept = [c for c in cells if c["s"] == last]
    where = f", at {setting_of(each, last)}" if setting_of(each, last) else ""
    if len(kept) > MOST_ROWS:
        where += f", the first {MOST_ROWS} of {len(kept)}"
    return kept[:MOST_ROWS], where


def _layout(axes: Axes, each: Data, cells: Sequence[Data], labels: Sequence[str]) -> list[float]:
    """Places of the rows from the top, with a line of text before each setting; returns where each cell is."""
    places: list[float] = []
    ticks: list[tuple[float, str]] = []
    at, before = 0.0, None
    several = len({c["s"] for c in cells}) > 1
    for cell in cells:
        if several and cell["s"] != before:
            at -= 0.6 if before is not None else 0
            axes.text(
                0.012, at - 0.1, cut(setting_of(each, cell["s"]), 70), transform=axes.get_yaxis_transform(),
                fontsize=6.3, color="#444444", style="italic", va="center",
            )  # fmt: skip
            before = cell["s"]
            at -= 0.95
        places.append(at)
        ticks.append((at, named(labels, cell)))
        at -= 1
    axes.set_yticks([t for t, _ in ticks], [n for _, n in ticks])
    axes.set_ylim(at + 0.3, 0.7)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return places


def _height(each: Data, cells: Sequence[Data]) -> float:
    settings = len({c["s"] for c in cells})
    return 0.62 + 0.165 * (len(cells) + (1.6 * settings if settings > 1 else 0))


def _latency(each: Data, labels: Sequence[str], name: str, about: str) -> Iterator[Drawing]:
    """Distribution of the runs of every method."""
    cells, where = _rows(each, lambda c: "q" in c)
    if not cells:
        return
    figure, (axes,) = canvas(
        SINGLE if max(len(named(labels, c)) for c in cells) <= 24 else DOUBLE, _height(each, cells)
    )
    places = _layout(axes, each, cells, labels)
    for at, cell in zip(places, cells, strict=True):
        _, p5, p25, median, p75, p95, _ = cell["q"]
        colour = colour_of(cell["m"])
        axes.plot([p5, p95], [at, at], color=colour, linewidth=0.9, zorder=2)
        axes.barh(at, p75 - p25, left=p25, height=0.56, color=colour, alpha=0.45, linewidth=0, zorder=2)
        axes.plot([median, median], [at - 0.28, at + 0.28], color=colour, linewidth=1.6, zorder=3)
        medians = [v for v in cell.get("latency", ()) if v is not None]
        axes.plot(
            medians, [at] * len(medians), "o", color="white", markeredgecolor=colour, markersize=2.4,
            markeredgewidth=0.7, zorder=4,
        )  # fmt: skip
    lows, highs = [c["q"][1] for c in cells], [c["q"][5] for c in cells]
    low, high = min(lows), max(highs)
    if low > 0 and high / low > 6:
        logarithmic(axes.xaxis, low, high)
    else:
        fitted(axes.xaxis, low, high)
    unit = prefixed(axes.xaxis, "s", high)
    axes.set_xlabel(f"latency ({unit})")
    title = f"{about}: latency{where}. Box: quartiles; line: 5 to 95 % of runs; dots: medians of seeds"
    if any(c.get("unstable") for c in cells):
        title += "; †: the machine was too disturbed for these times to decide anything"
    yield Drawing(f"{name}-latency", title, figure)


def _memory(each: Data, labels: Sequence[str], name: str, about: str) -> Iterator[Drawing]:
    """Peaks of memory of every method, the mean over seeds."""
    cells, where = _rows(each, lambda c: any(mean(c.get(n)) for n in ("peak", "run", "device")))
    if not cells:
        return
    from matplotlib.patches import Patch

    figure, (axes,) = canvas(
        SINGLE if max(len(named(labels, c)) for c in cells) <= 24 else DOUBLE, _height(each, cells) + 0.2
    )
    places = _layout(axes, each, cells, labels)
    bars = [n for n in ("device", "peak", "run") if any(mean(c.get(n)) for c in cells)]
    looks: dict[str, dict[str, Any]] = {
        "peak": {"alpha": 0.4, "label": "since before prepare"},
        "run": {"alpha": 1.0, "label": "of the runs"},
        "device": {"alpha": 0.7, "hatch": "////", "label": "on the device"},
    }
    for at, cell in zip(places, cells, strict=True):
        for i, column in enumerate(bars):
            value = mean(cell.get(column))
            if value is None:
                continue
            height = 0.74 / len(bars)
            axes.barh(
                at + 0.37 - (i + 0.5) * height, max(value, 0), height=height, color=colour_of(cell["m"]), linewidth=0,
                edgecolor="white", alpha=looks[column]["alpha"], hatch=looks[column].get("hatch"),
            )  # fmt: skip
    axes.set_xlim(left=0)
    largest = axes.get_xlim()[1]
    unit = prefixed(axes.xaxis, "B", largest)
    round_ticks(axes.xaxis, unit)
    axes.set_xlabel(f"peak memory ({unit})")
    handles = [
        Patch(
            facecolor="#555555", alpha=looks[b]["alpha"], hatch=looks[b].get("hatch"), edgecolor="white",
            linewidth=0, label=looks[b]["label"],
        )
        for b in bars
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.2, columnspacing=1.0)
    yield Drawing(f"{name}-memory", f"{about}: peak memory above the level before{where}", figure)
