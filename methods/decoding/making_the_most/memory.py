"""Peak memory of a computation, as the allocator saw it."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_bytes(compute: Callable[[], object], device: str = "cpu") -> int:
    """Most bytes of tensors that were alive at one time during `compute`, above those alive before it.

    On the CPU the profiler's record of every allocation is summed up in the order of time; on CUDA the allocator
    keeps the peak itself.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        compute()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        compute()
    alive = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
