"""Curves match by the names of their dimensions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.curve import Curve, broadcast
from harness.errors import NotMeasured


def curve(shape: tuple[int, ...], dims: str, seed: int = 0) -> Curve:
    points = {d: list(range(n)) for d, n in zip(dims, shape, strict=True)}
    return Curve(np.random.default_rng(seed).normal(size=shape), list(dims), points)


def test_dimensions_match_by_name_whatever_their_order() -> None:
    a, b = curve((2, 3), "xy"), curve((3, 4, 2), "yzx", 1)
    both = a - b
    assert both.dims == ("x", "y", "z")
    assert both.points == {"x": [0, 1], "y": [0, 1, 2], "z": [0, 1, 2, 3]}
    assert np.array_equal(both.values, a.values[:, :, None] - b.values.transpose(2, 0, 1))


def test_numbers_and_functions_of_numpy_apply_to_each_value() -> None:
    a = curve((3,), "x")
    assert np.array_equal((2 / abs(a)).values, 2 / np.abs(a.values))
    assert np.array_equal(np.exp(a).values, np.exp(a.values))
    assert np.array_equal((a < 0).values, a.values < 0)


@pytest.mark.parametrize("points", [{"x": [0, 1, 3]}, {"x": [0, 1]}])
def test_other_points_do_not_match(points: dict[str, list[int]]) -> None:
    other = Curve(np.zeros(len(points["x"])), ["x"], points)
    with pytest.raises(NotMeasured, match="different points of the grid"):
        curve((3,), "x") + other
    with pytest.raises(NotMeasured, match="different points of the grid"):
        broadcast(curve((3,), "x"), other)


def test_without_points_the_lengths_must_match() -> None:
    a = curve((3,), "x").counted("x")
    assert (a + curve((3,), "x")).points == {"x": [0, 1, 2]}
    with pytest.raises(NotMeasured):
        a + curve((2,), "x").counted("x")


def test_reduced_dimensions_are_gone() -> None:
    a = curve((2, 3, 4), "xyz")
    least = a.reduce(np.min, ["x", "z"])
    assert (least.dims, least.points) == (("y",), {"y": [0, 1, 2]})
    assert np.array_equal(least.values, a.values.min(axis=(0, 2)))
    assert np.array_equal(a.reduce(np.mean, []).values, a.values)


def test_a_place_or_a_stretch_of_a_dimension() -> None:
    a = curve((2, 3), "xy")
    assert np.array_equal(a.take("y", -1).values, a.values[:, -1])
    assert a.take("y", -1).dims == ("x",)
    assert a.take("y", slice(1, None)).points == {"x": [0, 1], "y": [1, 2]}


def test_what_is_missing_can_be_filled() -> None:
    assert Curve([math.nan, 1.0], ["x"]).filled(-math.inf).values.tolist() == [-math.inf, 1.0]


@given(arrays.arrays(float, (3, 4), elements=st.floats(-9, 9)))
def test_the_place_of_the_least_value_has_the_least_value(values: np.ndarray) -> None:
    a = Curve(values, ["x", "y"], {"y": [1, 2, 4, 8]})
    picked = a.pick("y", a.reduce(np.argmin, ["y"]))
    assert picked.dims == ("x",)
    assert np.array_equal(picked.values, values.min(axis=1))


def test_places_may_depend_on_other_dimensions_than_the_curve_has() -> None:
    a = curve((2, 3), "xy")
    places = Curve([[0, 2], [1, 1], [2, 0], [0, 0]], ["z", "x"])
    picked = a.pick("y", places)
    assert picked.dims == ("x", "z")
    expected = [[a.values[x, places.values[z, x]] for z in range(4)] for x in range(2)]
    assert np.array_equal(picked.values, expected)
