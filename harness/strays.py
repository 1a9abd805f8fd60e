"""No process outlives what it was started for, whatever a method starts and however it detaches it.

On Linux a process can adopt the orphans among its descendants. A worker adopts those of its method while it lives, and
the nursery those of a worker that has ended; so whatever is the nursery's child and none of its workers is a stray.
Elsewhere only the processes of a worker's group and those whose parents still live are found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of the orphans among its descendants; see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_when_parent_ends(number: signal.Signals) -> None:
    """Ask Linux to send this process a signal when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def end_strays(workers: Collection[int]) -> None:
    """End the children of this process that are none of `workers`, with all that they started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process().children():
            if child.pid not in workers:
                _end_tree(child.pid)


def end_all(patience: float = 4.0) -> None:
    """End every descendant of this process and wait until none is left, for `patience` seconds at most."""
    import psutil

    deadline = time.monotonic() + patience
    while children := psutil.Process().children():
        for child in children:
            _end_tree(child.pid)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)


def _end_tree(pid: int) -> None:
    """Stop a process and its descendants, so that none starts another while the others are ended, and end them."""
    import psutil

    stopped: dict[int, None] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        while True:
            new = [p for p in (pid, *(c.pid for c in root.children(recursive=True))) if p not in stopped]
            if not new:
                break
            for each in new:
                stopped[each] = None
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(each, signal.SIGSTOP)
    for each in (pid, *stopped):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)
