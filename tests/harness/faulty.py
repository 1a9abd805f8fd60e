"""A family of methods that go wrong in ways that concern the machine, and how to find what they leave behind."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.catalog import Catalog

TOYS = Path(__file__).resolve().parents[1] / "toys"

_MARK = "HARNESS_TEST_MARK"

_METHODS = '''
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from harness.method import Method, method

class Sorting(Method):
    folder: str = ""
    def prepare(self, work): self.numbers = work

@method("killed", task="sorting")
class Killed(Sorting):
    def run(self): os.kill(os.getpid(), signal.SIGKILL)

@method("segfaults", task="sorting")
class Segfaults(Sorting):
    def run(self): ctypes.string_at(0)

@method("exhausts-memory", task="sorting")
class ExhaustsMemory(Sorting):
    def run(self):
        kept = []
        while True: kept.append(bytearray(16 << 20))

@method("deadlocks", task="sorting")
class Deadlocks(Sorting):
    def run(self):
        lock = threading.Lock()
        with lock:
            with lock: return self.numbers

@method("prints-without-end", task="sorting")
class Prints(Sorting):
    def run(self):
        while True: sys.stdout.write("x" * 99 + "\\n")

@method("fork-bomb", task="sorting")
class ForkBomb(Sorting):
    """127 processes that start each other; half of them leave the group, some lose their parent."""
    def run(self):
        me = os.getpid()
        for i in range(7):
            if os.fork() == 0 and i % 2: os.setsid()
        Path(self.folder, f"bomb-{os.getpid()}").touch()
        if os.getpid() == me:
            while len(list(Path(self.folder).glob("bomb-*"))) < 100: time.sleep(0.01)
            raise ValueError("the bomb is set")
        if os.getpid() % 3 == 0: os._exit(0)
        time.sleep(3600)

@method("leaves-a-daemon", task="sorting")
class Daemon(Sorting):
    def run(self):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: time.sleep(3600)
            os._exit(0)
        os.wait()
        return sorted(self.numbers)

@method("fills-the-disk", task="sorting")
class FillsTheDisk(Sorting):
    limit: int = 0
    def run(self):
        if self.limit:
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        with open(Path(self.folder, "full"), "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()

@method("ends-its-nursery", task="sorting")
class EndsItsNursery(Sorting):
    def run(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
'''


def catalog(folder: Path) -> Catalog:
    """The toys and these methods."""
    home = folder / "faulty" / "family" / "paper"
    home.mkdir(parents=True)
    (home / "method.py").write_text(_METHODS)
    return Catalog([TOYS, folder / "faulty"], builtin=False, entry_point_roots=False)


@contextmanager
def marked() -> Iterator[str]:
    """Mark the processes that are started in here, however they detach themselves, with an environment variable."""
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[_MARK]


def left_behind(mark: str, patience: float = 10.0) -> list[int]:
    """Processes with a mark that are still there after `patience` seconds, this one apart."""
    deadline = time.monotonic() + patience
    while (found := _with(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _with(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_MARK) == mark:
                found.append(process.pid)
    return found
