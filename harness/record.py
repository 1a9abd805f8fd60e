"""Record: what was measured for one method in one comparison; the only thing that is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Status = Literal["ok", "failed", "timeout", "out-of-memory", "skipped"]
Seconds = Annotated[FiniteFloat, Field(ge=0)]

INSTRUMENT_METRICS: dict[str, tuple[str, str, str]] = {
    "latency": ("s", "lower", "Median wall-clock time of a run."),
    "cpu_time": ("s", "lower", "CPU time of a run, all threads."),
    "first_latency": ("s", "lower", "Wall-clock time of the first run after prepare."),
    "prepare_time": ("s", "lower", "Wall-clock time of prepare."),
    "peak_memory": ("B", "lower", "Peak resident memory above the level before prepare."),
    "run_memory": ("B", "lower", "Peak resident memory of the runs above the level before them."),
    "device_memory": ("B", "lower", "Peak allocated device memory above the level before prepare."),
    "throughput": ("1/s", "higher", "Amount of work per second."),
    "latency_p90": ("s", "lower", "The time that nine runs in ten stay under."),
    "latency_p99": ("s", "lower", "The time that 99 runs in a hundred stay under."),
}
"""Metrics of the instrument: unit, which way is better, meaning."""


class _Model(BaseModel):
    # A curve may diverge. JSON has no number for that, and null could not be read back.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Blocks(_Model):
    """Which samples were taken together, as equally long lists with an entry per block, in the order taken.

    Attributes:
        launch: the process, from 0.
        round: the round of that launch in which all methods took a turn, from 0.
        size: how many samples.
    """

    launch: list[int] = Field(default_factory=list)
    round: list[int] = Field(default_factory=list)
    size: list[int] = Field(default_factory=list)

    @model_validator(mode="after")
    def _as_long(self) -> Blocks:
        if not len(self.launch) == len(self.round) == len(self.size):
            raise ValueError("the lists of its blocks are not equally long")
        return self


class Latency(_Model):
    """Wall-clock times of the runs.

    Attributes:
        samples: seconds per run, in the order they were taken.
        first: seconds of the first run after prepare in the first process, which warms up.
        cpu: mean CPU seconds per run over all threads, or None where it was not read.
        clock: "host", "host-ready" or "cuda-events"; see `harness.measure.clock`.
        stopped: why sampling stopped: "once", "precision", "budget", "max-samples".
        runs_per_sample: consecutive runs that a sample is the mean of; above 1 for runs of microseconds.
        blocks: in which process and round the samples were taken; empty for a single run.
        preempted: how often the kernel gave the processor to others during the runs.
    """

    samples: list[Seconds] = Field(min_length=1)
    first: Seconds
    cpu: Seconds | None = None
    clock: str = "host"
    stopped: str = "once"
    runs_per_sample: int = Field(default=1, ge=1)
    blocks: Blocks = Field(default_factory=Blocks)
    preempted: int | None = None


class Launch(_Model):
    """One process of a method: first run and prepare in seconds, peaks in bytes as in `Memory`."""

    first: float
    prepare: float
    peak: int | None = None
    run: int | None = None
    device: int | None = None

    def as_memory(self, device_reserved: int | None) -> Memory:
        """The peaks alone."""
        return Memory(peak=self.peak, run=self.run, device=self.device, device_reserved=device_reserved)


class Memory(_Model):
    """Peaks in bytes above a level; None where not measured."""

    peak: int | None = None
    run: int | None = None
    device: int | None = None
    device_reserved: int | None = None


class SeriesRecord(_Model):
    """A curve: equally long x and y with labels."""

    x: list[float]
    y: list[float]
    x_label: str = "step"
    y_label: str = ""

    @model_validator(mode="after")
    def _as_long(self) -> SeriesRecord:
        if len(self.x) != len(self.y):
            raise ValueError(f"a series has {len(self.x)} x values but {len(self.y)} y values")
        return self


class Record(_Model):
    """One method in one comparison.

    Attributes:
        key: digest of everything that decides the measurement; the same measurement has the same key.
        suite, comparison: where it came from.
        paper: the paper whose claims it serves, if any.
        task, task_parameters, method, label, method_parameters, seed, profile: what was measured.
        source: digest of the method's and task's source and of what they import from the catalog's roots.
        emulated: whether the profile's hardware was emulated.
        status, reason: how it went, and why not, in one sentence.
        log: the last lines that the method printed, for a record that is not ok.
        latency, prepare_time, memory, amount, metrics, series: what was measured; prepare time, memory, metrics
            and series in the first process.
        launches: what was measured of each process.
        turns: the same text in all records whose methods took turns with each other; None for a single run.
        unstable: why the machine was too disturbed for times to decide anything; None when it was not.
        environment: where it ran: machine, versions, source, conditions (threads, processors, turns) and disturbances.
        started: UTC time, ISO 8601.
        duration: seconds from launch to end.
    """

    key: str
    suite: str
    comparison: str
    paper: str | None = None
    task: str
    task_parameters: dict[str, Any]
    method: str
    label: str
    method_parameters: dict[str, Any]
    seed: int
    profile: str
    source: str
    emulated: bool = False
    status: Status
    reason: str | None = None
    log: str | None = None
    latency: Latency | None = None
    prepare_time: float | None = None
    memory: Memory = Field(default_factory=Memory)
    amount: float | None = None
    amount_unit: str = ""
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    series: dict[str, SeriesRecord] = Field(default_factory=dict)
    launches: list[Launch] = Field(default_factory=list)
    turns: str | None = None
    unstable: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    duration: float | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the task and the method; the method's own win where both have one."""
        return {**self.task_parameters, **self.method_parameters}

    def instrument(self, name: str) -> float | None:
        """A metric of the instrument, or None where it was not measured. Latency is the median."""
        import statistics

        latency = self.latency
        match name:
            case "latency":
                return statistics.median(latency.samples) if latency else None
            case "latency_p90" | "latency_p99":
                return _percentile(latency, 0.9 if name == "latency_p90" else 0.99)
            case "cpu_time":
                return latency.cpu if latency else None
            case "first_latency":
                return latency.first if latency else None
            case "prepare_time":
                return self.prepare_time
            case "peak_memory":
                return self.memory.peak
            case "run_memory":
                return self.memory.run
            case "device_memory":
                return self.memory.device
            case "throughput":
                if latency is None or self.amount is None:
                    return None
                return self.amount / statistics.median(latency.samples)
        return None

    def value(self, name: str) -> float | None:
        """A metric by name, of the instrument or of the method and task; None where there is none."""
        return self.instrument(name) if name in INSTRUMENT_METRICS else self.metrics.get(name)


def _percentile(latency: Latency | None, share: float) -> float | None:
    """A percentile of the runs; None where there are too few runs to have one or samples that mix several."""
    if latency is None or latency.runs_per_sample > 1 or len(latency.samples) * (1 - share) < 1 - 1e-9:
        return None
    ordered = sorted(latency.samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def key_of(parts: Mapping[str, Any]) -> str:
    """A digest of plain data: 32 hexadecimal digits, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
