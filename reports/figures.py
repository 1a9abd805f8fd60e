"""Figures in one style, sized for a paper's column, as SVG and PDF; and the forest plot of claimed against measured.

Text from papers and records is drawn as text: it is never read as mathematics or markup.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from reports.collect import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SINGLE = 3.3
"""Width of one column of a two-column paper, in inches."""
DOUBLE = 6.9
"""Width of both columns, in inches."""

# Okabe and Ito's palette, which colour-blind readers can tell apart, darkened until it stands out from white: the page's
# colours in `static/page.css`. Black is kept for the paper's figure.
COLOURS = ("#0072b2", "#b36b00", "#008a66", "#b5568f", "#cc4c00", "#2a88bd", "#7a5c00", "#5b5b5b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
OUTCOME_COLOURS = {
    "reproduced": "#00664a",
    "consistent": "#1f7a8c",
    "contradicted": "#b23a00",
    "inconclusive": "#7d5a00",
    "not measured": "#646a72",
}
OUTCOME_MARKERS = {"reproduced": "D", "consistent": "o", "contradicted": "X", "inconclusive": "s"}
FARTHEST = 100.0
"""A ratio beyond this, either way, is drawn as an arrow with its value, so that it does not squeeze the others."""

_FORBIDDEN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,
    "savefig.facecolor": "white",
    # Type 42 keeps text in a PDF searchable and is what most publishers ask for; outlines make an SVG look the same
    # everywhere.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "harness",
}


@dataclass(frozen=True)
class Drawing:
    """A figure of a report.

    Attributes:
        name: for its file, without an ending: lower-case letters, digits and hyphens.
        title: what it shows, in one line.
        figure: the matplotlib figure.
    """

    name: str
    title: str
    figure: Figure

    def svg(self) -> str:
        """The figure as an SVG document with its title for readers who cannot see it."""
        stream = io.StringIO()
        with style():
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        head, start, rest = stream.getvalue().partition("<svg ")
        tag, end, body = rest.partition(">")
        return f'{head}{start}{tag} role="img"{end}\n <title>{escape(clean(self.title))}</title>{body}'

    def pdf(self) -> bytes:
        """The figure as a PDF with its fonts in it, the same bytes each time."""
        stream = io.BytesIO()
        with style():
            self.figure.savefig(
                stream, format="pdf", metadata={"Title": clean(self.title), "CreationDate": None}
            )
        return stream.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """The one style of all figures, for drawing and for saving."""
    import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def canvas(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` by `height` inches with axes side by side. Use within `style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])


def colours(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each method that it keeps in every figure of a paper."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(labels))}


def clean(text: str) -> str:
    """`text` in one line, without characters that XML forbids."""
    return " ".join(_FORBIDDEN.sub("", text).split())


def cut(text: str, most: int) -> str:
    """`text` in one line of at most `most` characters."""
    flat = clean(text)
    return flat if len(flat) <= most else flat[: most - 1].rstrip() + "…"


def slug(*parts: object) -> str:
    """A file name from any text."""
    return "-".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", str(p).lower()).strip("-")[:60] for p in parts)))


def prefixed(axis: Any, unit: Literal["s", "B"], largest: float) -> str:
    """Label the ticks of a linear or logarithmic axis in a unit that fits; returns the unit."""
    from matplotlib.ticker import FuncFormatter

    steps = (
        ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
        if unit == "s"
        else ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
    )
    size, name = next(((s, n) for s, n in steps if largest >= s), steps[-1])
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / size:.6g}"))
    return name


def logarithmic(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high` with ticks that are few and plain, however short it is."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    pad = max((high / low) ** 0.06, 1.05)
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low / pad, high * pad)
    decades = math.log10(high * pad / (low / pad))
    subs: tuple[float, ...] = (1.0,) if decades >= 3 else (1.0, 3.0) if decades >= 1.6 else (1.0, 2.0, 5.0)
    if decades < 0.7:
        subs = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8 if decades >= 0.7 else 12))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))


def number(value: float) -> str:
    """A tick's label: a plain number, or a power of ten where that is shorter."""
    text = f"{value:.6g}"
    if "e" not in text:
        return text
    digits, _, power = text.partition("e")
    exponent = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{exponent}" if digits == "1" else f"{digits}·10{exponent}"


def round_ticks(axis: Any, unit: str) -> None:
    """Ticks of an axis of bytes at round numbers of `unit`; at powers of two where the axis is logarithmic."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    size = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}[unit]
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log":
        powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        ticks = [2.0**k for k in powers[:: -(-len(powers) // 7) or 1]]
    else:
        steps = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low / size, high / size)
        ticks = [t * size for t in steps if low <= t * size <= high]
    axis.set_major_locator(FixedLocator(ticks))


def fitted(axis: Any, low: float, high: float) -> None:
    """A linear axis from `low` to `high` with some room at its ends, also where the two are the same."""
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low - room, high + room)


def forest(rows: Sequence[Row], name: str = "claims", title: str = "Claimed and measured") -> Drawing | None:
    """Claimed against measured, as a ratio: 1 is the paper's figure. None when no claim has both as numbers.

    The shaded band of a row is what the rule that decided accepts, where it is a rule on the same quantity.
    """
    shown = [r for r in rows if r.ratio is not None]
    if not shown:
        return None
    several = len({r.verdict.profile for r in shown}) > 1
    with style():
        figure, (axes,) = canvas(DOUBLE, 0.75 + 0.19 * len(shown))
        for i, row in enumerate(reversed(shown)):
            _forest_row(axes, i, row)
        axes.axvline(1, color="black", linewidth=0.9, zorder=1)
        low, high = _span([v for r in shown for v in _points(r)])
        logarithmic(axes.xaxis, min(low, 0.8), max(high, 1.25))
        names = [f"{r.claim.id} ({r.verdict.profile})" if several else r.claim.id for r in reversed(shown)]
        axes.set_yticks(range(len(shown)), [cut(n, 44) for n in names])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("measured / claimed")
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(shown)), [_beside(r) for r in reversed(shown)])
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        _forest_legend(figure, axes, shown)
    return Drawing(name, title, figure)


def _forest_row(axes: Axes, i: int, row: Row) -> None:
    claimed, found = row.claim.claimed.value, row.ratio
    assert claimed is not None
    assert found is not None
    value, low, high = found
    colour = OUTCOME_COLOURS[row.verdict.outcome]
    accepted = _accepted(row)
    if accepted is not None:
        left, right = (min(max(end, 1 / FARTHEST / 9), FARTHEST * 9) for end in accepted)
        axes.barh(i, right - left, left=left, height=0.72, color="#dfe9f3", linewidth=0, zorder=0)
    if low is not None and high is not None:
        ends = [min(max(end, 1 / FARTHEST), FARTHEST) for end in (low, high)]
        axes.plot(ends, [i, i], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    place = min(max(value, 1 / FARTHEST), FARTHEST)
    marker = OUTCOME_MARKERS[row.verdict.outcome] if place == value else "<" if value < place else ">"
    axes.plot(
        [place],
        [i],
        marker,
        color=colour,
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=3,
    )


def _accepted(row: Row) -> tuple[float, float] | None:
    """What the rule accepts, as a ratio to the paper's figure."""
    claimed = row.claim.claimed.value
    rule = dict(row.claim.rules).get(row.verdict.rule) if row.verdict.rule else None
    if rule is None or not claimed:
        return None
    low, high = sorted(end / claimed for end in rule.all[0].bounds)
    return (low, high) if high > 0 else None


def _points(row: Row) -> list[float]:
    assert row.ratio is not None
    return [v for v in row.ratio if v is not None and v > 0]


def _span(values: Sequence[float]) -> tuple[float, float]:
    return max(min(values), 1 / FARTHEST), min(max(values), FARTHEST)


def _beside(row: Row) -> str:
    """The two figures in words: what a ratio alone does not tell."""
    figure = row.verdict.figure
    assert figure is not None
    claimed = f"{row.claim.claimed.value:.4g}"
    value = f"{figure.value:.3g}"
    if figure.low is not None and figure.high is not None and f"{figure.low:.3g}" != f"{figure.high:.3g}":
        value += f" [{figure.low:.3g}, {figure.high:.3g}]"
    return f"{value} / {claimed} {cut(figure.unit, 22)}".strip()


def _forest_legend(figure: Figure, axes: Axes, shown: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    outcomes = [o for o in OUTCOME_MARKERS if any(r.verdict.outcome == o for r in shown)]
    handles: list[Any] = [
        Line2D([], [], color=OUTCOME_COLOURS[o], marker=OUTCOME_MARKERS[o], markersize=4.2, label=o)
        for o in outcomes
    ]
    if any(_accepted(r) for r in shown):
        handles.append(Patch(color="#dfe9f3", label="what the rule accepts"))
    handles.append(Line2D([], [], color="black", linewidth=0.9, label="the paper's figure"))
    figure.legend(handles=handles, loc="outside upper center", ncols=6, handlelength=1.6, columnspacing=1.2)
