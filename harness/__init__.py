"""Find out whether the numbers that machine-learning papers claim hold on your own machine.

Users of results need `run`, `records`, `verdicts` and `claims` from here; authors of methods find their
interfaces in `harness.method`. Everything is imported on first use, so that ``import harness`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import claims, records, run, verdicts

__version__ = "0.1.0"

_HOMES = {
    "claims": "harness.api",
    "records": "harness.api",
    "run": "harness.api",
    "verdicts": "harness.api",
}

__all__ = [
    "claims",
    "records",
    "run",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(home), name)
