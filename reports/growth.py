"""How latency grows with a task's size: points on log axes and the exponent fitted to them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.evaluation import students_t
from reports.numbers import short, shorts

LEAST_POINTS = 3
"""An exponent from two points has nothing to be checked against."""


def growth(
    settings: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Latency over each numeric task parameter with at least three positive values, by parameter.

    Args:
        settings: the task parameters that vary in the comparison, one dictionary for each combination that was measured.
        cells: what was measured, as `reports.aggregate` describes it.

    Returns:
        Lines by parameter. Each has its method (``m``), what tells it from other lines of the method (``v``), points
        (``x``, ``y``: the mean over seeds of the median latency in seconds), the ``exponent`` with its 95 % interval
        ``low`` and ``high`` (None with one seed), and the number of ``seeds`` that the fit rests on.
    """
    timed = [cell for cell in cells if "latency" in cell]
    used = [settings[s] for s in sorted({cell["s"] for cell in timed})]
    found = {}
    for name in used[0] if used else ():
        values = [setting[name] for setting in used]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values)
        if numeric and len(set(values)) >= LEAST_POINTS:
            found[name] = _lines(settings, timed, name)
    return {name: lines for name, lines in found.items() if lines}


def _lines(
    settings: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]], name: str
) -> list[dict[str, Any]]:
    lines: dict[tuple[int, str], dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        setting = settings[cell["s"]]
        rest = [f"{n}={v}" for n, v in setting.items() if n != name]
        by_seed = lines[(cell["m"], ", ".join(t for t in (cell["v"], *rest) if t))]
        for seed, latency in zip(cell["seeds"], cell["latency"], strict=True):
            if latency is not None:
                by_seed[seed][float(setting[name])] = latency
    found = []
    for (method, text), by_seed in sorted(lines.items()):
        points: dict[float, list[float]] = defaultdict(list)
        for curve in by_seed.values():
            for x, y in curve.items():
                points[x].append(y)
        if len(points) < 2:
            continue
        xs = sorted(points)
        means = [sum(points[x]) / len(points[x]) for x in xs]
        found.append(
            {"m": method, "v": text, "x": shorts(xs), "y": shorts(means), **exponent(list(by_seed.values()))}
        )
    return found


def exponent(curves: Sequence[dict[float, float]]) -> dict[str, Any]:
    """The least-squares slope of log latency over log size, one curve per seed.

    The exponent is the mean of the seeds' slopes, its 95 % interval Student's for that mean. Seeds that lack points
    which others have are left out, so that all slopes are over the same sizes.
    """
    longest = max((len(c) for c in curves), default=0)
    full = [c for c in curves if len(c) == longest and all(y > 0 for y in c.values())]
    if longest < LEAST_POINTS or not full:
        return {"exponent": None, "low": None, "high": None, "seeds": 0}
    slopes = [_slope(curve) for curve in full]
    mean = sum(slopes) / len(slopes)
    low = high = None
    if len(slopes) > 1:
        spread = math.sqrt(sum((s - mean) ** 2 for s in slopes) / (len(slopes) - 1) / len(slopes))
        half = students_t(len(slopes) - 1) * spread
        low, high = mean - half, mean + half
    return {"exponent": short(mean), "low": short(low), "high": short(high), "seeds": len(slopes)}


def _slope(curve: dict[float, float]) -> float:
    xs = [math.log(x) for x in curve]
    ys = [math.log(y) for y in curve.values()]
    centre = sum(xs) / len(xs)
    return sum((x - centre) * y for x, y in zip(xs, ys, strict=True)) / sum((x - centre) ** 2 for x in xs)
