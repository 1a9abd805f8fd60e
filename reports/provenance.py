"""Where the figures of a report come from: machines, versions, revisions, seeds, time, and what is missing and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.record import Record
from reports.collect import Content
from reports.howto import HowTo
from reports.numbers import duration, ranges


@dataclass
class Machine:
    """A machine and what was measured on it."""

    cpu: str
    details: str
    records: int = 0
    first: str = ""
    last: str = ""
    emulated: int = 0


@dataclass
class Missing:
    """Records of one comparison and method that are not ok for the same reason."""

    comparison: str
    profile: str
    label: str
    status: str
    reason: str
    command: str
    seeds: list[int] = field(default_factory=list)

    @property
    def seed_text(self) -> str:
        """The seeds, runs of neighbours drawn together."""
        return ranges(self.seeds)


@dataclass(frozen=True)
class Unmeasured:
    """Claims that were not measured for one reason."""

    reason: str
    profile: str
    claims: list[tuple[str, str]]
    command: str | None


@dataclass(frozen=True)
class Provenance:
    """What the page's last section says."""

    machines: list[Machine]
    versions: list[tuple[str, str]]
    revisions: list[str]
    seeds: str
    suites: list[str]
    took: str
    counts: list[tuple[str, int]]
    conditions: str
    unstable: list[tuple[str, int]]
    missing: list[Missing]
    unmeasured: list[Unmeasured]


def provenance(content: Content, how: HowTo) -> Provenance:
    """Gather it from the records that count."""
    records = list(content.records)
    done = [r for r in records if r.status == "ok"]
    counts: dict[str, int] = defaultdict(int)
    unstable: dict[str, int] = defaultdict(int)
    for record in records:
        counts[record.status] += 1
        if record.unstable:
            unstable[record.unstable] += 1
    return Provenance(
        machines=_machines(done),
        versions=_versions(done),
        revisions=[
            f"{s.get('revision', '')}{'' if s.get('clean') else ', with uncommitted changes'}"
            for s in content.sources
        ],
        seeds=ranges(r.seed for r in done),
        suites=sorted({r.suite for r in records}),
        took=duration(content.seconds),
        counts=sorted(counts.items(), key=lambda kv: -kv[1]),
        conditions=_conditions(done),
        unstable=sorted(unstable.items(), key=lambda kv: -kv[1]),
        missing=_missing(records, how),
        unmeasured=_unmeasured(content, how),
    )


def _machines(records: Sequence[Record]) -> list[Machine]:
    found: dict[str, Machine] = {}
    known: dict[int, Machine] = {}  # records of one machine mostly share what they say of it
    for record in records:
        about: dict[str, Any] = record.environment.get("machine") or {}
        if not about:
            continue
        machine = known.get(id(about))
        if machine is None:
            cpu, details = str(about.get("cpu", "an unnamed processor")), _details(about)
            machine = known[id(about)] = found.setdefault(f"{cpu} {details}", Machine(cpu, details))
        machine.records += 1
        machine.emulated += record.emulated
        machine.first = min(machine.first or record.started, record.started)
        machine.last = max(machine.last, record.started)
    return list(found.values())


def _details(about: dict[str, Any]) -> str:
    parts = (
        f"{about['threads']} usable cores" if about.get("threads") else "",
        f"{about['memory'] / 2**30:.1f} GiB" if about.get("memory") else "",
        ", ".join(map(str, about.get("gpus") or [])) or "no GPU",
        str(about.get("system", "")),
    )
    return ", ".join(text for text in parts if text)


def _versions(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Each package with every version that was used, so that a mixed store shows that it is one."""
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    once: set[int] = set()
    for record in records:
        versions: dict[str, str] = record.environment.get("versions") or {}
        if id(versions) not in once:
            once.add(id(versions))
            for name, version in versions.items():
                seen[name][str(version)] = None
    return [(name, " and ".join(found)) for name, found in seen.items()]


def _conditions(records: Sequence[Record]) -> str:
    """What could disturb the figures, over all records: the worst of it."""
    seen: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        for name, value in (record.environment.get("disturbances") or {}).items():
            if value is not None:
                seen[name].append(value)
    found = (
        [f"frequency governor {' and '.join(sorted({str(g) for g in seen['governor']}))}"]
        if seen["governor"]
        else []
    )
    for name, text in (("others", "other processes used"), ("stolen", "the hypervisor took")):
        shares = sorted(v for v in seen[name] if isinstance(v, int | float))
        if shares:
            middle = shares[len(shares) // 2]
            found.append(f"{text} {middle:.1%} of the processors as a rule, {shares[-1]:.1%} at most")
    throttled = sum(v > 0 for v in seen["throttled"] if isinstance(v, int | float))
    if seen["throttled"]:
        found.append(f"the processor was throttled during {throttled} of {len(seen['throttled'])} measurements")
    return "; ".join(found)


def _missing(records: Sequence[Record], how: HowTo) -> list[Missing]:
    found: dict[tuple[str, ...], Missing] = {}
    for r in records:
        if r.status == "ok":
            continue
        key = (r.comparison, r.profile, r.label, r.status, r.reason or "")
        if key not in found:
            found[key] = Missing(*key, command=how.record(r))
        found[key].seeds.append(r.seed)
    return list(found.values())


def _unmeasured(content: Content, how: HowTo) -> list[Unmeasured]:
    found: dict[tuple[str, str, str | None], list[tuple[str, str]]] = defaultdict(list)
    for part in content.parts:
        for row in part.rows:
            v = row.verdict
            if v.outcome == "not measured":
                command = how.claim(part.slug, row.claim, v.profile)
                found[(v.reason, v.profile, command)].append((part.slug, v.claim))
    return [
        Unmeasured(reason, profile, claims, command) for (reason, profile, command), claims in found.items()
    ]
