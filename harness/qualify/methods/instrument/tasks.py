"""The task that qualifies the instrument: work of a known amount."""

from __future__ import annotations

import numpy as np

from harness.errors import BadOutput
from harness.method import Metric, Task, task
from harness.seeding import rng

Array = np.ndarray


@task(
    "units-of-work", metrics=[Metric("error", better="lower", doc="Distance from the sum that is asked for.")]
)
class UnitsOfWork(Task[Array, float]):
    """Numbers, of which every method returns the sum after doing its units of work."""

    def load(self, seed: int) -> Array:
        """Sixteen numbers."""
        return rng(seed, "numbers").random(16)

    def score(self, work: Array, output: float) -> dict[str, float]:
        """How far `output` is from the sum."""
        if not isinstance(output, float):
            raise BadOutput(f"a {type(output).__name__} is not a sum")
        return {"error": abs(output - float(work.sum()))}
