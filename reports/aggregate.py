"""A paper's records as its section of the page needs them: cells, growth and curves.

A cell is one method at one setting in one comparison, with the values of all its seeds side by side. Everything that
the page draws of a paper, it draws from these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from harness.catalog import Catalog
from harness.record import Record
from harness.verdict import Names
from reports.collect import PaperPart
from reports.curves import curves
from reports.growth import growth
from reports.numbers import short, shorts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Which quantiles of the latency samples the page draws."""

Place = tuple[int, int, int]
"""Where a record is in the data of its paper: comparison, cell, position among the seeds."""


def aggregate(catalog: Catalog, part: PaperPart) -> tuple[list[dict[str, Any]], dict[str, Place]]:
    """The comparisons of a paper as plain data, and where each record is in them, by key."""
    grouped: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in part.records:
        grouped[(record.comparison, record.profile)].append(record)
    place_of_label = {label: i for i, label in enumerate(part.labels)}
    found: list[dict[str, Any]] = []
    places: dict[str, Place] = {}
    for (name, profile), records in sorted(grouped.items()):
        described, cells = _comparison(catalog, name, profile, records, place_of_label)
        for i, cell in enumerate(cells):
            for j, record in enumerate(cell):
                places[record.key] = (len(found), i, j)
        found.append(described)
    return found, places


def _comparison(
    catalog: Catalog, name: str, profile: str, records: Sequence[Record], labels: dict[str, int]
) -> tuple[dict[str, Any], list[list[Record]]]:
    varied, fixed = _varied([r.task_parameters for r in records])
    settings: dict[str, dict[str, Any]] = {}
    by_cell: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    setting_of: dict[int, str] = {}
    for given in _unique(r.task_parameters for r in records):
        setting = {n: given.get(n) for n in varied}
        setting_of[id(given)] = repr(setting)
        settings.setdefault(repr(setting), setting)
    text_of = {id(given): repr(given) for given in _unique(r.method_parameters for r in records)}
    for record in records:
        where = setting_of[id(record.task_parameters)]
        by_cell[(record.label, where, text_of[id(record.method_parameters)])].append(record)
    order = sorted(settings, key=lambda k: tuple(_sortable(v) for v in settings[k].values()))
    variants = Variants(records)
    cells: list[list[Record]] = []
    shown: list[dict[str, Any]] = []
    at = {setting: i for i, setting in enumerate(order)}
    for (label, where, _), members in sorted(by_cell.items(), key=lambda kv: (at[kv[0][1]], kv[0])):
        members.sort(key=lambda r: r.seed)
        cells.append(members)
        shown.append({"m": labels[label], "s": at[where], "v": variants(members[0]), **_cell(members)})
    task = records[0].task
    names = Names(catalog, task, {r.method for r in records})
    described = {
        "name": name,
        "profile": profile,
        "emulated": any(r.emulated for r in records),
        "task": task,
        "suites": sorted({r.suite for r in records}),
        "settings": [settings[k] for k in order],
        "fixed": fixed,
        "amount": next((r.amount_unit for r in records if r.amount_unit), ""),
        "metrics": _metrics(names, records),
        "cells": shown,
        "growth": growth([settings[k] for k in order], shown),
        "series": curves(cells, shown),
    }
    return described, cells


def _cell(records: Sequence[Record]) -> dict[str, Any]:
    """The values of one cell, aligned with its seeds; what no seed has is left out."""
    import numpy as np

    found: dict[str, Any] = {
        "seeds": [r.seed for r in records],
        "keys": [r.key[:12] for r in records],
        "took": shorts(r.duration for r in records),
    }
    if any(r.method != r.label for r in records):
        found["method"] = records[0].method
    if any(r.status != "ok" for r in records):
        found["status"] = [r.status for r in records]
        found["reason"] = [r.reason or "" for r in records]
    columns = {
        "latency": "latency", "first": "first_latency", "prepare": "prepare_time", "peak": "peak_memory",
        "run": "run_memory", "device": "device_memory",
    }  # fmt: skip
    for column, metric in columns.items():
        values = [r.instrument(metric) if r.status == "ok" else None for r in records]
        if values.count(None) < len(values):
            found[column] = shorts(values)
    samples = [r.latency.samples for r in records if r.status == "ok" and r.latency and r.latency.samples]
    if samples:
        pooled = np.sort(np.concatenate(samples))
        places = [q * (pooled.size - 1) for q in QUANTILES]
        found["q"] = shorts(np.interp(places, np.arange(pooled.size), pooled).tolist())
        found["runs"] = int(pooled.size)
        launches = sum(len(r.launches) for r in records)
        if launches:
            found["launches"] = launches
    metrics = sorted({n for r in records for n in r.metrics})
    if metrics:
        found["metrics"] = {n: shorts(r.metrics.get(n) for r in records) for n in metrics}
    unstable = {i: r.unstable for i, r in enumerate(records) if r.unstable}
    if unstable:
        found["unstable"] = unstable
    return found


def _metrics(names: Names, records: Sequence[Record]) -> list[dict[str, Any]]:
    """What the catalog declares of the metrics that the records have, the task's own first."""
    there = {n: None for r in records for n in r.metrics}
    known = names.task in names.catalog.tasks  # a store may hold what the catalog no longer has
    declared = [m.name for m in names.catalog.tasks[names.task].metrics] if known else []
    first = [n for n in declared if n in there]
    found = []
    for name in [*first, *sorted(set(there) - set(first))]:
        metric = names.metric(name) if known else None
        found.append(
            {
                "name": name,
                "unit": metric.unit if metric else "",
                "better": metric.better if metric else "neither",
                "doc": metric.doc if metric else "",
            }
        )
    return found


def _varied(parameters: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Names of the parameters that take several values, and the others with their value."""
    seen: dict[str, dict[str, Any]] = {}
    for each in _unique(parameters):
        for name, value in each.items():
            seen.setdefault(name, {})[repr(value)] = value
    varied = [n for n, values in seen.items() if len(values) > 1]
    return varied, {n: next(iter(v.values())) for n, v in seen.items() if len(v) == 1}


def _unique(parameters: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each dictionary once, in the order they appear: many records hold the same one."""
    return list({id(each): each for each in parameters}.values())


class Variants:
    """Tells the settings of one label apart: the method's parameters that vary within it, as text."""

    def __init__(self, records: Sequence[Record]) -> None:
        by_label: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in records:
            by_label[record.label].append(record.method_parameters)
        self._names = {label: _varied(given)[0] for label, given in by_label.items()}

    def __call__(self, record: Record) -> str:
        given = record.method_parameters
        return ", ".join(f"{n}={plain(given.get(n))}" for n in self._names[record.label])


def plain(value: Any) -> str:
    """A parameter's value for people."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(plain(v) for v in value)
    return str(value)


def _sortable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


__all__ = ["QUANTILES", "Place", "aggregate", "plain", "short"]
