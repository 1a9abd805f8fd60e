"""How a suite expands into comparisons; `harness.suitefile` has its schema.

A suite names contenders and tasks; grids over task parameters make several comparisons, grids over method
parameters make several contenders of one comparison.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import parameters, yamlfile
from harness.catalog import Catalog
from harness.errors import RequestError, RequestErrors, nearest
from harness.suitefile import ComparisonSpec, Contender, Gate, load, size_in_bytes

__all__ = [
    "Comparison", "ComparisonSpec", "Contender", "Contestant", "Gate", "check", "comparisons", "expand", "load",
    "size_in_bytes", "specs",
]  # fmt: skip

FIRST_SEED = 1000
MOST = 1_000_000
"""Method runs that one comparison of a suite may expand into; a grid with a few axes too many has no end."""
"""Verdicts use seeds from here upwards; smaller ones are left to trials."""


@dataclass(frozen=True)
class Contestant:
    """One method with all its parameters, in one comparison."""

    method: str
    label: str
    parameters: Mapping[str, Any]
    gate: Gate = field(default_factory=Gate)


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
    launches: int = 3
    precision: float | None = None
    threads: int | None = None
    flush_cache: bool = False
    share: bool = False
    amount_unit: str = ""


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
        yield path.stem, key, spec.model_copy(update={"gate": suite.gate.with_(spec.gate)}), document
    for i, include in enumerate(suite.include):
        if path in _inside:
            raise document.error("includes itself", ("include", i))
        others = include.suites or [n for n, p in catalog.suites.items() if p.resolve() != path]
        for other in others:
            if other not in catalog.suites and Path(other).name != other:
                raise document.error(f"'{other}' is not the name of a suite", ("include", i, "suites"))
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
                yield item[0], item[1], spec.model_copy(update={"gate": suite.gate.with_(spec.gate)}), item[3]


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
            there = spec.on_profile(profile)
            if there is not None and _size(there) > MOST:
                note(_too_many(there), "profiles", profile)
    elif _size(spec) > MOST:
        note(_too_many(spec))
    if errors:
        raise RequestErrors(errors)


def _size(spec: ComparisonSpec) -> int:
    """How many method runs a comparison of a suite expands into."""
    methods = sum(1 if isinstance(m, str) else _points(m.grid) for m in spec.methods)
    seeds = spec.seeds if isinstance(spec.seeds, int) else len(spec.seeds)
    return _points(spec.grid) * methods * seeds


def _points(grid: Mapping[str, Sequence[Any]]) -> int:
    return math.prod(len(values) for values in grid.values())


def _too_many(spec: ComparisonSpec) -> RequestError:
    return RequestError(f"expands into {_size(spec)} method runs; at most {MOST} are planned", hint="split it")


def comparisons(
    catalog: Catalog, suite: str, key: str, spec: ComparisonSpec, profile: str
) -> Iterator[Comparison]:
    """What a comparison of a suite, with the overrides of `profile` applied, expands into."""
    task = catalog.task(spec.task)
    contestants = tuple(_contestants(catalog, spec.methods, spec.gate))
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
                launches=spec.measure.launches or 3,
                precision=spec.measure.precision,
                threads=spec.measure.threads,
                flush_cache=bool(spec.measure.flush_cache),
                share=bool(spec.measure.share),
                amount_unit=task.amount_unit,
            )


def _contestants(catalog: Catalog, items: Sequence[str | Contender], gate: Gate) -> Iterator[Contestant]:
    for item in items:
        contender = Contender(method=item) if isinstance(item, str) else item
        entry = catalog.method(contender.method)
        for point in _product(contender.grid):
            given = parameters.complete(entry, {**contender.parameters, **point})
            own = gate.with_(contender.gate) if contender.gate else gate
            yield Contestant(contender.method, contender.label or contender.method, given, own)


def _product(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
