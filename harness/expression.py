"""Quantities of claims: arithmetic over records, with every value carried as bootstrap replicates.

An expression is parsed as Python syntax and evaluated here; nothing of it is ever run as code. A value is an
`xarray.DataArray` whose dimension ``replicate`` holds the estimate (replicate 0) and its bootstrap replicates, and
whose other dimensions are the parameters that are still open. ``docs/adding-a-paper.md`` lists the functions.
"""

from __future__ import annotations

import ast
import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import RequestError, nearest
from harness.record import INSTRUMENT_METRICS, Record

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

REPLICATES = 1000
SEED = "seed"
_REPLICATE = "replicate"

_SAMPLED = ("latency", "throughput")
_ELEMENTWISE = ("log", "log10", "exp", "sqrt", "abs")
FUNCTIONS = (
    "argbest", "at", "best", "first", "greatest_step", "last", "least_step", "max", "mean", "min", "nearest",
    "rank_correlation", "share", "slope", "spread", "standard_error", "sum", *_ELEMENTWISE,
)  # fmt: skip


class NotMeasured(Exception):
    """The records that a quantity needs are not there; the message says which."""


@dataclass(frozen=True)
class Reference:
    """A metric of a contender, as an expression names it."""

    metric: str
    label: str
    fixed: tuple[tuple[str, Any], ...]
    seeds: str = "mean"


@dataclass(frozen=True)
class Expression:
    """A parsed quantity."""

    text: str
    tree: ast.expr

    @property
    def references(self) -> list[Reference]:
        """The metrics that it needs, in the order they stand."""
        return [
            _reference(node)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and _called(node) not in FUNCTIONS
        ]


def parse(text: str) -> Expression:
    """Parse a quantity.

    Raises:
        RequestError: it is not an expression of the language; the caller adds file and line.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RequestError(f"'{text}' is not an expression: {getattr(error, 'msg', error)}") from None
    _check(tree, text, 0)
    return Expression(text, tree)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


def _check(node: ast.expr, text: str, depth: int) -> None:
    if depth > 40:
        raise RequestError(f"'{text[:60]}...' is nested too deeply")
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand, text, depth + 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left, text, depth + 1)
            _check(right, text, depth + 1)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            _check(left, text, depth + 1)
            _check(right, text, depth + 1)
        case ast.Call(func=ast.Name()):
            name = _called(node)
            if name not in FUNCTIONS:
                _reference(node)
                return
            for part in (*node.args, *(k.value for k in node.keywords)):
                _check(part, text, depth + 1)
        case ast.Name(id=name):
            raise RequestError(
                f"'{name}' in '{text}' stands alone; names of methods and parameters are in quotes"
            )
        case _:
            raise RequestError(
                f"'{ast.unparse(node)}' in '{text}' is not part of the language of quantities",
                hint='numbers, + - * / **, comparisons, metric("label", parameter=value) and functions',
            )


def _called(node: ast.Call) -> str:
    if not isinstance(node.func, ast.Name):
        raise RequestError(f"'{ast.unparse(node)}' does not call a metric or a function by name")
    return node.func.id


def _reference(node: ast.Call) -> Reference:
    name = _called(node)
    text = ast.unparse(node)
    if len(node.args) != 1 or not (
        isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    ):
        raise RequestError(
            f"'{text}': a metric takes one label in quotes, then parameter=value",
            hint=nearest(name, FUNCTIONS) if nearest(name, FUNCTIONS) else None,
        )
    fixed: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise RequestError(f"'{text}': parameters are written out, as name=value")
        try:
            fixed[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise RequestError(f"'{text}': the value of '{keyword.arg}' is not a literal") from None
    seeds = fixed.pop("seeds", "mean")
    if seeds not in ("mean", "each"):
        raise RequestError(f'\'{text}\': seeds is "mean" or "each", not {seeds!r}')
    return Reference(name, node.args[0].value, tuple(sorted(fixed.items())), seeds)


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
        self._deterministic = deterministic
        self._better = better
        self._bootstrap_seed = seed
        self._used: dict[str, Record] = {}
        self._needs_interval: set[str] = set()
        self._seed_counts: list[int] = []
        self._samples = 0

    def evaluate(self, expression: Expression, *, logarithmic: bool = False) -> Estimate:
        """The quantity and its 95 % interval.

        Args:
            expression: what to compute.
            logarithmic: form the interval on the logarithm, for ratios.

        Raises:
            NotMeasured: records are missing, or a parameter is left open.
        """
        import numpy as np
        import xarray as xr

        self._used, self._needs_interval, self._seed_counts, self._samples = {}, set(), [], 0
        labels = {reference.label for reference in expression.references}
        self._seeds = sorted({r.seed for r in self._records if r.status == "ok" and r.label in labels})
        self._rng = np.random.default_rng(self._bootstrap_seed)
        count = max(len(self._seeds), 1)
        # One draw of seeds for the whole expression: methods that ran on the same seeds stay paired.
        self._draws = self._rng.integers(0, count, size=(REPLICATES + 1, count))
        self._draws[0] = np.arange(count)
        with warnings.catch_warnings(), np.errstate(all="ignore"), _exact_alignment():
            warnings.simplefilter("ignore", RuntimeWarning)  # means over absent grid points are NaN on purpose
            try:
                result = self._value(expression.tree)
            except xr.AlignmentError as error:
                raise NotMeasured("its parts were measured at different points of the grid") from error
            if not hasattr(result, "dims"):
                result = self._constant(float(result))
            left = [str(d) for d in result.dims if d != _REPLICATE]
            if left:
                open_points = {d: [_plain(v) for v in result[d].values] for d in left}
                raise NotMeasured(
                    "the quantity leaves open "
                    + "; ".join(f"{d} (measured at {', '.join(map(str, v))})" for d, v in open_points.items())
                )
            replicates = np.asarray(result.values, dtype=float)
        return self._estimate(replicates, logarithmic)

    def _estimate(self, replicates: Any, logarithmic: bool) -> Estimate:
        import numpy as np
        from scipy import stats

        value = float(replicates[0])
        if not math.isfinite(value):
            raise NotMeasured("records are missing for a part of the grid that the quantity needs")
        seeds = min(self._seed_counts, default=0)
        keys = list(self._used)
        draws = replicates[1:]
        draws = draws[np.isfinite(draws)]
        if seeds == 1 and self._needs_interval:
            names = ", ".join(sorted(self._needs_interval))
            why = f"one seed says nothing about the spread of {names}; measure at least two"
            return Estimate(value, None, None, seeds, self._samples, keys, why)
        if draws.size < REPLICATES // 2:
            why = "too few bootstrap replicates are finite"
            return Estimate(value, None, None, seeds, self._samples, keys, why)
        log = logarithmic and value > 0 and bool((draws > 0).all())
        centre, spread = (math.log(value), np.log(draws)) if log else (value, draws)
        if seeds >= 2 and self._seed_counts:
            # With few seeds the percentiles of a bootstrap are too narrow. The bootstrap's standard error,
            # corrected for its bias, with Student's t gives back the classical interval for a mean.
            error = float(np.std(spread)) * math.sqrt(seeds / (seeds - 1))
            half = float(stats.t.ppf(0.975, seeds - 1)) * error
            low, high = centre - half, centre + half
        else:
            low, high = (float(q) for q in np.percentile(spread, [2.5, 97.5]))
            low, high = min(low, centre), max(high, centre)
        if log:
            low, high = math.exp(low), math.exp(high)
        return Estimate(value, low, high, seeds, self._samples, keys)

    # -- values -----------------------------------------------------------------------------------------

    def _constant(self, value: float) -> xr.DataArray:
        import numpy as np
        import xarray as xr

        return xr.DataArray(np.full(REPLICATES + 1, value), dims=[_REPLICATE])

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand)
            case ast.UnaryOp(operand=operand):
                return self._value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left), self._value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _COMPARE[type(op)](self._value(left), self._value(right))
            case ast.Call():
                name = _called(node)
                if name not in FUNCTIONS:
                    return self._metric(_reference(node))
                arguments = [self._value(a) for a in node.args]
                keywords = {str(k.arg): self._value(k.value) for k in node.keywords}
                better = None
                if name in ("best", "argbest"):
                    better = self._direction(node)
                return _call(name, arguments, keywords, better, ast.unparse(node))
        raise RequestError(f"'{ast.unparse(node)}' is not part of the language of quantities")

    def _direction(self, node: ast.Call) -> str:
        inner = node.args[0] if node.args else None
        if not isinstance(inner, ast.Call) or _called(inner) in FUNCTIONS:
            raise RequestError(
                f"'{ast.unparse(node)}': best and argbest take a metric, whose better direction is known",
                hint="use max or min for anything computed",
            )
        return self._better(_called(inner))

    def _metric(self, reference: Reference) -> xr.DataArray:
        import numpy as np
        import xarray as xr

        records = self._matching(reference)
        names = _open_parameters(records)
        axes = {n: _sorted(r.parameters.get(n) for r in records) for n in names}
        index = {n: {_hashable(v): i for i, v in enumerate(values)} for n, values in axes.items()}
        position = {seed: i for i, seed in enumerate(self._seeds)}
        shape = (len(self._seeds), *(len(v) for v in axes.values()))
        sampled = reference.metric in _SAMPLED
        table = np.full((REPLICATES + 1, *shape) if sampled else shape, np.nan)
        counts: dict[int, int] = {}
        for record in records:
            at: tuple[Any, ...] = (
                position[record.seed],
                *(index[n][_hashable(record.parameters.get(n))] for n in names),
            )
            value = record.value(reference.metric)
            if value is None:
                continue
            self._used[record.key] = record
            counts[record.seed] = counts.get(record.seed, 0) + 1
            if sampled:
                table[(slice(None), *at)] = self._medians(record, reference.metric)
            else:
                table[at] = value
        if not counts:
            raise NotMeasured(f"the records of '{reference.label}' have no {reference.metric}")
        self._seed_counts.append(len(counts))
        if self._varies(reference.metric, records):
            self._needs_interval.add(reference.metric)
        coordinates = {n: np.array([_hashable(v) for v in values], dtype=object) for n, values in axes.items()}
        resampled = self._resample(table, sampled)
        if reference.seeds == "each":
            array = xr.DataArray(
                resampled,
                dims=[_REPLICATE, SEED, *names],
                coords={**coordinates, SEED: np.arange(len(self._seeds))},
            )
        else:
            array = xr.DataArray(np.nanmean(resampled, axis=1), dims=[_REPLICATE, *names], coords=coordinates)
        return array

    def _varies(self, metric: str, records: Sequence[Record]) -> bool:
        if metric in _SAMPLED:
            return all(len(r.latency.samples) < 2 for r in records if r.latency)
        return not self._deterministic(metric)

    def _resample(self, table: Any, sampled: bool) -> Any:
        """Replicates over resampled seeds: [replicate, seed, ...]."""
        import numpy as np

        if not sampled:
            return table[self._draws]
        rows = np.arange(REPLICATES + 1)[:, None]
        return table[rows, self._draws]

    def _medians(self, record: Record, metric: str) -> Any:
        """The median of the samples and of resampled samples: [replicate]."""
        import numpy as np

        assert record.latency is not None
        samples = np.asarray(record.latency.samples, dtype=float)
        self._samples += samples.size
        medians = np.empty(REPLICATES + 1)
        medians[0] = np.median(samples)
        draws = self._rng.integers(0, samples.size, size=(REPLICATES, samples.size))
        medians[1:] = np.median(samples[draws], axis=1)
        return medians if metric == "latency" else float(record.amount or math.nan) / medians

    def _matching(self, reference: Reference) -> list[Record]:
        fixed = dict(reference.fixed)
        labelled = [r for r in self._records if r.label == reference.label]
        if not labelled:
            raise NotMeasured(f"no record of '{reference.label}'")
        unknown = [n for n in fixed if all(n not in r.parameters for r in labelled)]
        if unknown:
            raise NotMeasured(f"the records of '{reference.label}' have no parameter '{unknown[0]}'")
        there = [r for r in labelled if all(_same(r.parameters.get(n), v) for n, v in fixed.items())]
        at = ", ".join(f"{n}={v}" for n, v in fixed.items())
        if not there:
            raise NotMeasured(f"no record of '{reference.label}' at {at}")
        good = [r for r in there if r.status == "ok"]
        if not good:
            reasons = sorted({f"{r.status}: {r.reason}" if r.reason else r.status for r in there})
            raise NotMeasured(f"'{reference.label}' {'at ' + at + ' ' if at else ''}{'; '.join(reasons)}")
        return good


def _exact_alignment() -> contextlib.AbstractContextManager[Any]:
    import xarray as xr

    options: contextlib.AbstractContextManager[Any] = xr.set_options(arithmetic_join="exact")  # type: ignore[no-untyped-call]
    return options


# -- functions ------------------------------------------------------------------------------------------


def _call(name: str, arguments: list[Any], keywords: dict[str, Any], better: str | None, text: str) -> Any:
    import numpy as np

    if name in _ELEMENTWISE:
        return getattr(np, name)(arguments[0])
    array, dims = arguments[0], [a for a in arguments[1:] if isinstance(a, str)]
    if name == "nearest":
        return _nearest(array, keywords["by"], keywords["to"], keywords["over"])
    if name == "rank_correlation":
        return _rank_correlation(array, arguments[1], dims[0])
    if not hasattr(array, "dims"):
        raise RequestError(f"'{text}': the first argument has no records in it")
    over = dims or [str(d) for d in array.dims if d != _REPLICATE]
    for dim in over:
        if dim not in array.dims:
            if name in ("max", "min", "mean", "sum", "best", "first", "last", "share"):
                continue  # measured at one value only, so already closed
            raise NotMeasured(f"'{text}' needs several values of '{dim}', but only one was measured")
    over = [d for d in over if d in array.dims]
    match name:
        case "max" | "min" | "mean" | "sum":
            # A missing grid point is missing, not ignored: NaN here ends as "not measured".
            return getattr(array, name)(over, skipna=False)
        case "share":
            return array.astype(float).mean(over)
        case "spread":
            return array.max(over, skipna=False) - array.min(over, skipna=False)
        case "at":
            return _at(array, keywords, text)
        case "first" | "last":
            return array.isel({over[0]: 0 if name == "first" else -1}, drop=True) if over else array
        case "best":
            return _chosen(array, over[0], better, text)[0] if over else array
        case "argbest":
            return _chosen(array, over[0], better, text)[1]
        case "least_step" | "greatest_step":
            steps = array.isel({over[0]: slice(1, None)}).drop_vars(over[0]) - array.isel(
                {over[0]: slice(None, -1)}
            ).drop_vars(over[0])
            return (
                steps.min(over[0], skipna=False) if name == "least_step" else steps.max(over[0], skipna=False)
            )
        case "slope":
            return _slope(array, over[0], keywords.get("last"), text)
        case "standard_error":
            if SEED not in array.dims:
                raise RequestError(f"'{text}': standard_error takes a metric with seeds=\"each\"")
            return array.std(SEED, ddof=1) / math.sqrt(array.sizes[SEED])
    raise AssertionError(name)


def _at(array: Any, keywords: Mapping[str, Any], text: str) -> Any:
    for dim, value in keywords.items():
        if dim not in array.dims:
            raise NotMeasured(f"'{text}': '{dim}' is not open there")
        places = [i for i, v in enumerate(array[dim].values) if _same(v, value)]
        if not places:
            raise NotMeasured(f"'{text}': no record at {dim}={value}")
        array = array.isel({dim: places[0]}, drop=True)
    return array


def _chosen(array: Any, dim: str, better: str | None, text: str) -> tuple[Any, Any]:
    """Best value over `dim` and where it is; ties go to the first. NaN never wins."""
    import numpy as np
    import xarray as xr

    if better not in ("higher", "lower"):
        raise RequestError(f"'{text}': neither direction of the metric is better", hint="use max or min")
    fill = -math.inf if better == "higher" else math.inf
    filled = array.fillna(fill)
    place = filled.argmax(dim) if better == "higher" else filled.argmin(dim)
    points = np.asarray(array[dim].values, dtype=float)
    where = xr.DataArray(points[place.values], dims=place.dims, coords=place.coords)
    return array.isel({dim: place}).drop_vars(dim), where


def _slope(array: Any, dim: str, last: Any, text: str) -> Any:
    import numpy as np
    import xarray as xr

    if last is not None:
        array = array.isel({dim: slice(-int(last), None)})
    if array.sizes[dim] < 2:
        raise NotMeasured(f"'{text}' needs at least two values of '{dim}'")
    x = np.log(np.asarray(array[dim].values, dtype=float))
    centred = xr.DataArray(x - x.mean(), dims=[dim])
    return (np.log(array.drop_vars(dim)) * centred).sum(dim, skipna=False) / float((centred**2).sum())


def _nearest(x: Any, by: Any, to: Any, over: str) -> Any:
    if over not in x.dims:
        return x
    place = abs(by - to).fillna(math.inf).argmin(over)
    return x.isel({over: place}).drop_vars(over)


def _rank_correlation(x: Any, y: Any, dim: str) -> Any:
    import xarray as xr
    from scipy import stats

    def pearson_of_ranks(a: np.ndarray, b: np.ndarray) -> Any:
        return stats.spearmanr(a, b).statistic

    if isinstance(y, str):
        x, y, dim = x, x[y], y
    x, y = xr.broadcast(x, y)
    return xr.apply_ufunc(
        pearson_of_ranks, x.astype(float), y.astype(float), input_core_dims=[[dim], [dim]], vectorize=True
    )


# -- parameters as coordinates --------------------------------------------------------------------------


def _open_parameters(records: Sequence[Record]) -> list[str]:
    names: dict[str, set[Any]] = {}
    for record in records:
        for name, value in record.parameters.items():
            names.setdefault(name, set()).add(_hashable(value))
    return sorted(n for n, values in names.items() if len(values) > 1)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, list | dict | tuple) else value


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _sorted(values: Iterable[Any]) -> list[Any]:
    distinct = {_hashable(v): v for v in values}
    try:
        return sorted(distinct.values())
    except TypeError:
        return sorted(distinct.values(), key=repr)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b or (isinstance(a, bool) and isinstance(b, bool) and a == b)
    if isinstance(a, tuple):
        a = list(a)
    if isinstance(b, tuple):
        b = list(b)
    if isinstance(b, list) and not isinstance(a, list):
        return any(_same(a, each) for each in b)
    return bool(a == b)


def check_names(
    expression: Expression,
    metrics_of: Callable[[str], Mapping[str, Any] | None],
    parameters_of: Callable[[str], Iterable[str] | None],
) -> None:
    """Check metrics and parameters of an expression against what is declared.

    Args:
        expression: the quantity.
        metrics_of: metrics by name that a label can have, or None when the label is unknown.
        parameters_of: names of the parameters that a label can fix, or None when it is unknown.

    Raises:
        RequestError: a metric that no task has, an unknown label, or an unknown parameter.
    """
    for reference in expression.references:
        metrics = metrics_of(reference.label)
        if metrics is None:
            raise RequestError(f"no suite has a method or label '{reference.label}'")
        if reference.metric not in metrics and reference.metric not in INSTRUMENT_METRICS:
            raise RequestError(
                f"'{reference.metric}' is neither a metric of '{reference.label}' and its task nor a function",
                hint=nearest(reference.metric, [*metrics, *INSTRUMENT_METRICS, *FUNCTIONS]),
            )
        known = parameters_of(reference.label)
        for name, _ in reference.fixed:
            if known is not None and name not in known:
                raise RequestError(
                    f"'{reference.label}' and its task have no parameter '{name}'", hint=nearest(name, known)
                )
