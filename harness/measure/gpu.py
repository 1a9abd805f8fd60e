"""The state of the GPU that torch calls its first: clocks, power state, temperature and throttling, from NVML."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from harness.errors import RequestError

HARMFUL = {
    "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
    "software thermal slowdown": "nvmlClocksThrottleReasonSwThermalSlowdown",
    "hardware thermal slowdown": "nvmlClocksThrottleReasonHwThermalSlowdown",
    "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
}
"""Reasons for a lower clock that no GPU has in ordinary work, and NVML's names of their bits. Its power cap is not one
of them: a GPU at work is often at it."""


def state() -> dict[str, Any] | None:
    """What NVML says now; None where the package nvidia-ml-py is not installed.

    ``graphics_clock`` and ``memory_clock`` are in MHz, ``power_state`` is 0 (fastest) to 15, ``temperature`` is in
    degrees Celsius, ``throttled`` lists the names in `HARMFUL` that hold. What a GPU does not show is None.

    Raises:
        RequestError: CUDA_VISIBLE_DEVICES names a GPU in a way that NVML does not know.
        pynvml.NVMLError: the driver does not answer.
    """
    try:
        import pynvml
    except ImportError:
        return None
    pynvml.nvmlInit()
    try:
        handle = _handle(pynvml)

        def shown(ask: Callable[..., Any], *what: Any) -> Any:
            try:
                return ask(handle, *what)
            except pynvml.NVMLError as error:
                # A part of a GPU (MIG, vGPU) does not have counters of its own; that is an answer.
                if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
                    return None
                raise

        reasons = shown(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        held = [name for name, bit in HARMFUL.items() if reasons is not None and reasons & getattr(pynvml, bit)]
        return {
            "graphics_clock": shown(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_GRAPHICS),
            "memory_clock": shown(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
            "power_state": shown(pynvml.nvmlDeviceGetPerformanceState),
            "temperature": shown(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
            "throttled": None if reasons is None else held,
        }
    finally:
        pynvml.nvmlShutdown()


def _handle(pynvml: Any) -> Any:
    """NVML's handle of the first GPU that CUDA may see: NVML itself counts all of them."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    if first.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    if first.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    raise RequestError(
        f"CUDA_VISIBLE_DEVICES begins with {first!r}, which names no GPU;"
        " give an index such as 0 or a UUID such as GPU-..."
    )
