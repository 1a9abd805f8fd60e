"""The sort of the standard library, slowed on request."""

from __future__ import annotations

import time

from harness.method import Method, Metric, method
from harness.types import NonNegativeFloat

from ..baselines import SortingMethod


@method("timsort", task="sorting")
class Timsort(SortingMethod):
    """The sort of the standard library."""

    delay: NonNegativeFloat = 0.0
    """Seconds to wait in each run."""

    def run(self) -> list[float]:
        if self.delay:
            time.sleep(self.delay)
        return sorted(self.numbers)


@method(
    "trainer", task="training", metrics=[Metric("state_bytes", unit="B", better="lower", deterministic=True)]
)
class Trainer(Method[int, float]):
    """Accuracy that depends on the seed."""

    lr: float = 0.1
    """Learning rate."""

    def prepare(self, work: int) -> None:
        self.seed = work

    def run(self) -> float:
        return 0.9 - abs(self.lr - 0.1) + 0.001 * (self.seed % 7)

    def measure(self, output: float) -> dict[str, float]:
        return {**self.task.score(self.work, output), "state_bytes": 8.0}
