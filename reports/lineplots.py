"""Figures with lines: the growth of latency with its fitted exponent, and series over epochs or steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reports.figures import COLOURS, SINGLE, Drawing, canvas, cut, logarithmic, prefixed, slug
from reports.plotted import MOST_LINES, Data, colour_of, marker_of, named, setting_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def growth(each: Data, labels: Sequence[str], name: str, about: str) -> Iterator[Drawing]:
    """Latency over a task's size on log axes, with the exponent of each line."""
    for parameter, lines in each["growth"].items():
        for i, (text, group) in enumerate(_groups(lines)):
            figure, (axes,) = canvas(SINGLE, 2.3 + 0.15 * ((len(group) + 1) // 2))
            styles = {
                v: ("-", "--", ":", "-.")[j % 4] for j, v in enumerate(dict.fromkeys(g["v"] for g in group))
            }
            for line in group:
                label = cut(f"{labels[line['m']]} {'' if text else line['v']}", 34)
                if line["exponent"] is not None:
                    label += f", exponent {line['exponent']:.2f}"
                    x = [line["x"][0], line["x"][-1]]
                    axes.plot(x, _fit(line, x), color="#999999", linewidth=0.7, zorder=1)
                axes.plot(
                    line["x"], line["y"], styles[line["v"]], marker=marker_of(line["m"]), color=colour_of(line["m"]),
                    label=label,
                )  # fmt: skip
            _log_sizes(axes, sorted({x for g in group for x in g["x"]}))
            logarithmic(axes.yaxis, min(min(g["y"]) for g in group), max(max(g["y"]) for g in group))
            unit = prefixed(axes.yaxis, "s", max(max(g["y"]) for g in group))
            axes.set_xlabel(cut(parameter, 40))
            axes.set_ylabel(f"latency ({unit})")
            figure.legend(
                loc="outside lower center", ncols=1 if len(group) <= 3 else 2, handlelength=2.2, columnspacing=1
            )
            title = f"{about}: latency over {parameter}{', ' + text if text else ''}. Grey: the fitted power"
            yield Drawing(slug(name, "growth", parameter, i or ""), title, figure)


def _groups(lines: Sequence[Data]) -> list[tuple[str, list[Data]]]:
    """All lines together where they can be told apart, otherwise one figure for each setting."""
    if len(lines) <= MOST_LINES:
        return [("", list(lines))]
    by_text: dict[str, list[Data]] = defaultdict(list)
    for line in lines:
        by_text[line["v"]].append(line)
    return [(text, group) for text, group in sorted(by_text.items())]


def _fit(line: Data, x: Sequence[float]) -> list[float]:
    """The power with the line's exponent through the middle of its points, on log axes."""
    import math

    centre = sum(math.log(v) for v in line["x"]) / len(line["x"])
    level = sum(math.log(v) for v in line["y"] if v) / len(line["y"])
    return [math.exp(level + line["exponent"] * (math.log(v) - centre)) for v in x]


def _log_sizes(axes: Axes, sizes: Sequence[float]) -> None:
    """The sizes that were measured as ticks, as many as fit."""
    axes.set_xscale("log", base=2)
    step = -(-len(sizes) // 7)
    shown = list(sizes)[::-1][::step][::-1]
    axes.set_xticks(shown, [size(v) for v in shown])
    axes.minorticks_off()


def size(value: float) -> str:
    for factor, letter in ((2**20, "Mi"), (2**10, "Ki")):
        if value >= factor and value % factor == 0:
            return f"{value / factor:g}{letter}"
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def series(each: Data, labels: Sequence[str], name: str, about: str) -> Iterator[Drawing]:
    """Series over epochs or steps: the mean over seeds, with the span of the seeds."""
    for one in each["series"]:
        by_setting: dict[int, list[Data]] = defaultdict(list)
        for curve in one["curves"]:
            by_setting[curve["s"]].append(curve)
        for s, curves in sorted(by_setting.items()):
            variants = list(dict.fromkeys((c["m"], c["v"]) for c in curves))
            crowded = len(variants) > MOST_LINES
            figure, (axes,) = canvas(SINGLE, 2.2 + 0.15 * min(len(variants), MOST_LINES) / 2)
            styles = _line_styles(variants)
            seen: set[Any] = set()
            # Later lines are thinner, so that one that lies under another still shows.
            widths = {n: 2.0 - min(i / max(len(variants) - 1, 1), 1.0) for i, n in enumerate(variants)}
            for curve in curves:
                who = curve["m"] if crowded else (curve["m"], curve["v"])
                label = (
                    None if who in seen else cut(labels[curve["m"]] if crowded else named(labels, curve), 34)
                )
                seen.add(who)
                colour, dash = colour_of(curve["m"]), styles[(curve["m"], curve["v"])]
                if "low" in curve and not crowded:
                    axes.fill_between(
                        curve["x"], curve["low"], curve["high"], color=colour, alpha=0.16, linewidth=0
                    )
                # One or two points make no line that could be seen.
                marker = "o" if len(curve["x"]) < 3 else None
                axes.plot(
                    curve["x"], curve["y"], dash, color=colour, label=label, marker=marker,
                    linewidth=0.8 if crowded else widths[(curve["m"], curve["v"])],
                )  # fmt: skip
            _wide_axis(axes, curves)
            axes.set_xlabel(cut(one["x_label"], 50))
            axes.set_ylabel(cut(one["y_label"], 40))
            figure.legend(
                loc="outside lower center", ncols=2 if len(seen) > 2 else 1, handlelength=2.2, columnspacing=1
            )
            where = setting_of(each, s) if len(by_setting) > 1 else ""
            title = f"{about}: {one['name']}{', ' + where if where else ''}"
            yield Drawing(slug(name, one["name"], s if len(by_setting) > 1 else ""), title, figure)


def _line_styles(named: Sequence[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """Solid for the first variant of a method, then dashes; methods beyond the palette's end start with dashes."""
    found: dict[tuple[int, str], str] = {}
    count: dict[int, int] = defaultdict(int)
    for m, v in named:
        found[(m, v)] = ("-", "--", ":", "-.")[(count[m] + m // len(COLOURS)) % 4]
        count[m] += 1
    return found


def _wide_axis(axes: Axes, curves: Sequence[Data]) -> None:
    """A logarithmic axis where values are positive and spread over more than two decades."""
    from matplotlib.ticker import MaxNLocator

    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        values = [v for c in curves for v in c[name] if v is not None]
        # A row of whole numbers from 1 are epochs or steps, which go on at an even pace.
        steps = name == "x" and all(float(v).is_integer() for v in values)
        if values and min(values) > 0 and max(values) / min(values) > 100 and not steps:
            logarithmic(axis, min(values), max(values))
        elif steps and values:
            axis.set_major_locator(MaxNLocator(nbins=7, integer=True))
