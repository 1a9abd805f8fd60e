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


@dataclass(frozen=True)
class Interval:
    """An estimate with an interval, and the p-value that nothing differs.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; None when there are too few launches for one.
        worse, better: one-sided p-values that the true value is at most, at least zero.
        count: launches behind it.
    """

    value: float
    low: float | None
    high: float | None
    worse: float
    better: float
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


def signed_rank(values: Sequence[float] | Array, level: float = 0.95) -> Interval:
    """Hodges and Lehmann's estimate of the centre, with Wilcoxon's signed-rank interval and p-values.

    When two contenders are the same, their difference in a launch is symmetric about zero whatever its distribution,
    since neither order nor processor favours one. The test then keeps its level exactly, where one of means
    is at the mercy of the few launches that ran beside something else.

    Args:
        values: one difference per launch.
        level: of the two-sided interval.

    Returns:
        Estimate, interval and p-values. The interval is None where too few launches allow none at that level.
    """
    import numpy as np
    from scipy import stats

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n == 0:
        raise ValueError("no launch to estimate from")
    i, j = np.triu_indices(n)
    walsh = np.sort((x[i] + x[j]) / 2)
    value = float(np.median(walsh))
    if np.allclose(x, 0.0, atol=1e-15):
        return Interval(0.0, 0.0, 0.0, 1.0, 1.0, n)
    below = _rank_sums(n)
    if len(np.unique(np.abs(x))) == n and x.all():
        ranks = np.argsort(np.argsort(np.abs(x))) + 1
        up, down = (int(ranks[x > 0].sum()), int(ranks[x < 0].sum()))
        worse, better = float(below[down]), float(below[up])
    else:
        # Ties, which memory has: the normal approximation with its correction for them.
        worse = float(stats.wilcoxon(x, alternative="greater", method="asymptotic").pvalue)
        better = float(stats.wilcoxon(x, alternative="less", method="asymptotic").pvalue)
    k = int(np.searchsorted(below, (1 - level) / 2, side="right"))
    if k < 1:
        return Interval(value, None, None, worse, better, n)
    return Interval(value, float(walsh[k - 1]), float(walsh[len(walsh) - k]), worse, better, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the chance of one false alarm or more among them is held, not of each."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


@lru_cache(maxsize=256)
def _rank_sums(n: int) -> Array:
    """P(W <= w) for w = 0, 1, ..., W being Wilcoxon's signed-rank sum of `n` differences."""
    import numpy as np

    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    below: Array = np.cumsum(counts) / 2.0**n
    return below


def _by_launch(keys: Sequence[tuple[int, int]], row: Any) -> dict[int, Array]:
    import numpy as np

    found: dict[int, list[float]] = {}
    for (launch, _), level in zip(keys, row, strict=True):
        found.setdefault(launch, []).append(float(level))
    return {launch: np.array(values) for launch, values in found.items()}
