"""Curve: an array whose dimensions have names, which is what a quantity is while it is computed.

Values are matched by the names of their dimensions and never by position. Two that share a dimension must have been
measured at the same points of it, for nothing is filled in or left out between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from harness.errors import NotMeasured


class Curve(NDArrayOperatorsMixin):
    """An array with named dimensions. Arithmetic, comparisons and numpy's elementwise functions apply to it.

    Attributes:
        values: the array.
        dims: a name for each of its dimensions.
        points: where a dimension was measured, by name; dimensions that were only counted have none.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Any, dims: Sequence[str], points: dict[str, list[Any]] | None = None) -> None:
        self.values = np.asarray(values)
        self.dims = tuple(dims)
        self.points = points or {}

    def size(self, dim: str) -> int:
        """How many points `dim` has."""
        return int(self.values.shape[self.dims.index(dim)])

    def reduce(self, function: Callable[..., Any], over: Sequence[str], **options: Any) -> Curve:
        """`function` of numpy (``max``, ``mean``, ``argmin``...) over some dimensions, which are then gone."""
        axes = tuple(self.dims.index(d) for d in over)
        values = function(self.values, axis=axes[0] if len(axes) == 1 else axes, **options)
        return Curve(values, [d for d in self.dims if d not in over], self._without(over))

    def take(self, dim: str, index: int | slice) -> Curve:
        """The values at one place of `dim`, which is then gone, or over a stretch of it."""
        values = self.values[(slice(None),) * self.dims.index(dim) + (index,)]
        if isinstance(index, int):
            return Curve(values, [d for d in self.dims if d != dim], self._without([dim]))
        points = self.points | {dim: self.points[dim][index]} if dim in self.points else self.points
        return Curve(values, self.dims, points)

    def pick(self, dim: str, places: Curve) -> Curve:
        """The values at `places` of `dim`, which may be another at each point of the other dimensions."""
        spread = Curve(places.values[..., None], (*places.dims, dim), places.points)
        dims, points = _common([self.counted(dim), spread], free=dim)
        indices = np.broadcast_to(
            spread.along(dims),
            [1 if d == dim else self._length(spread, d) for d in dims],
        )
        values = np.broadcast_to(
            self.along(dims), [self.size(dim) if d == dim else self._length(spread, d) for d in dims]
        )
        axis = dims.index(dim)
        picked = np.take_along_axis(values, indices, axis).squeeze(axis)
        return Curve(picked, [d for d in dims if d != dim], points)

    def counted(self, dim: str) -> Curve:
        """The same without the points of `dim`, so that it matches by place."""
        return Curve(self.values, self.dims, self._without([dim]))

    def filled(self, value: float) -> Curve:
        """`value` where there is none."""
        return Curve(np.where(np.isnan(self.values), value, self.values), self.dims, self.points)

    def along(self, dims: Sequence[str]) -> Any:
        """The array with its dimensions in the order of `dims`, of length 1 where it lacks one."""
        order = [self.dims.index(d) for d in dims if d in self.dims]
        shape = [self.size(d) if d in self.dims else 1 for d in dims]
        return self.values.transpose(order).reshape(shape)

    def _length(self, other: Curve, dim: str) -> int:
        return self.size(dim) if dim in self.dims else other.size(dim)

    def _without(self, dims: Sequence[str]) -> dict[str, list[Any]]:
        return {d: p for d, p in self.points.items() if d not in dims}

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            return NotImplemented
        dims, points = _common([x for x in inputs if isinstance(x, Curve)])
        arrays = [x.along(dims) if isinstance(x, Curve) else x for x in inputs]
        return Curve(ufunc(*arrays), dims, points)


def broadcast(*curves: Curve) -> list[Curve]:
    """The same curves, all with all their dimensions. Raises `NotMeasured` as arithmetic does."""
    dims, points = _common(curves)
    arrays = np.broadcast_arrays(*(c.along(dims) for c in curves))
    return [Curve(a, dims, points) for a in arrays]


def _common(curves: Sequence[Curve], free: str | None = None) -> tuple[list[str], dict[str, list[Any]]]:
    """All dimensions in the order they appear, and their points. `free` may have several lengths.

    Raises:
        NotMeasured: the points of a dimension differ.
    """
    sizes: dict[str, int] = {}
    points: dict[str, list[Any]] = {}
    for curve in curves:
        for dim, size in zip(curve.dims, curve.values.shape, strict=True):
            there = curve.points.get(dim)
            differs = there is not None and points.setdefault(dim, there) != there
            if differs or (sizes.setdefault(dim, size) != size and dim != free):
                raise NotMeasured("its parts were measured at different points of the grid")
    return list(sizes), points
