"""The latencies of a gate in the JSON format of pytest-benchmark, which dashboards and its own ``compare`` read."""

from __future__ import annotations

from typing import Any

from harness.gate import wording
from harness.gate.model import Finding, GateResult, Side
from harness.record import Latency


def pytest_benchmark(result: GateResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """Base and head, each as one session of pytest-benchmark.

    A method has the same name in both, so that ``pytest-benchmark compare base.json head.json``
    pairs them. Samples are seconds per run; ``iterations`` says how many runs each is the mean of. A method without
    latencies on a side is left out there.
    """
    return _session(result, result.base, "base"), _session(result, result.head, "head")


def _session(result: GateResult, side: Side, which: str) -> dict[str, Any]:
    from importlib.metadata import version

    about = {finding.name: finding for finding in reversed(result.findings)}
    names = wording.short_names(result.findings)
    benchmarks = []
    for timed in result.timed:
        latency: Latency | None = getattr(timed, which)
        if latency is not None and latency.samples:
            name = names.get(timed.name, timed.name)
            benchmarks.append(_benchmark(result, name, timed.name, about.get(timed.name), latency))
    return {
        "machine_info": _machine(result, side),
        "commit_info": {
            "id": side.revision or "unversioned",
            "time": side.time,
            "author_time": None,
            "dirty": side.clean is False,
            "project": "harness",
            "branch": side.name,
        },
        "benchmarks": benchmarks,
        "datetime": result.started,
        "version": version("pytest-benchmark"),
    }


def _benchmark(
    result: GateResult, name: str, full: str, finding: Finding | None, latency: Latency
) -> dict[str, Any]:
    from pytest_benchmark.stats import Stats

    stats: Any = Stats()  # type: ignore[no-untyped-call]
    stats.data = list(latency.samples)
    extra: dict[str, Any] = {"first": latency.first, "cpu": latency.cpu, "clock": latency.clock}
    if finding is not None:
        extra |= {
            "paper": finding.paper,
            "task": finding.task,
            "method": finding.method,
            "seeds": finding.seeds,
        }
    return {
        "group": finding.comparison if finding is not None else None,
        "name": wording.plain(name),
        "fullname": f"{wording.plain(result.suite)}::{wording.plain(full)}",
        "params": {**finding.task_parameters, **finding.method_parameters} if finding is not None else None,
        "param": None,
        "extra_info": extra,
        "options": {
            "timer": latency.clock,
            "min_rounds": len(latency.samples),
            "disable_gc": False,
            "warmup": True,
        },
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": latency.runs_per_sample},
    }


def _machine(result: GateResult, side: Side) -> dict[str, Any]:
    machine = result.machine
    system, _, release = str(machine.get("system", "")).partition(" ")
    return {
        "node": machine.get("host", ""),
        "processor": machine.get("architecture", ""),
        "machine": machine.get("architecture", ""),
        "python_version": side.versions.get("python", ""),
        "python_implementation": "CPython",
        "system": system,
        "release": release,
        "cpu": {"brand_raw": machine.get("cpu", ""), "count": machine.get("threads")},
        "gpus": machine.get("gpus", []),
    }
