"""Results of a gate that never ran."""

from __future__ import annotations

from typing import Any

from harness.gate.model import Finding, GateResult, Side, Timed
from harness.record import Latency


def finding(change: str = "unchanged", **given: Any) -> Finding:
    """A finding on a latency of 10 ms."""
    ratio = {"regressed": 1.08, "improved": 0.9}.get(change, 1.001)
    known: dict[str, Any] = {
        "comparison": "sorting-growth",
        "task": "sorting",
        "task_parameters": {"size": 100},
        "method": "timsort",
        "label": "timsort",
        "method_parameters": {"delay": 0.0},
        "seeds": [1000],
        "metric": "latency",
        "unit": "s",
        "base": 0.01,
        "head": 0.01 * ratio,
        "ratio": ratio,
        "low": ratio - 0.01,
        "high": ratio + 0.01,
        "threshold": 0.025,
        "launches": 6,
        "change": change,
        "reason": "as the interval says",
    }
    if change in ("new", "gone"):
        known |= {"ratio": None, "low": None, "high": None, "base" if change == "new" else "head": None}
    return Finding(**{**known, **given})


def result(findings: list[Finding], timed: list[Timed] | None = None, **given: Any) -> GateResult:
    """A result with these findings, and samples of 9 to 11 ms for each method with a latency."""
    if timed is None:
        samples = Latency(samples=[0.009, 0.01, 0.0102, 0.011], first=0.02, cpu=0.01, runs_per_sample=3)
        names = dict.fromkeys(f.name for f in findings if f.metric == "latency")
        timed = [Timed(name=name, base=samples, head=samples) for name in names]
    known: dict[str, Any] = {
        "suite": "ci",
        "profile": "cpu",
        "base": Side(
            name="main", revision="a" * 40, clean=True, versions={"python": "3.12.1", "torch": "2.12"}
        ),
        "head": Side(
            name="working tree", revision="b" * 40, clean=False, versions={"python": "3.12.1", "torch": "2.13"}
        ),
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 183.4,
        "findings": findings,
        "timed": timed,
        "machine": {
            "host": "runner",
            "cpu": "Intel(R) Xeon(R)",
            "threads": 2,
            "memory": 8 << 30,
            "system": "Linux 6.1",
        },
        "conditions": {"threads": [1], "cpus": [0, 1]},
        "disturbances": {"seconds": 180.0, "load": [0.5, 1.2], "stolen": 0.001, "others": 0.02},
    }
    return GateResult(**{**known, **given})
