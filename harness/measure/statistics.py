"""Estimators: from the samples of methods that took turns to latencies and their ratios.

Three things spread the runs of a method: what happens within a block, the drift of the machine, and the luck of a
process with its layout in memory. A block is reduced to its median. Drift is what the methods of a round have in
common, and is taken out by a median polish. The launches, whose luck no amount of running averages out, are the
units that intervals are formed from. ``docs/instrument.md`` has the study behind these choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.record import Latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_POLISH = 10
_TRIM = 0.2


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; None when there are too few launches for one.
        count: launches behind it.
    """

    value: float
    low: float | None
    high: float | None
    count: int


def block_levels(latency: Latency) -> dict[tuple[int, int], float]:
    """The logarithm of the median of every block, by launch and round."""
    import numpy as np

    found: dict[tuple[int, int], float] = {}
    start = 0
    blocks = latency.blocks
    for launch, index, size in zip(blocks.launch, blocks.round, blocks.size, strict=True):
        found[(launch, index)] = math.log(max(float(np.median(latency.samples[start : start + size])), 1e-12))
        start += size
    return found


def steadied(latencies: Sequence[Latency]) -> list[dict[int, Array]]:
    """Block levels of methods that took turns, with the drift they share taken out.

    The model is additive on logarithms: level = method + round + noise. Tukey's median polish finds the rounds' part
    over those rounds that all methods took; it is subtracted, less its median. With two methods the median difference of
    the result is exactly the median of the paired differences.

    Args:
        latencies: of the methods of one comparison; all have blocks.

    Returns:
        For each method, its steadied block levels (log seconds) by launch, each of shape [rounds].
    """
    import numpy as np

    levels = [block_levels(latency) for latency in latencies]
    common = sorted(set.intersection(*(set(each) for each in levels))) if levels else []
    if not common:
        # Nothing was taken together, so there is no drift to be seen.
        return [_by_launch(sorted(each), [each[k] for k in sorted(each)]) for each in levels]
    table = np.array([[each[key] for key in common] for each in levels])
    if len(levels) > 1:
        residual = table - np.median(table, axis=1, keepdims=True)
        rounds = np.zeros(len(common))
        for _ in range(_POLISH):
            step = np.median(residual, axis=0)
            rounds += step
            residual -= step
            residual -= np.median(residual, axis=1, keepdims=True)
            if np.abs(step).max() < 1e-9:
                break
        table = table - (rounds - np.median(rounds))
    return [_by_launch(common, row) for row in table]


def log_latencies(latencies: Sequence[Latency]) -> list[dict[int, float]]:
    """The steadied log latency of each method in each launch: the median of its rounds."""
    import numpy as np

    return [{k: float(np.median(v)) for k, v in each.items()} for each in steadied(latencies)]


def log_differences(latencies: Sequence[Latency]) -> list[Array]:
    """Per launch, the log latency of the first method, and of each other method less the first's.

    Only launches that both took part in; each of shape [launches].
    """
    import numpy as np

    if not latencies:
        return []
    found = [np.array(list(log_latencies([latencies[0]])[0].values()))]
    for other in latencies[1:]:
        ours, theirs = log_latencies([latencies[0], other])
        found.append(np.array([theirs[k] - ours[k] for k in ours if k in theirs]))
    return found


def relative_half_width(values: Array, level: float = 0.95) -> float | None:
    """Half the width of Student's interval for the mean of logarithms, as a relative figure; None under three."""
    import numpy as np
    from scipy import stats

    n = len(values)
    if n < 3:
        return None
    return math.expm1(float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n))


def trimmed(values: Sequence[float] | Array, level: float = 0.95) -> Interval:
    """The 20 % trimmed mean of launches with Tukey and McLaughlin's interval, from the winsorised variance.

    A launch that ran beside something else is off by tens of percent. Of twelve launches two at either end do not count.

    Args:
        values: one figure per launch.
        level: of the two-sided interval.

    Returns:
        Estimate and interval, which is None for fewer than five launches.
    """
    import numpy as np
    from scipy import stats

    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    if n == 0:
        raise ValueError("no launch to estimate from")
    cut = int(_TRIM * n)
    value = float(x[cut : n - cut].mean())
    if n < 5:
        return Interval(value, None, None, n)
    winsorised = np.clip(x, x[cut], x[n - cut - 1])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = float(stats.t.ppf(0.5 + level / 2, n - 2 * cut - 1)) * error
    return Interval(value, value - half, value + half, n)


def sign_flip(values: Sequence[float] | Array) -> float:
    """One-sided p-value that the true difference of two contenders is zero or less, from their difference per launch.

    When the two are the same, neither order nor processor favours one, so that each difference is as likely to have
    come out with the other sign. The p-value is the share of all assignments of signs (of 8,192 drawn ones beyond
    thirteen launches) under which the trimmed mean is as large as it is: it holds its level exactly, whatever the
    distribution, where a t test of means is at the mercy of single launches and ranks lose what two of them outweigh.
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        raise ValueError("no launch to decide from")
    cut = int(_TRIM * len(x))

    def means(rows: Array) -> Array:
        kept: Array = np.sort(rows, axis=-1)[..., cut : len(x) - cut]
        return np.asarray(kept.mean(axis=-1), dtype=np.float64)

    return float(np.mean(means(_signs(len(x)) * x) >= means(x) - 1e-12))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the chance of one false alarm or more among them is held, not of each."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


@lru_cache(maxsize=64)
def _signs(n: int) -> Array:
    """All assignments of signs to `n` launches, or 8,192 drawn ones with the one that is among them: [rows, n]."""
    import numpy as np

    if n <= 13:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)
    drawn = np.asarray(1.0 - 2.0 * np.random.default_rng(0).integers(0, 2, (8192, n)), dtype=np.float64)
    drawn[0] = 1.0
    return drawn


def _by_launch(keys: Sequence[tuple[int, int]], row: Any) -> dict[int, Array]:
    import numpy as np

    found: dict[int, list[float]] = {}
    for (launch, _), level in zip(keys, row, strict=True):
        found.setdefault(launch, []).append(float(level))
    return {launch: np.array(values) for launch, values in found.items()}
