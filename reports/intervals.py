"""Means over seeds and differences of means, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Summary:
    """A mean over seeds with its 95 % interval, None where there is one seed."""

    value: float
    low: float | None
    high: float | None
    seeds: int


def summary(values: Sequence[float]) -> Summary:
    """The mean of at least one value, with Student's interval."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Summary(mean, None, None, len(values))
    half = _student(len(values) - 1) * math.sqrt(_variance(values) / len(values))
    return Summary(mean, mean - half, mean + half, len(values))


def paired_step(a: Mapping[int, float], b: Mapping[int, float]) -> Summary:
    """The mean of B minus A over the seeds, which both have."""
    return summary([b[seed] - a[seed] for seed in sorted(a)])


def welch_step(a: Sequence[float], b: Sequence[float]) -> Summary:
    """The mean of B minus that of A, with Welch's interval, for values of different seeds."""
    seeds = min(len(a), len(b))
    centre = sum(b) / len(b) - sum(a) / len(a)
    if seeds < 2:
        return Summary(centre, None, None, seeds)
    parts = [_variance(side) / len(side) for side in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Summary(centre, centre, centre, seeds)
    shares = [part / sum(parts) for part in parts]
    degrees = 1 / sum(share**2 / (len(side) - 1) for share, side in zip(shares, (a, b), strict=True))
    half = _student(degrees) * error
    return Summary(centre, centre - half, centre + half, seeds)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / (len(values) - 1)


@lru_cache(maxsize=4096)
def _student(degrees: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees))
