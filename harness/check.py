"""Checks papers and suites against each other before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from harness import expression, paper, parameters, suite, yamlfile
from harness.catalog import Catalog, Entry
from harness.errors import RequestError, RequestErrors, nearest
from harness.paper import Rule, Selection
from harness.record import INSTRUMENT_METRICS


@dataclass
class _Labels:
    """Which methods stand behind a label in the suites, per task; and the names of comparisons."""

    methods: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    comparisons: set[str] = field(default_factory=set)


def everything(catalog: Catalog, suites: Iterable[str] = ()) -> list[RequestError]:
    """All that is wrong with all papers and suites; empty when nothing is."""
    errors: list[RequestError] = []
    for name in dict.fromkeys([*catalog.suites, *suites]):
        errors += _collect(partial(_suite, catalog, name))
    errors += _collect(partial(_twice, catalog))
    errors += _collect(partial(_metric_names, catalog))
    errors += papers(catalog)
    return list({str(e): e for e in errors}.values())


def papers(catalog: Catalog, slugs: Iterable[str] = ()) -> list[RequestError]:
    """All that is wrong with papers; all of them when none is named."""
    labels = _labels(catalog)
    errors: list[RequestError] = []
    for slug in list(slugs) or catalog.papers:
        errors += _collect(partial(_paper, catalog, slug, labels))
    return errors


def _collect(work: Callable[[], Iterable[RequestError]]) -> list[RequestError]:
    try:
        return list(work())
    except RequestErrors as error:
        return list(error.errors)
    except RequestError as error:
        return [error]


def _suite(catalog: Catalog, name: str) -> Iterator[RequestError]:
    for _, key, spec, document in suite.specs(catalog, name):
        yield from _collect(partial(_spec, catalog, key, spec, document))


def _twice(catalog: Catalog) -> Iterator[RequestError]:
    """Names of comparisons that two suites use: claims and records refer to a comparison by its name."""
    seen: dict[str, yamlfile.Document] = {}
    for path in catalog.suites.values():
        found, document = suite.load(path)
        for name in found.comparisons:
            if name in seen:
                yield document.error(
                    f"{seen[name].path} has a comparison of this name too", ("comparisons", name)
                )
            seen.setdefault(name, document)


def _metric_names(catalog: Catalog) -> Iterator[RequestError]:
    """Metrics that a quantity could not name, because a function or a figure of the instrument has the name."""
    for entry in (*catalog.tasks.values(), *catalog.methods.values()):
        for metric in entry.metrics:
            if metric.name in (*expression.FUNCTIONS, *INSTRUMENT_METRICS) or not metric.name.isidentifier():
                yield RequestError(
                    f"the metric '{metric.name}' of '{entry.name}' cannot be named so in a claim",
                    file=entry.source.file,
                    line=entry.source.line,
                    hint="choose a Python identifier that is neither a function of quantities nor a figure"
                    " of the instrument",
                )


def _spec(
    catalog: Catalog, key: str, spec: suite.ComparisonSpec, document: yamlfile.Document
) -> list[RequestError]:
    suite.check(catalog, key, spec, document)
    return []


def _labels(catalog: Catalog) -> _Labels:
    labels = _Labels()
    for name in catalog.suites:
        try:
            found = list(suite.specs(catalog, name))
        except (RequestError, RequestErrors):
            continue  # `everything` reports it where it belongs, with the suite
        for _, key, spec, _ in found:
            labels.comparisons.add(key)
            contenders = list(spec.methods)
            if isinstance(spec.profiles, dict):
                for overrides in spec.profiles.values():
                    contenders += overrides.methods or []
            for item in contenders:
                contender = suite.Contender(method=item) if isinstance(item, str) else item
                label = contender.label or contender.method
                labels.methods.setdefault((spec.task, label), set()).add(contender.method)
    return labels


def _paper(catalog: Catalog, slug: str, labels: _Labels) -> Iterator[RequestError]:
    described, document = paper.load(catalog.paper(slug).file)
    for i, claim in enumerate(described.claims):
        at = ("claims", i)
        if claim.metric is not None and claim.metric not in _all_metrics(catalog):
            yield document.error(
                f"no task or method has the metric '{claim.metric}'",
                (*at, "metric"),
                nearest(claim.metric, _all_metrics(catalog)),
            )
        for kind, rule in claim.rules:
            yield from _rule(catalog, rule, document, (*at, kind), labels)


def _rule(
    catalog: Catalog,
    rule: Rule,
    document: yamlfile.Document,
    at: tuple[str | int, ...],
    labels: _Labels,
) -> Iterator[RequestError]:
    yield from _selection(catalog, rule.on, document, (*at, "on"), labels)
    for i, condition in enumerate(rule.all):
        here = (*at, "all", i)
        if condition.on is not None:
            yield from _selection(catalog, condition.on, document, (*here, "on"), labels)
        yield from _quantity(
            catalog, condition.quantity, rule.selection(condition), document, (*here, "quantity"), labels
        )
    for name, quantity in rule.controls.items():
        yield from _quantity(catalog, quantity, rule.on, document, (*at, "controls", name), labels)


def _selection(
    catalog: Catalog,
    selection: Selection,
    document: yamlfile.Document,
    at: tuple[str | int, ...],
    labels: _Labels,
) -> Iterator[RequestError]:
    try:
        task = catalog.task(selection.task)
    except RequestError as error:
        yield _at(document, error, (*at, "task"))
        return
    for name, value in selection.where.items():
        try:
            parameters.check(task, name, value)
        except RequestError as error:
            yield _at(document, error, (*at, "where", name))
    for name in selection.comparisons:
        if name not in labels.comparisons:
            yield document.error(
                f"no suite has a comparison '{name}'", (*at, "comparison"), nearest(name, labels.comparisons)
            )


def _quantity(
    catalog: Catalog,
    text: str,
    selection: Selection,
    document: yamlfile.Document,
    at: tuple[str | int, ...],
    labels: _Labels,
) -> Iterator[RequestError]:
    if selection.task not in catalog.tasks:
        return
    task = catalog.task(selection.task)

    def entries(label: str) -> list[Entry] | None:
        names = labels.methods.get((selection.task, label))
        if names is None:
            if label not in catalog.methods or selection.task not in catalog.method(label).attempts:
                return None
            names = {label}
        return [task, *(catalog.method(n) for n in sorted(names) if n in catalog.methods)]

    def metrics_of(label: str) -> dict[str, object] | None:
        found = entries(label)
        return None if found is None else {m.name: m for entry in found for m in entry.metrics}

    def parameters_of(label: str) -> set[str] | None:
        found = entries(label)
        return None if found is None else {name for entry in found for name in entry.fields}

    try:
        parsed = expression.parse(text)
        for reference in parsed.references:
            if entries(reference.label) is None:
                known = {label for task_name, label in labels.methods if task_name == selection.task}
                yield document.error(
                    f"no suite has a method or label '{reference.label}' on the task '{selection.task}'",
                    at,
                    nearest(reference.label, known),
                )
                return
        expression.check_names(parsed, metrics_of, parameters_of)
    except RequestError as error:
        yield _at(document, error, at)


def _at(document: yamlfile.Document, error: RequestError, at: tuple[str | int, ...]) -> RequestError:
    return error if error.file else document.error(error.what, at, error.hint)


def _all_metrics(catalog: Catalog) -> set[str]:
    entries: list[Entry] = [*catalog.tasks.values(), *catalog.methods.values()]
    return {m.name for entry in entries for m in entry.metrics} | set(INSTRUMENT_METRICS)
