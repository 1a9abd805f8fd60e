"""Records and claims to verdicts.

A verdict comes from a measurement or it is "not measured". The interval of a condition's quantity decides it:
inside the bounds it holds, wholly in the contradicted region it is contradicted, anything else is inconclusive. So is
what rests on times that a disturbed machine took.
A scaled setting never earns "reproduced", and neither does emulated hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness import evaluation, expression, paper, profile
from harness.catalog import Catalog
from harness.current import current, identity_of
from harness.errors import NotMeasured
from harness.paper import Claim, Condition, Rule
from harness.record import INSTRUMENT_METRICS, Record
from harness.stale import stale

Outcome = Literal["reproduced", "consistent", "contradicted", "inconclusive", "not measured"]
_TIMES = ("s", "ms", "us", "µs", "ns", "min", "h", "1/s")
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "consistent", "contradicted", "inconclusive", "not measured")


ByPlace = dict[tuple[str, str, str | None], list[Record]]
"""Records by profile, task and comparison; None for all comparisons of the task."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Model):
    """A measured quantity: value, 95 % interval where there is one, and what it rests on."""

    quantity: str
    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    samples: int = 0
    unit: str = ""

    def __str__(self) -> str:
        text = f"{self.value:.4g}"
        if self.low is not None and self.high is not None and f"{self.low:.4g}" != f"{self.high:.4g}":
            text += f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{text} {self.unit}".strip()


class Decided(_Model):
    """A condition and how it came out."""

    quantity: str
    bounds: str
    figure: Figure
    outcome: Literal["holds", "contradicted", "inconclusive"]
    why: str | None = None


class Verdict(_Model):
    """A claim decided from records, on one profile.

    Attributes:
        paper, claim, profile: what was decided, and where.
        outcome: one of `OUTCOMES`.
        reason: one sentence.
        rule: which of the claim's rules decided, or None when none could.
        figure: the quantity shown beside the claimed figure.
        conditions: all conditions of the rule.
        controls: figures that are reported beside the verdict and decide nothing.
        keys: the records behind it.
        stale: how many of them are stale, measured with source of the method or task that has changed since.
        setting: parameters of the task that all those records share.
    """

    paper: str
    claim: str
    profile: str
    outcome: Outcome
    reason: str
    rule: Literal["reproduced", "consistent"] | None = None
    figure: Figure | None = None
    conditions: list[Decided] = Field(default_factory=list)
    controls: dict[str, Figure | str] = Field(default_factory=dict)
    keys: list[str] = Field(default_factory=list)
    stale: int = 0
    setting: dict[str, Any] = Field(default_factory=dict)


def decide(
    catalog: Catalog,
    records: Iterable[Record],
    *,
    papers: Sequence[str] = (),
    profiles: Sequence[str] = (),
) -> list[Verdict]:
    """A verdict for every claim on every profile asked for.

    Args:
        catalog: where papers, tasks and methods are.
        records: all records that may count.
        papers: slugs; empty for all.
        profiles: names; empty for those that have records, or "cpu" when none has.
    """
    for slug in papers:
        catalog.paper(slug)
    for name in profiles:
        profile.get(name)
    counted = current(catalog, records)
    seen = {r.profile for r in counted}
    places = list(profiles) or [p for p in profile.PROFILES if p in seen] or ["cpu"]
    by_place: ByPlace = {}
    for record in counted:
        by_place.setdefault((record.profile, record.task, None), []).append(record)
        by_place.setdefault((record.profile, record.task, record.comparison), []).append(record)
    verdicts = []
    for slug in papers or sorted(catalog.papers):
        described, _ = paper.load(catalog.papers[slug].file)
        # For each paper anew: its claims look at the same records, and those of other papers need not be kept.
        evidence = Evidence(catalog, by_place)
        for claim in described.claims:
            for place in places:
                verdicts.append(_decide(slug, claim, place, evidence))
    return verdicts


def _decide(slug: str, claim: Claim, place: str, evidence: Evidence) -> Verdict:
    def verdict(outcome: Outcome, reason: str, **found: Any) -> Verdict:
        return Verdict(paper=slug, claim=claim.id, profile=place, outcome=outcome, reason=reason, **found)

    if claim.not_measurable is not None:
        return verdict("not measured", claim.not_measurable)
    here = [(kind, rule) for kind, rule in claim.rules if place in rule.profiles]
    if not here:
        needed = sorted({p for _, rule in claim.rules for p in rule.profiles}, key=list(profile.PROFILES).index)
        return verdict("not measured", f"needs the profile {' or '.join(needed)}")
    reasons: list[str] = []
    for kind, rule in here:
        try:
            decided, keys, records = _conditions(claim, rule, place, evidence)
        except NotMeasured as missing:
            reasons.append(str(missing))
            continue
        emulated = any(r.emulated for r in records)
        outcome, reason = _combine(rule, decided)
        if outcome == "held":
            final: Outcome = "reproduced" if kind == "reproduced" and not emulated else "consistent"
        else:
            final = "contradicted" if outcome == "contradicted" else "inconclusive"
        controls = _controls(rule, place, evidence)
        return verdict(
            final,
            reason,
            rule=kind,
            figure=decided[0].figure,
            conditions=decided,
            controls=controls,
            keys=keys,
            stale=len(stale(evidence.catalog, records)),
            setting=_shared([r.task_parameters for r in records]),
        )
    return verdict("not measured", reasons[-1])


@dataclass
class Selected:
    """The records of a selection on a profile, and what computes quantities from them."""

    records: list[Record]
    names: Names
    evaluator: evaluation.Evaluator
    _estimates: dict[tuple[str, bool], evaluation.Estimate] = field(default_factory=dict)

    def estimate(self, quantity: str, logarithmic: bool) -> evaluation.Estimate:
        """A quantity of the records, computed once: claims and rules often differ in their bounds alone."""
        at = (quantity, logarithmic)
        if at not in self._estimates:
            self._estimates[at] = self.evaluator.evaluate(_parsed(quantity), logarithmic=logarithmic)
        return self._estimates[at]


@dataclass
class Evidence:
    """Selections of records, each made once however many claims look at it."""

    catalog: Catalog
    by_place: ByPlace
    _made: dict[tuple[str, str], Selected] = field(default_factory=dict)

    def selected(self, place: str, selection: paper.Selection) -> Selected:
        """The records of `selection` on the profile `place`."""
        at = (place, selection.model_dump_json())
        if at not in self._made:
            records = select(_near(self.by_place, place, selection), selection)
            names = Names(self.catalog, selection.task, {r.method for r in records})
            evaluator = evaluation.Evaluator(records, deterministic=names.deterministic, better=names.better)
            self._made[at] = Selected(records, names, evaluator)
        return self._made[at]


_parsed = lru_cache(maxsize=1024)(expression.parse)


def _conditions(
    claim: Claim, rule: Rule, place: str, evidence: Evidence
) -> tuple[list[Decided], list[str], list[Record]]:
    decided: list[Decided] = []
    keys: dict[str, None] = {}
    used: dict[str, Record] = {}
    for condition in rule.all:
        selection = rule.selection(condition)
        selected = evidence.selected(place, selection)
        if not selected.records:
            names = " or ".join(selection.comparisons)
            what = f"the comparison {names}" if names else f"any comparison of the task '{selection.task}'"
            raise NotMeasured(f"not run on {place}: {what}{'' if names else _where(selection)}")
        estimate = selected.estimate(condition.quantity, claim.kind == "ratio")
        used_keys = set(estimate.keys)
        behind = [r for r in selected.records if r.key in used_keys]
        disturbed = _disturbed(condition.quantity, behind, selected.names)
        decided.append(_judge(condition, estimate, claim, disturbed))
        keys |= dict.fromkeys(estimate.keys)
        used |= {r.key: r for r in behind}
    return decided, list(keys), list(used.values())


def _figure(quantity: str, estimate: evaluation.Estimate, unit: str = "") -> Figure:
    return Figure(
        quantity=quantity,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        seeds=estimate.seeds,
        samples=estimate.samples,
        unit=unit,
    )


def _disturbed(quantity: str, records: Sequence[Record], names: Names) -> str | None:
    """Why times among `records` decide nothing, where the quantity has times in it; None when they may."""
    reasons = [r.unstable for r in records if r.unstable]
    if not reasons:
        return None
    # Of the methods of these records alone: another one of the selection may declare the metric otherwise.
    names = replace(names, methods={r.method for r in records})
    if not any(names.is_time(reference.metric) for reference in _parsed(quantity).references):
        return None
    which = "" if len(reasons) == len(records) else f" in {len(reasons)} of {len(records)} records"
    return f"unstable{which}: {reasons[0]}"


def _judge(
    condition: Condition, estimate: evaluation.Estimate, claim: Claim, disturbed: str | None = None
) -> Decided:
    low, high = condition.bounds
    unit = condition.unit if condition.unit is not None else claim.claimed.unit
    figure = _figure(condition.quantity, estimate, unit)
    outcome: Literal["holds", "contradicted", "inconclusive"] = "inconclusive"
    if estimate.low is not None and estimate.high is not None:
        bad_low, bad_high = condition.contradicted.interval if condition.contradicted else (low, high)
        if low <= estimate.low and estimate.high <= high:
            outcome = "holds"
        elif estimate.high < bad_low or estimate.low > bad_high:
            outcome = "contradicted"
    if disturbed is not None:
        outcome = "inconclusive"
    return Decided(
        quantity=condition.quantity,
        bounds=condition.describe(),
        figure=figure,
        outcome=outcome,
        why=disturbed or estimate.why,
    )


def _combine(rule: Rule, decided: Sequence[Decided]) -> tuple[str, str]:
    """The rule's outcome, and the sentence that explains it by the condition that decided."""
    contradicted = [d for d in decided if d.outcome == "contradicted"]
    open_ones = [d for d in decided if d.outcome == "inconclusive"]
    if contradicted and (rule.contradicted_if == "any" or len(contradicted) == len(decided)):
        return "contradicted", _sentence(contradicted[0])
    if not contradicted and not open_ones:
        return "held", _sentence(decided[0])
    return "inconclusive", _sentence((open_ones or contradicted)[0])


def _sentence(decided: Decided) -> str:
    what = {
        "holds": f"is {decided.bounds}",
        "contradicted": f"is not {decided.bounds}",
        "inconclusive": f"leaves open whether it is {decided.bounds}",
    }[decided.outcome]
    text = f"{decided.quantity} = {decided.figure} {what}"
    return f"{text}: {decided.why}" if decided.why else text


def _controls(rule: Rule, place: str, evidence: Evidence) -> dict[str, Figure | str]:
    found: dict[str, Figure | str] = {}
    for name, quantity in rule.controls.items():
        try:
            estimate = evidence.selected(place, rule.on).estimate(quantity, False)
        except NotMeasured as missing:
            found[name] = f"not measured: {missing}"
            continue
        found[name] = _figure(quantity, estimate)
    return found


def _near(by_place: ByPlace, place: str, selection: paper.Selection) -> list[Record]:
    """The records of a selection's task, and of its comparisons where it names some."""
    names = selection.comparisons or (None,)
    return [r for name in names for r in by_place.get((place, selection.task, name), [])]


def select(records: Iterable[Record], selection: paper.Selection) -> list[Record]:
    """The records that a selection names."""
    comparisons = selection.comparisons
    where = selection.where.items()
    chosen = [r for r in records if not comparisons or r.comparison in comparisons]
    if where:
        chosen = [
            r for r in chosen if all(n in r.task_parameters and r.task_parameters[n] == v for n, v in where)
        ]
    if comparisons:
        return chosen
    # The same measurement may stand in several comparisons (a full suite and a shorter one); it counts once.
    once: dict[str, Record] = {}
    for r in chosen:
        identity = identity_of(r)
        other = once.get(identity)
        if other is None or (r.status == "ok", r.started) >= (other.status == "ok", other.started):
            once[identity] = r
    return list(once.values())


def _where(selection: paper.Selection) -> str:
    return " with " + ", ".join(f"{k}={v}" for k, v in selection.where.items()) if selection.where else ""


def _shared(parameters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    distinct = list({id(p): p for p in parameters}.values())
    return {k: v for k, v in distinct[0].items() if all(p.get(k) == v for p in distinct)} if distinct else {}


@dataclass
class Names:
    """What the catalog declares of the metrics that may appear together in one quantity."""

    catalog: Catalog
    task: str
    methods: Iterable[str]

    def metric(self, name: str) -> Any:
        """The `Metric` of that name, or None."""
        known = self.catalog.methods
        entries = [self.catalog.task(self.task), *(known[m] for m in sorted(self.methods) if m in known)]
        for entry in entries:
            for metric in entry.metrics:
                if metric.name == name:
                    return metric
        return None

    def deterministic(self, name: str) -> bool:
        """Whether one measurement of the metric decides."""
        metric = self.metric(name)
        return metric is not None and bool(metric.deterministic)

    def is_time(self, name: str) -> bool:
        """Whether the metric is a time or a rate, which a disturbed machine falsifies."""
        if name in INSTRUMENT_METRICS:
            return INSTRUMENT_METRICS[name][0] in _TIMES
        metric = self.metric(name)
        return metric is not None and (metric.unit in _TIMES or metric.unit.endswith("/s"))

    def better(self, name: str) -> str:
        """Which way the metric is better."""
        if name in INSTRUMENT_METRICS:
            return INSTRUMENT_METRICS[name][1]
        metric = self.metric(name)
        return "neither" if metric is None else str(metric.better)
