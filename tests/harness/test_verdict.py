from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.current import current, newest
from harness.record import Latency, Record
from harness.verdict import Verdict, decide


def record(label: str, seed: int = 1000, **changes: object) -> Record:
    base = {
        "key": f"{label}{seed}{sorted(changes.items(), key=str)}", "suite": "s", "comparison": "c", "task": "sorting",
        "task_parameters": {"size": 1000, "source": "random"}, "method": "timsort", "label": label,
        "method_parameters": {"delay": 0.0}, "seed": seed, "profile": "cpu", "source": "", "status": "ok",
        "latency": Latency(samples=[1.0, 1.01, 0.99] * 10, first=1.0), "metrics": {"disorder": 0.0, "length": 1000.0},
        "started": "2026-01-01",
    }  # fmt: skip
    return Record.model_validate({**base, **changes})


def pairs(factor: float) -> list[Record]:
    """Three launches of a method and of a copy that takes `factor` times as long."""
    found = []
    for seed, luck in ((1000, 1.0), (1001, 1.01), (1002, 0.99)):
        samples = [factor * luck * x for x in (1.0, 1.01, 0.99)] * 10
        found += [
            record("timsort", seed),
            record("slowed", seed, latency=Latency(samples=samples, first=factor)),
        ]
    return found


def verdict(toys: Catalog, claim: str, records: list[Record], place: str = "cpu") -> Verdict:
    found = decide(toys, records, papers=["timsort"], profiles=[place])
    return next(v for v in found if v.claim == claim)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(3.0, "consistent"), (1.0, "contradicted"), (2.0, "inconclusive")]
)
def test_a_ratio_is_decided_by_its_interval(toys: Catalog, factor: float, outcome: str) -> None:
    found = verdict(toys, "faster", pairs(factor))
    assert found.outcome == outcome
    assert found.figure is not None
    assert found.figure.value == pytest.approx(factor)
    assert found.figure.samples == 180
    assert len(found.keys) == 6
    assert found.rule == "consistent"


def test_in_the_papers_own_setting_it_is_reproduced(toys: Catalog) -> None:
    found = verdict(toys, "sorts", [record("timsort", s) for s in (1000, 1001)])
    assert found.outcome == "reproduced"
    assert found.setting == {"size": 1000, "source": "random"}


def test_emulated_hardware_never_reproduces(toys: Catalog) -> None:
    records = [record("timsort", s, emulated=True) for s in (1000, 1001)]
    assert verdict(toys, "sorts", records).outcome == "consistent"


def test_one_seed_of_something_random_decides_nothing(toys: Catalog) -> None:
    found = verdict(toys, "sorts", [record("timsort")])
    assert found.outcome == "inconclusive"
    assert "one seed" in found.reason


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ("on-gpu", "needs the profile datacenter-gpu"),
        ("unknowable", "needs the author"),
        ("faster", "no record of 'slowed'"),
    ],
)
def test_not_measured_says_why(toys: Catalog, claim: str, says: str) -> None:
    found = verdict(toys, claim, [record("timsort")])
    assert found.outcome == "not measured"
    assert says in found.reason


def test_a_failed_method_is_the_reason(toys: Catalog) -> None:
    broken = record("slowed", status="failed", reason="ValueError: no", latency=None, metrics={})
    assert "failed: ValueError: no" in verdict(toys, "faster", [record("timsort"), broken]).reason


def test_records_of_another_setting_do_not_count(toys: Catalog) -> None:
    other = [record("timsort", task_parameters={"size": 10, "source": "random"})]
    assert verdict(toys, "faster", other).outcome == "not measured"


def test_the_newest_record_counts_and_a_skip_replaces_nothing() -> None:
    old, new = record("a", started="2026-01-01", source="1"), record("a", started="2026-01-02", source="2")
    skip = record("a", started="2026-01-03", source="3", status="skipped", latency=None, metrics={})
    assert newest([new, old, skip]) == [new]


def write(folder: Path, rule: str) -> Catalog:
    paper = folder / "family" / "paper"
    paper.mkdir(parents=True)
    (paper / "paper.yaml").write_text(
        "title: T\nyear: 2020\nsummary: s\nclaims:\n  - id: c\n    kind: value\n    statement: s\n    source: abstract\n"
        f"    claimed: {{text: x}}\n    setting: {{text: y}}\n    consistent:\n      on: {{task: sorting}}\n{rule}"
    )
    toys = Path(__file__).resolve().parent.parent / "toys"
    return Catalog([toys, folder], builtin=False, entry_point_roots=False)


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ("      all: [{quantity: 'length(\"timsort\")', equals: 1000, tolerance: 1}]\n", "consistent"),
        (
            "      all: [{quantity: 'length(\"timsort\")', equals: 900, relative_tolerance: 0.2}]\n",
            "consistent",
        ),
        ("      all: [{quantity: 'length(\"timsort\")', between: [0, 10]}]\n", "contradicted"),
        (
            "      all: [{quantity: 'length(\"timsort\")', at_most: 10, contradicted: {above: 2000}}]\n",
            "inconclusive",
        ),
        (
            "      all:\n        - {quantity: 'length(\"timsort\")', at_least: 1}\n"
            "        - {quantity: 'length(\"timsort\")', at_most: 1}\n",
            "contradicted",
        ),
        (
            "      contradicted_if: all\n      all:\n        - {quantity: 'length(\"timsort\")', at_least: 1}\n"
            "        - {quantity: 'length(\"timsort\")', at_most: 1}\n",
            "inconclusive",
        ),
    ],
)
def test_bounds(tmp_path: Path, rule: str, outcome: str) -> None:
    catalog = write(tmp_path, rule)
    (found,) = decide(catalog, [record("timsort")], papers=["paper"], profiles=["cpu"])
    assert found.outcome == outcome, found.reason


def test_controls_are_reported_and_decide_nothing(tmp_path: Path) -> None:
    catalog = write(
        tmp_path,
        "      all: [{quantity: 'length(\"timsort\")', at_least: 1}]\n"
        "      controls: {half: 'length(\"timsort\") / 2', gone: 'length(\"nobody\")'}\n",
    )
    (found,) = decide(catalog, [record("timsort")], papers=["paper"], profiles=["cpu"])
    assert found.outcome == "consistent"
    assert getattr(found.controls["half"], "value", None) == 500
    assert "not measured" in str(found.controls["gone"])


def test_what_a_suite_no_longer_asks_for_does_not_count(toys: Catalog) -> None:
    """The comparison `sorting-growth` of the toys has sizes 100 and 1,000 and the seeds 1000 and 1001."""

    def measured(size: int, seed: int, comparison: str) -> Record:
        parameters = {"size": size, "source": "random"}
        return record("timsort", seed, task_parameters=parameters, comparison=comparison)

    asked = [measured(100, 1000, "sorting-growth"), measured(1000, 1001, "sorting-growth")]
    former = [measured(500, 1000, "sorting-growth"), measured(100, 1007, "sorting-growth")]
    elsewhere = [measured(500, 1000, "in-a-file-of-mine")]
    assert current(toys, [*asked, *former, *elsewhere]) == [*asked, *elsewhere]


def test_a_disturbed_machine_decides_nothing_about_times(toys: Catalog) -> None:
    calm = pairs(3.0)
    assert verdict(toys, "faster", calm).outcome == "consistent"
    disturbed = [r.model_copy(update={"unstable": "the hypervisor took 12% of the time"}) for r in calm]
    found = verdict(toys, "faster", disturbed)
    assert found.outcome == "inconclusive"
    assert "unstable: the hypervisor took 12%" in found.reason
    one = verdict(toys, "faster", [*calm[:-1], disturbed[-1]])
    assert one.outcome == "inconclusive"
    assert "in 1 of 6 records" in one.reason
    # Whether a list is in order has nothing to do with the load.
    assert verdict(toys, "sorts", disturbed).outcome == "reproduced"
