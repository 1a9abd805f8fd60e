"""Comparisons on a Slurm cluster, as job arrays through submitit.

Nodes see the same files as this machine: the code where it is, the data where ``HARNESS_DATA`` says, and a folder in
which results come back. A comparison whose node fails or whose time runs out is placed again, a bounded number of times.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness import data, profile
from harness.errors import HarnessError, RequestError
from harness.executors import Executor, Finished, Work, placed
from harness.executors.cluster import Asks, Model, imported, read
from harness.paper import ProfileName

_ARRAY = 500
"""Jobs of an array; a cluster refuses arrays above a size, 1001 by default."""

_START_MINUTES = 10
"""For a job to start its interpreter and import what its methods need."""


class SlurmAsks(Asks):
    """What a comparison of a profile asks a Slurm cluster for."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = Field(default=None, description="Features of the nodes, e.g. a100.")
    time: int | None = Field(
        default=None, ge=1, description="Minutes (default: what the limits of its methods add up to)."
    )
    exclusive: bool = Field(
        default=True, description="Whether it has its node alone. One that may share its machine never does."
    )
    at_once: int = Field(default=100, ge=1, description="Jobs of an array that run at the same time at most.")
    options: dict[str, str | int | bool] = Field(
        default_factory=dict, description="Further options of sbatch by their long names, e.g. nodelist."
    )


class SlurmFile(Model):
    """A cluster file for ``--executor slurm``."""

    profiles: dict[ProfileName, SlurmAsks]
    folder: str = Field(
        default=".harness/slurm", description="For logs and results; on a file system that all nodes see."
    )
    attempts: int = Field(default=3, ge=1, description="How often a comparison is placed at most.")
    poll: float = Field(default=10.0, gt=0, description="Seconds between looks at the queue.")
    setup: list[str] = Field(default_factory=list, description="Lines of shell before Python starts.")
    cluster: Literal["slurm", "local", "debug"] = Field(
        default="slurm",
        description="local starts processes on this machine and debug none, to try a file without Slurm.",
    )


@dataclass
class Slurm(Executor):
    """A Slurm cluster, described by a cluster file."""

    settings: SlurmFile

    def carry_out(self, work: Work) -> Finished:
        """See `Executor.carry_out`."""
        submitit = imported("submitit", "slurm")
        waiting = placed.parcels(work)
        orders = self._orders(work, waiting)
        running: list[tuple[Any, placed.Parcel]] = []
        try:
            while waiting or running:
                if work.should_stop():
                    waiting = []
                for together in _arrays(waiting):
                    for parcel in together:
                        parcel.attempts += 1
                        for step in parcel.steps:
                            work.progress.start(step)
                    order = orders[together[0].first.comparison.profile]
                    executor = self._executor(submitit, together)
                    with executor.batch():
                        jobs = [executor.submit(placed.carry_out, order, parcel.groups) for parcel in together]
                    running += zip(jobs, together, strict=True)
                waiting = []
                finished = [pair for pair in running if pair[0].done()]
                running = [pair for pair in running if pair not in finished]
                for job, parcel in finished:
                    texts = self._fetch(submitit, job, parcel)
                    came = parcel.outcome("slurm", texts, self.settings.attempts)
                    if came is None:
                        waiting.append(parcel)
                    else:
                        yield from came
                if running and not finished:
                    time.sleep(self.settings.poll)
        finally:
            for job, _ in running:
                job.cancel(check=False)

    def _fetch(self, submitit: Any, job: Any, parcel: placed.Parcel) -> Sequence[Sequence[str]] | None:
        """What came of a parcel; None when it was lost, with why in the parcel."""
        try:
            texts: Sequence[Sequence[str]] = job.result()
            return texts
        except submitit.core.utils.FailedJobError as error:
            # What the job raised is the last line of the traceback that it left.
            parcel.lost.append(f"job {job.job_id}: {_last_line(error)}")
        except submitit.core.utils.UncompletedJobError as error:
            parcel.lost.append(f"job {job.job_id} ended without a result ({job.state}): {_last_line(error)}")
        return None

    def _executor(self, submitit: Any, together: Sequence[placed.Parcel]) -> Any:
        """A submitit executor with what the comparisons of an array ask for."""
        comparison = together[0].first.comparison
        asks = self.settings.profiles[comparison.profile]  # type: ignore[index]
        executor = submitit.AutoExecutor(folder=self._folder(), cluster=self.settings.cluster)
        minutes = asks.time or max(_minutes(parcel) for parcel in together)
        given: dict[str, Any] = {
            "name": "harness",
            "timeout_min": minutes,
            "cpus_per_task": asks.cpus or 1,
            "gpus_per_node": asks.gpus_on(profile.get(comparison.profile).device),
            "mem_gb": None if asks.memory_bytes is None else asks.memory_bytes / 2**30,
            "slurm_partition": asks.partition,
            "slurm_account": asks.account,
            "slurm_qos": asks.qos,
            "slurm_constraint": asks.constraint,
            "slurm_exclusive": True if asks.exclusive and not comparison.share else None,
            "slurm_array_parallelism": asks.at_once,
            "slurm_setup": self.settings.setup or None,
            "slurm_additional_parameters": asks.options or None,
        }
        executor.update_parameters(**{name: value for name, value in given.items() if value is not None})
        return executor

    def _folder(self) -> Path:
        folder = Path(self.settings.folder).expanduser().resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(f"the folder '{folder}' for Slurm cannot be made: {error.strerror}") from error
        return folder

    def _orders(self, work: Work, parcels: Sequence[placed.Parcel]) -> dict[str, placed.Order]:
        """An order for each profile. Raises `RequestError` for one that the cluster file does not have."""
        by_profile: dict[str, list[Any]] = {}
        for parcel in parcels:
            by_profile.setdefault(parcel.first.comparison.profile, []).extend(parcel.steps)
        for name in by_profile:
            if name not in self.settings.profiles:
                raise RequestError(
                    f"the cluster file says nothing of the profile '{name}'", hint="add it under 'profiles'"
                )
        variables = {name: os.environ[name] for name in ("HARNESS_ALLOW_GENERATED_CODE",) if name in os.environ}
        if (root := data.root()) is not None:
            variables[data.VARIABLE] = str(root.resolve())
        return {
            name: placed.Order(
                wanted=placed.representatives(steps),
                folders=tuple(str(folder.expanduser().resolve()) for folder in work.catalog.folders),
                builtin=work.catalog.builtin,
                entry_point_roots=work.catalog.entry_point_roots,
                home=str(work.catalog.home.resolve()),
                variables=variables,
                memory=self.settings.profiles[name].method_memory,  # type: ignore[index]
            )
            for name, steps in by_profile.items()
        }


def _arrays(parcels: Sequence[placed.Parcel]) -> Iterator[list[placed.Parcel]]:
    """Comparisons that ask for the same, in portions that fit an array."""
    alike: dict[tuple[str, bool], list[placed.Parcel]] = {}
    for parcel in parcels:
        comparison = parcel.first.comparison
        alike.setdefault((comparison.profile, comparison.share), []).append(parcel)
    for each in alike.values():
        for start in range(0, len(each), _ARRAY):
            yield each[start : start + _ARRAY]


def _minutes(parcel: placed.Parcel) -> int:
    """What the time limits of a comparison's methods add up to, with the start of a job."""
    seconds = sum(step.comparison.time_limit for step in parcel.steps)
    return _START_MINUTES + math.ceil(seconds / 60)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -=")]
    return (lines[-1] if lines else type(error).__name__)[:500]


def make(address: str | None, cluster: Path | None) -> Slurm:
    """See `harness.executors.make`."""
    imported("submitit", "slurm")
    if address is not None:
        raise RequestError(
            "the executor 'slurm' takes no --address", hint="it submits to the cluster of this machine"
        )
    if cluster is None:
        raise RequestError(
            "the executor 'slurm' needs a cluster file with its partitions",
            hint="--cluster FILE; see docs/clusters.md",
        )
    return Slurm(read(SlurmFile, cluster))
