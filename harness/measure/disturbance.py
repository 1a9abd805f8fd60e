"""What disturbed a measurement: load, stolen time, throttling, clocks; and when that was too much.

The limits are fixed here, for every machine, and no suite can move them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.measure import gpu

STOLEN = 0.05
"""Largest share of the processors' time that a hypervisor may have given to other machines."""

OTHERS = 0.25
"""Largest share of the processors that other processes of this machine may have used."""

_CPU = Path("/sys/devices/system/cpu")


@dataclass
class Watch:
    """Reads the machine's counters when it is made and when it is stopped.

    Args:
        ours: CPU seconds so far of the processes that the measurement is made of.
        gpu: whether to look at the GPU as well.
    """

    ours: Callable[[], float] = lambda: cpu_seconds(os.getpid())
    gpu: bool = False
    _start: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = self._read()

    def stop(self) -> dict[str, Any]:
        """What happened since, as plain data for a record.

        ``stolen`` and ``others`` are shares of all processors; ``frequency`` is in MHz, lowest and highest at the
        two ends; what the system does not show is None.
        """
        begin, end = self._start, self._read()
        seconds = end["at"] - begin["at"]
        capacity = seconds * (os.cpu_count() or 1)
        found: dict[str, Any] = {
            "seconds": round(seconds, 3),
            "load": [round(begin["load"], 2), round(end["load"], 2)],
            "governor": _governor(),
            "stolen": _share(begin["steal"], end["steal"], capacity),
            "others": None,
            "throttled": None if end["throttled"] is None else end["throttled"] - (begin["throttled"] or 0),
            "frequency": None,
        }
        if end["busy"] is not None and capacity > 0:
            # Seconds that processors worked, less those of our own processes.
            other = (end["busy"] - begin["busy"]) - (end["ours"] - begin["ours"])
            found["others"] = round(max(0.0, other) / capacity, 4)
        clocks = [c for c in (begin["frequency"], end["frequency"]) if c]
        if clocks:
            found["frequency"] = [round(min(clocks)), round(max(clocks))]
        if self.gpu:
            found["gpu"] = {"before": begin["gpu"], "after": end["gpu"]}
        return found

    def _read(self) -> dict[str, Any]:
        times = psutil.cpu_times()
        steal = getattr(times, "steal", None)
        idle = times.idle + getattr(times, "iowait", 0.0)
        # The kernel counts a guest's time in user time as well.
        doubled = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        frequency = psutil.cpu_freq() if (_CPU / "cpu0" / "cpufreq").is_dir() else None
        return {
            "at": time.monotonic(),
            "load": os.getloadavg()[0],
            "steal": steal,
            "busy": sum(times) - idle - (steal or 0.0) - doubled,
            "ours": self.ours(),
            "throttled": _throttled(),
            "frequency": frequency.current if frequency else None,
            "gpu": gpu.state() if self.gpu else None,
        }


def unstable(found: dict[str, Any]) -> str | None:
    """Why a measurement with these disturbances decides nothing; None when it may.

    Args:
        found: what `Watch.stop` returned.
    """
    if (found.get("seconds") or 0.0) < 0.5:
        return None  # the kernel counts in hundredths of a second; of less than fifty it says little
    if (stolen := found.get("stolen")) is not None and stolen > STOLEN:
        return f"the hypervisor took {stolen:.0%} of the processors' time; at most {STOLEN:.0%} may go"
    if (others := found.get("others")) is not None and others > OTHERS:
        return f"other processes used {others:.0%} of the processors; at most {OTHERS:.0%} may be in use"
    if found.get("throttled"):
        return f"the processor was throttled {found['throttled']} times"
    for reading in (found.get("gpu") or {}).values():
        if reading and reading.get("throttled"):
            return f"the GPU was throttled: {', '.join(reading['throttled'])}"
    return None


def _share(before: float | None, after: float | None, capacity: float) -> float | None:
    if before is None or after is None or capacity <= 0:
        return None
    return round((after - before) / capacity, 4)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of all it started, ended or alive."""
    total = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed; its parent has its time
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _governor() -> str | None:
    path = _CPU / "cpu0" / "cpufreq" / "scaling_governor"
    return path.read_text().strip() if path.is_file() else None


def _throttled() -> int | None:
    """Thermal throttling events of all cores since the machine started."""
    counts = [
        int(p.read_text()) for p in _CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count") if p.is_file()
    ]
    return sum(counts) if counts else None
