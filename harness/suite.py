"""The schema of suites, and how a suite expands into comparisons.

A suite names contenders and tasks; grids over task parameters make several comparisons, grids over method
parameters make several contenders of one comparison.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness import parameters, yamlfile
from harness.catalog import Catalog
from harness.errors import RequestError, RequestErrors, nearest
from harness.paper import ProfileName, Slug, Text

FIRST_SEED = 1000
"""Verdicts use seeds from here upwards; smaller ones are left to trials."""

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
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", value)
    if not match or match[2] not in _UNITS:
        raise ValueError(f"'{value}' is not a size such as 512MB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2]])


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
    min_samples: int | None = Field(default=None, ge=1, description="At least so many (default 5).")
    max_samples: int | None = Field(default=None, ge=1, description="At most so many (default 1000).")


class Contender(_Model):
    """A method in a comparison."""

    method: str
    label: Label | None = Field(default=None, description="Name in this suite (default the method's).")
    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(
        default_factory=dict, description="One contender per combination, all with the same label."
    )


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
    comparisons: dict[Slug, ComparisonSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> Suite:
        if not self.include and not self.comparisons:
            raise ValueError("a suite has 'comparisons' or an 'include'")
        return self


@dataclass(frozen=True)
class Contestant:
    """One method with all its parameters, in one comparison."""

    method: str
    label: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Methods that are measured together on one task instance. The unit that is placed and resumed."""

    suite: str
    name: str
    paper: str | None
    tags: tuple[str, ...]
    task: str
    parameters: Mapping[str, Any]
    seed: int
    profile: str
    contestants: tuple[Contestant, ...]
    time_limit: float
    memory_limit: int | None
    repeats: Literal["adaptive", "once"]
    budget: float
    min_samples: int
    max_samples: int
    amount_unit: str = ""


def load(path: Path) -> tuple[Suite, yamlfile.Document]:
    """Read a suite file. Raises `RequestError` or `RequestErrors` with lines."""
    document = yamlfile.load(path)
    suite: Suite = yamlfile.validate(Suite, document)
    return suite, document


def expand(
    catalog: Catalog,
    names: Sequence[str],
    profile: str,
    *,
    papers: Sequence[str] = (),
    tags: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[Comparison]:
    """The comparisons of suites on a profile, in the order of the files, without duplicates.

    Args:
        catalog: where tasks and methods are looked up.
        names: suites, by name or path.
        profile: name of the profile.
        papers: only comparisons of these papers; empty for all.
        tags: only comparisons with one of these tags; empty for all.
        only: only comparisons of these names; empty for all.

    Raises:
        RequestErrors: everything that is wrong with the suites, with file and line.
    """
    for slug in papers:
        catalog.paper(slug)
    found: dict[tuple[Any, ...], Comparison] = {}
    errors: list[RequestError] = []
    there_are: set[str] = set()
    for name in names:
        for source, key, spec, document in specs(catalog, name):
            there_are.add(key)
            if only and key not in only:
                continue
            if papers and spec.paper not in papers:
                continue
            if tags and not set(tags) & set(spec.tags):
                continue
            try:
                check(catalog, key, spec, document)
            except RequestErrors as error:
                errors += [e for e in error.errors if str(e) not in {str(x) for x in errors}]
                continue
            there = spec.on_profile(profile)
            if there is None:
                continue
            for comparison in comparisons(catalog, source, key, there, profile):
                identity = (comparison.name, comparison.seed, repr(sorted(comparison.parameters.items())))
                found.setdefault(identity, comparison)
    for name in only:
        if name not in there_are:
            errors.append(RequestError(f"the suite has no comparison '{name}'", hint=nearest(name, there_are)))
    if errors:
        raise RequestErrors(errors)
    return list(found.values())


def specs(
    catalog: Catalog, name: str, _inside: tuple[Path, ...] = ()
) -> Iterator[tuple[str, str, ComparisonSpec, yamlfile.Document]]:
    """The comparisons of a suite and of what it includes: (suite, comparison, its text, its file)."""
    path = catalog.suite(name).resolve()
    suite, document = load(path)
    for key, spec in suite.comparisons.items():
        yield path.stem, key, spec, document
    for i, include in enumerate(suite.include):
        if path in _inside:
            raise document.error("includes itself", ("include", i))
        others = include.suites or [n for n, p in catalog.suites.items() if p.resolve() != path]
        for other in others:
            if not include.suites and load(catalog.suite(other))[0].include:
                continue  # a suite that only gathers others would bring everything twice
            try:
                inner = list(specs(catalog, other, (*_inside, path)))
            except RequestError as error:
                if error.file is not None:
                    raise
                raise document.error(error.what, ("include", i, "suites"), error.hint) from error
            for item in inner:
                spec = item[2]
                if include.tags and not set(include.tags) & set(spec.tags):
                    continue
                if include.papers and spec.paper not in include.papers:
                    continue
                yield item


def check(catalog: Catalog, key: str, spec: ComparisonSpec, document: yamlfile.Document) -> None:
    """Check a comparison against the catalog, on every profile it runs on.

    Raises:
        RequestErrors: unknown names, wrong parameters, methods that do not attempt the task.
    """
    base: tuple[str | int, ...] = ("comparisons", key)
    errors: list[RequestError] = []

    def note(error: RequestError, *at: str | int) -> None:
        # An error that already names a file is about that file, e.g. a task's source, not about the suite.
        at_fault = error if error.file else document.error(error.what, (*base, *at), error.hint)
        errors.append(at_fault)

    if spec.paper is not None:
        try:
            catalog.paper(spec.paper)
        except RequestError as error:
            note(error, "paper")
    try:
        task = catalog.task(spec.task)
    except RequestError as error:
        note(error, "task")
        raise RequestErrors(errors) from error

    def check_values(entry: Any, given: Mapping[str, Any], *at: str | int) -> None:
        for name, value in given.items():
            try:
                parameters.check(entry, name, value)
            except RequestError as error:
                note(error, *at, name)

    def check_grid(entry: Any, grid: Mapping[str, Sequence[Any]], *at: str | int) -> None:
        for name, values in grid.items():
            for i, value in enumerate(values):
                try:
                    parameters.check(entry, name, value)
                except RequestError as error:
                    note(error, *at, name, *([i] if name in entry.fields else []))
                    if name not in entry.fields:
                        break

    def check_methods(contenders: Sequence[str | Contender], *at: str | int) -> None:
        for i, item in enumerate(contenders):
            contender = Contender(method=item) if isinstance(item, str) else item
            here = (*at, i) if isinstance(item, str) else (*at, i, "method")
            try:
                entry = catalog.method(contender.method)
            except RequestError as error:
                note(error, *here)
                continue
            if spec.task not in entry.attempts:
                note(
                    RequestError(
                        f"the method '{entry.name}' does not attempt the task '{spec.task}'",
                        hint=f"it attempts {', '.join(entry.attempts)}",
                    ),
                    *here,
                )
            check_values(entry, contender.parameters, *at, i, "parameters")
            check_grid(entry, contender.grid, *at, i, "grid")

    check_values(task, spec.parameters, "parameters")
    check_grid(task, spec.grid, "grid")
    check_methods(spec.methods, "methods")
    if isinstance(spec.profiles, dict):
        for profile, overrides in spec.profiles.items():
            check_values(task, overrides.parameters, "profiles", profile, "parameters")
            check_grid(task, overrides.grid or {}, "profiles", profile, "grid")
            check_methods(overrides.methods or [], "profiles", profile, "methods")
    if errors:
        raise RequestErrors(errors)


def comparisons(
    catalog: Catalog, suite: str, key: str, spec: ComparisonSpec, profile: str
) -> Iterator[Comparison]:
    """What a comparison of a suite, with the overrides of `profile` applied, expands into."""
    task = catalog.task(spec.task)
    contestants = tuple(_contestants(catalog, spec.methods))
    seeds = range(FIRST_SEED, FIRST_SEED + spec.seeds) if isinstance(spec.seeds, int) else spec.seeds
    repeats = spec.measure.repeats or task.repeats
    for point in _product(spec.grid):
        for seed in seeds:
            yield Comparison(
                suite=suite,
                name=key,
                paper=spec.paper,
                tags=tuple(spec.tags),
                task=spec.task,
                parameters=parameters.complete(task, {**spec.parameters, **point}),
                seed=seed,
                profile=profile,
                contestants=contestants,
                time_limit=spec.limits.time or 600.0,
                memory_limit=None if spec.limits.memory is None else size_in_bytes(spec.limits.memory),
                repeats="once" if repeats == "once" else "adaptive",
                budget=spec.measure.budget or 2.0,
                min_samples=spec.measure.min_samples or 5,
                max_samples=spec.measure.max_samples or 1000,
                amount_unit=task.amount_unit,
            )


def _contestants(catalog: Catalog, items: Sequence[str | Contender]) -> Iterator[Contestant]:
    for item in items:
        contender = Contender(method=item) if isinstance(item, str) else item
        entry = catalog.method(contender.method)
        for point in _product(contender.grid):
            given = parameters.complete(entry, {**contender.parameters, **point})
            yield Contestant(contender.method, contender.label or contender.method, given)


def _product(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
