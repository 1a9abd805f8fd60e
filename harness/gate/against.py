"""Gates against stored records: accuracy and memory from any machine, latency from this one only.

Stored records took no turns with what is measured now. Accuracy and memory do not mind. A latency of another machine says
nothing about this one and is refused; of the same machine, what lies between two sessions is drift that nothing can take
out, so only a change above `DRIFT` counts.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import environment, profile, runner, suite
from harness.catalog import Catalog
from harness.current import identity_of, newest
from harness.errors import RequestError
from harness.gate.decide import ACCURACY, LATENCY, LEVEL, MEMORY
from harness.gate.model import Change, Finding, GateResult, Side, Timed
from harness.gate.run import Options
from harness.measure.statistics import log_latencies
from harness.record import Record
from harness.store import Store, transfer
from harness.suite import Comparison, Contestant
from harness.suitefile import Gate

DRIFT = 0.10
"""Two sessions on one idle machine differ by several percent with nothing changed."""

_REFUSED = (
    "the stored latency is of another machine ({theirs}; this is {ours}), and latencies of different machines are not"
    " compared; use --base to measure both revisions here"
)
_SAME = ("host", "cpu", "threads", "gpus", "architecture")


@dataclass(frozen=True)
class _Row:
    """A method on both sides: its records over the seeds, in pairs."""

    comparison: Comparison
    contestant: Contestant
    pairs: list[tuple[Record, Record]]


class _Shown(runner.Progress):
    def __init__(self, tell: Callable[[str, int, int], None]) -> None:
        self._tell, self._done, self._all = tell, 0, 0

    def begin(self, steps: Sequence[runner.Step], stored: int) -> None:
        self._all = len(steps)

    def phase(self, step: runner.Step, name: str) -> None:
        self._tell(f"{step.comparison.name} {step.contestant.label}: {name}", self._done, self._all)

    def finish(self, step: runner.Step, record: Record) -> None:
        self._done += 1


def run_against(
    options: Options, against: str, tell: Callable[[str, int, int], None] = lambda text, done, of: None
) -> GateResult:
    """Measure the suite now and compare it with stored records.

    Args:
        options: what is asked; `base` and `base_env` play no part.
        against: a store (file or URL), or a file of records as JSON lines (``.jsonl``).
        tell: told what is measured.

    Raises:
        RequestError, RequestErrors: the suite or what is stored cannot be read, or holds none of the suite's methods.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    place = profile.get(options.profile).recognise()
    if not place.here:
        raise RequestError(f"the gate cannot run on {options.profile} here: {place.reason}")
    catalog = Catalog(tuple(options.folders))
    chosen = options.selection
    comparisons = suite.expand(
        catalog, [options.suite], options.profile, papers=chosen.papers, tags=chosen.tags, only=chosen.only
    )
    stored = {
        f"{r.comparison} {identity_of(r)}": r for r in newest(read(against)) if r.profile == options.profile
    }
    if not any(_key(c, x) in stored for c in comparisons for x in c.contestants):
        raise RequestError(
            f"'{against}' has no record of what the suite '{options.suite}' measures on {options.profile}",
            hint="measure it there first, with: harness run",
        )
    with tempfile.TemporaryDirectory(prefix="harness-gate-") as folder:
        progress = _Shown(tell)
        summary = runner.run(
            catalog, comparisons, Store(Path(folder, "now.sqlite")), fresh=True, progress=progress
        )
    now = {f"{r.comparison} {identity_of(r)}": r for r in summary.records}
    findings: list[Finding] = []
    timed: list[Timed] = []
    bases: list[Record] = []
    for row in _rows(comparisons, stored, now):
        bases += [base for base, _ in row.pairs]
        own = _judge(row, catalog)
        findings += own
        if own and row.pairs:
            base, head = row.pairs[0]
            timed.append(Timed(name=own[0].name, base=base.latency, head=head.latency))
    source = next((r.environment for r in bases), {})
    head_source = environment.snapshot()["source"]
    return GateResult(
        suite=options.suite,
        profile=options.profile,
        base=Side(
            name=against,
            revision=source.get("source", {}).get("revision"),
            clean=source.get("source", {}).get("clean"),
            versions=source.get("versions", {}),
        ),
        head=Side(
            name="this installation",
            revision=head_source.get("revision"),
            clean=head_source.get("clean"),
            versions=environment.versions(),
        ),
        started=started,
        seconds=round(time.monotonic() - began, 1),
        findings=findings,
        timed=timed,
        machine=environment.machine(),
        disturbances=next((r.environment.get("disturbances", {}) for r in summary.records), {}),
        notes=[
            "the base is stored records, which took no turns with what was measured now: latency is judged only where"
            f" the machine is the same, and only changes above {DRIFT:.0%} count"
        ],
    )


def read(against: str) -> Iterable[Record]:
    """The records of a store, which is only read, or of a file of JSON lines or Parquet.

    Raises:
        RequestError: there is no such file, or a line is no record.
    """
    path = Path(against).expanduser()
    if path.name.endswith((*transfer.LINES, *transfer.TABLES)):
        yield from transfer.read(path)
        return
    if "://" not in against and not path.is_file():
        raise RequestError(
            f"there is no store '{against}'", hint="a store, or records as JSON lines (.jsonl) or Parquet"
        )
    with transfer.elsewhere(against) as source:
        yield from source.records()


def _key(comparison: Comparison, contestant: Contestant) -> str:
    from harness.current import identity

    return f"{comparison.name} " + identity(
        comparison.task, comparison.parameters, contestant.method, contestant.label, contestant.parameters,
        comparison.seed,
    )  # fmt: skip


def _rows(comparisons: Sequence[Comparison], stored: dict[str, Record], now: dict[str, Record]) -> list[_Row]:
    """Methods with the records of all their seeds; `pairs` is empty where nothing is stored."""
    rows: dict[str, _Row] = {}
    for comparison in comparisons:
        for contestant in comparison.contestants:
            if contestant.gate.skip:
                continue
            key = _key(comparison, contestant)
            seedless = _key(replace(comparison, seed=0), contestant)
            row = rows.setdefault(seedless, _Row(comparison, contestant, []))
            if key in stored and key in now:
                row.pairs.append((stored[key], now[key]))
    return list(rows.values())


def _judge(row: _Row, catalog: Catalog) -> list[Finding]:
    if not row.pairs:
        return [_finding(row, metric="status", change="new", reason="there is no stored record of it")]
    failed = [head for _, head in row.pairs if head.status != "ok"]
    was_ok = all(base.status == "ok" for base, _ in row.pairs)
    if failed or not was_ok:
        reason = failed[0].reason if failed else next(b.reason for b, _ in row.pairs if b.status != "ok")
        change: Change = "regressed" if failed and was_ok else "unchanged" if failed else "improved"
        text = {
            "regressed": "ran when it was stored and does not now",
            "unchanged": "ran neither then nor now",
            "improved": "runs now and did not when it was stored",
        }[change]
        return [_finding(row, metric="status", better="higher", change=change, reason=f"{text}: {reason}")]
    gate = row.contestant.gate
    found = [_latency(row, gate)]
    for name, field in (("peak_memory", "peak"), ("device_memory", "device")):
        values = [(getattr(b.memory, field), getattr(h.memory, field)) for b, h in row.pairs]
        both = [(float(b), float(h)) for b, h in values if b is not None and h is not None]
        if both:
            threshold = gate.metrics.get(name, gate.memory or MEMORY)
            found.append(_plain(row, name, "B", "lower", both, threshold, least=float(1 << 20)))
    for entry in (catalog.task(row.comparison.task), catalog.method(row.contestant.method)):
        for metric in entry.metrics:
            both = [
                (b.metrics[metric.name], h.metrics[metric.name])
                for b, h in row.pairs
                if metric.name in b.metrics and metric.name in h.metrics
            ]
            if both and metric.better != "neither":
                threshold = gate.metrics.get(metric.name, gate.accuracy or ACCURACY)
                found.append(_plain(row, metric.name, metric.unit, metric.better, both, threshold))
    return found


def _latency(row: _Row, gate: Gate) -> Finding:
    """By launches of both sides, unpaired; refused where the machines differ."""
    from scipy import stats

    there, here = row.pairs[0][0].environment.get("machine", {}), environment.machine()
    base, head = ([r.latency for r in side if r.latency] for side in zip(*row.pairs, strict=True))
    figures = {
        "metric": "latency", "unit": "s", "better": "lower",
        "base": statistics.median(s for x in base for s in x.samples) if base else None,
        "head": statistics.median(s for x in head for s in x.samples) if head else None,
    }  # fmt: skip
    if any(there.get(k) != here.get(k) for k in _SAME):
        reason = _REFUSED.format(theirs=_machine(there), ours=_machine(here))
        return _finding(row, change="unstable", reason=reason, **figures)
    logs = [[v for x in side for v in _launches(x)] for side in (base, head)]
    threshold = max(DRIFT, gate.metrics.get("latency", gate.latency or LATENCY))
    if min(len(side) for side in logs) < 2:
        reason = "one process on a side says nothing about the spread; measure with several launches"
        return _finding(row, change="unstable", reason=reason, threshold=threshold, **figures)
    test = stats.ttest_ind(logs[1], logs[0], equal_var=False)
    value = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    interval = test.confidence_interval(0.95)
    limit = math.log1p(threshold)
    change: Change = "unchanged"
    if abs(value) >= limit and test.pvalue <= 2 * LEVEL:
        change = "regressed" if value > 0 else "improved"
    elif interval.high > 2 * limit:
        change = "unstable"
    return _finding(
        row, change=change, threshold=threshold, p_value=float(test.pvalue), ratio=math.exp(value),
        low=math.exp(interval.low), high=math.exp(interval.high), launches=min(len(side) for side in logs),
        reason="measured in two sessions, so that drift of the machine is in it", **figures,
    )  # fmt: skip


def _launches(latency: Any) -> list[float]:
    """Log latency of each launch; of a single run, that run's."""
    if latency.blocks.launch:
        return list(log_latencies([latency])[0].values())
    return [math.log(statistics.median(latency.samples))]


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine.get('host', 'unknown')}, {machine.get('cpu', 'unknown')}, {machine.get('threads', '?')} processors"


def _plain(
    row: _Row,
    name: str,
    unit: str,
    better: str,
    values: Sequence[tuple[float, float]],
    threshold: float,
    least: float = 0.0,
) -> Finding:
    """By the means over the seeds, the same seeds on both sides."""
    base, head = (statistics.fmean(side) for side in zip(*values, strict=True))
    worse = (head - base) if better == "lower" else (base - head)
    relative = worse / abs(base) if base else worse
    change: Change = "unchanged"
    if abs(worse) >= least and abs(relative) >= threshold:
        change = "regressed" if worse > 0 else "improved"
    return _finding(
        row, metric=name, unit=unit, better=better, base=base, head=head, ratio=head / base if base else None,
        threshold=threshold, launches=len(values), change=change,
        reason=f"mean over {len(values)} seeds, the same on both sides",
    )  # fmt: skip


def _finding(row: _Row, **found: Any) -> Finding:
    return Finding(
        comparison=row.comparison.name,
        paper=row.comparison.paper,
        task=row.comparison.task,
        task_parameters=dict(row.comparison.parameters),
        method=row.contestant.method,
        label=row.contestant.label,
        method_parameters=dict(row.contestant.parameters),
        seeds=[head.seed for _, head in row.pairs] or [row.comparison.seed],
        **found,
    )
