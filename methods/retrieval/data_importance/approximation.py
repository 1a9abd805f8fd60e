"""The (eps, delta)-approximation of the gradient: shorter lists and fewer questions.

Truncation. Only the first T items of a list are looked at. An item after rank T matters only if fewer than K
of the first T exist, so its gradient, at most 1/K, is ignored at a cost of at most (1/K) Pr[Bin(T, p) < K],
where p is the smallest existence probability. An item i within the first T loses what it would have pushed
out after rank T: that takes fewer than K among the T - 1 others, so at most (1/K) Pr[Bin(T - 1, p) < K], the
larger of the two. T is the smallest that makes it eps/2.

Sampling. The mean over all N questions is estimated by the mean over N_s of them. A question's gradient for
a source lies in [-1/K, 1/K]; by Hoeffding N_s >= w^2 ln(2/delta) / (2 (eps/2)^2) questions, drawn with or
without replacement, make the error of an entry at most eps/2 with probability 1 - delta, where w = 2/K is
the width of that range; for K >= 2 also w = 1 will do.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom


def ignored_bound(depth: int, p: float, places: int) -> float:
    """The most that the gradient of an item after rank `depth` can be: (1/K) Pr[Bin(T, p) < K]."""
    return float(binom.cdf(places - 1, depth, p)) / places


def truncation_bound(depth: int, p: float, places: int) -> float:
    """The most that looking at `depth` items changes any item's gradient: (1/K) Pr[Bin(T - 1, p) < K]."""
    return float(binom.cdf(places - 1, depth - 1, p)) / places


def truncation_depth(eps: float, p: float, places: int, items: int) -> int:
    """The smallest T whose `truncation_bound` is at most eps/2; all items where none is."""
    depths = np.arange(1, items + 1)
    enough = np.flatnonzero(binom.cdf(places - 1, depths - 1, p) / places <= eps / 2)
    return int(depths[enough[0]]) if len(enough) else items


def sample_size(eps: float, delta: float, width: float) -> int:
    """N_s for an error of eps/2 with probability 1 - delta, of a mean of values in a range of `width`."""
    return math.ceil(width**2 * math.log(2 / delta) / (2 * (eps / 2) ** 2))
