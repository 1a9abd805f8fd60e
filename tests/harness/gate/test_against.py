from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness import runner, suite
from harness.catalog import Catalog
from harness.errors import RequestError
from harness.gate.against import read, run_against
from harness.gate.run import Options
from harness.measure import disturbance
from harness.record import Record
from harness.store import Store

TOYS = Path(__file__).resolve().parents[2] / "toys"

SUITE = """
title: Small
comparisons:
  small:
    task: sorting
    methods: [timsort, numpy-sort]
    measure: {budget: 0.1}
"""


@pytest.fixture(autouse=True)
def _never_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run beside these; that records of a disturbed machine decide nothing is tested elsewhere."""
    monkeypatch.setattr(disturbance, "STOLEN", math.inf)
    monkeypatch.setattr(disturbance, "OTHERS", math.inf)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return Options(suite=str(path), folders=[TOYS])


@pytest.fixture
def stored(options: Options) -> list[Record]:
    catalog = Catalog([TOYS])
    summary = runner.run(
        catalog,
        suite.expand(catalog, [options.suite], "cpu"),
        Store(Path(options.suite).parent / "base.sqlite"),
    )
    return summary.records


def lines(records: list[Record], path: Path) -> str:
    path.write_text("".join(record.model_dump_json() + "\n" for record in records))
    return str(path)


def test_accuracy_and_memory_from_another_machine_latency_refused(
    options: Options, stored: list[Record], tmp_path: Path
) -> None:
    elsewhere = []
    for record in stored:
        machine = {**record.environment["machine"], "host": "elsewhere", "cpu": "Another CPU"}
        changed = {"environment": {**record.environment, "machine": machine}}
        if record.method == "timsort":
            # As if the lists had been longer then, and memory smaller.
            changed |= {"metrics": {**record.metrics, "disorder": -0.5}}
            changed |= {"memory": record.memory.model_copy(update={"peak": -(64 << 20)})}
        elsewhere.append(record.model_copy(update=changed))
    result = run_against(options, lines(elsewhere, tmp_path / "elsewhere.jsonl"))
    found = {(f.label, f.metric): f for f in result.findings}
    refused = found[("timsort", "latency")]
    assert refused.change == "unstable"
    assert refused.ratio is None
    assert "latencies of different machines are not compared" in refused.reason
    assert "Another CPU" in refused.reason
    assert found[("timsort", "disorder")].change == "regressed"
    assert found[("timsort", "peak_memory")].change == "regressed"
    assert found[("numpy-sort", "disorder")].change == "unchanged"
    assert ("timsort", "length") not in found
    assert result.exit_code == 1


def test_the_same_machine_and_what_is_new(options: Options, stored: list[Record], tmp_path: Path) -> None:
    fast = [
        r.model_copy(
            update={"latency": r.latency.model_copy(update={"samples": [s / 1e6 for s in r.latency.samples]})}
        )
        for r in stored
        if r.method == "timsort" and r.latency
    ]
    result = run_against(options, lines(fast, tmp_path / "fast.jsonl"))
    found = {(f.label, f.metric): f for f in result.findings}
    assert found[("timsort", "latency")].change == "regressed"
    assert found[("timsort", "latency")].threshold == 0.1
    assert found[("numpy-sort", "status")].change == "new"


def test_what_cannot_be_read_is_one_clear_error(options: Options, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no store"):
        run_against(options, str(tmp_path / "absent.sqlite"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n" + json.dumps({"key": 1}) + "\n")
    with pytest.raises(RequestError, match=r"bad.jsonl:2: key: is not a record"):
        list(read(str(bad)))
    bad.write_text("")
    with pytest.raises(RequestError, match="has no record of what the suite"):
        run_against(options, str(bad))
