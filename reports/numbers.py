"""Numbers as the page's data carries them: finite, and no longer than a plot can show."""

from __future__ import annotations

import math
from collections.abc import Iterable


def short(value: float | None) -> float | None:
    """`value` with five significant digits, or None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.5g}")
    if rounded.is_integer() and -1e15 < rounded < 1e15:
        return int(rounded)
    return rounded if math.isfinite(rounded) else value  # so near the largest number that rounding passes it


def shorts(values: Iterable[float | None]) -> list[float | None]:
    """`short` of each."""
    return [short(v) for v in values]


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers with runs of neighbours drawn together: ``1000–1004, 2000``."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in found)
