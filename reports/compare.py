"""Compares two sets of records: what changed in verdicts, and in the figures of every method.

Times of different machines are never subtracted or divided: they stand side by side. Memory and the quality of outputs
may be compared between machines.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness import expression, paper
from harness.catalog import Catalog
from harness.current import current
from harness.record import INSTRUMENT_METRICS, Record
from harness.verdict import Names, Verdict, decide
from reports.aggregate import plain
from reports.intervals import Summary, paired_step, summary, welch_step
from reports.sides import Machine, Side, machine_of

TIMES = frozenset(name for name, (unit, _, _) in INSTRUMENT_METRICS.items() if unit in ("s", "1/s"))
"""Metrics of the instrument that only mean something on the machine they were taken on."""

Outcome = Literal[
    "worse", "better", "changed", "side by side", "only in A", "only in B", "undecided", "no change seen", "same"
]  # fmt: skip
"""How a figure came out; "undecided" is a difference without an interval, for there is one seed."""
ORDER: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class ClaimChange:
    """A claim on both sides.

    Attributes:
        change: "verdict" where the outcomes differ, "figure" where the intervals lie apart, else "none".
        note: what to keep in mind, e.g. that times of two machines stand beside each other.
    """

    paper: str
    claim: str
    statement: str
    a: Verdict
    b: Verdict
    change: Literal["verdict", "figure", "none"]
    note: str = ""


@dataclass(frozen=True)
class FigureChange:
    """A metric of one method at one setting, on both sides.

    Attributes:
        kind: whether `change` is B divided by A or B minus A; None where they are not to be compared.
        change: with its 95 % interval; None where there is none.
        paired: whether both sides have the same seeds, so that each seed is compared with itself.
    """

    paper: str
    comparison: str
    profiles: tuple[str, str]
    method: str
    setting: str
    metric: str
    unit: str
    better: str
    a: Summary | None
    b: Summary | None
    kind: Literal["ratio", "difference"] | None
    change: Summary | None
    paired: bool
    outcome: Outcome


@dataclass(frozen=True)
class Failure:
    """A method that ran on one side and did not on the other."""

    paper: str
    comparison: str
    method: str
    setting: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """All of it, what changed first."""

    a: Side
    b: Side
    claims: list[ClaimChange]
    unmeasured: int
    figures: list[FigureChange]
    failures: list[Failure]

    @property
    def same_machine(self) -> bool:
        """Whether every record of both sides was made on one machine."""
        return (
            bool(self.a.machines()) and self.a.machines() == self.b.machines() and len(self.a.machines()) == 1
        )

    def chance(self) -> float:
        """How many figures would seem changed by chance alone: one in twenty of those with an interval."""
        return 0.05 * sum(1 for f in self.figures if f.change is not None and f.change.low != f.change.high)


def compare(
    catalog: Catalog, a: Side, b: Side, *, papers: Sequence[str] = (), profiles: Sequence[str] = ()
) -> Comparison:
    """Compare two sides.

    Args:
        catalog: where papers, tasks and methods are.
        a: what was.
        b: what is.
        papers: slugs; empty for all that either side has records of.
        profiles: names; empty for those that have records.
    """
    counted = (current(catalog, a.records), current(catalog, b.records))
    shown = list(papers) or sorted(
        {r.paper for r in (*counted[0], *counted[1]) if r.paper in catalog.papers} - {None}, key=str
    )
    places = list(profiles) or sorted({r.profile for side in counted for r in side})
    across = bool(a.profile and b.profile and a.profile != b.profile)
    claims, unmeasured = _claims(catalog, (a, b), counted, shown, places, across)
    figures, failures = _figures(catalog, counted, across)
    return Comparison(a, b, claims, unmeasured, figures, failures)


# -- claims --------------------------------------------------------------------------------------------------


def _claims(
    catalog: Catalog,
    sides: tuple[Side, Side],
    counted: tuple[list[Record], list[Record]],
    papers: Sequence[str],
    places: Sequence[str],
    across: bool,
) -> tuple[list[ClaimChange], int]:
    decided: list[dict[tuple[str, ...], Verdict]] = []
    for side, records in zip(sides, counted, strict=True):
        at = [side.profile] if across and side.profile else places
        verdicts = decide(catalog, records, papers=papers, profiles=at) if papers else []
        decided.append({(v.paper, v.claim, "" if across else v.profile): v for v in verdicts})
    statements = {
        (slug, claim.id): claim.statement
        for slug in papers
        for claim in paper.load(catalog.papers[slug].file)[0].claims
    }
    machines = tuple({r.key: machine_of(r) for r in records} for records in counted)
    found, unmeasured = [], 0
    for key, a in decided[0].items():
        b = decided[1].get(key)
        if b is None or a.outcome == b.outcome == "not measured":
            unmeasured += 1
            continue
        change, note = _claim_change(a, b, (_where(a, machines[0]), _where(b, machines[1])))
        found.append(ClaimChange(a.paper, a.claim, statements[(a.paper, a.claim)], a, b, change, note))
    weight = {"verdict": 0, "figure": 1, "none": 2}
    found.sort(key=lambda c: (weight[c.change], c.b.outcome != "contradicted", c.paper))
    return found, unmeasured


def _where(verdict: Verdict, machines: dict[str, Machine | None]) -> set[Machine | None]:
    return {machines.get(key) for key in verdict.keys}


def _claim_change(
    a: Verdict, b: Verdict, where: tuple[set[Machine | None], set[Machine | None]]
) -> tuple[Literal["verdict", "figure", "none"], str]:
    note = ""
    elsewhere = a.figure is not None and b.figure is not None and not _one_machine(*where)
    timed = any(v.figure is not None and _timed(v.figure.quantity, v.figure.unit) for v in (a, b))
    if elsewhere and timed:
        note = "times of different machines, side by side"
    if a.outcome != b.outcome:
        return "verdict", note
    if a.figure is None or b.figure is None or (elsewhere and timed):
        return "none", note
    ends = (a.figure.low, a.figure.high, b.figure.low, b.figure.high)
    if any(end is None for end in ends):
        return "none", note
    apart = b.figure.low > a.figure.high or b.figure.high < a.figure.low  # type: ignore[operator]
    return ("figure", "the intervals lie apart") if apart else ("none", note)


def _timed(quantity: str, unit: str) -> bool:
    """Whether a quantity has times in it."""
    return _is_time("", unit) or any(r.metric in TIMES for r in expression.parse(quantity).references)


def _is_time(metric: str, unit: str) -> bool:
    return (
        metric in TIMES or unit in ("s", "ms", "µs", "us", "ns", "min", "h") or unit.endswith(("/s", "/second"))
    )


def _one_machine(a: Iterable[Machine | None], b: Iterable[Machine | None]) -> bool:
    machines = {*a, *b}
    return len(machines) == 1 and None not in machines


# -- figures -------------------------------------------------------------------------------------------------

Cell = tuple[str, ...]
About = Callable[[str], tuple[str, str, bool]]
"""Unit of a metric, which way is better, and whether one measurement decides."""


def _figures(
    catalog: Catalog, counted: tuple[list[Record], list[Record]], across: bool
) -> tuple[list[FigureChange], list[Failure]]:
    sides: list[dict[Cell, list[Record]]] = []
    for records in counted:
        cells: dict[Cell, list[Record]] = defaultdict(list)
        for r in records:
            setting = json.dumps([r.task_parameters, r.method_parameters], sort_keys=True, default=str)
            cells[(r.comparison, "" if across else r.profile, r.task, r.label, setting)].append(r)
        sides.append(cells)
    settings = Settings(counted)
    declared: dict[tuple[str, str], About] = {}
    figures: list[FigureChange] = []
    failures: list[Failure] = []
    for cell in dict.fromkeys((*sides[0], *sides[1])):
        a, b = sides[0].get(cell, []), sides[1].get(cell, [])
        some = (a or b)[0]
        failure = _failure(a, b, some, settings(some))
        if failure:
            failures.append(failure)
        about = declared.setdefault((some.task, some.method), _declared(catalog, some))
        figures += _cell(a, b, settings(some), about)
    figures.sort(key=lambda f: (ORDER.index(f.outcome), -_size(f), f.paper, f.comparison))
    return figures, failures


def _declared(catalog: Catalog, record: Record) -> About:
    """What the instrument or the catalog declares of a metric."""
    names = Names(catalog, record.task, {record.method}) if record.task in catalog.tasks else None
    known = {n: (unit, way, False) for n, (unit, way, _) in INSTRUMENT_METRICS.items()}

    def about(metric: str) -> tuple[str, str, bool]:
        if metric not in known:
            found = names.metric(metric) if names else None
            known[metric] = (found.unit, found.better, found.deterministic) if found else ("", "neither", False)
        return known[metric]

    return about


def _failure(a: Sequence[Record], b: Sequence[Record], some: Record, setting: str) -> Failure | None:
    states = [sorted({r.status for r in side if r.status != "skipped"}) for side in (a, b)]
    if not all(states) or states[0] == states[1]:
        return None
    words = [
        "; ".join(sorted({r.status + (f": {r.reason}" if r.reason else "") for r in side})) for side in (a, b)
    ]
    return Failure(some.paper or "", some.comparison, some.label, setting, words[0], words[1])


def _cell(a: Sequence[Record], b: Sequence[Record], setting: str, about: About) -> list[FigureChange]:
    good = [[r for r in side if r.status == "ok"] for side in (a, b)]
    if not any(good):
        return []
    some = (good[0] or good[1])[0]
    one = _one_machine(map(machine_of, good[0]), map(machine_of, good[1]))
    profiles = ((a or b)[0].profile, (b or a)[0].profile)
    found = []
    for metric in (*INSTRUMENT_METRICS, *sorted({n for side in good for r in side for n in r.metrics})):
        values = [{r.seed: v for r in side if (v := r.value(metric)) is not None} for side in good]
        if not any(values):
            continue
        unit, better, decisive = about(metric)
        comparable = one or not _is_time(metric, unit)
        kind, change, paired, outcome = _change(values[0], values[1], (unit, better, decisive), comparable)
        summaries = [summary(list(v.values())) if v else None for v in values]
        found.append(
            FigureChange(
                some.paper or "", some.comparison, profiles, some.label, setting, metric, unit, better, summaries[0],
                summaries[1], kind, change, paired, outcome,
            )
        )  # fmt: skip
    return found


Change = tuple[Literal["ratio", "difference"] | None, Summary | None, bool, Outcome]


def _change(
    a: dict[int, float], b: dict[int, float], declared: tuple[str, str, bool], comparable: bool
) -> Change:
    """How B stands to A: a ratio for times and bytes, a difference for everything else."""
    if not a or not b:
        return None, None, False, "only in A" if a else "only in B"
    if not comparable:
        return None, None, False, "side by side"
    unit, better, decisive = declared
    paired = set(a) == set(b)
    if paired and all(math.isclose(a[s], b[s], rel_tol=1e-12) for s in a):
        return None, None, True, "same"
    ratio = (unit == "B" or _is_time("", unit)) and min(*a.values(), *b.values()) > 0
    values = [{s: math.log(v) for s, v in side.items()} if ratio else side for side in (a, b)]
    step = paired_step(*values) if paired else welch_step(*(list(side.values()) for side in values))
    centre = math.exp(step.value) if ratio else step.value
    low, high = (math.exp(v) if ratio and v is not None else v for v in (step.low, step.high))
    if decisive and low is None:
        low = high = centre
    neutral = 1.0 if ratio else 0.0
    outcome: Outcome = "undecided" if low is None else "no change seen"
    if low is not None and high is not None and not low <= neutral <= high:
        up = centre > neutral
        outcome = "changed" if better == "neither" else "better" if up == (better == "higher") else "worse"
    change = Summary(centre, low, high, min(len(a), len(b)))
    return "ratio" if ratio else "difference", change, paired, outcome


def _size(figure: FigureChange) -> float:
    """How much a figure changed, for sorting: in times its value."""
    if figure.change is None or figure.a is None:
        return 0.0
    if figure.kind == "ratio":
        return abs(math.log(figure.change.value))
    return abs(figure.change.value) / (abs(figure.a.value) or 1.0)


class Settings:
    """Tells the settings of a method in a comparison apart: the parameters that vary there, on either side, as text."""

    def __init__(self, sides: Iterable[Iterable[Record]]) -> None:
        seen: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for side in sides:
            for record in side:
                for name, value in record.task_parameters.items():
                    seen[(record.comparison, "")][name].add(repr(value))
                for name, value in record.method_parameters.items():
                    seen[(record.comparison, record.label)][name].add(repr(value))
        self._varied = {k: [n for n, values in names.items() if len(values) > 1] for k, names in seen.items()}

    def __call__(self, record: Record) -> str:
        varied: list[tuple[str, Any]] = [
            (n, record.task_parameters.get(n)) for n in self._varied.get((record.comparison, ""), ())
        ]
        varied += [
            (n, record.method_parameters.get(n))
            for n in self._varied.get((record.comparison, record.label), ())
        ]
        return ", ".join(f"{name}={plain(value)}" for name, value in varied)
