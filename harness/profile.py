"""The three profiles: how a class of machine is recognised, and what it limits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from harness.errors import RequestError, nearest


@dataclass(frozen=True)
class Availability:
    """Whether a profile's hardware is here.

    Attributes:
        here: whether comparisons of the profile can run.
        reason: what was found, or what is missing, in one sentence.
        emulated: whether other hardware stands in for it.
    """

    here: bool
    reason: str
    emulated: bool = False


@dataclass(frozen=True)
class Gpu:
    """A CUDA device as the driver reports it."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Profile:
    """A class of machine.

    Attributes:
        name: "cpu", "edge-gpu" or "datacenter-gpu".
        device: torch device that its methods use.
        about: one line.
        recognise: looks for its hardware.
    """

    name: str
    device: str
    about: str
    recognise: Callable[[], Availability]

    def memory_limit(self) -> int:
        """Host memory in bytes that a method may use unless a suite says otherwise: 80 % of the machine."""
        return int(psutil.virtual_memory().total * 0.8)


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The CUDA devices of this machine, asked of the driver's own tool; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        return ()
    found = []
    for line in done.stdout.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3 or not parts[1].isdigit():
            continue  # integrated devices report their memory as not available
        major, _, minor = parts[2].partition(".")
        found.append(Gpu(parts[0], int(parts[1]) << 20, (int(major), int(minor or 0))))
    return tuple(found)


def jetson() -> str | None:
    """The model name of a Jetson board, or None."""
    for path in (Path("/proc/device-tree/model"), Path("/sys/firmware/devicetree/base/model")):
        if path.is_file():
            model = path.read_bytes().rstrip(b"\0").decode(errors="replace")
            if "jetson" in model.lower() or "orin" in model.lower():
                return model
    return None


def _cpu() -> Availability:
    count = len(psutil.Process().cpu_affinity())
    return Availability(True, f"{count} usable core{'s' if count != 1 else ''}")


def _edge_gpu() -> Availability:
    model = jetson()
    if model is not None:
        return Availability(True, model)
    return Availability(False, "needs a Jetson-class device; this machine is not one")


def _datacenter_gpu() -> Availability:
    for gpu in gpus():
        if gpu.capability >= (8, 0) and gpu.memory >= 20 << 30:
            return Availability(True, f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB")
    found = ", ".join(gpu.name for gpu in gpus()) or "none"
    return Availability(
        False,
        f"needs a CUDA GPU of compute capability 8.0 or later with at least 20 GiB; found {found}",
    )


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile("cpu", "cpu", "The processor of any machine; no accelerator is used.", _cpu),
        Profile(
            "edge-gpu", "cuda", "A Jetson-class device: a small GPU that shares the host's memory.", _edge_gpu
        ),
        Profile(
            "datacenter-gpu", "cuda", "A discrete GPU of the data centre, 20 GiB or more.", _datacenter_gpu
        ),
    )
}


def get(name: str) -> Profile:
    """The profile `name`. Raises `RequestError` with the nearest name."""
    if name not in PROFILES:
        raise RequestError(f"there is no profile '{name}'", hint=nearest(name, PROFILES))
    return PROFILES[name]
