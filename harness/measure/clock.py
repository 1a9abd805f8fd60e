"""Clocks inside a worker: wall-clock and CPU time of runs on a host, device events on CUDA.

On a host there are two. ``host`` is the wall clock. ``host-ready`` is the wall clock less the time for which the kernel
kept the thread waiting for a processor that ran something else: sleeping and input count, other people's work does not.
The kernel counts that wait per thread, so the second is for methods that are held to one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SCHEDSTAT = "/proc/thread-self/schedstat"


def name_of(device: str, threads: int | None) -> str:
    """Which clock times a method: "cuda-events", "host-ready" or "host"."""
    if device.startswith("cuda"):
        return "cuda-events"
    return "host-ready" if threads == 1 and os.path.exists(_SCHEDSTAT) else "host"


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
    run: Callable[[], Any], count: int, clock: str = "host", *, runs_per_sample: int = 1, flush: bool = False
) -> Timing:
    """Take `count` samples of `runs_per_sample` runs each.

    Args:
        run: what to time.
        count: how many samples.
        clock: one of the names that `name_of` gives.
        runs_per_sample: consecutive runs between two readings of the clock, so that the reading costs nothing
            beside them; for runs of microseconds.
        flush: on CUDA, push the device's L2 cache out between samples. A host has no such instruction that
            a user's process may use.
    """
    sample: Callable[[Callable[[], Any], int], tuple[float, Any]] = _host_sample
    if clock == "cuda-events":
        sample = _cuda_sampler(flush)
    elif clock == "host-ready":
        sample = _ready_sample
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


def _ready_sample(run: Callable[[], Any], runs: int) -> tuple[float, Any]:
    waited, cpu = _waited(), time.thread_time_ns()
    start = time.perf_counter_ns()
    for _ in range(runs):
        output = run()
    wall = time.perf_counter_ns() - start
    cpu, waited = time.thread_time_ns() - cpu, _waited() - waited
    # The counters are read just outside the timed region, and a wait may fall between. It is never so long that
    # less than the CPU time is left.
    return max(wall - waited, min(cpu, wall)) * 1e-9, output


_descriptors: dict[int, int] = {}


def _waited() -> int:
    """Nanoseconds for which this thread was ready to run and did not."""
    pid = os.getpid()
    if pid not in _descriptors:
        # One per process: what a parent opened before a fork shows the parent's thread.
        _descriptors[pid] = os.open(_SCHEDSTAT, os.O_RDONLY)
    return int(os.pread(_descriptors[pid], 96, 0).split()[1])


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
