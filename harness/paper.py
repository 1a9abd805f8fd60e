"""Paper and Claim: the schema of ``paper.yaml``.

A claim is one checkable statement of a paper with two rules that are fixed before anything is measured: what
*reproduces* it in its own setting, and what is *consistent* with it in a scaled one. Rules are conditions on
quantities (`harness.expression`), decided in `harness.verdict`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from harness import yamlfile
from harness.errors import RequestError

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Pair = Annotated[tuple[float, float], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Scalar = bool | int | float | str | None
ProfileName = Literal["cpu", "edge-gpu", "datacenter-gpu"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Selection(_Model):
    """Which records a quantity is computed from."""

    task: str = Field(description="Name of the task.")
    where: dict[str, Scalar | list[Any]] = Field(
        default_factory=dict, description="Values of task parameters that the records must have."
    )
    comparison: str | list[str] | None = Field(
        default=None, description="Only records of these comparisons of a suite."
    )

    @property
    def comparisons(self) -> tuple[str, ...]:
        """Names of the comparisons that count; empty for all."""
        if self.comparison is None:
            return ()
        return (self.comparison,) if isinstance(self.comparison, str) else tuple(self.comparison)


class Contradicted(_Model):
    """Where a quantity's interval must lie to contradict a condition. Exactly one kind of bound."""

    below: float | None = None
    above: float | None = None
    outside: Pair | None = Field(default=None, description="[low, high]")

    @model_validator(mode="after")
    def _one_kind(self) -> Contradicted:
        if self.below is None and self.above is None and self.outside is None:
            raise ValueError("needs 'below', 'above' or 'outside: [low, high]'")
        if self.outside is not None and (self.below is not None or self.above is not None):
            raise ValueError("'outside' stands alone")
        return self

    @property
    def interval(self) -> tuple[float, float]:
        """The quantity contradicts when its interval lies wholly outside this one."""
        if self.outside is not None:
            return self.outside
        low = float("-inf") if self.below is None else self.below
        return low, float("inf") if self.above is None else self.above


class Condition(_Model):
    """A quantity and the bounds that its interval must lie in."""

    quantity: Text = Field(description='Expression over records, e.g. latency("a") / latency("b").')
    on: Selection | None = Field(default=None, description="Records, where they differ from the rule's.")
    at_least: float | None = None
    at_most: float | None = None
    between: Pair | None = Field(default=None, description="[low, high]")
    equals: float | None = None
    tolerance: float | None = Field(default=None, ge=0, description="Absolute, with 'equals'.")
    relative_tolerance: float | None = Field(default=None, ge=0, description="Relative, with 'equals'.")
    contradicted: Contradicted | None = Field(
        default=None, description="Default: the interval lies wholly outside the bounds."
    )
    unit: str | None = Field(default=None, description="Unit of the quantity, for reports.")

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        given = [n for n in ("at_least", "at_most", "between", "equals") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "a condition has exactly one of at_least, at_most, between, equals;"
                f" this one has {', '.join(given) or 'none'}"
            )
        tolerances = [n for n in ("tolerance", "relative_tolerance") if getattr(self, n) is not None]
        if self.equals is None and tolerances:
            raise ValueError(f"'{tolerances[0]}' goes with 'equals'")
        if self.equals is not None and len(tolerances) != 1:
            raise ValueError("'equals' needs one of 'tolerance' and 'relative_tolerance'")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("'between' is [low, high]; its low is above its high")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Where the interval must lie for the condition to hold."""
        infinity = float("inf")
        if self.between is not None:
            return self.between
        if self.equals is not None:
            slack = (
                self.tolerance
                if self.tolerance is not None
                else (self.relative_tolerance or 0) * abs(self.equals)
            )
            return self.equals - slack, self.equals + slack
        if self.at_least is not None:
            return self.at_least, infinity
        return -infinity, self.at_most if self.at_most is not None else infinity

    def describe(self) -> str:
        """The bounds in words."""
        if self.between is not None:
            return f"in [{self.between[0]:g}, {self.between[1]:g}]"
        if self.equals is not None:
            if self.tolerance is not None:
                return f"{self.equals:g} ± {self.tolerance:g}"
            return f"{self.equals:g} ± {self.relative_tolerance:.3g} relative"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


class Rule(_Model):
    """Conditions that decide a claim on some records."""

    on: Selection
    profiles: list[ProfileName] = Field(
        default=["cpu", "edge-gpu", "datacenter-gpu"],
        min_length=1,
        description="Profiles on which the rule may be decided.",
    )
    all: list[Condition] = Field(
        min_length=1, description="All must hold. The first one's quantity is shown beside the claimed figure."
    )
    contradicted_if: Literal["any", "all"] = Field(
        default="any", description="How many contradicted conditions contradict the claim."
    )
    controls: dict[str, Text] = Field(
        default_factory=dict, description="Quantities that are reported beside the verdict and decide nothing."
    )

    def selection(self, condition: Condition) -> Selection:
        """The records of a condition."""
        return condition.on or self.on


class Claimed(_Model):
    """The paper's figure."""

    text: Text = Field(description="The figure as a reader of the paper would say it.")
    value: float | None = Field(default=None, description="As a number, where it is one.")
    low: float | None = Field(default=None, description="Lower end, where the paper gives a range.")
    high: float | None = Field(default=None, description="Upper end, where the paper gives a range.")
    unit: str = Field(default="", description="Unit of the number.")


class Compared(_Model):
    """Who is compared with whom."""

    method: str | list[str]
    baseline: str | list[str] | None = None


class Setting(_Model):
    """The setting that the paper made the claim in."""

    text: Text = Field(description="Data, model and hardware, in words.")
    data: str | None = None
    model: str | None = None
    hardware: str | None = None
    profile: ProfileName | None = None


class Claim(_Model):
    """One checkable statement of a paper."""

    id: Slug
    kind: Literal["value", "ratio", "bound", "parity", "ordering", "scaling"]
    statement: Text = Field(description="What the paper claims, in our own words.")
    source: Text = Field(description="Where it says so: abstract, table n, README.")
    claimed: Claimed
    compared: Compared | None = None
    metric: str | None = Field(default=None, description="The metric that the claim is about.")
    setting: Setting
    reproduced: Rule | None = Field(default=None, description="The rule in the paper's own setting.")
    consistent: Rule | None = Field(default=None, description="The rule in a scaled setting.")
    not_measurable: Text | None = Field(
        default=None, description="Why the claim has no rule: what it would take to check it."
    )
    note: Text | None = None

    @model_validator(mode="after")
    def _rule_or_reason(self) -> Claim:
        ruled = self.reproduced is not None or self.consistent is not None
        if ruled == (self.not_measurable is not None):
            raise ValueError("a claim has rules ('reproduced', 'consistent') or else 'not_measurable'")
        return self

    @property
    def rules(self) -> list[tuple[Literal["reproduced", "consistent"], Rule]]:
        """The claim's rules, the paper's own setting first."""
        found: list[tuple[Literal["reproduced", "consistent"], Rule]] = []
        if self.reproduced is not None:
            found.append(("reproduced", self.reproduced))
        if self.consistent is not None:
            found.append(("consistent", self.consistent))
        return found


class Paper(_Model):
    """A publication and what it claims."""

    title: Text
    authors: list[str] = Field(default_factory=list)
    year: int = Field(ge=1900, le=2100)
    venue: Text | None = None
    arxiv: str | None = None
    doi: str | None = None
    url: str | None = None
    code: str | None = Field(default=None, description="The authors' code.")
    summary: Text
    notes: list[Text] = Field(
        default_factory=list, description="What a reader should know: ambiguities, choices, corrections."
    )
    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Paper:
        seen: set[str] = set()
        for claim in self.claims:
            if claim.id in seen:
                raise ValueError(f"the claim '{claim.id}' stands twice")
            seen.add(claim.id)
        return self


def load(path: Path) -> tuple[Paper, yamlfile.Document]:
    """Read a ``paper.yaml``.

    Raises:
        RequestError, RequestErrors: it is not well-formed; every error has a line.
    """
    try:
        status = path.stat()
    except OSError:
        return _load(path, 0, 0)  # whose error says what is wrong
    return _load(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _load(path: Path, changed: int, size: int) -> tuple[Paper, yamlfile.Document]:
    """The file as it is since it was last changed: a report asks for each paper several times."""
    document = yamlfile.load(path)
    paper: Paper = yamlfile.validate(Paper, document)
    return paper, document


__all__ = ["Claim", "Condition", "Paper", "RequestError", "Rule", "Selection", "load"]
