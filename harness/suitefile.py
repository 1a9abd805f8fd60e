"""The schema of suites: what may stand in a suite file.

`harness.suite` expands what is read here into comparisons.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness import yamlfile
from harness.paper import ProfileName, Slug, Text

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80)]
Values = Annotated[list[Any], Field(min_length=1)]

_DEFAULT_PROFILES: list[ProfileName] = ["cpu"]
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _check_size(value: str | int) -> str | int:
    size_in_bytes(value)
    return value


def size_in_bytes(value: str | int) -> int:
    """ "512MB" or "4 GiB" in bytes. Raises `ValueError` for anything else."""
    if isinstance(value, int):
        size = value
    else:
        match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]+)\s*", value)
        if not match or match[2] not in _UNITS:
            raise ValueError(f"'{value:.40}' is not a size such as 512MB or 4GiB")
        size = int(float(match[1]) * _UNITS[match[2]])
    if not 0 < size < 1 << 63:
        raise ValueError(f"{size} bytes is not a size that memory can have")
    return size


Size = Annotated[str | int, AfterValidator(_check_size)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Model):
    """What one method may use in one comparison."""

    time: float | None = Field(default=None, gt=0, description="Seconds for everything (default 600).")
    memory: Size | None = Field(default=None, description="Host memory, e.g. 8GB (default the profile's).")


class Timing(_Model):
    """How latency is measured."""

    repeats: Literal["adaptive", "once"] | None = Field(default=None, description="Default: the task's.")
    budget: float | None = Field(default=None, gt=0, description="Seconds of repeated runs (default 2).")
    launches: int | None = Field(
        default=None, ge=1, description="Processes per method that the budget is spread over (default 3)."
    )
    precision: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Stop before the budget is used up once the 95 % intervals of all latencies and of their ratios to"
        " the first method's are no wider to either side, e.g. 0.02 (default: never).",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads, and processors, that a method may use (default: all there are).",
    )
    flush_cache: bool | None = Field(
        default=None, description="On a GPU, empty its L2 cache between runs (default false)."
    )
    share: bool | None = Field(
        default=None,
        description="Whether other comparisons that share may be measured on the same machine at the same time: for those"
        " of which only accuracy or other figures than times count (default false).",
    )
    min_samples: int | None = Field(default=None, ge=1, description="At least so many (default 5).")
    max_samples: int | None = Field(default=None, ge=1, description="At most so many (default 1000).")


class Gate(_Model):
    """How much worse a method may become before ``harness gate`` fails: relative figures, 0.05 for 5 %."""

    latency: float | None = Field(default=None, gt=0, lt=1, description="Default 0.025.")
    memory: float | None = Field(default=None, gt=0, lt=1, description="Peak memory (default 0.05).")
    accuracy: float | None = Field(
        default=None, gt=0, lt=1, description="Every metric that has a better direction (default 0.01)."
    )
    metrics: dict[str, float] = Field(default_factory=dict, description="By name, for single metrics.")
    time: float | None = Field(
        default=None, gt=0, description="Seconds of machine time per method (default 10)."
    )
    skip: bool | None = Field(default=None, description="Leave it out of the gate (default false).")

    def with_(self, other: Gate) -> Gate:
        """These settings with those that `other` has in their place."""
        changed = {k: v for k, v in other.model_dump(exclude_none=True).items() if k != "metrics"}
        return self.model_copy(update={**changed, "metrics": {**self.metrics, **other.metrics}})


class Contender(_Model):
    """A method in a comparison."""

    method: str
    label: Label | None = Field(default=None, description="Name in this suite (default the method's).")
    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(
        default_factory=dict, description="One contender per combination, all with the same label."
    )
    gate: Gate | None = Field(default=None, description="What differs from the comparison's gate.")


class Overrides(_Model):
    """What differs on a profile."""

    parameters: dict[str, Any] = Field(default_factory=dict, description="Added to the comparison's.")
    grid: dict[str, Values] | None = Field(default=None, description="Replaces single axes of the grid.")
    methods: list[str | Contender] | None = Field(default=None, description="Replaces the methods.")
    seeds: int | list[int] | None = None
    limits: Limits | None = None
    measure: Timing | None = None


class ComparisonSpec(_Model):
    """Methods that meet on a task."""

    task: str
    methods: list[str | Contender] = Field(min_length=1)
    paper: str | None = Field(default=None, description="The paper whose claims it serves.")
    about: Text | None = None
    tags: list[Slug] = Field(default_factory=list, description="smoke, full, headline, ...")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters of the task.")
    grid: dict[str, Values] = Field(
        default_factory=dict, description="Task parameters; one comparison per combination."
    )
    seeds: int | list[int] = Field(default=1, description="How many from 1000 upwards, or which.")
    limits: Limits = Field(default_factory=Limits)
    measure: Timing = Field(default_factory=Timing)
    gate: Gate = Field(default_factory=Gate, description="What differs from the suite's gate.")
    profiles: dict[ProfileName, Overrides] | list[ProfileName] = Field(
        default_factory=lambda: _DEFAULT_PROFILES, description="Where it runs, with what differs there."
    )

    def on_profile(self, profile: str) -> ComparisonSpec | None:
        """This comparison with the profile's overrides, or None when it does not run there."""
        if isinstance(self.profiles, list):
            return self if profile in self.profiles else None
        overrides = self.profiles.get(profile)  # type: ignore[call-overload]
        if overrides is None:
            return None
        changed: dict[str, Any] = {
            "parameters": {**self.parameters, **overrides.parameters},
            "grid": {
                **{k: v for k, v in self.grid.items() if k not in overrides.parameters},
                **(overrides.grid or {}),
            },
        }
        for name in ("methods", "seeds"):
            if getattr(overrides, name) is not None:
                changed[name] = getattr(overrides, name)
        for name in ("limits", "measure"):
            given = getattr(overrides, name)
            if given is not None:
                changed[name] = getattr(self, name).model_copy(update=given.model_dump(exclude_none=True))
        return self.model_copy(update=changed)


class Include(_Model):
    """Comparisons of other suites."""

    suites: list[str] = Field(default_factory=list, description="Names; empty for all beside this one.")
    tags: list[Slug] = Field(default_factory=list, description="Only those with one of these tags.")
    papers: list[str] = Field(default_factory=list, description="Only those of these papers.")


class Suite(_Model):
    """A suite file."""

    title: Text
    about: Text | None = None
    include: list[Include] = Field(default_factory=list)
    gate: Gate = Field(default_factory=Gate, description="Thresholds of harness gate for all comparisons.")
    comparisons: dict[Slug, ComparisonSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> Suite:
        if not self.include and not self.comparisons:
            raise ValueError("a suite has 'comparisons' or an 'include'")
        return self


def load(path: Path) -> tuple[Suite, yamlfile.Document]:
    """Read a suite file. Raises `RequestError` or `RequestErrors` with lines."""
    document = yamlfile.load(path)
    suite: Suite = yamlfile.validate(Suite, document)
    return suite, document
