"""Where a record was made: machine, software and source revision. `harness.measure.disturbance` has the rest."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from harness import __version__, profile

PACKAGES = (
    "torch", "numpy", "scipy", "scikit-learn", "transformers", "datasets", "lm-eval", "pandas", "triton",
)  # fmt: skip

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cpus() -> list[int]:
    """The processors that this process may run on, by number."""
    return sorted(psutil.Process().cpu_affinity())


def threads() -> int:
    """Threads that a method may use: the cores this process may run on."""
    return len(cpus())


def thread_variables(count: int) -> dict[str, str]:
    """Environment variables that hold numerical libraries to `count` threads.

    Threads that wait for work spin for some ten microseconds and then sleep. By default they spin for
    milliseconds, which on a machine that does anything else makes small operations several times slower; sleeping at
    once costs half as much again on an idle one.
    """
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(count)),
        "GOMP_SPINCOUNT": "10000",
        "TOKENIZERS_PARALLELISM": "false",
    }


@lru_cache(maxsize=8)
def versions(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """Installed versions of the packages that decide results, by name; missing ones are left out."""
    found = {"python": platform.python_version(), "harness": __version__}
    for name in (*PACKAGES, *packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def machine() -> dict[str, Any]:
    """Hardware and operating system."""
    return {
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": threads(),
        "memory": psutil.virtual_memory().total,
        "gpus": [gpu.name for gpu in profile.gpus()],
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


@lru_cache(maxsize=8)
def revision(folder: Path) -> dict[str, Any]:
    """Git revision of the source in `folder` and whether its tree was clean; empty outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", str(folder / "method.py")) is None:
        return {}
    return {"revision": commit, "clean": git("status", "--porcelain", "--", str(folder.parent)) == ""}


def snapshot() -> dict[str, Any]:
    """All of it, for a record."""
    return {
        "machine": machine(),
        "versions": versions(),
        "source": revision(Path(__file__).resolve().parent),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "cpu model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
