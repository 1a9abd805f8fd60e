"""Records of changed source: measured again on the next run, and until then shown as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli, runner, running, stale, suite
from harness.catalog import Catalog
from harness.comparing import record_of
from harness.executors import Executor, Finished, Work
from harness.record import Latency
from harness.selecting import records_behind
from harness.stale import Changed
from harness.store import Store
from harness.store.tables import measured_of
from harness.verdict import decide

METHOD = (
    "from harness.method import Method, method\nfrom .helper import answer\n"
    "@method('{name}', task='nothing')\nclass It(Method):\n    def prepare(self, work): pass\n"
    "    def run(self): return answer()\n"
)
PAPER = """
title: A paper
year: 2026
authors: [A. Nonymous]
summary: It claims that two methods are equal.
claims:
  - id: equal
    kind: parity
    statement: They are equal.
    source: abstract
    claimed: {text: equal, value: 0.0}
    setting: {text: anywhere, profile: cpu}
    consistent:
      on: {task: nothing, comparison: one}
      all: [{quantity: 'mean(value("ours")) - mean(value("theirs"))', between: [-0.1, 0.1]}]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A catalog with one paper; `helper.py` is imported by its method, and not by the baseline."""
    folder = tmp_path / "root" / "family" / "paper"
    folder.mkdir(parents=True)
    (folder.parent / "tasks.py").write_text(
        "from harness.method import Metric, Task, task\n"
        "@task('nothing', metrics=[Metric('value', deterministic=True)], repeats='once')\nclass Nothing(Task):\n"
        "    def load(self, seed): return None\n"
        "    def score(self, work, output): return {'value': float(output)}\n"
    )
    (folder / "helper.py").write_text("def answer(): return 1\n")
    (folder / "method.py").write_text(METHOD.format(name="ours"))
    (folder.parent / "baselines.py").write_text(
        "from harness.method import Method, method\n"
        "@method('theirs', task='nothing')\nclass It(Method):\n    def prepare(self, work): pass\n"
        "    def run(self): return 1\n"
    )
    (folder / "paper.yaml").write_text(PAPER)
    suites = tmp_path / "root" / "suites"
    suites.mkdir()
    (suites / "one.yaml").write_text(
        "title: One\ncomparisons:\n  one:\n    task: nothing\n    paper: paper\n    methods: [ours, theirs]\n"
        "    seeds: 2\n"
    )
    return tmp_path / "root"


class Told(runner.Progress):
    """Remembers what a display is told."""

    def __init__(self) -> None:
        self.found = Changed()

    def changed(self, found: Changed) -> None:
        self.found = found


class Pretended(Executor):
    """Measures nothing and says that it took a microsecond."""

    def carry_out(self, work: Work) -> Finished:
        for group in work.groups:
            if work.should_stop():
                return
            latency = Latency(samples=[1e-6], first=1e-6)
            yield group, [record_of(step, "ok", latency=latency, metrics={"value": 1.0}) for step in group]


def run(home: Path, store: Store, fresh: bool = False) -> tuple[runner.Summary, Changed]:
    catalog, told = catalog_of(home), Told()
    comparisons = suite.expand(catalog, ["one"], "cpu")
    return runner.run(catalog, comparisons, store, fresh=fresh, progress=told, executor=Pretended()), told.found


def catalog_of(home: Path) -> Catalog:
    return Catalog([home], builtin=False, entry_point_roots=False)


def test_what_a_changed_import_makes_stale(home: Path, store: Store) -> None:
    first, found = run(home, store)
    assert (first.measured, found) == (4, Changed())
    assert run(home, store)[0].measured == 0
    assert stale.stale(catalog_of(home), store.records()) == []

    (home / "family" / "paper" / "helper.py").write_text("def answer(): return 1.0\n")
    old = stale.stale(catalog_of(home), store.records())
    assert {r.method for r in old} == {"ours"}
    assert len(old) == 2
    (verdict,) = decide(catalog_of(home), records_behind(catalog_of(home), store, ["paper"]), papers=["paper"])
    assert (verdict.outcome, verdict.stale, len(verdict.keys)) == ("consistent", 2, 4)

    # Once per seed, so that the baseline need not be measured again.
    again, found = run(home, store)
    assert (again.measured, again.stored, found) == (2, 2, Changed(source=2))
    assert str(found) == "2 stale: their source has changed since they were measured"
    (verdict,) = decide(catalog_of(home), records_behind(catalog_of(home), store, ["paper"]), papers=["paper"])
    assert verdict.stale == 0
    assert store.count() == 6
    assert len(store.keys(newest=True)) == 4


def test_it_is_said_in_the_terminal(home: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run(home, store)
    (home / "family" / "paper" / "helper.py").write_text("def answer(): return 1.0\n")
    where = ["--methods", str(home), "--store", store.location]

    def harness(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            cli.main([*arguments, *where])
        return " ".join(capsys.readouterr().out.split())

    dry = json.loads(harness("run", "one", "--dry-run", "--json"))
    assert [(row["method"], row["stored"], row["stale"]) for row in dry[:2]] == [
        ("ours", None, True), ("theirs", "ok", False),
    ]  # fmt: skip
    assert "of these, 2 stale: their source has changed since they were measured" in harness(
        "run", "one", "--dry-run"
    )
    assert "stale: the source has changed since 2 of 4 of its records were measured" in harness("show", "paper")
    assert [v["stale"] for v in json.loads(harness("claims", "--paper", "paper", "--json"))] == [2]
    assert "4 records in" in (listed := harness("store", "list"))
    assert "2 stale, their source has changed since" in listed
    display = running.Display()
    display.changed(Changed(source=2, versions=1))
    assert " ".join(capsys.readouterr().err.split()).split("; ") == [
        "2 stale: their source has changed since they were measured",
        "1 measured with other versions of the software",
    ]


def test_other_source_that_nothing_imports_makes_nothing_stale(home: Path, store: Store) -> None:
    run(home, store)
    (home / "family" / "paper" / "unrelated.py").write_text("x = 1\n")
    (home / "family" / "paper" / "paper.yaml").write_text(PAPER + "notes: [a note]\n")
    assert run(home, store)[0].measured == 0


def test_other_versions_are_measured_again_and_are_not_stale(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import environment

    run(home, store)
    there = environment.versions()
    monkeypatch.setattr(environment, "versions", lambda packages=(): {**there, "torch": "0.1"})
    again, found = run(home, store)
    assert (again.measured, found) == (4, Changed(versions=4))
    assert str(found) == "4 measured with other versions of the software"
    assert stale.stale(catalog_of(home), store.records()) == []


def test_fresh_measures_again_and_replaces(home: Path, store: Store) -> None:
    first = run(home, store)[0]
    again, found = run(home, store, fresh=True)
    assert (again.measured, found) == (4, Changed())
    assert {r.key for r in first.records} == {r.key for r in again.records} == set(store.keys())
    assert all(r.started > max(o.started for o in first.records) for r in store.records())


def test_a_method_that_is_gone(home: Path, store: Store) -> None:
    run(home, store)
    (home / "family" / "baselines.py").write_text("")
    assert {r.method for r in stale.stale(catalog_of(home), store.records())} == {"theirs"}


def test_a_step_measures_what_its_record_says(home: Path, store: Store) -> None:
    catalog = catalog_of(home)
    steps = runner.plan(catalog, suite.expand(catalog, ["one"], "cpu"))
    records = run(home, store)[0].records
    assert [stale.measurement(step).measured for step in steps] == [measured_of(record) for record in records]


def test_verdicts_of_a_paper_need_only_the_records_behind_them(toys: Catalog, store: Store) -> None:
    runner.run(toys, suite.expand(toys, ["toys"], "cpu"), store, executor=Pretended())
    for slug in toys.papers:
        expected = decide(toys, store.records(), papers=[slug])
        found = decide(toys, records_behind(toys, store, [slug]), papers=[slug])
        assert [v.model_dump_json() for v in found] == [v.model_dump_json() for v in expected]
    everything = decide(toys, records_behind(toys, store))
    assert [json.loads(v.model_dump_json()) for v in everything] == [
        json.loads(v.model_dump_json()) for v in decide(toys, store.records())
    ]
