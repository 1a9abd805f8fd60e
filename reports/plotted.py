"""What all figures of a paper share: colours, markers and names of methods, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.aggregate import plain
from reports.figures import COLOURS, MARKERS, cut

Data = dict[str, Any]
"""A comparison, cell, line or curve as `reports.aggregate` gives it."""

MOST_LINES = 12
"""More lines than this cannot be told apart in one figure."""


def colour_of(m: int) -> str:
    """The colour of the paper's method number `m`."""
    return COLOURS[m % len(COLOURS)]


def marker_of(m: int) -> str:
    """Beyond the palette's end a marker still tells methods apart."""
    return MARKERS[(m // len(COLOURS) + m) % len(MARKERS)]


def setting_of(each: Data, s: int) -> str:
    """Setting number `s` of a comparison: the task's parameters that vary in it; empty where none does."""
    return ", ".join(f"{k}={plain(v)}" for k, v in each["settings"][s].items())


def named(labels: Sequence[str], cell: Data) -> str:
    """A cell's method, with what tells it from other variants of the method; † where the machine was disturbed."""
    return cut(f"{labels[cell['m']]} {cell['v']}", 40) + (" †" if cell.get("unstable") else "")


def mean(values: Sequence[float | None] | None) -> float | None:
    """The mean of what there is; None where there is nothing."""
    there = [v for v in values or () if v is not None]
    return sum(there) / len(there) if there else None
