"""What a machine of a cluster does with a comparison that is placed there, and what it is sent.

Nothing here knows a cluster. What comes back is text, records as JSON, and is checked as every record is.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import comparing, environment
from harness.catalog import Catalog
from harness.executors import Group, Work
from harness.launch import Nursery
from harness.planning import Step, plan
from harness.record import Record


@dataclass(frozen=True)
class Order:
    """What all comparisons of a run on one profile have in common.

    Attributes:
        wanted: a step for each task and method, whose modules are imported once on each machine.
        folders: further roots of the catalog, as paths there; relative ones from where the order is carried out.
        builtin, entry_point_roots: see `harness.catalog.Catalog`.
        home: where ``methods/`` is there; None for beside the harness.
        variables: environment variables; values that begin with "./" are made absolute there.
        memory: bytes of host memory for a method whose comparison names no limit; None for the profile's.
    """

    wanted: tuple[Step, ...]
    folders: tuple[str, ...] = ()
    builtin: bool = True
    entry_point_roots: bool = True
    home: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None


@dataclass
class Parcel:
    """A comparison that is to be placed: its groups, and how often it was tried."""

    groups: tuple[Group, ...]
    attempts: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def first(self) -> Step:
        """For what all of its steps have in common."""
        return self.groups[0][0]

    @property
    def steps(self) -> list[Step]:
        """All its steps."""
        return [step for group in self.groups for step in group]

    def outcome(
        self, executor: str, texts: Sequence[Sequence[str]] | None, attempts: int
    ) -> list[tuple[Group, list[Record]]] | None:
        """Its records, from what `carry_out` returned; None where it was lost and may be placed again."""
        if texts is not None:
            return self.finished(executor, texts)
        return None if self.attempts < attempts else self.failed(executor)

    def failed(self, executor: str) -> list[tuple[Group, list[Record]]]:
        """Its records when it was lost too often."""
        times = f"{self.attempts} times" if self.attempts > 1 else "once"
        reason = f"it was lost {times} on the way: {'; '.join(dict.fromkeys(self.lost))}"
        return self._unmeasured(executor, "failed", reason)

    def skipped(self, executor: str, reason: str) -> list[tuple[Group, list[Record]]]:
        """Its records when no machine of the cluster can carry it out."""
        return self._unmeasured(executor, "skipped", reason)

    def finished(self, executor: str, texts: Sequence[Sequence[str]]) -> list[tuple[Group, list[Record]]]:
        """Its records as `carry_out` returned them."""
        return [
            (group, [self._marked(Record.model_validate_json(text), executor) for text in each])
            for group, each in zip(self.groups, texts, strict=True)
        ]

    def _unmeasured(self, executor: str, status: str, reason: str) -> list[tuple[Group, list[Record]]]:
        return [
            (group, [self._marked(comparing.record_of(s, status, reason=reason), executor) for s in group])
            for group in self.groups
        ]

    def _marked(self, record: Record, executor: str) -> Record:
        how = {"executor": {"name": executor, "attempts": self.attempts}}
        return record.model_copy(update={"environment": {**record.environment, **how}})


def parcels(work: Work) -> list[Parcel]:
    """What is placed: comparisons, whole, also those whose methods run once each and take no turns."""
    found: dict[int, list[Group]] = {}
    for group in work.groups:
        found.setdefault(id(group[0].comparison), []).append(group)
    return [Parcel(tuple(each)) for each in found.values()]


def representatives(steps: Iterable[Step]) -> tuple[Step, ...]:
    """A step for each task and method."""
    found: dict[tuple[str, str], Step] = {}
    for step in steps:
        found.setdefault((step.comparison.task, step.contestant.method), step)
    return tuple(found.values())


def carry_out(order: Order, groups: Sequence[Group]) -> list[list[str]]:
    """Measure a comparison on this machine, which is one of a cluster.

    Returns:
        For each group the records of its steps as JSON. A step that means something else here than where it was planned,
        since the source or a version differs, is skipped and says so.

    Raises:
        HarnessError: nothing can be measured on this machine.
    """
    os.environ.update({name: _here(value) for name, value in order.variables.items()})
    catalog = _catalog(order)
    there = plan(catalog, [groups[0][0].comparison])
    answer = []
    for group in groups:
        reasons = [_differs(step, there) for step in group]
        same = [step for step, reason in zip(group, reasons, strict=True) if reason is None]
        made = iter(_measured(catalog, order, same))
        answer.append(
            [
                (comparing.record_of(step, "skipped", reason=reason) if reason else next(made)).model_dump_json(
                    exclude_none=True
                )
                for step, reason in zip(group, reasons, strict=True)
            ]
        )
    return answer


def _measured(catalog: Catalog, order: Order, group: Group) -> list[Record]:
    if not group:
        return []
    if order.memory is not None and group[0].comparison.memory_limit is None:
        limited = replace(group[0].comparison, memory_limit=order.memory)
        group = [replace(step, comparison=limited) for step in group]
    try:
        return comparing.carry_out(catalog, group, lambda: _nursery(catalog, order), comparing.Progress())
    except BaseException:
        _close()  # it may be what went wrong; the next comparison gets a fresh one
        raise


def _here(value: str) -> str:
    return str(Path(value).resolve()) if value.startswith("./") else value


def _catalog(order: Order) -> Catalog:
    catalog = Catalog([Path(folder) for folder in order.folders], order.builtin, order.entry_point_roots)
    return catalog if order.home is None else replace(catalog, home=Path(_here(order.home)))


def _differs(step: Step, there: Sequence[Step]) -> str | None:
    """Why a step is not the same measurement here; None when it is."""
    for other in there:
        if other.contestant == step.contestant:
            if other.key == step.key:
                return None
            if other.source != step.source:
                return (
                    f"the source of '{step.contestant.method}' on {os.uname().nodename} is not that of the run"
                )
            return (
                f"versions on {os.uname().nodename} are not those where the run was planned:"
                f" {environment.versions()} there"
            )
    return f"'{step.contestant.label}' is not in its comparison on {os.uname().nodename}"


_kept: list[tuple[object, Nursery]] = []
"""The nursery of the process, if it has one: clusters use a process for several comparisons."""


def _nursery(catalog: Catalog, order: Order) -> Nursery:
    sort = (
        sorted({(step.comparison.task, step.contestant.method, step.source) for step in order.wanted}),
        order.folders,
        sorted(os.environ.items()),  # a nursery has those of its start, such as the GPUs that it may use
    )
    if _kept and (_kept[0][0] != sort or not _kept[0][1].alive):
        _close()
    if not _kept:
        _kept.append((sort, comparing.start_nursery(catalog, order.wanted)))
        atexit.register(_close)
    return _kept[0][1]


def _close() -> None:
    while _kept:
        _kept.pop()[1].close()
