"""Gathers what a report shows: papers, verdicts and records of one store."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.catalog import Catalog
from harness.current import current
from harness.paper import Claim, Paper, load
from harness.record import Record
from harness.store import Store
from harness.verdict import OUTCOMES, Verdict, decide


@dataclass(frozen=True)
class Row:
    """A claim with its verdict on one profile."""

    claim: Claim
    verdict: Verdict

    @property
    def ratio(self) -> tuple[float, float | None, float | None] | None:
        """Measured over claimed with its 95 % interval; None where there is no common ratio to draw.

        There is none when the paper gives no number, when the rule looks at another quantity than the paper's
        figure (their units differ), or when the two have different signs.
        """
        claimed, figure = self.claim.claimed.value, self.verdict.figure
        if not claimed or figure is None or claimed * figure.value <= 0:
            return None
        if figure.unit != self.claim.claimed.unit:
            return None
        if figure.low is None or figure.high is None:
            return figure.value / claimed, None, None
        low, high = sorted((figure.low / claimed, figure.high / claimed))
        return figure.value / claimed, low, high


@dataclass(frozen=True)
class PaperPart:
    """A paper's share of a report."""

    slug: str
    family: str
    paper: Paper
    rows: list[Row]
    records: list[Record]

    def counts(self) -> Counter[str]:
        """Verdicts by outcome."""
        return Counter(row.verdict.outcome for row in self.rows)

    @property
    def labels(self) -> list[str]:
        """Labels of all methods, sorted: a method's place here decides its colour in every figure of the paper."""
        return sorted({r.label for r in self.records})


@dataclass(frozen=True)
class Content:
    """Everything that a report shows."""

    parts: list[PaperPart]
    profiles: list[str]
    machines: list[dict[str, Any]]
    versions: dict[str, str]
    sources: list[dict[str, Any]]
    skipped: list[tuple[str, int]]
    failed: list[Record]
    seconds: float
    first: str
    last: str

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts, in the order of the page."""
        return [row.verdict for part in self.parts for row in part.rows]

    @property
    def records(self) -> Iterator[Record]:
        """All records that count, in the order of the page."""
        return (record for part in self.parts for record in part.records)

    def scoreboard(self) -> list[dict[str, Any]]:
        """Counts of outcomes per paper, and in total last."""
        rows = [
            {"paper": part.slug, "family": part.family, **{o: part.counts()[o] for o in OUTCOMES}}
            for part in self.parts
        ]
        total: Counter[str] = sum((part.counts() for part in self.parts), Counter())
        return [*rows, {"paper": "all", "family": "", **{o: total[o] for o in OUTCOMES}}]

    def families(self) -> dict[str, dict[str, Counter[str]]]:
        """Counts of outcomes by profile and family, in the order of the page."""
        found: dict[str, dict[str, Counter[str]]] = {profile: {} for profile in self.profiles}
        for part in self.parts:
            for row in part.rows:
                place = found[row.verdict.profile]
                place.setdefault(part.family, Counter())[row.verdict.outcome] += 1
        return found


def collect(catalog: Catalog, store: Store, papers: Sequence[str], profiles: Sequence[str]) -> Content:
    """Read the store and decide all claims of `papers` (all papers when empty) on `profiles`."""
    with without_collector():
        return _collect(catalog, store, papers, profiles)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Leave Python's cyclic garbage collector out for a while, and what was made meanwhile out of it for good.

    Records and what is made of them hold no cycles, and the collector would look through all of a hundred thousand of
    them each time that some more were read, which takes four times as long as reading them. A single look afterwards
    would still take two seconds. Objects are freed as ever when nothing refers to them any longer.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()  # so that no garbage from before is kept
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _collect(catalog: Catalog, store: Store, papers: Sequence[str], profiles: Sequence[str]) -> Content:
    records = current(catalog, _lean(store.records(profiles=profiles)))
    verdicts = decide(catalog, records, papers=papers, profiles=profiles)
    by_paper: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_paper.setdefault(verdict.paper, []).append(verdict)
    records_of: dict[str | None, list[Record]] = {}
    for record in records:
        records_of.setdefault(record.paper, []).append(record)
    parts = []
    for slug, found in sorted(by_paper.items(), key=lambda kv: (catalog.papers[kv[0]].family, kv[0])):
        described, _ = load(catalog.papers[slug].file)
        claims = {c.id: c for c in described.claims}
        rows = [Row(claims[v.claim], v) for v in found]
        parts.append(PaperPart(slug, catalog.papers[slug].family, described, rows, records_of.get(slug, [])))
    shown = [r for part in parts for r in part.records]
    done = [r for r in shown if r.status == "ok"]
    skipped = Counter(r.reason or "" for r in shown if r.status == "skipped")
    return Content(
        parts=parts,
        profiles=list(dict.fromkeys(v.profile for v in verdicts)),
        machines=distinct(r.environment.get("machine", {}) for r in done),
        versions=_latest(distinct(r.environment.get("versions", {}) for r in done)),
        sources=distinct(r.environment.get("source", {}) for r in done),
        skipped=skipped.most_common(),
        failed=[r for r in shown if r.status in ("failed", "timeout", "out-of-memory")],
        seconds=sum(r.duration or 0.0 for r in shown),
        first=min((r.started for r in done), default=""),
        last=max((r.started for r in done), default=""),
    )


_SHARED = ("suite", "comparison", "paper", "task", "method", "label", "profile", "source", "status", "reason")
_PARAMETERS = ("task_parameters", "method_parameters")


def _lean(records: Iterable[Record]) -> Iterator[Record]:
    """The same records, with equal parts of them held once: a large store says the same machine 100,000 times."""
    once: dict[Any, Any] = {}
    share = once.setdefault
    for record in records:
        # Into the fields directly: a record is frozen, and nothing that it says changes here.
        fields = record.__dict__
        for name in _SHARED:
            fields[name] = share(fields[name], fields[name])
        for name in _PARAMETERS:
            fields[name] = share(repr(fields[name]), fields[name])
        environment = record.environment
        for name, value in environment.items():
            environment[name] = share(repr(value), value)
        for model in (record, record.latency, record.memory):
            # Pydantic keeps the names of the fields that were given with each object, in two kilobytes.
            if model is not None:
                given = model.__pydantic_fields_set__
                object.__setattr__(model, "__pydantic_fields_set__", share(frozenset(given), given))
        yield record


def distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Equal dictionaries once, in the order they first appear; empty ones not at all."""
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for item in items:
        if item and id(item) not in seen:
            seen.add(id(item))
            found.setdefault(repr(sorted(item.items(), key=str)), item)
    return list(found.values())


def _latest(versions: list[dict[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for each in versions:
        merged |= each
    return merged
