"""Methods that go wrong in one way each."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Literal

import numpy as np

from harness.method import Method, Metric, method


class SortingMethod(Method[list[float], list[float]]):
    """What the sorting methods share."""

    def prepare(self, work: list[float]) -> None:
        self.numbers = work


@method("numpy-sort", task="sorting")
class NumpySort(SortingMethod):
    """NumPy's sort."""

    kind: Literal["quicksort", "stable"] = "quicksort"
    """Algorithm."""

    def run(self) -> list[float]:
        return np.sort(self.numbers, kind=self.kind).tolist()


@method("no-op", task="sorting")
class NoOp(SortingMethod):
    """Returns its input."""

    def run(self) -> list[float]:
        return self.numbers


@method("needs-package", task="sorting", packages=["surely-not-installed>=1"])
class NeedsPackage(SortingMethod):
    """Cannot run anywhere."""

    def run(self) -> list[float]:
        return self.numbers


@method("faulty", task="sorting", metrics=[Metric("faults", better="lower")])
class Faulty(SortingMethod):
    """Goes wrong on request."""

    how: Literal[
        "raise",
        "exit",
        "segfault",
        "hang",
        "allocate",
        "allocate-slowly",
        "nan",
        "wrong-type",
        "spam",
        "fork",
        "fork-and-wait",
    ] = "raise"
    """What goes wrong."""

    def run(self) -> Any:
        match self.how:
            case "raise":
                raise ValueError("as asked")
            case "exit":
                os._exit(7)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(3600)
            case "allocate":
                return np.ones(1 << 40, dtype=np.uint8)
            case "allocate-slowly":
                blocks = []
                while True:
                    blocks.append(np.ones(32 << 20, dtype=np.uint8))
            case "spam":
                for _ in range(20_000):
                    sys.stdout.write("x" * 99 + "\n")
                raise ValueError("after much output")
            case "fork" | "fork-and-wait":
                for _ in range(5):
                    if os.fork() == 0:
                        time.sleep(3600)
                if self.how == "fork-and-wait":
                    time.sleep(0.5)  # long enough for the memory of the children to be looked at
                raise ValueError("with children")
            case "wrong-type":
                return 3
        return self.numbers

    def measure(self, output: Any) -> Any:
        value = float("nan") if self.how == "nan" else 1.0
        return self.task.score(self.work, output) | {"faults": value}
