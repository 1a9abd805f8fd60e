"""Carries out one comparison on this machine: launches its methods, keeps to limits, and makes records.

A crash, a hang or an exhausted memory costs the record of the method that caused it and no other.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from harness import environment, machine, measuring, profile, sandbox
from harness.cache import default_directory
from harness.catalog import Catalog, MethodEntry
from harness.errors import HarnessError, Unavailable
from harness.launch import Nursery
from harness.measure import disturbance
from harness.measure.turns import Plan
from harness.measuring import Seat
from harness.planning import Step
from harness.record import Record
from harness.suite import Comparison, Contestant

if TYPE_CHECKING:
    from harness.stale import Changed

PRELOAD = (
    "torch",
    "torch._dynamo",
    "numpy",
    "harness.method",
    "harness.measure.clock",
    "harness.measure.memory",
)


@dataclass
class Progress:
    """What a display is told; the base class shows nothing."""

    def changed(self, found: Changed) -> None:
        """Of what is measured next, `found` was measured before with other source or versions."""

    def begin(self, steps: Sequence[Step], stored: int) -> None:
        """`steps` are to be measured; `stored` more are stored already."""

    def start(self, step: Step) -> None:
        """`step` is measured next."""

    def phase(self, step: Step, name: str) -> None:
        """`step` is now loading, preparing, running or measuring."""

    def finish(self, step: Step, record: Record) -> None:
        """`step` has its record."""


def start_nursery(catalog: Catalog, steps: Sequence[Step]) -> Nursery:
    """A nursery for `steps`; see `nursery_for`."""
    return nursery_for(catalog, [(step.comparison, step.contestant) for step in steps])


def nursery_for(
    catalog: Catalog,
    wanted: Iterable[tuple[Comparison, Contestant]],
    python: str = sys.executable,
    wait: bool = True,
    luck: int | None = None,
) -> Nursery:
    """A nursery that has imported the modules of what is to be measured.

    Importing a framework takes seconds; done once, it is paid once and not with every method. A module that takes
    the nursery down with it is left to the process of the method that needs it.

    Args:
        catalog: where tasks and methods are.
        wanted: what is to be measured.
        python: the interpreter.
        luck: see `Nursery`.
        wait: see `Nursery`; without waiting, such a module is an error of `Nursery.ready`.
    """
    variables = {
        **environment.thread_variables(environment.threads()),
        # Asking whether there is a GPU must not start CUDA here, or no child could.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    modules: dict[str, None] = {}
    for comparison, contestant in wanted:
        task, method = catalog.task(comparison.task), catalog.method(contestant.method)
        modules |= dict.fromkeys((task.source.module, method.source.module))
    packages = catalog.modules()
    try:
        return Nursery(
            PRELOAD, packages=packages, modules=list(modules), variables=variables, python=python, luck=luck, wait=wait
        )  # fmt: skip
    except HarnessError:
        return Nursery(PRELOAD, packages=packages, variables=variables, python=python, luck=luck)


def carry_out(
    catalog: Catalog, group: Sequence[Step], nursery: Callable[[], Nursery], progress: Progress
) -> list[Record]:
    """One comparison on this machine: a record for each of its steps, in their order.

    Args:
        catalog: where tasks and methods are.
        group: methods of one comparison.
        nursery: called for one once something can run here.
        progress: a display.
    """
    reasons = [unavailable(catalog, step) for step in group]
    possible = [step for step, reason in zip(group, reasons, strict=True) if reason is None]
    records = {
        id(step): record_of(step, "skipped", reason=reason)
        for step, reason in zip(group, reasons, strict=True)
        if reason is not None
    }
    if possible:
        made = measure(catalog, possible, nursery(), progress)
        records |= {id(step): record for step, record in zip(possible, made, strict=True)}
    return [records[id(step)] for step in group]


def measure(catalog: Catalog, steps: Sequence[Step], nursery: Nursery, progress: Progress) -> list[Record]:
    """Take the methods of one comparison from launch to records."""
    comparison = steps[0].comparison
    place = profile.get(comparison.profile)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    threads = comparison.threads or environment.threads()
    seats = [
        seat_for(catalog, comparison, step.contestant, nursery, comparison.threads, _teller(progress, step))
        for step in steps
    ]
    what = {"comparison": comparison.name, "suite": comparison.suite, "seed": str(comparison.seed)}

    def waiting() -> None:
        progress.phase(steps[0], "waiting for the machine")

    with machine.reserved(what, share=comparison.share, waiting=waiting) as beside:
        watch = disturbance.Watch(gpu=place.device == "cuda")
        for step in steps:
            progress.start(step)
        conditions = measuring.measure(
            seats, plan_of(comparison), cpus=environment.cpus(), threads=threads, rng=random.Random()
        )
        found = watch.stop()
    where = {
        **environment.snapshot(),
        "disturbances": found,
        "conditions": asdict(conditions),
        "beside": beside,
    }
    turns = uuid.uuid4().hex if conditions.side_by_side else None
    unstable = disturbance.unstable(found)
    if beside:
        others = f"{len(beside)} other comparison{'s' if len(beside) > 1 else ''}"
        unstable = f"it shared the machine with {others}, as its suite allows"
    return [
        record_of(
            step,
            seat.status,
            **_found(seat),
            started=started,
            environment=where | _permission(catalog, step),
            turns=turns,
            unstable=unstable,
        )
        for step, seat in zip(steps, seats, strict=True)
    ]


def _permission(catalog: Catalog, step: Step) -> dict[str, Any]:
    """That generated code was allowed, and what it was locked in by, for the record of a method that runs some."""
    if not catalog.method(step.contestant.method).runs_generated_code:
        return {}
    return {"generated_code": sandbox.check().describe()}


def _teller(progress: Progress, step: Step) -> Callable[[str], None]:
    return lambda name: progress.phase(step, name)


def plan_of(comparison: Comparison) -> Plan:
    """How long a comparison is measured."""
    return Plan(
        once=comparison.repeats == "once",
        launches=comparison.launches,
        budget=comparison.budget,
        precision=comparison.precision,
        min_samples=comparison.min_samples,
        max_samples=comparison.max_samples,
    )


def _found(seat: Seat) -> dict[str, Any]:
    """What a seat brought, as fields of a record. What was measured before a failure is kept."""
    return {
        "reason": seat.reason,
        "log": seat.log,
        "amount": seat.amount,
        "prepare_time": seat.launches[0].prepare if seat.launches else None,
        "latency": seat.latency(),
        "memory": seat.memory,
        "metrics": seat.metrics,
        "series": seat.series,
        "launches": seat.launches,
        "duration": seat.seconds,
    }


def seat_for(
    catalog: Catalog,
    comparison: Comparison,
    contestant: Contestant,
    nursery: Nursery,
    threads: int | None,
    phase: Callable[[str], None] = lambda name: None,
) -> Seat:
    """A contestant's seat in a comparison, with the limits of its suite or of the profile."""
    place = profile.get(comparison.profile)
    limit = comparison.memory_limit or place.memory_limit()
    return Seat(
        name=contestant.label,
        nursery=nursery,
        request=request_for(catalog, comparison, contestant, place.device, limit, threads),
        time_limit=comparison.time_limit,
        memory_limit=limit,
        phase=phase,
        flush=comparison.flush_cache,
    )


def request_for(
    catalog: Catalog,
    comparison: Comparison,
    contestant: Contestant,
    device: str,
    memory: int | None,
    threads: int | None = None,
) -> dict[str, Any]:
    """What a worker is asked to load for one method; see `harness.worker.Worker.load`."""
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
        "threads": threads,
    }


def record_of(step: Step, status: str, **found: Any) -> Record:
    """The record of a step, with what was `found` as further fields."""
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


def unavailable(catalog: Catalog, step: Step) -> str | None:
    """Why a method cannot run here, before a process is started for it."""
    place = profile.get(step.comparison.profile).recognise()
    if not place.here:
        return place.reason
    method = catalog.method(step.contestant.method)
    if method.runs_generated_code:
        try:
            sandbox.check()
        except Unavailable as error:
            return str(error)
    return missing_packages(method)


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
