"""Find out whether the numbers that machine-learning papers claim hold on your own machine.

Authors of methods need four names from here: `Method`, `Task`, `method` and `task` (with `Metric`,
`Measurement`, `Series` and `Context`). Users of results need `run`, `records` and `verdicts`.
Everything is imported on first use, so that ``import harness`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import claims, records, run, verdicts
    from harness.method import Context, Measurement, Method, Metric, Series, Task, method, task

__version__ = "0.1.0"

_HOMES = {
    "Context": "harness.method",
    "Measurement": "harness.method",
    "Method": "harness.method",
    "Metric": "harness.method",
    "Series": "harness.method",
    "Task": "harness.method",
    "method": "harness.method",
    "task": "harness.method",
    "claims": "harness.api",
    "records": "harness.api",
    "run": "harness.api",
    "verdicts": "harness.api",
}

__all__ = [
    "Context",
    "Measurement",
    "Method",
    "Metric",
    "Series",
    "Task",
    "claims",
    "method",
    "records",
    "run",
    "task",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(home), name)
