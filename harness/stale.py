"""Which stored records are stale: measured with source that has changed since.

The source of a record is that of its method and task and of all that they import from the catalog's roots. A stale record
still counts until it is measured again, and everything that rests on it says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.catalog import Catalog
from harness.current import identity
from harness.planning import Step
from harness.record import Record
from harness.store import Store
from harness.store.store import Measurement


@dataclass(frozen=True)
class Changed:
    """Of what is to be measured, how much was measured before, under other conditions.

    Attributes:
        source: with other source of the method or task, or of what they import.
        versions: with the same source and other versions of the software.
    """

    source: int = 0
    versions: int = 0

    def __str__(self) -> str:
        parts = []
        if self.source:
            parts.append(f"{self.source} stale: their source has changed since they were measured")
        if self.versions:
            parts.append(f"{self.versions} measured with other versions of the software")
        return "; ".join(parts)


def is_stale(catalog: Catalog, task: str, method: str, source: str) -> bool:
    """Whether `source` is not that of a task and method as they are now; one that is gone has changed, too."""
    return catalog.source_of(task, method) != source


def stale(catalog: Catalog, records: Iterable[Record]) -> list[Record]:
    """The stale ones among records. Skipped ones were not measured, with whatever source."""
    return [r for r in records if r.status != "skipped" and is_stale(catalog, r.task, r.method, r.source)]


def before(store: Store, steps: Sequence[Step]) -> dict[str, Literal["source", "versions"]]:
    """Those of `steps`, by their keys, that were measured before under other conditions, and which ones differed.

    Steps whose very records are stored are not among them, and neither are those that were only ever skipped.
    """
    found: dict[str, Literal["source", "versions"]] = {}
    wanted = [measurement(step) for step in steps]
    latest = store.latest(wanted)
    for step, what in zip(steps, wanted, strict=True):
        stored = latest.get(what.measured)
        if stored is not None and stored.status != "skipped" and stored.key != step.key:
            found[step.key] = "versions" if stored.source == step.source else "source"
    return found


def changed(store: Store, steps: Sequence[Step]) -> Changed:
    """How many of `steps`, which are not stored, were measured before with other source or versions."""
    return counted(before(store, steps))


def counted(found: Mapping[str, Literal["source", "versions"]]) -> Changed:
    """What `before` found, in numbers."""
    counts = Counter(found.values())
    return Changed(counts["source"], counts["versions"])


def measurement(step: Step) -> Measurement:
    """What a step measures, with the digest that `harness.store.tables.measured_of` gives of its record."""
    comparison, contestant = step.comparison, step.contestant
    what = identity(
        comparison.task, comparison.parameters, contestant.method, contestant.label, contestant.parameters,
        comparison.seed,
    )  # fmt: skip
    text = "\n".join((comparison.name, comparison.profile, what))
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Measurement(comparison.task, comparison.profile, comparison.name, digest)
