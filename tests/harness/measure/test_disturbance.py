from __future__ import annotations

import os
import time

import pytest

from harness.measure.disturbance import Watch, unstable


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_our_own_work_is_not_the_others() -> None:
    watch = Watch()
    spin(1.0)
    mine = watch.stop()
    strangers = Watch(lambda: 0.0)
    spin(1.0)
    theirs = strangers.stop()
    assert mine["others"] is not None
    assert theirs["others"] is not None
    # The same second of work, counted as ours and as somebody else's.
    assert theirs["others"] * (os.cpu_count() or 1) * theirs["seconds"] > 0.8
    assert mine["seconds"] >= 1.0
    assert len(mine["load"]) == 2


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"stolen": 0.06}, "hypervisor took 6%"),
        ({"others": 0.5}, "other processes used 50%"),
        ({"throttled": 3}, "throttled 3 times"),
        ({"gpu": {"before": None, "after": {"throttled": ["power brake"]}}}, "GPU was throttled: power brake"),
        ({"stolen": 0.05, "others": 0.25, "throttled": 0}, None),
        ({"stolen": None, "others": None, "throttled": None, "gpu": {"before": None, "after": None}}, None),
        ({"seconds": 0.1, "others": 1.0}, None),
        ({}, None),
    ],
)
def test_when_a_machine_was_too_disturbed(found: dict[str, object], says: str | None) -> None:
    reason = unstable({"seconds": 10.0, **found})
    assert reason is None if says is None else says in (reason or "")
