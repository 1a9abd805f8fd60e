"""Which stored records still count: the newest of each measurement, as far as the suites still ask for it.

A store outlives the suites that filled it. When a comparison of a suite is changed (another length, a label gone), what
was measured under its earlier form stays in the store but no longer counts. Records of comparisons that no suite
of the catalog has, such as a file named on the command line, always count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness import suite
from harness.catalog import Catalog
from harness.record import Record


class Current(list[Record]):
    """Records that count according to a catalog, which need not be found out again."""

    def __init__(self, catalog: Catalog, records: Iterable[Record]) -> None:
        super().__init__(records)
        self.catalog = catalog


_as_text = json.JSONEncoder(sort_keys=True).encode


def current(catalog: Catalog, records: Iterable[Record]) -> list[Record]:
    """The records that count, in the order of `newest`."""
    if isinstance(records, Current) and records.catalog is catalog:
        return records
    found = newest(records)
    asked: dict[tuple[str, str], set[str]] = {}
    for place in {r.profile for r in found}:
        names = {r.comparison for r in found if r.profile == place}
        for name, identities in _asked(catalog, place, names).items():
            asked[(name, place)] = identities
    return Current(
        catalog,
        (
            r
            for r in found
            if (r.comparison, r.profile) not in asked or identity_of(r) in asked[(r.comparison, r.profile)]
        ),
    )


def newest(records: Iterable[Record]) -> list[Record]:
    """The latest record of each measurement, whatever the version of its source; a skip replaces nothing."""
    found: dict[tuple[str, str, str], Record] = {}
    texts = _Texts()
    for record in records:
        measured = (record.comparison, record.profile, identity_of(record, texts))
        other = found.get(measured)
        if other is None or _rank(record) >= _rank(other):
            found[measured] = record
    return list(found.values())


def _rank(record: Record) -> tuple[bool, str]:
    return record.status != "skipped", record.started


def _asked(catalog: Catalog, profile: str, names: set[str]) -> dict[str, set[str]]:
    """What those of the comparisons `names` that are in the catalog's suites measure on a profile."""
    found: dict[str, set[str]] = {}
    for path in catalog.suites.values():
        described, _ = suite.load(path)
        for name, spec in described.comparisons.items():
            if name not in names:
                continue
            there = spec.on_profile(profile)
            if there is None or there.task not in catalog.tasks:
                continue
            found[name] = {
                identity(
                    c.task, c.parameters, contestant.method, contestant.label, contestant.parameters, c.seed
                )
                for c in suite.comparisons(catalog, path.stem, name, there, profile)
                for contestant in c.contestants
            }
    return found


class _Texts:
    """Parameters as text, once for each dictionary: the records of a report share theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Mapping[str, Any], str]] = {}

    def __call__(self, parameters: Mapping[str, Any]) -> str:
        known = self._known.get(id(parameters))
        if known is None:
            # With the dictionary itself, so that no later one can have its id.
            known = self._known[id(parameters)] = (parameters, _text(parameters))
        return known[1]


def _text(parameters: Mapping[str, Any]) -> str:
    return _as_text(dict(parameters))


def identity_of(record: Record, text: Callable[[Mapping[str, Any]], str] = _text) -> str:
    """What a record measured: the same for two records of the same measurement in any comparison."""
    return identity(
        record.task,
        record.task_parameters,
        record.method,
        record.label,
        record.method_parameters,
        record.seed,
        text,
    )


def identity(
    task: str,
    task_parameters: Mapping[str, Any],
    method: str,
    label: str,
    method_parameters: Mapping[str, Any],
    seed: int,
    text: Callable[[Mapping[str, Any]], str] = _text,
) -> str:
    """What decides whether two measurements are of the same. `text` writes parameters, in any order, as text."""
    # No name and no JSON has a line end in it.
    return "\n".join((task, text(task_parameters), method, label, text(method_parameters), str(seed)))
