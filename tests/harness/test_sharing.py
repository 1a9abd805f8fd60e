"""What a suite says of sharing the machine, and what the record says of who was there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness import machine, runner, suite
from harness.catalog import Catalog
from harness.record import Record
from harness.store import Store


def _run(toys: Catalog, folder: Path, name: str, share: str) -> Record:
    path = folder / f"{name}.yaml"
    path.write_text(
        f"title: S\ncomparisons:\n  {name}:\n    task: training\n    methods: [trainer]\n    measure: {{{share}}}\n"
    )
    store = Store(folder / f"{name}.sqlite")
    (record,) = runner.run(toys, suite.expand(toys, [str(path)], "cpu"), store).records
    return record


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.VARIABLE, str(tmp_path / "machine"))


def test_a_record_says_what_ran_beside_it(toys: Catalog, tmp_path: Path) -> None:
    with machine.reserved({"comparison": "another", "suite": "theirs", "seed": "1"}, share=True) as beside:
        record = _run(toys, tmp_path, "shared", "share: true")
    assert record.status == "ok"
    assert record.environment["beside"] == [{"comparison": "another", "suite": "theirs", "seed": "1"}]
    assert "shared the machine with 1 other comparison" in (record.unstable or "")
    assert beside == [{"comparison": "shared", "suite": "shared", "seed": "1000"}]


def test_a_comparison_waits_for_the_machine_unless_it_may_share(toys: Catalog, tmp_path: Path) -> None:
    found: list[Record] = []
    with machine.reserved({"comparison": "another"}, share=True):
        thread = threading.Thread(target=lambda: found.append(_run(toys, tmp_path, "alone", "budget: 1")))
        thread.start()
        # One that may share gets through meanwhile only when it came first: alone stands at the turnstile or will.
        thread.join(3)
        assert not found
    thread.join(60)
    assert found[0].status == "ok"
    assert found[0].environment["beside"] == []
