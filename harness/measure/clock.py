"""Clocks inside a worker: wall-clock and CPU time of runs on a host, device events on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMES = {"cpu": "host", "cuda": "cuda-events"}


@dataclass(frozen=True)
class Timing:
    """What the clocks read over a number of runs.

    Attributes:
        samples: seconds; each the mean of as many consecutive runs as were asked for.
        cpu: mean CPU seconds of a run over all threads and the children that have ended.
        preempted: how often the kernel gave the processor to something else while a run was using it.
        output: what the first run returned.
    """

    samples: list[float]
    cpu: float
    preempted: int
    output: Any


def timed(
    run: Callable[[], Any], count: int, device: str, *, runs_per_sample: int = 1, flush: bool = False
) -> Timing:
    """Take `count` samples of `runs_per_sample` runs each.

    Args:
        run: what to time.
        count: how many samples.
        device: torch device string; "cuda" times with device events.
        runs_per_sample: consecutive runs between two readings of the clock, so that the reading costs nothing
            beside them; for runs of microseconds.
        flush: on CUDA, push the device's L2 cache out between samples. A host has no such instruction that
            a user's process may use.
    """
    sample = _cuda_sampler(flush) if device.startswith("cuda") else _host_sample
    samples: list[float] = []
    first: Any = None
    cpu, preempted = _usage()
    for i in range(count):
        seconds, output = sample(run, runs_per_sample)
        samples.append(seconds / runs_per_sample)
        if i == 0:
            first = output
        del output
    cpu_after, preempted_after = _usage()
    return Timing(samples, (cpu_after - cpu) / (count * runs_per_sample), preempted_after - preempted, first)


def _host_sample(run: Callable[[], Any], runs: int) -> tuple[float, Any]:
    start = time.perf_counter_ns()
    for _ in range(runs):
        output = run()
    return (time.perf_counter_ns() - start) * 1e-9, output


def _cuda_sampler(flush: bool) -> Callable[[Callable[[], Any], int], tuple[float, Any]]:
    import torch

    size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size if flush else 0
    # Twice the cache: whatever the replacement policy, nothing of the method's data stays.
    scratch = torch.empty(2 * size, dtype=torch.uint8, device="cuda") if size else None

    def sample(run: Callable[[], Any], runs: int) -> tuple[float, Any]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if scratch is not None:
            scratch.zero_()
        torch.cuda.synchronize()
        start.record()
        for _ in range(runs):
            output = run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3, output

    return sample


def _usage() -> tuple[float, int]:
    """CPU seconds of this process and of its ended children, and its involuntary context switches."""
    import resource

    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, own.ru_nivcsw
