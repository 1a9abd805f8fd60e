"""Clocks inside a worker: wall-clock and CPU time of runs on a host, device events on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

NAMES = {"cpu": "host", "cuda": "cuda-events"}


def timed(run: Callable[[], Any], count: int, device: str) -> tuple[list[float], float, Any]:
    """Run `count` times.

    Returns:
        Seconds of each run, mean CPU seconds of a run over all threads and children, and the first output.
    """
    if device.startswith("cuda"):
        return _timed_cuda(run, count)
    samples: list[float] = []
    first: Any = None
    cpu = _cpu_seconds()
    for i in range(count):
        start = time.perf_counter_ns()
        output = run()
        samples.append((time.perf_counter_ns() - start) * 1e-9)
        if i == 0:
            first = output
        del output
    return samples, (_cpu_seconds() - cpu) / count, first


def _timed_cuda(run: Callable[[], Any], count: int) -> tuple[list[float], float, Any]:
    import torch

    first: Any = None
    samples: list[float] = []
    cpu = _cpu_seconds()
    for i in range(count):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        output = run()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1e-3)
        if i == 0:
            first = output
        del output
    return samples, (_cpu_seconds() - cpu) / count, first


def _cpu_seconds() -> float:
    """CPU time of this process and of the children that have ended."""
    import resource

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
