"""A small task for tests of the engine."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.errors import BadOutput, MissingData
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import rng
from harness.types import PositiveInt


@task(
    "sorting",
    metrics=[
        Metric("disorder", better="lower", doc="Share of neighbours out of order."),
        Metric("length", unit="numbers", better="neither", deterministic=True),
    ],
    amount_unit="numbers",
    data=["numbers"],
)
class Sorting(Task[list[float], list[float]]):
    """Sort random numbers."""

    size: PositiveInt = 1000
    """How many numbers."""

    source: Literal["random", "file"] = "random"
    """Where they come from."""

    def load(self, seed: int) -> list[float]:
        if self.source == "file":
            raise MissingData("data set 'numbers' is not here")
        return rng(seed, "numbers").random(self.size).tolist()

    def amount(self, work: list[float]) -> float:
        return len(work)

    def score(self, work: list[float], output: list[float]) -> Measurement:
        if not isinstance(output, list):
            raise BadOutput(f"a {type(output).__name__} is not a list of numbers")
        steps = np.diff(output)
        return Measurement(
            {"disorder": float(np.mean(steps < 0)), "length": len(output)},
            {"steps": Series([0, 1], [float(steps.min()), float(steps.max())], "end", "step")},
        )


@task("training", metrics=[Metric("accuracy")], repeats="once")
class Training(Task[int, float]):
    """Something that is run once per seed."""

    def load(self, seed: int) -> int:
        return seed

    def score(self, work: int, output: float) -> dict[str, float]:
        return {"accuracy": output}
