"""The functions of quantities, on curves over open parameters, and parameters as coordinates of a curve.

A curve is an `xarray.DataArray` with the dimension ``replicate`` (the estimate and its bootstrap replicates) and one
dimension for each open parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import NotMeasured, RequestError
from harness.expression import ELEMENTWISE
from harness.record import Record

if TYPE_CHECKING:
    import numpy as np

SEED = "seed"
REPLICATE = "replicate"


def call(name: str, arguments: list[Any], keywords: dict[str, Any], better: str | None, text: str) -> Any:
    """Apply a function of the language. `text` is how it stands in the quantity, for errors."""
    import numpy as np

    if name in ELEMENTWISE:
        return getattr(np, name)(arguments[0])
    array, dims = arguments[0], [a for a in arguments[1:] if isinstance(a, str)]
    if name == "nearest":
        return _nearest(array, keywords["by"], keywords["to"], keywords["over"])
    if name == "rank_correlation":
        return _rank_correlation(array, arguments[1], dims[0])
    if not hasattr(array, "dims"):
        raise RequestError(f"'{text}': the first argument has no records in it")
    over = dims or [str(d) for d in array.dims if d != REPLICATE]
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
    """`array` at one value of each of the open parameters that `keywords` names."""
    for dim, value in keywords.items():
        if dim not in array.dims:
            raise NotMeasured(f"'{text}': '{dim}' is not open there")
        places = [i for i, v in enumerate(array[dim].values) if same(v, value)]
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
    """Least-squares slope of log `array` over log `dim`."""
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
    """`x` at the value of `over` where `by` is nearest to `to`."""
    if over not in x.dims:
        return x
    place = abs(by - to).fillna(math.inf).argmin(over)
    return x.isel({over: place}).drop_vars(over)


def _rank_correlation(x: Any, y: Any, dim: str) -> Any:
    """Spearman's, over `dim`."""
    import xarray as xr
    from scipy import stats

    def pearson_of_ranks(a: np.ndarray, b: np.ndarray) -> Any:
        return stats.spearmanr(a, b).statistic

    x, y = xr.broadcast(x, y)
    return xr.apply_ufunc(
        pearson_of_ranks, x.astype(float), y.astype(float), input_core_dims=[[dim], [dim]], vectorize=True
    )


# -- parameters as coordinates --------------------------------------------------------------------------


def open_parameters(records: Sequence[Record]) -> list[str]:
    """Parameters that take several values in `records`."""
    names: dict[str, set[Any]] = {}
    for record in records:
        for name, value in record.parameters.items():
            names.setdefault(name, set()).add(hashable(value))
    return sorted(n for n, values in names.items() if len(values) > 1)


def hashable(value: Any) -> Any:
    """A parameter's value as a coordinate."""
    return repr(value) if isinstance(value, list | dict | tuple) else value


def plain(value: Any) -> Any:
    """A coordinate as a Python value, for messages."""
    return value.item() if hasattr(value, "item") else value


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
