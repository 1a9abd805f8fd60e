from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.measure.clock import name_of, timed

needs_schedstat = pytest.mark.skipif(
    name_of("cpu", 1) != "host-ready",
    reason="this kernel does not count how long a thread waits for a processor",
)


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_which_clock() -> None:
    assert name_of("cuda", 1) == "cuda-events"
    assert name_of("cpu", 2) == name_of("cpu", None) == "host"


@pytest.mark.parametrize("clock", ["host", pytest.param("host-ready", marks=needs_schedstat)])
def test_sleeping_counts_and_the_first_output_is_kept(clock: str) -> None:
    outputs = iter(range(10))

    def run() -> int:
        time.sleep(0.01)
        return next(outputs)

    found = timed(run, 3, clock)
    assert len(found.samples) == 3
    assert min(found.samples) >= 0.0099
    assert found.output == 0
    assert found.cpu < 0.01


def test_a_sample_is_the_mean_of_its_runs() -> None:
    runs: list[int] = []
    found = timed(lambda: runs.append(1) or time.sleep(0.002), 2, "host", runs_per_sample=5)  # type: ignore[func-returns-value]
    assert len(runs) == 10
    assert all(0.002 <= s < 0.02 for s in found.samples)


@needs_schedstat
def test_waiting_for_a_processor_that_others_use_does_not_count() -> None:
    """A thread that shares its processor with a busy one is ready for twice as long as it works."""
    home = os.sched_getaffinity(0)
    cpu = min(home)
    busy = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os\nos.sched_setaffinity(0, [{cpu}])\nprint(flush=True)\nwhile True: pass",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        os.sched_setaffinity(0, [cpu])
        wall = timed(lambda: spin(0.05), 8, "host")
        ready = timed(lambda: spin(0.05), 8, "host-ready")
    finally:
        os.sched_setaffinity(0, home)
        busy.kill()
        busy.wait()
        busy.stdout.close()
    assert sum(wall.samples) > 1.3 * 8 * 0.05
    assert sum(ready.samples) < 1.15 * 8 * 0.05
    assert wall.preempted > 0
