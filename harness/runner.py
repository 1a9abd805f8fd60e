"""Carries out comparisons: launches workers, keeps to limits, records failures, resumes.

A crash, a hang or an exhausted memory costs the record of the method that caused it, never the suite. What is stored
is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from harness import environment, profile
from harness.cache import default_directory
from harness.catalog import Catalog, MethodEntry
from harness.errors import HarnessError
from harness.launch import Failed, Nursery
from harness.measure import clock, sampling
from harness.record import Latency, Memory, Record, SeriesRecord, Status, key_of
from harness.store import Store
from harness.suite import Comparison, Contestant

PRELOAD = (
    "torch",
    "torch._dynamo",
    "numpy",
    "harness.method",
    "harness.measure.clock",
    "harness.measure.memory",
)


@dataclass(frozen=True)
class Step:
    """One method of one comparison."""

    comparison: Comparison
    contestant: Contestant
    key: str
    source: str


@dataclass
class Progress:
    """What a display is told; the base class shows nothing."""

    def begin(self, steps: Sequence[Step], stored: int) -> None:
        """`steps` are to be measured; `stored` more are stored already."""

    def start(self, step: Step) -> None:
        """`step` is measured next."""

    def phase(self, step: Step, name: str) -> None:
        """`step` is now loading, preparing, running or measuring."""

    def finish(self, step: Step, record: Record) -> None:
        """`step` has its record."""


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


def plan(catalog: Catalog, comparisons: Iterable[Comparison]) -> list[Step]:
    """All methods of all comparisons, with the keys of their records."""
    steps = []
    digests: dict[tuple[str, str], str] = {}
    for comparison in comparisons:
        task = catalog.task(comparison.task)
        for contestant in comparison.contestants:
            pair = (comparison.task, contestant.method)
            if pair not in digests:
                method = catalog.method(contestant.method)
                digests[pair] = key_of({"task": catalog.digest(task), "method": catalog.digest(method)})[:16]
            steps.append(
                Step(comparison, contestant, _key(comparison, contestant, digests[pair]), digests[pair])
            )
    return steps


def run(
    catalog: Catalog,
    comparisons: Sequence[Comparison],
    store: Store,
    *,
    fresh: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Measure what is not stored yet.

    Args:
        catalog: where tasks and methods are.
        comparisons: what to measure.
        store: where records are and go.
        fresh: measure again what is stored.
        retry: measure again what is stored as failed, timed out or out of memory.
        progress: a display.
        should_stop: asked before each method; True ends the run there, with all so far stored.
    """
    progress = progress or Progress()
    steps = plan(catalog, comparisons)
    known = {} if fresh else store.get(step.key for step in steps)
    summary = Summary()
    todo: list[Step] = []
    for step in steps:
        record = known.get(step.key)
        if record is None or record.status == "skipped" or (retry and record.status != "ok"):
            todo.append(step)
        else:
            summary.records.append(record)
    summary.stored = len(summary.records)
    progress.begin(todo, summary.stored)
    if not todo:
        return summary
    nursery: Nursery | None = None
    try:
        for step in todo:
            if should_stop():
                break
            progress.start(step)
            reason = _unavailable(catalog, step)
            if reason is not None:
                record = _record(step, "skipped", reason=reason)
            else:
                if nursery is None:
                    nursery = start_nursery(catalog, todo)
                record = measure(catalog, step, nursery, progress)
            store.add(record)
            summary.records.append(record)
            summary.measured += 1
            progress.finish(step, record)
    finally:
        if nursery is not None:
            nursery.close()
    return summary


def start_nursery(catalog: Catalog, steps: Sequence[Step]) -> Nursery:
    """A nursery that has imported the modules of `steps`.

    Importing a framework takes seconds; done once, it is paid once and not with every method. A module that takes
    the nursery down with it is left to the process of the method that needs it.
    """
    variables = {
        **environment.thread_variables(environment.threads()),
        # Asking whether there is a GPU must not start CUDA here, or no child could.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    modules: dict[str, None] = {}
    for step in steps:
        task, method = catalog.task(step.comparison.task), catalog.method(step.contestant.method)
        modules |= dict.fromkeys((task.source.module, method.source.module))
    packages = catalog.modules()
    try:
        return Nursery(PRELOAD, packages=packages, modules=list(modules), variables=variables)
    except HarnessError:
        return Nursery(PRELOAD, packages=packages, variables=variables)


def measure(catalog: Catalog, step: Step, nursery: Nursery, progress: Progress) -> Record:
    """Launch a worker for one method and take it from load to measure."""
    comparison = step.comparison
    place = profile.get(comparison.profile)
    began = time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    found: dict[str, Any] = {"started": started, "environment": environment.snapshot()}

    def phase(name: str) -> None:
        progress.phase(step, name)

    try:
        worker = nursery.launch()
    except Failed as failure:
        return _record(step, failure.status, reason=failure.reason, log=failure.log, **found)
    worker.deadline = began + comparison.time_limit
    worker.memory_limit = comparison.memory_limit or place.memory_limit()
    try:
        phase("loading")
        loaded = worker.ask("load", **_request(catalog, step, place.device, worker.memory_limit))
        found["amount"] = loaded["amount"]
        phase("preparing")
        found["prepare_time"] = worker.ask("prepare")["seconds"]
        phase("running")
        first = worker.run(1, keep=True)
        found["latency"] = Latency(
            samples=first.samples, first=first.samples[0], cpu=first.cpu, clock=clock.NAMES[place.device]
        )
        found["memory"] = Memory(**worker.last["memory"])
        phase("measuring")
        measured = worker.ask("measure")
        found["metrics"] = measured["metrics"]
        found["series"] = {k: SeriesRecord(**v) for k, v in measured["series"].items()}
        phase("running")
        sampling_plan = sampling.Plan(
            once=comparison.repeats == "once",
            budget=comparison.budget,
            min_samples=comparison.min_samples,
            max_samples=comparison.max_samples,
        )
        found["latency"] = sampling.sample(worker, first, sampling_plan, clock.NAMES[place.device])
        found["memory"] = Memory(**worker.last["memory"])
        status, reason, log = "ok", None, None
    except Failed as failure:
        status, reason, log = failure.status, failure.reason, failure.log or None
    finally:
        worker.end()
    found["duration"] = time.monotonic() - began
    return _record(step, status, reason=reason, log=log, **found)


def _request(catalog: Catalog, step: Step, device: str, memory: int | None) -> dict[str, Any]:
    comparison, contestant = step.comparison, step.contestant
    task, method = catalog.task(comparison.task), catalog.method(contestant.method)
    return {
        "packages": {name: str(path) for name, path in catalog.modules().items()},
        "task": {
            "module": task.source.module,
            "class": task.source.name,
            "parameters": dict(comparison.parameters),
        },
        "method": {
            "module": method.source.module,
            "class": method.source.name,
            "parameters": dict(contestant.parameters),
        },
        "seed": comparison.seed,
        "device": device,
        "profile": comparison.profile,
        "cache": str(default_directory()),
        "memory": memory,
    }


def _record(step: Step, status: str, **found: Any) -> Record:
    comparison, contestant = step.comparison, step.contestant
    return Record(
        key=step.key,
        suite=comparison.suite,
        comparison=comparison.name,
        paper=comparison.paper,
        task=comparison.task,
        task_parameters=dict(comparison.parameters),
        method=contestant.method,
        label=contestant.label,
        method_parameters=dict(contestant.parameters),
        seed=comparison.seed,
        profile=comparison.profile,
        source=step.source,
        amount_unit=comparison.amount_unit,
        status=status,
        **{"started": datetime.now(UTC).isoformat(timespec="milliseconds"), **found},
    )


def _key(comparison: Comparison, contestant: Contestant, source: str) -> str:
    """What makes two measurements the same: everything that decides the figures, and nothing else."""
    return key_of(
        {
            "comparison": comparison.name,
            "task": comparison.task,
            "task_parameters": dict(comparison.parameters),
            "method": contestant.method,
            "label": contestant.label,
            "method_parameters": dict(contestant.parameters),
            "seed": comparison.seed,
            "profile": comparison.profile,
            "repeats": comparison.repeats,
            "source": source,
            "versions": environment.versions(),
        }
    )


def _unavailable(catalog: Catalog, step: Step) -> str | None:
    """Why a method cannot run here, before a process is started for it."""
    place = profile.get(step.comparison.profile).recognise()
    if not place.here:
        return place.reason
    return missing_packages(catalog.method(step.contestant.method))


def missing_packages(method: MethodEntry) -> str | None:
    """The packages that `method` needs and that are not installed, with what installs them; or None."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in method.packages:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            return f"'{text}' in its packages is not a requirement such as nupunkt>=0.5"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            return f"needs the package {text}: python -m pip install '{text}'"
        if not requirement.specifier.contains(version, prereleases=True):
            return f"needs {text}, but {version} is installed: python -m pip install '{text}'"
    return None
