"""What a gate found: the one result that every form of its output is written from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.record import Latency

Change = Literal["regressed", "improved", "unchanged", "unstable", "new", "gone"]
CHANGES: tuple[Change, ...] = ("regressed", "improved", "unchanged", "unstable", "new", "gone")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Side(_Model):
    """One of the two revisions.

    Attributes:
        name: as the user gave it: a revision, "working tree", a folder, or a store.
        revision: the full commit; None outside git or for a store.
        clean: whether the tree was exactly that commit.
        time: when that commit was made, ISO 8601; None where it is not known.
        python: the interpreter.
        versions: of the packages that decide results.
    """

    name: str
    revision: str | None = None
    clean: bool | None = None
    time: str | None = None
    python: str = ""
    versions: dict[str, str] = Field(default_factory=dict)


class Finding(_Model):
    """One metric of one method in one comparison, base against head.

    Attributes:
        comparison, paper, task, task_parameters, method, label, method_parameters, seeds: what was measured.
        metric: "latency", "peak_memory", "run_memory", "device_memory", a metric of the task or method, or "status" where
            a side did not get through.
        unit, better: as the metric is declared; "" and "higher" for "status".
        base, head: the figures of both sides, in `unit`; None where there is none.
        ratio, low, high: head over base with its interval; None where base is 0 or a side has no figure.
        threshold: the relative change for the worse that counts.
        p_value: of the decision, corrected for the number of methods; None where none was needed.
        launches: processes of each side behind it.
        change: the verdict.
        reason: one sentence.
    """

    comparison: str
    paper: str | None = None
    task: str
    task_parameters: dict[str, Any] = Field(default_factory=dict)
    method: str
    label: str
    method_parameters: dict[str, Any] = Field(default_factory=dict)
    seeds: list[int] = Field(default_factory=list)
    metric: str
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "lower"
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    launches: int = 0
    change: Change
    reason: str

    @property
    def name(self) -> str:
        """``comparison[label, what varies]``: unique in a gate, and what other tools show."""
        parameters = {**self.task_parameters, **self.method_parameters}
        inner = ", ".join([self.label, *(f"{k}={v}" for k, v in parameters.items())])
        return f"{self.comparison}[{inner}]"


class Timed(_Model):
    """The latencies of one method on both sides, for tools that draw distributions.

    `name` is that of the method's findings.
    """

    name: str
    base: Latency | None = None
    head: Latency | None = None


class GateResult(_Model):
    """Everything a gate found.

    Attributes:
        suite, profile: what was gated, and where.
        base, head: the two sides.
        started: UTC, ISO 8601.
        seconds: how long it took.
        findings: in the order of the suite; of a method, latency first.
        timed: samples behind the latencies.
        machine: see `harness.environment.machine`.
        conditions: threads, processors, and whether the interpreters of both sides lay at the same addresses.
        disturbances: see `harness.measure.disturbance`.
        notes: what a reader should know, one sentence each.
    """

    suite: str
    profile: str
    base: Side
    head: Side
    started: str
    seconds: float
    findings: list[Finding]
    timed: list[Timed] = Field(default_factory=list)
    machine: dict[str, Any] = Field(default_factory=dict)
    conditions: dict[str, Any] = Field(default_factory=dict)
    disturbances: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def count(self, change: Change) -> int:
        """How many findings came out as `change`."""
        return sum(finding.change == change for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 when something regressed, else 0."""
        return 1 if self.count("regressed") else 0
