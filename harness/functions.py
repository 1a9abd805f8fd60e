"""The functions of quantities, on curves over open parameters, and parameters as coordinates of a curve.

A curve is a `harness.curve.Curve` with the dimension ``replicate`` (the estimate and its bootstrap replicates) and one
dimension for each open parameter.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import NotMeasured, RequestError
from harness.expression import ELEMENTWISE

if TYPE_CHECKING:
    from harness.curve import Curve

SEED = "seed"
REPLICATE = "replicate"


def call(
    name: str, arguments: list[Any], keywords: dict[str, Any], better: str | None, node: ast.Call
) -> Curve | Any:
    """Apply a function of the language. `node` is how it stands in the quantity, for errors."""
    import numpy as np

    from harness.curve import Curve

    if name in ELEMENTWISE:
        return getattr(np, name)(arguments[0])
    curve, dims = arguments[0], [a for a in arguments[1:] if isinstance(a, str)]
    if name == "nearest":
        return _nearest(curve, keywords["by"], keywords["to"], keywords["over"])
    if name == "rank_correlation":
        return _rank_correlation(curve, arguments[1], dims[0])
    if not isinstance(curve, Curve):
        raise RequestError(f"'{ast.unparse(node)}': the first argument has no records in it")
    over = dims or [d for d in curve.dims if d != REPLICATE]
    for dim in over:
        if dim not in curve.dims:
            if name in ("max", "min", "mean", "sum", "best", "first", "last", "share"):
                continue  # measured at one value only, so already closed
            raise NotMeasured(
                f"'{ast.unparse(node)}' needs several values of '{dim}', but only one was measured"
            )
    over = [d for d in over if d in curve.dims]
    match name:
        case "max" | "min" | "mean" | "sum":
            # A missing grid point is missing, not ignored: NaN here ends as "not measured".
            return curve.reduce(getattr(np, name), over)
        case "share":
            return curve.reduce(np.nanmean, over)
        case "spread":
            return curve.reduce(np.max, over) - curve.reduce(np.min, over)
        case "at":
            return _at(curve, keywords, node)
        case "first" | "last":
            return curve.take(over[0], 0 if name == "first" else -1) if over else curve
        case "best":
            return _chosen(curve, over[0], better, node)[0] if over else curve
        case "argbest":
            return _chosen(curve, over[0], better, node)[1]
        case "least_step" | "greatest_step":
            counted = curve.counted(over[0])
            steps = counted.take(over[0], slice(1, None)) - counted.take(over[0], slice(None, -1))
            return steps.reduce(np.min if name == "least_step" else np.max, over[:1])
        case "slope":
            return _slope(curve, over[0], keywords.get("last"), node)
        case "standard_error":
            if SEED not in curve.dims:
                raise RequestError(f"'{ast.unparse(node)}': standard_error takes a metric with seeds=\"each\"")
            return curve.reduce(np.nanstd, [SEED], ddof=1) / math.sqrt(curve.size(SEED))
    raise AssertionError(name)


def _at(curve: Curve, keywords: Mapping[str, Any], node: ast.Call) -> Curve:
    """`curve` at one value of each of the open parameters that `keywords` names."""
    for dim, value in keywords.items():
        if dim not in curve.dims:
            raise NotMeasured(f"'{ast.unparse(node)}': '{dim}' is not open there")
        places = [i for i, v in enumerate(curve.points[dim]) if same(v, value)]
        if not places:
            raise NotMeasured(f"'{ast.unparse(node)}': no record at {dim}={value}")
        curve = curve.take(dim, places[0])
    return curve


def _chosen(curve: Curve, dim: str, better: str | None, node: ast.Call) -> tuple[Curve, Curve]:
    """Best value over `dim` and where it is; ties go to the first. NaN never wins."""
    import numpy as np

    from harness.curve import Curve

    if better not in ("higher", "lower"):
        raise RequestError(
            f"'{ast.unparse(node)}': neither direction of the metric is better", hint="use max or min"
        )
    if better == "higher":
        place = curve.filled(-math.inf).reduce(np.argmax, [dim])
    else:
        place = curve.filled(math.inf).reduce(np.argmin, [dim])
    points = np.asarray(curve.points[dim], dtype=float)
    return curve.pick(dim, place), Curve(points[place.values], place.dims, place.points)


def _slope(curve: Curve, dim: str, last: Any, node: ast.Call) -> Curve | Any:
    """Least-squares slope of log `curve` over log `dim`."""
    import numpy as np

    from harness.curve import Curve

    if last is not None:
        curve = curve.take(dim, slice(-int(last), None))
    if curve.size(dim) < 2:
        raise NotMeasured(f"'{ast.unparse(node)}' needs at least two values of '{dim}'")
    x = np.log(np.asarray(curve.points[dim], dtype=float))
    centred = x - x.mean()
    products: Curve = np.log(curve) * Curve(centred, [dim])
    return products.reduce(np.sum, [dim]) / float((centred**2).sum())


def _nearest(x: Any, by: Any, to: Any, over: str) -> Any:
    """`x` at the value of `over` where `by` is nearest to `to`."""
    import numpy as np

    if over not in x.dims:
        return x
    return x.pick(over, abs(by - to).filled(math.inf).reduce(np.argmin, [over]))


def _rank_correlation(x: Curve, y: Curve, dim: str) -> Curve:
    """Spearman's, over `dim`."""
    import numpy as np
    from scipy import stats

    from harness.curve import Curve, broadcast

    def of_ranks(a: Any, b: Any) -> Any:
        return stats.spearmanr(a, b).statistic

    x, y = broadcast(x, y)
    axis = x.dims.index(dim)
    pairs = [np.moveaxis(c.values.astype(float), axis, -1) for c in (x, y)]
    values = np.vectorize(of_ranks, signature="(n),(n)->()")(*pairs)
    return Curve(values, [d for d in x.dims if d != dim], {d: p for d, p in x.points.items() if d != dim})


# -- parameters as coordinates --------------------------------------------------------------------------


def open_parameters(given: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that take several values among `given`, the parameters of records."""
    names: dict[str, set[Any]] = {}
    for parameters in given:
        for name, value in parameters.items():
            names.setdefault(name, set()).add(hashable(value))
    return sorted(n for n, values in names.items() if len(values) > 1)


def hashable(value: Any) -> Any:
    """A parameter's value as a coordinate."""
    return repr(value) if isinstance(value, list | dict | tuple) else value


def in_order(values: Iterable[Any]) -> list[Any]:
    """The distinct values, sorted by value where they can be compared."""
    distinct = {hashable(v): v for v in values}
    try:
        return sorted(distinct.values())
    except TypeError:
        return sorted(distinct.values(), key=repr)


def same(a: Any, b: Any) -> bool:
    """Whether a record's value is the one that a claim names; True is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b or (isinstance(a, bool) and isinstance(b, bool) and a == b)
    if isinstance(a, tuple):
        a = list(a)
    if isinstance(b, tuple):
        b = list(b)
    if isinstance(b, list) and not isinstance(a, list):
        return any(same(a, each) for each in b)
    return bool(a == b)
