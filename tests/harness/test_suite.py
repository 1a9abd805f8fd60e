from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import suite
from harness.catalog import Catalog
from harness.errors import RequestError, RequestErrors


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


SORTING = """\
title: Mine
comparisons:
  one:
    task: sorting
    parameters: {size: 10}
    grid: {source: [random, file]}
    methods:
      - timsort
      - {method: numpy-sort, grid: {kind: [quicksort, stable]}}
      - {method: timsort, label: slow, parameters: {delay: 0.5}}
    seeds: 2
    limits: {time: 7, memory: 2GB}
    profiles:
      cpu: {}
      edge-gpu: {parameters: {size: 20}, seeds: [5], methods: [timsort], limits: {time: 9}}
"""


def test_expands_grids_and_seeds(toys: Catalog, tmp_path: Path) -> None:
    found = suite.expand(toys, [write(tmp_path, SORTING)], "cpu")
    assert [(c.parameters["source"], c.seed) for c in found] == [
        ("random", 1000),
        ("random", 1001),
        ("file", 1000),
        ("file", 1001),
    ]
    labels = [(c.label, c.parameters) for c in found[0].contestants]
    assert labels == [
        ("timsort", {"delay": 0.0}),
        ("numpy-sort", {"kind": "quicksort"}),
        ("numpy-sort", {"kind": "stable"}),
        ("slow", {"delay": 0.5}),
    ]
    assert (found[0].time_limit, found[0].memory_limit) == (7, 2 * 10**9)


def test_overrides_of_a_profile(toys: Catalog, tmp_path: Path) -> None:
    found = suite.expand(toys, [write(tmp_path, SORTING)], "edge-gpu")
    assert {(c.parameters["size"], c.seed, c.time_limit, c.memory_limit) for c in found} == {
        (20, 5, 9, 2 * 10**9)
    }
    assert [c.label for c in found[0].contestants] == ["timsort"]
    assert suite.expand(toys, [write(tmp_path, SORTING)], "datacenter-gpu") == []


def test_once_comes_from_the_task(toys: Catalog) -> None:
    found = suite.expand(toys, ["toys"], "cpu")
    assert {c.repeats for c in found if c.task == "training"} == {"once"}
    assert {c.repeats for c in found if c.task == "sorting"} == {"adaptive"}


def test_filters(toys: Catalog) -> None:
    assert {c.name for c in suite.expand(toys, ["toys"], "cpu", tags=["smoke"])} == {"sorting-growth"}
    assert {c.name for c in suite.expand(toys, ["toys"], "cpu", papers=["timsort"])} == {
        "sorting-growth",
        "training",
    }
    assert {c.name for c in suite.expand(toys, ["toys"], "cpu", only=["faults"])} == {"faults"}
    with pytest.raises(RequestErrors, match="did you mean 'faults'"):
        suite.expand(toys, ["toys"], "cpu", only=["fault"])
    with pytest.raises(RequestError, match="no paper 'timsrot'"):
        suite.expand(toys, ["toys"], "cpu", papers=["timsrot"])


def test_includes_by_tag(toys: Catalog, tmp_path: Path) -> None:
    text = "title: All smoke\ninclude: [{suites: [toys], tags: [smoke]}]\n"
    assert {c.name for c in suite.expand(toys, [write(tmp_path, text)], "cpu")} == {"sorting-growth"}


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("task: sorting", "task: sortin"), 4, "no task 'sortin' (did you mean 'sorting'?)"),
        (("- timsort\n", "- timsorts\n"), 8, "no method 'timsorts' (did you mean 'timsort'?)"),
        (("size: 10", "size: ten"), 5, "is of type PositiveInt"),
        (("size: 10", "sise: 10"), 5, "no parameter 'sise' (did you mean 'size'?)"),
        (
            ("{kind: [quicksort, stable]}", "{kinds: [quicksort]}"),
            9,
            "no parameter 'kinds' (did you mean 'kind'?)",
        ),
        (
            ("{kind: [quicksort, stable]}", "{kind: [quicksort, bubble]}"),
            9,
            "'quicksort' or 'stable', not 'bubble'",
        ),
        (("seeds: 2", "seds: 2"), 11, "unknown field 'seds' (did you mean 'seeds'?)"),
        (("memory: 2GB", "memory: lots"), 12, "not a size such as 512MB"),
        (("{size: 20}", "{sizes: 20}"), 15, "no parameter 'sizes'"),
        (("method: timsort, label", "method: trainer, label"), 10, "does not attempt the task 'sorting'"),
    ],
)
def test_one_clear_message(
    toys: Catalog, tmp_path: Path, change: tuple[str, str], line: int, says: str
) -> None:
    assert change[0] in SORTING
    path = write(tmp_path, SORTING.replace(*change))
    with pytest.raises(RequestErrors) as caught:
        suite.expand(toys, [path], "cpu")
    messages = [str(e) for e in caught.value.errors]
    assert any(m.startswith(f"{path}:{line}: ") and says in m for m in messages), messages


@given(st.integers(1, 10**6), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_sizes(number: int, unit: str) -> None:
    power = "BKMG".index(unit[0].upper())
    factor = (1024 if "i" in unit else 1000) ** power
    assert suite.size_in_bytes(f"{number}{unit}") == number * factor


def test_two_suites_may_not_use_one_name(tmp_path: Path) -> None:
    from harness import check

    (tmp_path / "root" / "suites").mkdir(parents=True)
    text = "title: T\ncomparisons: {same: {task: sorting, methods: [timsort]}}\n"
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path / "root" / "suites", text, name)
    toys = Path(__file__).resolve().parent.parent / "toys"
    catalog = Catalog([toys, tmp_path / "root"], builtin=False, entry_point_roots=False)
    assert ["b.yaml:2" in str(e) and "of this name too" in str(e) for e in check.everything(catalog)] == [True]
