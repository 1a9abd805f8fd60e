"""Methods of different kinds: units of work for the interpreter, the caches, the allocator and torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from harness.method import Method, method
from harness.types import PositiveInt


@method("units", task="units-of-work")
class Units(Method[np.ndarray, float]):
    """A hundred units of one kind; a copy with 105 is slower by 5 % exactly."""

    kind: Literal[
        "arithmetic", "dictionary", "sort", "matmul", "copy", "json", "allocate", "softmax", "gather", "mlp"
    ] = "arithmetic"
    """What a unit is."""

    size: PositiveInt = 1
    """How large a unit is; 1 makes it about ten microseconds."""

    units: PositiveInt = 100
    """How many there are."""

    def prepare(self, work: np.ndarray) -> None:
        self.total = float(work.sum())
        self.unit = getattr(self, f"_{self.kind}")(self.context.rng("unit"))

    def run(self) -> float:
        unit = self.unit
        for _ in range(self.units):
            unit()
        return self.total

    def _arithmetic(self, _: Any) -> Callable[[], object]:
        steps = range(200 * self.size)
        return lambda: sum(i * i for i in steps)

    def _dictionary(self, _: Any) -> Callable[[], object]:
        keys = [f"key {i}" for i in range(60 * self.size)]

        def unit() -> object:
            counts: dict[str, int] = {}
            for key in keys:
                counts[key] = counts.get(key, 0) + 1
            return counts

        return unit

    def _sort(self, rng: Any) -> Callable[[], object]:
        values = rng.random(800 * self.size)
        return lambda: np.sort(values)

    def _matmul(self, rng: Any) -> Callable[[], object]:
        import torch

        values = torch.from_numpy(rng.random((64 * self.size, 64))).float()
        other = torch.from_numpy(rng.random((64, 64))).float()
        return lambda: values @ other

    def _copy(self, rng: Any) -> Callable[[], object]:
        values = rng.random(1 << 14) if self.size == 1 else rng.random((1 << 14) * self.size)
        target = np.empty_like(values)
        return lambda: np.copyto(target, values)

    def _json(self, rng: Any) -> Callable[[], object]:
        values = {"values": rng.random(8 * self.size).tolist()}
        return lambda: json.loads(json.dumps(values))

    def _allocate(self, _: Any) -> Callable[[], object]:
        count = (1 << 13) * self.size
        return lambda: np.ones(count).sum()

    def _softmax(self, rng: Any) -> Callable[[], object]:
        import torch

        values = torch.from_numpy(rng.random((16 * self.size, 256))).float()
        return lambda: torch.softmax(values, -1)

    def _gather(self, rng: Any) -> Callable[[], object]:
        table = rng.random(1 << 19)
        places = rng.integers(0, len(table), 1000 * self.size)
        return lambda: table[places].sum()

    def _mlp(self, rng: Any) -> Callable[[], object]:
        import torch

        layers = [torch.from_numpy(rng.random((32, 32))).float() for _ in range(2)]
        inputs = torch.from_numpy(rng.random((16 * self.size, 32))).float()
        return lambda: torch.relu(inputs @ layers[0]) @ layers[1]
