"""A sandbox per mechanism that this machine may have; skipped with the reason where it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.sandbox import Limits, Program, Result, mechanism, process

Execute = Callable[..., Result]


@pytest.fixture(params=["landlock", "bubblewrap"])
def execute(request: pytest.FixtureRequest) -> Execute:
    """Runs a program: ``execute(source, tests=..., limits={...})``."""
    found = [c for c in mechanism.candidates() if c.kind == request.param]
    if not found:
        pytest.skip(f"{request.param} is not here")
    how = found[0]

    def run(source: str, limits: dict[str, Any] | None = None, **parts: Any) -> Result:
        given = {"time": 20.0, "cpu_time": 10.0, **(limits or {})}
        return process.execute(Program(source, **parts), Limits(**given), how)

    return run
