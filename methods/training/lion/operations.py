"""The functions that an optimizer program may call, with their types.

A value is one number (`Kind.SCALAR`), one number per weight tensor (`Kind.LEAF`) or one number per weight
(`Kind.ARRAY`). Element-wise functions broadcast from left to right in this list; reductions go the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Literal

import numpy as np

Value = Any
"""A float, or an array of shape (leaves,) or (weights,)."""


class Kind(IntEnum):
    """How many numbers a value has; ordered by broadcasting."""

    SCALAR = 0
    LEAF = 1
    ARRAY = 2


@dataclass(frozen=True)
class Layout:
    """Which weights belong to which tensor: all tensors lie behind one another in one vector.

    Attributes:
        sizes: number of weights of each tensor.
    """

    sizes: tuple[int, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """First weight of each tensor, (leaves,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.intp)

    @cached_property
    def owner(self) -> np.ndarray:
        """Tensor of each weight, (weights,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def widen(self, value: Value, kind: Kind, to: Kind) -> Value:
        """A value in a shape that broadcasts against values of kind `to`."""
        return value[self.owner] if kind is Kind.LEAF and to is Kind.ARRAY else value

    def per_leaf(self, values: np.ndarray) -> np.ndarray:
        """Sums over each tensor, (weights,) to (leaves,)."""
        return np.add.reduceat(values, self.starts)


Shape = Literal["elementwise", "leaf", "global", "rescale"]
"""What comes of an ARRAY: the same kind, one number per tensor, one number, or itself times one factor."""


@dataclass(frozen=True)
class Operation:
    """A function of a program.

    Attributes:
        arity: number of arguments.
        shape: how kinds of arguments give the kind of the result.
        compute: element-wise: of the arguments; else: of the layout and the arguments.
        commutes: whether the order of the (two) arguments is without effect.
    """

    arity: int
    shape: Shape
    compute: Callable[..., Value]
    commutes: bool = False

    def kind(self, kinds: Sequence[Kind]) -> Kind | None:
        """The kind of the result, or None where the arguments do not fit."""
        if self.shape == "elementwise":
            return max(kinds)
        if self.shape == "rescale":
            return Kind.ARRAY if tuple(kinds) == (Kind.ARRAY, Kind.SCALAR) else None
        if any(kind is not Kind.ARRAY for kind in kinds):
            return None
        return Kind.LEAF if self.shape == "leaf" else Kind.SCALAR

    def on(self, layout: Layout, kinds: Sequence[Kind]) -> Callable[..., Value]:
        """The function of the arguments alone, for arguments of the given kinds."""
        if self.shape != "elementwise":
            return lambda *values: self.compute(layout, *values)
        if Kind.LEAF not in kinds or Kind.ARRAY not in kinds:
            return self.compute
        return lambda *values: self.compute(
            *(layout.widen(value, kind, Kind.ARRAY) for value, kind in zip(values, kinds, strict=True))
        )


def _sigmoid(x: Value) -> Value:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _interp(x: Value, y: Value, a: Value) -> Value:
    return (1.0 - a) * x + a * y


def _clip(x: Value, bound: Value) -> Value:
    return np.maximum(np.minimum(x, bound), -bound)


def _norm(layout: Layout, x: np.ndarray) -> Value:
    return np.sqrt(layout.per_leaf(x * x))


def _cosine(layout: Layout, x: np.ndarray, y: np.ndarray) -> Value:
    return layout.per_leaf(x * y) / (_norm(layout, x) * _norm(layout, y))


def _mean(layout: Layout, x: np.ndarray) -> Value:
    return layout.per_leaf(x) / np.asarray(layout.sizes, x.dtype)


def _std(layout: Layout, x: np.ndarray) -> Value:
    return np.sqrt(np.maximum(_mean(layout, x * x) - _mean(layout, x) ** 2, 0.0))


def _clip_by_global_norm(_: Layout, x: np.ndarray, bound: Value) -> Value:
    return x * np.minimum(1.0, bound / np.sqrt(x @ x))


_UNARY: dict[str, Callable[[Value], Value]] = {
    "abs": np.abs,
    "neg": np.negative,
    "sign": np.sign,
    "square": np.square,
    "cube": lambda x: x * x * x,
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arcsinh": np.arcsinh,
    "arccosh": np.arccosh,
    "arctanh": np.arctanh,
    "sigmoid": _sigmoid,
}
_BINARY: dict[str, tuple[Callable[[Value, Value], Value], bool]] = {
    "add": (np.add, True),
    "subtract": (np.subtract, False),
    "multiply": (np.multiply, True),
    "divide": (np.divide, False),
    "power": (np.power, False),
    "maximum": (np.maximum, True),
    "minimum": (np.minimum, True),
    "arctan2": (np.arctan2, False),
    "hypot": (np.hypot, True),
    "logaddexp": (np.logaddexp, True),
    "copysign": (np.copysign, False),
    "fmod": (np.fmod, False),
    "clip": (_clip, False),
}
OPERATIONS: dict[str, Operation] = {
    **{name: Operation(1, "elementwise", function) for name, function in _UNARY.items()},
    **{name: Operation(2, "elementwise", function, same) for name, (function, same) in _BINARY.items()},
    "interp": Operation(3, "elementwise", _interp),
    "norm": Operation(1, "leaf", _norm),
    "sum": Operation(1, "leaf", Layout.per_leaf),
    "mean": Operation(1, "leaf", _mean),
    "std": Operation(1, "leaf", _std),
    "dot": Operation(2, "leaf", lambda layout, x, y: layout.per_leaf(x * y), commutes=True),
    "cosine": Operation(2, "leaf", _cosine, commutes=True),
    "global_norm": Operation(1, "global", lambda _, x: np.sqrt(x @ x)),
    "global_mean": Operation(1, "global", lambda _, x: x.mean()),
    "clip_by_global_norm": Operation(2, "rescale", _clip_by_global_norm),
}
"""By name. `interp(x, y, a)` is (1 - a) x + a y; `clip(x, c)` bounds x by c and -c. None returns its argument's
memory, so that values can be kept from step to step."""
