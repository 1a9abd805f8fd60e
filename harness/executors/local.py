"""Comparisons one after another on this machine."""

from __future__ import annotations

from pathlib import Path

from harness.comparing import carry_out, start_nursery
from harness.errors import RequestError
from harness.executors import Executor, Finished, Work
from harness.launch import Nursery


class Local(Executor):
    """This machine; the methods of all comparisons come from one nursery, which is started when the first can run."""

    def carry_out(self, work: Work) -> Finished:
        """See `Executor.carry_out`."""
        started: list[Nursery] = []

        def nursery() -> Nursery:
            if started and not started[-1].alive:
                started.pop().close()  # a method that ended it cost its own comparison, and no other
            if not started:
                started.append(start_nursery(work.catalog, [step for group in work.groups for step in group]))
            return started[0]

        try:
            for group in work.groups:
                if work.should_stop():
                    return
                with work.claim(group) as stored:
                    yield group, stored or carry_out(work.catalog, group, nursery, work.progress)
        finally:
            for each in started:
                each.close()


def make(address: str | None, cluster: Path | None) -> Local:
    """See `harness.executors.make`."""
    if address is not None or cluster is not None:
        given = "--address" if address is not None else "--cluster"
        raise RequestError(f"the executor 'local' takes no {given}", hint="name another with --executor")
    return Local()
