"""Run a method in this process: for an author's tests and notebooks.

No isolation, no clock, no store; exactly the calls that the engine makes, in the same order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.method import Context, Measurement, Method, Task, as_measurement


def prepared(
    method: Method[Any, Any],
    task: Task[Any, Any],
    *,
    seed: int = 1000,
    device: str = "cpu",
    cache: Path | None = None,
) -> Method[Any, Any]:
    """`method` after `prepare` on the work of `task` for `seed`."""
    method.task = task
    method.work = task.load(seed)
    method.context = Context(seed=seed, device=device, cache=cache)
    method.prepare(method.work)
    return method


def run_once(
    method: Method[Any, Any],
    task: Task[Any, Any],
    *,
    seed: int = 1000,
    device: str = "cpu",
    cache: Path | None = None,
) -> Measurement:
    """What `method` measures after one run on the work of `task` for `seed`.

    Raises:
        AssertionError: the metrics are not those that the task and the method declare.
    """
    prepared(method, task, seed=seed, device=device, cache=cache)
    result = as_measurement(method.measure(method.run()))
    declared = {m.name for m in (*task.metrics, *method.metrics)}
    assert set(result.metrics) == declared, (
        f"measure returned {sorted(result.metrics)}, declared are {sorted(declared)}"
    )
    return result
