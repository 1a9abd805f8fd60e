from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.catalog import Catalog
from harness.record import Launch, SeriesRecord
from reports.aggregate import aggregate
from reports.collect import Content, PaperPart
from reports.curves import MOST_POINTS
from reports.growth import exponent
from tests.reports.conftest import EVIL, record


def part_of(content: Content, records: list[Any]) -> PaperPart:
    (part,) = content.parts
    return PaperPart(part.slug, part.family, part.paper, part.rows, records)


def test_cells_hold_the_seeds_of_a_method_at_a_setting(catalog: Catalog, content: Content) -> None:
    comparisons, places = aggregate(catalog, content.parts[0])
    by_name = {c["name"]: c for c in comparisons}
    growth = by_name["growth"]
    assert growth["settings"] == [{"size": 100}, {"size": 1000}, {"size": 10000}]
    assert growth["fixed"] == {"source": "random"}
    assert [(c["m"], c["s"], c["seeds"]) for c in growth["cells"]][:2] == [
        (1, 0, [1000, 1001, 1002]),
        (2, 0, [1000, 1001, 1002]),
    ]
    labels = content.parts[0].labels
    assert labels == [EVIL, "slowed", "timsort"]
    i, j, k = places["slowed10001001".ljust(32, "0")]
    cell = comparisons[i]["cells"][j]
    assert (labels[cell["m"]], cell["seeds"][k]) == ("slowed", 1001)
    assert cell["latency"][k] == pytest.approx(3e-3 * 1.01, rel=1e-4)
    assert cell["runs"] == 45
    assert cell["q"] == sorted(cell["q"])
    assert [(m["name"], m["better"]) for m in growth["metrics"]] == [
        ("disorder", "lower"),
        ("length", "neither"),
    ]


def test_a_failed_record_keeps_its_place_and_reason(catalog: Catalog, content: Content) -> None:
    comparisons, _ = aggregate(catalog, content.parts[0])
    (trouble,) = [c for c in comparisons if c["name"] == "trouble"]
    (cell,) = trouble["cells"]
    assert cell["status"] == ["failed"]
    assert cell["reason"] == [EVIL]
    assert "latency" not in cell


def test_parameters_of_a_method_that_vary_tell_its_cells_apart(catalog: Catalog, content: Content) -> None:
    records = [record(key=str(d), method_parameters={"delay": d, "other": 1}) for d in (0.0, 0.5)]
    ((comparison,), _) = aggregate(catalog, part_of(content, records))
    assert [c["v"] for c in comparison["cells"]] == ["delay=0", "delay=0.5"]


def test_growth_has_the_exponent_with_its_interval(catalog: Catalog, content: Content) -> None:
    comparisons, _ = aggregate(catalog, content.parts[0])
    lines = next(c for c in comparisons if c["name"] == "growth")["growth"]["size"]
    assert [line["exponent"] for line in lines] == [1, 1]
    assert lines[0]["x"] == [100, 1000, 10000]
    assert lines[0]["seeds"] == 3


def test_exponent_is_the_mean_slope_with_students_interval() -> None:
    curves = [{x: x**power for x in (1.0, 2.0, 4.0, 8.0)} for power in (1.0, 1.2, 1.7)]
    found = exponent(curves)
    low, high = stats.t.interval(0.95, 2, loc=1.3, scale=stats.sem([1.0, 1.2, 1.7]))
    assert (found["exponent"], found["low"], found["high"]) == pytest.approx((1.3, low, high), rel=1e-4)


@given(st.floats(-3, 3), st.floats(-5, 5))
def test_exponent_of_a_power_law(power: float, scale: float) -> None:
    found = exponent([{x: math.exp(scale) * x**power for x in (3.0, 10.0, 50.0)}])
    assert found["exponent"] == pytest.approx(power, abs=1e-4)
    assert (found["low"], found["seeds"]) == (None, 1)


@pytest.mark.parametrize("curves", [[], [{1.0: 1.0, 2.0: 2.0}], [{1.0: 0.0, 2.0: 1.0, 3.0: 1.0}]])
def test_no_exponent_from_too_little(curves: list[dict[float, float]]) -> None:
    assert exponent(curves)["exponent"] is None


def test_curves_are_means_with_a_band_and_thinned(catalog: Catalog, content: Content) -> None:
    steps = [float(i) for i in range(1000)]
    records = [
        record(seed=s, series={"loss": SeriesRecord(x=steps, y=[float(s - 1000)] * 1000)}) for s in (1000, 1002)
    ]
    ((comparison,), _) = aggregate(catalog, part_of(content, records))
    ((curve,),) = [s["curves"] for s in comparison["series"]]
    assert (curve["n"], len(curve["x"])) == (2, MOST_POINTS)
    assert (curve["x"][0], curve["x"][-1]) == (0, 999)
    assert (set(curve["y"]), set(curve["low"]), set(curve["high"])) == ({1}, {0}, {2})


def test_curves_at_different_steps_stay_apart(catalog: Catalog, content: Content) -> None:
    records = [record(seed=s, series={"loss": SeriesRecord(x=[0.0, s], y=[1.0, 2.0])}) for s in (1000, 1001)]
    ((comparison,), _) = aggregate(catalog, part_of(content, records))
    assert [c["n"] for c in comparison["series"][0]["curves"]] == [1, 1]


def test_launches_are_counted_and_disturbances_kept(catalog: Catalog, content: Content) -> None:
    launches = [Launch(first=0.1, prepare=0.2)] * 3
    records = [
        record(seed=s, launches=launches, unstable="a noisy neighbour" if s == 1001 else None)
        for s in (1000, 1001)
    ]
    ((comparison,), _) = aggregate(catalog, part_of(content, records))
    (cell,) = comparison["cells"]
    assert cell["launches"] == 6
    assert cell["unstable"] == {1: "a noisy neighbour"}
