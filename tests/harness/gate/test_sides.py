from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.errors import RequestErrors
from harness.gate.sides import Matched, Selection, match

TOYS = Path(__file__).resolve().parents[2] / "toys"

SUITE = """
title: Small
gate: {{latency: 0.1}}
comparisons:
  small:
    task: sorting
    parameters: {{size: 100}}
    seeds: 2
    methods: {methods}
"""


def catalogs(folder: Path, head: str, base: str | None = None) -> tuple[Catalog, Catalog]:
    made = []
    for name, methods in (("head", head), ("base", base or head)):
        place = folder / name
        shutil.copytree(TOYS, place, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "suites" / "small.yaml").write_text(SUITE.format(methods=methods))
        made.append(Catalog([place], builtin=False, entry_point_roots=False))
    return made[0], made[1]


def pair_up(head: Catalog, base: Catalog, **selection: list[str]) -> Matched:
    return match(head, base, "small", "cpu", Selection(**selection))


def edit(catalog: Catalog, file: str, old: str, new: str) -> None:
    path = catalog.folders[0] / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_seeds_of_a_point_are_one_pair_and_thresholds_come_down(tmp_path: Path) -> None:
    methods = "[timsort, {method: numpy-sort, gate: {latency: 0.5}}, {method: no-op, gate: {skip: true}}]"
    found = pair_up(*catalogs(tmp_path, methods))
    assert [p.contestant.label for p in found.pairs] == ["timsort", "numpy-sort"]
    assert [c.seed for c in found.pairs[0].head] == [1000, 1001]
    assert [p.contestant.gate.latency for p in found.pairs] == [0.1, 0.5]
    assert found.unpaired == []


def test_new_and_gone(tmp_path: Path) -> None:
    head, base = catalogs(tmp_path, "[timsort, numpy-sort]", "[timsort, no-op]")
    edit(base, "sorting/baselines.py", '"numpy-sort"', '"other-sort"')
    found = pair_up(head, base)
    assert [p.contestant.label for p in found.pairs] == ["timsort"]
    changes = {f.label: (f.change, f.reason) for f in found.unpaired}
    assert changes["numpy-sort"][0] == "new"
    assert "there is no method 'numpy-sort'" in changes["numpy-sort"][1]
    assert changes["no-op"][0] == "gone"


def test_parameters_that_only_one_side_has(tmp_path: Path) -> None:
    head, base = catalogs(tmp_path, "[timsort, {method: numpy-sort, parameters: {kind: stable}}]")
    edit(base, "sorting/baselines.py", '    kind: Literal["quicksort", "stable"] = "quicksort"\n', "")
    edit(base, "sorting/baselines.py", "kind=self.kind", 'kind="stable"')
    edit(base, "sorting/timsort/method.py", "    delay: NonNegativeFloat = 0.0\n", "    wait: float = 0.0\n")
    found = pair_up(head, base)
    # A new parameter at its default does what there was before; at any other value it is something new.
    assert [p.contestant.label for p in found.pairs] == ["timsort"]
    assert dict(found.pairs[0].base_contestant.parameters) == {"wait": 0.0}
    assert dict(found.pairs[0].contestant.parameters) == {"delay": 0.0}
    (new,) = found.unpaired
    assert new.label == "numpy-sort"
    assert "no parameter 'kind'" in new.reason


def test_a_broken_suite_is_an_error_with_its_line(tmp_path: Path) -> None:
    head, base = catalogs(tmp_path, "[timsrot]", "[timsort]")
    with pytest.raises(RequestErrors, match=r"small.yaml:\d+: .*did you mean 'timsort'"):
        pair_up(head, base)


def test_a_selection_narrows_both_sides(tmp_path: Path) -> None:
    head, base = catalogs(tmp_path, "[timsort]", "[timsort, no-op]")
    assert pair_up(head, base, only=["small"]).unpaired[0].change == "gone"
    nothing = pair_up(head, base, tags=["absent"])
    assert (nothing.pairs, nothing.unpaired) == ([], [])
