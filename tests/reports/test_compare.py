from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog import Catalog
from harness.errors import RequestError
from harness.record import Record
from harness.store import Store
from reports import comparison_files, frames, intervals, sides
from reports.compare import Comparison, FigureChange, compare
from reports.sides import Side
from tests.reports.conftest import EVIL, records

HERE = {"host": "here", "cpu": "A CPU", "threads": 2, "gpus": []}


def on(machine: dict[str, Any], found: Iterable[Record]) -> list[Record]:
    return [r.model_copy(update={"environment": {**r.environment, "machine": machine}}) for r in found]


def slower(found: Iterable[Record], factor: float, label: str = "timsort") -> list[Record]:
    def times(r: Record) -> dict[str, Any]:
        if r.latency is None or r.label != label:
            return {}
        return {"latency": r.latency.model_copy(update={"samples": [s * factor for s in r.latency.samples]})}

    return [r.model_copy(update=times(r)) for r in found]


def compared(catalog: Catalog, a: list[Record], b: list[Record]) -> Comparison:
    return compare(catalog, Side("A", None, a), Side("B", None, b))


def one(found: Comparison, metric: str, label: str = "timsort", size: int = 100) -> FigureChange:
    chosen = [
        f for f in found.figures if f.metric == metric and f.method == label and f.setting == f"size={size}"
    ]
    assert len(chosen) == 1
    return chosen[0]


def test_nothing_changed(catalog: Catalog) -> None:
    same = on(HERE, records())
    found = compared(catalog, same, same)
    assert {f.outcome for f in found.figures} == {"same"}
    assert {c.change for c in found.claims} == {"none"}
    assert not found.failures
    assert found.same_machine


@pytest.mark.parametrize(("factor", "outcome"), [(1.5, "worse"), (0.5, "better")])
def test_a_change_on_one_machine_is_a_ratio(catalog: Catalog, factor: float, outcome: str) -> None:
    found = compared(catalog, on(HERE, records()), slower(on(HERE, records()), factor))
    latency = one(found, "latency")
    assert latency.kind == "ratio"
    assert latency.change is not None
    assert latency.change.value == pytest.approx(factor)
    assert latency.outcome == outcome
    assert latency.paired
    assert one(found, "throughput" if any(f.metric == "throughput" for f in found.figures) else "latency")
    assert one(found, "latency", "slowed").outcome == "same"
    assert found.figures[0].outcome == outcome


@pytest.mark.parametrize("other", [{**HERE, "host": "there"}, {**HERE, "threads": 4}, {}, {"cpu": "A CPU"}])
def test_times_of_different_machines_stand_side_by_side(catalog: Catalog, other: dict[str, Any]) -> None:
    found = compared(catalog, on(HERE, records()), slower(on(other, records()), 7.0))
    timed = [f for f in found.figures if f.unit in ("s", "1/s")]
    assert timed
    for figure in timed:
        assert figure.kind is None
        assert figure.change is None
        assert figure.outcome == "side by side"
        assert figure.a is not None
        assert figure.b is not None
    assert one(found, "peak_memory").outcome == "same"
    text = comparison_files.markdown(found)
    assert "side by side" in text
    assert "× 7" not in text
    assert "0.143" not in text


def test_claims_about_times_are_not_told_apart_across_machines(catalog: Catalog) -> None:
    a, b = on(HERE, records()), slower(on({**HERE, "host": "there"}, records()), 0.5, "slowed")
    change = next(c for c in compared(catalog, a, b).claims if c.claim == "faster")
    assert "side by side" in change.note
    assert change.change == ("verdict" if change.a.outcome != change.b.outcome else "none")


def test_verdicts_that_changed_come_first(catalog: Catalog) -> None:
    found = compared(catalog, on(HERE, records()), slower(on(HERE, records()), 0.1, "slowed"))
    assert found.claims[0].claim == "faster"
    assert found.claims[0].change == "verdict"
    text = comparison_files.markdown(found)
    assert text.index("Verdicts that changed") < text.index("Figures that changed")


def test_other_metrics_are_differences_and_know_their_better_direction(catalog: Catalog) -> None:
    def disordered(r: Record) -> Record:
        value = 0.5 + (r.seed - 1000) / 100
        return r.model_copy(update={"metrics": {**r.metrics, "disorder": value}}) if r.label == "timsort" else r

    found = compared(catalog, on(HERE, records()), [disordered(r) for r in on(HERE, records())])
    figure = one(found, "disorder")
    assert figure.kind == "difference"
    assert figure.outcome == "worse"
    assert figure.change is not None
    assert figure.change.value == pytest.approx(0.51)


def test_one_seed_decides_nothing(catalog: Catalog) -> None:
    few = [r for r in on(HERE, records()) if r.seed == 1000]
    figure = one(compared(catalog, few, slower(few, 2.0)), "latency")
    assert figure.outcome == "undecided"
    assert figure.change is not None
    assert figure.change.low is None


def test_different_seeds_are_not_paired(catalog: Catalog) -> None:
    a = on(HERE, records())
    b = [r.model_copy(update={"seed": r.seed + 100}) for r in slower(on(HERE, records()), 2.0)]
    # The suite asks for the first seeds only, so the comparison is renamed to one that no suite knows.
    a, b = ([r.model_copy(update={"comparison": "mine"}) for r in side] for side in (a, b))
    figure = one(compared(catalog, a, b), "latency")
    assert not figure.paired
    assert figure.change is not None
    assert figure.change.value == pytest.approx(2.0)
    assert figure.outcome == "worse"


def test_a_method_that_fails_now_is_named(catalog: Catalog) -> None:
    def broken(r: Record) -> Record:
        if r.label != "slowed":
            return r
        return r.model_copy(update={"status": "failed", "reason": EVIL, "latency": None, "metrics": {}})

    found = compared(catalog, on(HERE, records()), [broken(r) for r in on(HERE, records())])
    assert {f.method for f in found.failures} == {"slowed"}
    assert one(found, "latency", "slowed").outcome == "only in A"
    assert "<script" not in comparison_files.markdown(found)


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=6),
    st.lists(st.floats(-100, 100), min_size=2, max_size=6),
)
def test_welch_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    from scipy import stats

    step = intervals.welch_step(a, b)
    assert step.low is not None
    assert step.high is not None
    # SciPy warns where values are so near each other that their variance is rounding alone.
    if min(max(side) - min(side) for side in (a, b)) < 1e-3:
        return
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (step.low, step.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_paired_step_of_a_constant_has_no_width(values: list[float], factor: float) -> None:
    a = {i: math.log(v) for i, v in enumerate(values)}
    step = intervals.paired_step(a, {i: v + math.log(factor) for i, v in a.items()})
    assert step.value == pytest.approx(math.log(factor), abs=1e-9)
    assert step.high == pytest.approx(step.low, abs=1e-9)


# -- sides ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "r.sqlite")
    for each in on(HERE, records()):
        made.add(each)
    for i, each in enumerate(on({**HERE, "host": "there"}, slower(records(), 3.0))):
        source = {"revision": "def456", "clean": True}
        made.add(
            each.model_copy(update={"key": f"b{i}", "environment": {**each.environment, "source": source}})
        )
    return made


@pytest.mark.parametrize("text", ["revision:abc", "revision:abc123", "machine:here"])
def test_parts_of_a_store(store: Store, text: str) -> None:
    side = sides.load(text, store)
    assert len(side.records) == len(records())
    assert side.machines() == ["here, A CPU, 2 threads"]


@pytest.mark.parametrize("make", ["sqlite", "url", "jsonl", "parquet", "folder"])
def test_stores_and_exports(store: Store, tmp_path: Path, make: str) -> None:
    with frames.Export(store.records(), documents=True) as export:
        export.json_lines(tmp_path / "records.jsonl")
        export.tables(parquet=tmp_path / "records.parquet")
    names = {
        "sqlite": store.location,
        "url": f"sqlite:///{store.location}",
        "jsonl": str(tmp_path / "records.jsonl"),
        "parquet": str(tmp_path / "records.parquet"),
        "folder": str(tmp_path),
    }
    assert sides.load(names[make], store).records == list(store.records())


Broken = Callable[[Path], str]


def _not_json(folder: Path) -> str:
    (folder / "x.jsonl").write_text("\n{}\n")
    return str(folder / "x.jsonl")


def _csv(folder: Path) -> str:
    (folder / "x.csv").write_text("a,b\n")
    return str(folder / "x.csv")


def _not_parquet(folder: Path) -> str:
    (folder / "x.parquet").write_text("no")
    return str(folder / "x.parquet")


def _verdicts(folder: Path) -> str:
    pd.DataFrame({"a": [1]}).to_parquet(folder / "y.parquet")
    return str(folder / "y.parquet")


def _empty(folder: Path) -> str:
    (folder / "none").mkdir()
    return str(folder / "none")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: "revision:", "no record of the revision"),
        (lambda _: "revision:fff", "abc123"),
        (lambda _: "machine:her", "did you mean 'here'?"),
        (lambda _: "profile:edge-gpu", "no record of the profile"),
        (lambda _: "profile:gpu", "cpu"),
        (lambda _: "nowhere", "there is no 'nowhere'"),
        (_not_json, r"x\.jsonl:2: .*not a record"),
        (_csv, "a .csv has no samples"),
        (_not_parquet, "cannot be read"),
        (_verdicts, "no column 'document'"),
        (_empty, "neither records.parquet nor records.jsonl"),
    ],
)
def test_a_wrong_side_is_one_clear_error(store: Store, tmp_path: Path, make: Broken, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        sides.load(make(tmp_path), store)
    assert re.search(words, str(caught.value)), str(caught.value)


def test_an_ambiguous_revision_is_refused(store: Store) -> None:
    each = records()[0]
    environment = {**each.environment, "source": {"revision": "abc999", "clean": True}}
    store.add(each.model_copy(update={"key": "third", "environment": environment}))
    with pytest.raises(RequestError, match="abc123 or abc999"):
        sides.load("revision:abc", store)


def test_two_profiles_are_compared_claim_by_claim(catalog: Catalog, tmp_path: Path) -> None:
    made = Store(tmp_path / "two.sqlite")
    for each in on(HERE, records()):
        made.add(each)
        made.add(each.model_copy(update={"key": each.key + "g", "profile": "edge-gpu"}))
    a, b = (sides.load(f"profile:{name}", made) for name in ("cpu", "edge-gpu"))
    found = compare(catalog, a, b)
    assert {(c.a.profile, c.b.profile) for c in found.claims} == {("cpu", "edge-gpu")}
    assert {f.profiles for f in found.figures} == {("cpu", "edge-gpu")}


# -- files ---------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_all_files(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = comparison_files.write(catalog, store, out, ("machine:here", "machine:there"))
    assert {p.name for p in written} == {
        "comparison.html", "comparison.md", "comparison.json", "comparison-claims.csv", "comparison-figures.csv",
    }  # fmt: skip
    document = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert document["a"]["machines"] == ["here, A CPU, 2 threads"]
    figures = pd.read_csv(out / "comparison-figures.csv")
    assert len(figures) == len(document["figures"])
    timed = figures[figures["metric"] == "latency"]
    assert (timed["outcome"] == "side by side").all()
    assert timed["change"].isna().all()
    assert (timed["value_b"] / timed["value_a"]).max() == pytest.approx(3.0)
    assert "faster" in set(pd.read_csv(out / "comparison-claims.csv")["claim"])


def test_page_stands_alone_and_escapes(catalog: Catalog, tmp_path: Path) -> None:
    hostile = on({**HERE, "host": EVIL}, records())
    found = compared(catalog, hostile, slower(hostile, 2.0))
    reader = Reader()
    reader.feed(comparison_files.page(found))
    assert not [tag for tag, _ in reader.tags if tag in ("script", "img", "link", "iframe")]
    assert not [a for _, attributes in reader.tags for a in attributes if a in ("src", "href", "onerror")]
    assert EVIL.rstrip("\u2028") in reader.text
    assert "worse" in reader.text


def test_only_the_formats_asked_for(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    names = ("revision:abc123", "revision:def456")
    comparison_files.write(catalog, store, tmp_path / "out", names, formats=["json"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["comparison.json"]
