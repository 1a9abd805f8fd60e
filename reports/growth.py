"""How latency grows with a task's size: points on log axes and the exponent fitted to them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from harness.record import Record
from reports.numbers import short, shorts

LEAST_POINTS = 3
"""An exponent from two points has nothing to be checked against."""


def growth(
    records: Sequence[Record], labels: dict[str, int], variant: Callable[[Record], str]
) -> dict[str, list[dict[str, Any]]]:
    """Latency over each numeric task parameter with at least three positive values, by parameter.

    Each line has its method (``m``), what tells it from other lines of the method (``v``), points (``x``, ``y``: the mean
    over seeds of the median latency in seconds), ``exponent`` with its 95 % interval ``low`` and ``high`` (None with one
    seed) and the number of ``seeds`` that the fit rests on.
    """
    timed = [r for r in records if r.status == "ok" and r.latency and r.latency.samples]
    values: dict[str, set[Any]] = defaultdict(set)
    for record in timed:
        for name, value in record.task_parameters.items():
            values[name].add(value if isinstance(value, int | float | str) else repr(value))
    found = {}
    for name, seen in values.items():
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in seen)
        if numeric and len(seen) >= LEAST_POINTS:
            others = [n for n, v in values.items() if len(v) > 1 and n != name]
            found[name] = _lines(timed, name, others, labels, variant)
    return {name: lines for name, lines in found.items() if lines}


def _lines(
    records: Sequence[Record],
    name: str,
    others: Sequence[str],
    labels: dict[str, int],
    variant: Callable[[Record], str],
) -> list[dict[str, Any]]:
    lines: dict[tuple[str, str], dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        rest = ", ".join(f"{n}={record.task_parameters.get(n)}" for n in others)
        value = record.instrument("latency")
        assert value is not None
        key = (record.label, ", ".join(t for t in (variant(record), rest) if t))
        lines[key][record.seed][float(record.task_parameters[name])] = value
    found = []
    for (label, text), by_seed in sorted(lines.items()):
        points: dict[float, list[float]] = defaultdict(list)
        for curve in by_seed.values():
            for x, y in curve.items():
                points[x].append(y)
        if len(points) < 2:
            continue
        xs = sorted(points)
        found.append(
            {
                "m": labels[label],
                "v": text,
                "x": shorts(xs),
                "y": shorts(sum(points[x]) / len(points[x]) for x in xs),
                **exponent(list(by_seed.values())),
            }
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
        half = _students_t(len(slopes) - 1) * spread
        low, high = mean - half, mean + half
    return {"exponent": short(mean), "low": short(low), "high": short(high), "seeds": len(slopes)}


def _slope(curve: dict[float, float]) -> float:
    xs = [math.log(x) for x in curve]
    ys = [math.log(y) for y in curve.values()]
    centre = sum(xs) / len(xs)
    return sum((x - centre) * y for x, y in zip(xs, ys, strict=True)) / sum((x - centre) ** 2 for x in xs)


@lru_cache(maxsize=256)
def _students_t(degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees))
