"""Peak memory inside a worker, above a level.

Linux keeps a process's highest resident size and lets the process itself reset it, so a peak costs nothing to
follow and none is missed. Where the reset is refused the peak is read from samples taken every few milliseconds,
which may miss a short one.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Level:
    """Bytes: resident, and allocated and reserved on the device (0 without one)."""

    host: int = 0
    device: int = 0
    reserved: int = 0

    def above(self, other: Level) -> Level:
        """How far this level lies above another; never below zero."""
        return Level(
            max(0, self.host - other.host),
            max(0, self.device - other.device),
            max(0, self.reserved - other.reserved),
        )

    def highest(self, other: Level) -> Level:
        """The higher of both, figure by figure."""
        return Level(
            max(self.host, other.host), max(self.device, other.device), max(self.reserved, other.reserved)
        )


class Account:
    """Peaks of a method's two phases: above the level before `prepare`, and above the level before its runs."""

    def __init__(self, device: str = "cpu") -> None:
        self._on_device = device.startswith("cuda")
        self._base: Level | None = None
        self._peak = Level()
        self._run_peak = Level()
        self._before = Level()
        self._turns: contextlib.ExitStack | None = None

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """Follow the peak of `prepare`; the level before it is the base of all."""
        with self._following() as base:
            self._base = base
            yield
        self._peak = self._peak.highest(self._last.above(base))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Follow the peak of runs."""
        with self._following() as before:
            yield
        self._after(before)

    def follow(self) -> None:
        """Begin to follow the peak of all runs up to the next `peaks`, unless that has begun already.

        Resetting and reading the kernel's mark takes as long as a short method, too long to be done between its runs.
        """
        if self._turns is None:
            self._turns = contextlib.ExitStack()
            self._before = self._turns.enter_context(self._following())

    def _after(self, before: Level) -> None:
        base = self._base if self._base is not None else before
        self._peak = self._peak.highest(self._last.above(base))
        self._run_peak = self._run_peak.highest(self._last.above(before))

    def peaks(self) -> dict[str, int | None]:
        """The fields of `harness.record.Memory`, up to now."""
        if self._turns is not None:
            self._turns.close()
            self._turns = None
            self._after(self._before)
        return {
            "peak": self._peak.host,
            "run": self._run_peak.host,
            "device": self._peak.device if self._on_device else None,
            "device_reserved": self._peak.reserved if self._on_device else None,
        }

    @contextlib.contextmanager
    def _following(self) -> Iterator[Level]:
        """Reset the peak, yield the level now, and leave the peak in `_last`."""
        sampler = None
        try:
            _RESET.write_text("5")
        except OSError:
            sampler = _Sampler()
        yield self._now()
        host = sampler.stop() if sampler else _status("VmHWM")
        device = reserved = 0
        if self._on_device:
            import torch

            torch.cuda.synchronize()
            device, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        self._last = Level(host, device, reserved)

    def _now(self) -> Level:
        if not self._on_device:
            return Level(_status("VmRSS"))
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return Level(_status("VmRSS"), torch.cuda.memory_allocated(), torch.cuda.memory_reserved())


class _Sampler:
    """Reads the resident size every two milliseconds until it is stopped."""

    def __init__(self) -> None:
        self._highest = _status("VmRSS")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The highest size seen, in bytes."""
        self._done.set()
        self._thread.join()
        return max(self._highest, _status("VmRSS"))

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._highest = max(self._highest, _status("VmRSS"))


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(match[1]) * 1024
