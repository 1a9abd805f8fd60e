"""Evaluates quantities over records, with every value carried as bootstrap replicates.

A value is a `harness.curve.Curve` whose dimension ``replicate`` holds the estimate (replicate 0) and its bootstrap
replicates, and whose other dimensions are the parameters that are still open. ``docs/verdicts.md`` explains the interval.
"""

from __future__ import annotations

import ast
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness import functions
from harness.errors import NotMeasured, RequestError
from harness.expression import BINARY, COMPARE, FUNCTIONS, Expression, Reference, called, reference_of
from harness.functions import REPLICATE, SEED, hashable, same
from harness.record import Record

if TYPE_CHECKING:
    from harness.curve import Curve

REPLICATES = 1000
_PER_LAUNCH = {
    "first_latency": "first", "prepare_time": "prepare", "peak_memory": "peak", "run_memory": "run",
    "device_memory": "device",
}  # fmt: skip
"""Metrics of the instrument that every process of a method has, and their field in `harness.record.Launch`."""


@dataclass
class Estimate:
    """A quantity with its interval.

    Attributes:
        value: the estimate.
        low, high: ends of the 95 % interval; None when the records give none.
        seeds: how many seeds it rests on.
        samples: how many latency samples, over all records; 0 when no latency is involved.
        keys: the records behind it.
        why: why there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    samples: int
    keys: list[str] = field(default_factory=list)
    why: str | None = None


class Evaluator:
    """Evaluates expressions over the records of one selection on one profile.

    Args:
        records: the records that match the selection, of any status.
        deterministic: whether the metric of a label is declared deterministic.
        better: "higher", "lower" or "neither" for a metric.
        seed: seed of the bootstrap, so that a verdict is the same each time it is computed.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        deterministic: Callable[[str], bool] = lambda metric: False,
        better: Callable[[str], str] = lambda metric: "neither",
        seed: int = 0,
    ) -> None:
        self._records = records
        self._by_label = _by_label(records)
        self._seeds_of = {
            n: {r.seed for r, _ in there if r.status == "ok"} for n, there in self._by_label.items()
        }
        self._deterministic = deterministic
        self._better = better
        self._bootstrap_seed = seed
        self._used: dict[str, Record] = {}
        self._needs_interval: set[str] = set()
        self._seed_counts: list[int] = []
        self._launch_counts: list[int] = []
        self._samples = 0
        self._levels: dict[str, dict[int, float]] = {}
        self._measured: dict[tuple[str, str], Any] = {}

    def evaluate(self, expression: Expression, *, logarithmic: bool = False) -> Estimate:
        """The quantity and its 95 % interval.

        Args:
            expression: what to compute.
            logarithmic: form the interval on the logarithm, for ratios.

        Raises:
            NotMeasured: records are missing, or a parameter is left open.
        """
        import numpy as np

        from harness.curve import Curve

        self._used, self._needs_interval, self._seed_counts, self._samples = {}, set(), [], 0
        self._launch_counts = []
        labels = {reference.label for reference in expression.references}
        self._seeds = sorted(set().union(*(self._seeds_of.get(label, ()) for label in labels)))
        # One draw of seeds for the whole expression: methods that ran on the same seeds stay paired.
        self._draws = _drawn(self._bootstrap_seed, max(len(self._seeds), 1))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # means over absent grid points are NaN on purpose
            result = self._value(expression.tree)
            if not isinstance(result, Curve):
                result = Curve(np.full(REPLICATES + 1, float(result)), [REPLICATE])
            left = [d for d in result.dims if d != REPLICATE]
            if left:
                open_points = {d: result.points.get(d, range(result.size(d))) for d in left}
                raise NotMeasured(
                    "the quantity leaves open "
                    + "; ".join(f"{d} (measured at {', '.join(map(str, v))})" for d, v in open_points.items())
                )
            replicates = np.asarray(result.values, dtype=float)
        return self._estimate(replicates, logarithmic)

    def _estimate(self, replicates: Any, logarithmic: bool) -> Estimate:
        import numpy as np

        value = float(replicates[0])
        if not math.isfinite(value):
            raise NotMeasured("records are missing for a part of the grid that the quantity needs")
        seeds = min(self._seed_counts, default=0)
        keys = list(self._used)
        draws = replicates[1:]
        draws = draws[np.isfinite(draws)]
        units = seeds if seeds != 1 else min(self._launch_counts, default=1)
        if units == 1 and self._needs_interval:
            names = ", ".join(sorted(self._needs_interval))
            # However many runs it had, one process has one memory layout and one moment: latency too differs
            # more between processes than between the runs of one.
            why = f"one seed, in one process, says nothing about the spread of {names}; measure at least two"
            return Estimate(value, None, None, seeds, self._samples, keys, why)
        if draws.size < REPLICATES // 2:
            why = "too few bootstrap replicates are finite"
            return Estimate(value, None, None, seeds, self._samples, keys, why)
        log = logarithmic and value > 0 and bool((draws > 0).all())
        centre, spread = (math.log(value), np.log(draws)) if log else (value, draws)
        if units >= 2 and self._seed_counts:
            # With few seeds the percentiles of a bootstrap are too narrow. The bootstrap's standard error,
            # corrected for its bias, with Student's t gives back the classical interval for a mean.
            error = float(np.std(spread)) * math.sqrt(units / (units - 1))
            half = students_t(units - 1) * error
            low, high = centre - half, centre + half
        else:
            low, high = (float(q) for q in np.percentile(spread, [2.5, 97.5]))
            low, high = min(low, centre), max(high, centre)
        if log:
            low, high = math.exp(low), math.exp(high)
        return Estimate(value, low, high, seeds, self._samples, keys)

    # -- values -----------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand)
            case ast.UnaryOp(operand=operand):
                return self._value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return BINARY[type(op)](self._value(left), self._value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return COMPARE[type(op)](self._value(left), self._value(right))
            case ast.Call():
                name = called(node)
                if name not in FUNCTIONS:
                    return self._metric(reference_of(node))
                arguments = [self._value(a) for a in node.args]
                keywords = {str(k.arg): self._value(k.value) for k in node.keywords}
                better = None
                if name in ("best", "argbest"):
                    better = self._direction(node)
                return functions.call(name, arguments, keywords, better, node)
        raise RequestError(f"'{ast.unparse(node)}' is not part of the language of quantities")

    def _direction(self, node: ast.Call) -> str:
        inner = node.args[0] if node.args else None
        if not isinstance(inner, ast.Call) or called(inner) in FUNCTIONS:
            raise RequestError(
                f"'{ast.unparse(node)}': best and argbest take a metric, whose better direction is known",
                hint="use max or min for anything computed",
            )
        return self._better(called(inner))

    def _metric(self, reference: Reference) -> Curve:
        import numpy as np

        from harness.curve import Curve

        found = self._matching(reference)
        settings = list({id(given): given for _, given in found}.values())
        names = functions.open_parameters(settings)
        axes = {n: functions.in_order(given.get(n) for given in settings) for n in names}
        index = {n: {hashable(v): i for i, v in enumerate(values)} for n, values in axes.items()}
        places = {id(given): tuple(index[n][hashable(given.get(n))] for n in names) for given in settings}
        position = {seed: i for i, seed in enumerate(self._seeds)}
        shape = (len(self._seeds), *(len(v) for v in axes.values()))
        # Where there are several seeds they are what is resampled: their spread has that of their launches in it.
        # A single seed is spread out by its launches.
        by_launch = len(self._seeds) == 1
        table = np.full((REPLICATES + 1, *shape) if by_launch else shape, np.nan)
        counts: dict[int, int] = {}
        deterministic = self._deterministic(reference.metric)
        for record, given in found:
            at: tuple[Any, ...] = (position[record.seed], *places[id(given)])
            launched = self._launched(record, reference.metric)
            if launched is None:
                continue
            self._used[record.key] = record
            counts[record.seed] = counts.get(record.seed, 0) + 1
            if not deterministic:
                self._launch_counts.append(len(launched))
            if reference.metric in ("latency", "throughput") and record.latency is not None:
                self._samples += len(record.latency.samples)
            if by_launch:
                table[(slice(None), *at)] = self._over_launches(launched, reference.metric)
            else:
                table[at] = _mean(launched, reference.metric)
        if not counts:
            raise NotMeasured(f"the records of '{reference.label}' have no {reference.metric}")
        self._seed_counts.append(len(counts))
        if not deterministic:
            self._needs_interval.add(reference.metric)
        points = {n: [hashable(v) for v in values] for n, values in axes.items()}
        resampled = table if by_launch else table[self._draws]
        if reference.seeds == "each":
            return Curve(resampled, [REPLICATE, SEED, *names], points | {SEED: list(range(len(self._seeds)))})
        # numpy's mean is several times as fast where nothing is missing.
        mean = np.nanmean if np.isnan(table).any() else np.mean
        return Curve(mean(resampled, axis=1), [REPLICATE, *names], points)

    def _launched(self, record: Record, metric: str) -> Any:
        """The values of a metric, one per launch that has its own; None where it was not measured."""
        at = (record.key, metric)
        if at not in self._measured:
            self._measured[at] = self._by_launch(record, metric)
        return self._measured[at]

    def _by_launch(self, record: Record, metric: str) -> Any:
        import numpy as np

        if metric in ("latency", "throughput"):
            if record.latency is None or (metric == "throughput" and record.amount is None):
                return None
            seconds = np.exp(list(self._steadied(record).values()))
            return seconds if metric == "latency" else float(record.amount or math.nan) / seconds
        if metric in _PER_LAUNCH and record.launches:
            found = [getattr(launch, _PER_LAUNCH[metric]) for launch in record.launches]
            return None if any(value is None for value in found) else np.array(found, dtype=float)
        value = record.value(metric)
        return None if value is None else np.array([value], dtype=float)

    def _steadied(self, record: Record) -> dict[int, float]:
        """The log latency of each launch, without the drift it shares with those it took turns with."""

        from harness.measure.statistics import log_latencies

        latency = record.latency
        assert latency is not None
        if not latency.blocks.launch:
            return {0: math.log(max(statistics.median(latency.samples), 1e-12))}
        if record.key not in self._levels:
            group = [record]
            if record.turns is not None:
                group = [r for r in self._records if r.turns == record.turns and r.status == "ok" and r.latency]
            for each, levels in zip(group, log_latencies([r.latency for r in group if r.latency]), strict=True):
                self._levels[each.key] = levels
        return self._levels[record.key]

    def _over_launches(self, values: Any, metric: str) -> Any:
        """The mean over the launches, and over resampled ones: [replicate]. The same draw for all methods."""
        draws = _drawn((self._bootstrap_seed, len(values)), len(values))
        return _mean(values[draws], metric)

    def _matching(self, reference: Reference) -> list[tuple[Record, dict[str, Any]]]:
        """The records of a reference that are in order, with their parameters."""
        fixed = dict(reference.fixed)
        labelled = self._by_label.get(reference.label)
        if not labelled:
            raise NotMeasured(f"no record of '{reference.label}'")
        unknown = [n for n in fixed if all(n not in given for _, given in labelled)]
        if unknown:
            raise NotMeasured(f"the records of '{reference.label}' have no parameter '{unknown[0]}'")
        settings = {id(given): given for _, given in labelled}
        right = {at for at, given in settings.items() if all(same(given.get(n), v) for n, v in fixed.items())}
        there = [(r, given) for r, given in labelled if id(given) in right]
        at = ", ".join(f"{n}={v}" for n, v in fixed.items())
        if not there:
            raise NotMeasured(f"no record of '{reference.label}' at {at}")
        good = [(r, given) for r, given in there if r.status == "ok"]
        if not good:
            reasons = sorted({f"{r.status}: {r.reason}" if r.reason else r.status for r, _ in there})
            raise NotMeasured(f"'{reference.label}' {'at ' + at + ' ' if at else ''}{'; '.join(reasons)}")
        return good


def _by_label(records: Sequence[Record]) -> dict[str, list[tuple[Record, dict[str, Any]]]]:
    """Records with their parameters, by label. Those that share their dictionaries share the joined one."""
    joined: dict[tuple[int, int], dict[str, Any]] = {}
    found: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
    for record in records:
        both = (id(record.task_parameters), id(record.method_parameters))
        given = joined.get(both)
        if given is None:
            given = joined[both] = record.parameters
        found.setdefault(record.label, []).append((record, given))
    return found


@lru_cache(maxsize=8)
def _drawn(seed: int | tuple[int, int], count: int) -> Any:
    """Which of `count` units each replicate takes: [replicate, unit]; replicate 0 takes each once."""
    import numpy as np

    draws = np.random.default_rng(seed).integers(0, count, size=(REPLICATES + 1, count))
    draws[0] = np.arange(count)
    draws.setflags(write=False)
    return draws


@lru_cache(maxsize=256)
def students_t(degrees: int) -> float:
    """Which multiple of the standard error Student's t gives for a 95 % interval.

    From `scipy.special`, for `scipy.stats`, whose quantile it is, takes two seconds to import.
    """
    from scipy import special

    return float(special.stdtrit(degrees, 0.975))


def _mean(values: Any, metric: str) -> Any:
    """Over launches, the last axis: of latencies and rates the geometric mean, so that ratios stay paired."""
    import numpy as np

    if values.shape[-1] == 1:
        return values[..., 0]
    if metric in ("latency", "throughput"):
        return np.exp(np.mean(np.log(values), axis=-1))
    return np.mean(values, axis=-1)
