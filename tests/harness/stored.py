"""A record that was never measured, for tests of what keeps them."""

from __future__ import annotations

from harness.record import Latency, Record


def record(key: str = "k", **changes: object) -> Record:
    """A record with some fields changed."""
    base = {
        "key": key, "suite": "s", "comparison": "c", "paper": "p", "task": "t", "task_parameters": {"n": 3},
        "method": "m", "label": "m", "method_parameters": {"lr": 0.1}, "seed": 1000, "profile": "cpu", "source": "x",
        "status": "ok", "latency": Latency(samples=[2.0, 4.0, 3.0], first=9.0), "metrics": {"accuracy": 0.5},
        "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Record.model_validate({**base, **changes})
