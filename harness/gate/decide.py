"""What changed: from the launches of both sides to findings.

Two stages, on data that have nothing to do with each other. Screening picks the methods that look worse. They are
measured again in fresh processes, and only that second measurement convicts: a figure is `regressed` when it is worse
by the threshold or more and Holm's correction over all that were picked leaves its p-value at `LEVEL` or below. The
chance that an unchanged suite fails is therefore at most `LEVEL`, however many methods it has.

A figure in which there is no chance, such as an accuracy that is the same each time a seed is scored, is decided as
it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.gate.model import Change, Finding
from harness.gate.rounds import LEAST, Stage
from harness.gate.sides import Pair
from harness.measure.statistics import Interval, holm, sign_flip, trimmed
from harness.suitefile import Gate

if TYPE_CHECKING:
    from harness.catalog import Catalog

LEVEL = 0.01
"""Chance that an unchanged suite fails."""

SCREEN = 0.05
"""Level of the screening, per figure; it costs time, not false alarms."""

LATENCY, MEMORY, ACCURACY = 0.025, 0.05, 0.01
"""Default thresholds: relative changes for the worse."""

TIME = 10.0
"""Default seconds of machine time per method."""

_LEAST_BYTES = 1 << 20
"""A smaller difference of peaks is the allocator's granularity, whatever share of the whole it is."""

_MEMORY = {"peak_memory": "peak", "run_memory": "run", "device_memory": "device"}
_REPORTED = "peak_memory", "device_memory"


@dataclass(frozen=True)
class Figure:
    """One metric of one pair with what both stages say of it.

    Attributes:
        metric, unit, better: as declared.
        threshold: the relative change for the worse that counts.
        base, head: both sides' figures, over everything measured.
        screened, confirmed: changes, one per launch or scoring; for the worse is positive.
        scale: of the changes: "log" for differences of logarithms, "relative" to the base's figure, or "absolute",
            in the metric's unit, where the base's figure is zero.
        exact: whether there is no chance in it.
    """

    metric: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    threshold: float
    base: float
    head: float
    screened: list[float]
    confirmed: list[float]
    scale: Literal["log", "relative", "absolute"] = "log"
    exact: bool = False

    @property
    def limit(self) -> float:
        """The threshold on the scale of the changes."""
        return math.log1p(self.threshold) if self.scale == "log" else self.threshold

    @property
    def mean(self) -> float:
        """Mean change."""
        everything = self.screened + self.confirmed
        return sum(everything) / len(everything)

    def suspicious(self) -> bool:
        """Whether it has to be measured again before anything can be said."""
        if self.exact:
            return False
        if trimmed(self.screened).value < self.limit:
            return False
        # In a few launches a single disturbed one makes any p-value large; then the confirmation has to tell.
        return len(self.screened) < LEAST or sign_flip(self.screened) <= SCREEN

    def acquitted(self) -> bool:
        """Whether no change of the threshold's size can be in it."""
        if self.exact:
            return True
        found = trimmed(self.screened)
        return found.high is not None and found.high < self.limit

    def accused(self) -> bool:
        """Whether it is so clearly worse that only the confirmation can add to it."""
        if self.exact or not self.suspicious():
            return False
        found = trimmed(self.screened)
        return found.low is not None and found.low > self.limit

    def launches_needed(self) -> int:
        """Launches whose mean is within a third of the threshold of the true change, nearly always.

        From the standard error of the screened ones.
        """
        found = trimmed(self.screened)
        if self.exact or found.low is None or found.high is None:
            return 0
        error = (found.high - found.low) / 4  # half of a 95 % interval is about two of them
        return math.ceil(found.count * (3.0 * error / self.limit) ** 2)


def figures(pair: Pair, screening: Stage, confirmation: Stage | None, catalog: Catalog) -> list[Figure]:
    """All that is gated of a pair that got through: latency, memory, and metrics with a better direction."""
    gate = pair.contestant.gate
    found = []
    stages = [screening, confirmation or Stage()]
    latency = [stage.differences() for stage in stages]
    if latency[0]:
        base, head = _seconds(screening)
        threshold = gate.metrics.get("latency", gate.latency or LATENCY)
        found.append(Figure("latency", "s", "lower", threshold, base, head, latency[0], latency[1]))
    for name in _REPORTED:
        figure = _memory(name, stages, gate.metrics.get(name, gate.memory or MEMORY))
        if figure is not None:
            found.append(figure)
    return found + _metrics(pair, stages, catalog, gate)


def _seconds(stage: Stage) -> tuple[float, float]:
    import statistics

    assert stage.base is not None
    assert stage.head is not None
    medians = []
    for seat in (stage.base, stage.head):
        latency = seat.latency()
        if seat.taken and latency is not None:
            medians.append(statistics.median(latency.samples))
        else:
            medians.append(statistics.median(launch.first for launch in seat.launches))
    return medians[0], medians[1]


def _memory(name: str, stages: Sequence[Stage], threshold: float) -> Figure | None:
    import statistics

    peaks = [stage.peaks(_MEMORY[name]) for stage in stages]
    everything = peaks[0] + peaks[1]
    if not peaks[0]:
        return None
    base, head = (float(statistics.median(values)) for values in zip(*everything, strict=True))
    changes = [[_bytes(b, h) for b, h in stage] for stage in peaks]
    exact = len(everything) > 1 and len({change for stage in changes for change in stage}) == 1
    return Figure(name, "B", "lower", threshold, base, head, changes[0], changes[1], exact=exact)


def _bytes(base: int, head: int) -> float:
    """Log ratio of two peaks; none where they differ by less than an allocator may."""
    if abs(head - base) < _LEAST_BYTES:
        return 0.0
    return math.log(max(head, 1)) - math.log(max(base, _LEAST_BYTES))


def _metrics(pair: Pair, stages: Sequence[Stage], catalog: Catalog, gate: Gate) -> list[Figure]:
    declared: dict[str, Any] = {}
    for entry in (catalog.task(pair.comparison.task), catalog.method(pair.contestant.method)):
        declared |= {metric.name: metric for metric in entry.metrics}
    found = []
    for name, metric in declared.items():
        if metric.better == "neither":
            continue
        values = [
            [(base[name], head[name]) for _, base, head in stage.scores if name in base and name in head]
            for stage in stages
        ]
        everything = values[0] + values[1]
        if not values[0]:
            continue
        base, head = (sum(side) / len(side) for side in zip(*everything, strict=True))
        unit = abs(base) or 1.0
        sign = 1.0 if metric.better == "lower" else -1.0
        changes = [[sign * (h - b) / unit for b, h in stage] for stage in values]
        threshold = gate.metrics.get(name, gate.accuracy or ACCURACY)
        found.append(
            Figure(
                name, metric.unit, metric.better, threshold, base, head, changes[0], changes[1],
                scale="relative" if base else "absolute", exact=_repeats(stages, name),
            )
        )  # fmt: skip
    return found


def _repeats(stages: Sequence[Stage], name: str) -> bool:
    """Whether a metric came out the same on each side every time a seed was scored, and some seed was scored twice."""
    seen: dict[int, tuple[float, float]] = {}
    twice = False
    for seed, base, head in (score for stage in stages for score in stage.scores):
        both = (base[name], head[name])
        twice = twice or seed in seen
        if seen.setdefault(seed, both) != both:
            return False
    return twice


def decide(
    pairs: Sequence[Pair], figured: Sequence[Sequence[Figure]], launches: Sequence[int]
) -> list[list[Finding]]:
    """Findings of all pairs.

    Args:
        pairs: what was measured.
        figured: the figures of each, after confirmation of those that were suspicious.
        launches: of each pair, over both stages.
    """
    suspects = [(i, j) for i, found in enumerate(figured) for j, f in enumerate(found) if f.suspicious()]
    tested = [figured[i][j] for i, j in suspects]
    raw = [sign_flip(f.confirmed) if f.confirmed else 1.0 for f in tested]
    corrected = dict(zip(suspects, holm(raw), strict=True))
    everything = [(i, j) for i, found in enumerate(figured) for j, _ in enumerate(found)]
    better = dict(zip(everything, holm([_better(figured[i][j]) for i, j in everything]), strict=True))
    return [
        [_judge(pair, f, launches[i], corrected.get((i, j)), better[(i, j)]) for j, f in enumerate(found)]
        for i, (pair, found) in enumerate(zip(pairs, figured, strict=True))
    ]


def _better(figure: Figure) -> float:
    """The p-value of an improvement; 1 where it would be too small to matter."""
    if figure.exact or trimmed(figure.screened).value > -figure.limit:
        return 1.0
    return sign_flip([-change for change in figure.screened])


def _judge(pair: Pair, figure: Figure, launches: int, worse: float | None, better: float) -> Finding:
    """The finding on one figure. `worse` and `better` are corrected p-values."""
    pooled = trimmed(figure.screened + figure.confirmed)
    limit = figure.limit
    change: Change = "unchanged"
    p_value: float | None = None
    if figure.exact:
        value = figure.mean
        change = "regressed" if value >= limit else "improved" if value <= -limit else "unchanged"
        reason = "the same every time it was measured"
    elif worse is not None:
        confirmed = trimmed(figure.confirmed) if figure.confirmed else None
        p_value = worse
        if confirmed is not None and worse <= LEVEL and confirmed.value >= limit:
            change, reason = "regressed", f"worse in {launches} launches, and again when measured a second time"
        else:
            change, reason = _undecided(figure, pooled)
            reason += "; looked worse at first, not when measured a second time"
    elif better <= LEVEL and pooled.value <= -limit:
        change, p_value, reason = "improved", better, f"better in {launches} launches"
    else:
        change, reason = _undecided(figure, pooled)
    ratio, low, high = _as_ratio(figure, pooled)
    return pair.finding(
        metric=figure.metric, unit=figure.unit, better=figure.better, base=figure.base, head=figure.head,
        ratio=ratio, low=low, high=high, threshold=figure.threshold, p_value=p_value, launches=launches,
        change=change, reason=reason,
    )  # fmt: skip


def _undecided(figure: Figure, pooled: Interval) -> tuple[Change, str]:
    """Unchanged, where twice the threshold can be ruled out; unstable where it cannot."""
    if pooled.high is None:
        if pooled.value >= figure.limit or figure.metric == "latency":
            return "unstable", f"{pooled.count} launches are too few to tell; give it more time"
        return "unchanged", f"within the threshold in {pooled.count} launches"
    worst = math.expm1(pooled.high) if figure.scale == "log" else pooled.high
    unit = f" {figure.unit}" if figure.scale == "absolute" else ""
    text = f"{max(worst, 0.0):.3g}{unit}" if figure.scale == "absolute" else f"{max(worst, 0.0):.1%}"
    if worst > 2 * figure.threshold:
        return "unstable", f"too noisy: worse by {text} cannot be ruled out"
    return "unchanged", f"at most {text} worse"


def _as_ratio(figure: Figure, pooled: Interval) -> tuple[float | None, float | None, float | None]:
    """Head over base with its interval, from changes for the worse."""
    if figure.scale == "absolute":
        return None, None, None
    if figure.exact:
        pooled = Interval(figure.mean, figure.mean, figure.mean, pooled.count)

    def ratio(change: float | None) -> float | None:
        if change is None:
            return None
        if figure.scale == "log":
            return math.exp(change)
        return 1.0 + change if figure.better == "lower" else 1.0 - change

    ends = (pooled.low, pooled.high) if figure.better == "lower" else (pooled.high, pooled.low)
    return ratio(pooled.value), ratio(ends[0]), ratio(ends[1])
