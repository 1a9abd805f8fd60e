"""Gathers what a report shows: papers, verdicts and records of one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

    def scoreboard(self) -> list[dict[str, Any]]:
        """Counts of outcomes per paper, and in total last."""
        rows = [
            {"paper": part.slug, "family": part.family, **{o: part.counts()[o] for o in OUTCOMES}}
            for part in self.parts
        ]
        total: Counter[str] = sum((part.counts() for part in self.parts), Counter())
        return [*rows, {"paper": "all", "family": "", **{o: total[o] for o in OUTCOMES}}]


def collect(catalog: Catalog, store: Store, papers: Sequence[str], profiles: Sequence[str]) -> Content:
    """Read the store and decide all claims of `papers` (all papers when empty) on `profiles`."""
    records = current(catalog, store.records(profiles=profiles))
    verdicts = decide(catalog, records, papers=papers, profiles=profiles)
    by_paper: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_paper.setdefault(verdict.paper, []).append(verdict)
    parts = []
    for slug, found in sorted(by_paper.items(), key=lambda kv: (catalog.papers[kv[0]].family, kv[0])):
        described, _ = load(catalog.papers[slug].file)
        claims = {c.id: c for c in described.claims}
        rows = [Row(claims[v.claim], v) for v in found]
        mine = [r for r in records if r.paper == slug]
        parts.append(PaperPart(slug, catalog.papers[slug].family, described, rows, mine))
    shown = [r for part in parts for r in part.records]
    done = [r for r in shown if r.status == "ok"]
    skipped = Counter(r.reason or "" for r in shown if r.status == "skipped")
    return Content(
        parts=parts,
        profiles=list(dict.fromkeys(v.profile for v in verdicts)),
        machines=_distinct(r.environment.get("machine", {}) for r in done),
        versions=_latest([r.environment.get("versions", {}) for r in done]),
        sources=_distinct(r.environment.get("source", {}) for r in done),
        skipped=skipped.most_common(),
        failed=[r for r in shown if r.status in ("failed", "timeout", "out-of-memory")],
        seconds=sum(r.duration or 0.0 for r in shown),
        first=min((r.started for r in done), default=""),
        last=max((r.started for r in done), default=""),
    )


def _distinct(items: Any) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        if item:
            found[repr(sorted(item.items(), key=str))] = item
    return list(found.values())


def _latest(versions: list[dict[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for each in versions:
        merged |= each
    return merged
