"""Peak memory inside a worker, above a level.

Linux keeps a process's highest resident size and lets the process itself reset it, so a peak costs nothing to
follow and none is missed. Where the reset is refused the peak is read from samples taken every few milliseconds,
which may miss a short one; the record says which.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def resident() -> int:
    """Resident bytes of this process now."""
    return _status("VmRSS")


@dataclass
class Peak:
    """The highest resident size since `start`, and on a device the highest allocation.

    Use `start`, then `stop` any number of times; levels are those at `start`.
    """

    device: str = "cpu"
    how: str = "kernel"
    _level: int = 0
    _device_level: int = 0
    _sampled: int = 0
    _thread: threading.Thread | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Take the level and follow the peak from here."""
        self._level = resident()
        try:
            _RESET.write_text("5")
        except OSError:
            self.how = "sampled"
            self._sampled = self._level
            self._done.clear()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._device_level = torch.cuda.memory_allocated()

    def stop(self) -> tuple[int, int | None, int | None]:
        """Bytes above the level: resident, and allocated and reserved on the device (None without one)."""
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
            high = max(self._sampled, resident())
        else:
            high = _status("VmHWM")
        allocated = reserved = None
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
            allocated = torch.cuda.max_memory_allocated() - self._device_level
            reserved = torch.cuda.max_memory_reserved()
        return max(0, high - self._level), allocated, reserved

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._sampled = max(self._sampled, resident())


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(match[1]) * 1024
