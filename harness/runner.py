"""Carries out comparisons: resumes, stores what was measured, tells a display.

A crash, a hang or an exhausted memory costs the record of the method that caused it, never the suite. What is stored
is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from harness import machine, stale
from harness.catalog import Catalog
from harness.comparing import (
    PRELOAD,
    Progress,
    measure,
    missing_packages,
    nursery_for,
    plan_of,
    request_for,
    start_nursery,
)
from harness.executors import Executor, Work
from harness.executors.local import Local
from harness.planning import Step, groups, plan, remaining
from harness.record import Record, Status
from harness.store import Store
from harness.suite import Comparison

__all__ = [
    "PRELOAD", "Progress", "Step", "Summary", "measure", "missing_packages", "nursery_for", "plan", "plan_of",
    "request_for", "run", "start_nursery",
]  # fmt: skip


@dataclass
class Summary:
    """How a run went.

    Attributes:
        records: the records of all comparisons asked for, measured now or before.
        measured: how many were measured now.
        stored: how many were there already.
    """

    records: list[Record] = field(default_factory=list)
    measured: int = 0
    stored: int = 0

    def count(self, status: Status) -> int:
        """How many records have `status`."""
        return sum(record.status == status for record in self.records)

    @property
    def failed(self) -> list[Record]:
        """Records of methods that did not get through."""
        return [r for r in self.records if r.status in ("failed", "timeout", "out-of-memory")]


def run(
    catalog: Catalog,
    comparisons: Sequence[Comparison],
    store: Store,
    *,
    fresh: bool = False,
    retry: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Measure what is not stored yet.

    A comparison whose methods take turns is measured whole: where one of its records is missing all are made again,
    since a method measured an hour later was not measured beside the others.

    Args:
        catalog: where tasks and methods are.
        comparisons: what to measure.
        store: where records are and go.
        fresh: measure again what is stored.
        retry: measure again what is stored as failed, timed out or out of memory.
        executor: where comparisons run; on this machine unless another is given.
        progress: a display.
        should_stop: asked before each comparison, and before each method of one that takes no turns; True ends the run
            there, with all so far stored.
    """
    progress = progress or Progress()
    steps = plan(catalog, comparisons)
    known = {} if fresh else store.get(step.key for step in steps)
    summary = Summary()
    waiting: list[list[Step]] = []
    for group in groups(steps):
        todo, stored = remaining(group, known, retry)
        summary.records += stored
        waiting += todo
    summary.stored = len(summary.records)
    missing = [step for group in waiting for step in group]
    if missing and not fresh:
        progress.changed(stale.changed(store, [step for step in missing if step.key not in known]))
    progress.begin(missing, summary.stored)
    if not waiting:
        return summary
    store.open()
    executor = executor or Local()
    others: set[str] = set()
    path = store.database.path
    where = store.location if path is None else path.resolve()

    @contextmanager
    def claim(group: Sequence[Step]) -> Iterator[list[Record] | None]:
        def wait() -> None:
            progress.phase(group[0], "waiting for another run")

        keys = [step.key for step in group]
        with machine.claimed(f"{where} {' '.join(keys)}", waiting=wait):
            now = {} if fresh else store.get(keys)
            if all(key in now and now[key] != known.get(key) for key in keys):
                others.update(keys)
                yield [now[key] for key in keys]
            else:
                yield None

    work = Work(catalog, waiting, progress, should_stop, claim)
    with closing(executor.carry_out(work)) as finished:
        for taken, records in finished:
            # Together: of methods that take turns all records are stored or none.
            made = {record.key: record for record in records}
            store.add(*(record for record in made.values() if record.key not in others))
            for step in taken:
                summary.records.append(made[step.key])
                if step.key in others:
                    summary.stored += 1
                else:
                    summary.measured += 1
                progress.finish(step, made[step.key])
    return summary
