"""A Ray cluster of two node processes on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import executors, runner, suite
from harness.catalog import Catalog
from harness.errors import RequestError
from harness.record import Record
from harness.store import Store
from harness.verdict import decide

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: python -m pip install 'paper-harness[ray]'")

# On a machine with other work a node's helpers take longer to start than Ray waits for them by default.
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")

TOYS = Path(__file__).resolve().parents[2] / "toys"

_IN_FULL = pytest.mark.skipif(
    os.environ.get("HARNESS_SCALE") != "1",
    reason="a Ray cluster needs two cores for itself and minutes: nox -s faults, or HARNESS_SCALE=1",
)

_DEADLY = '''
import os, signal, time
from pathlib import Path
import psutil
from harness.method import Method, method

@method("kills-its-worker", task="training")
class Kills(Method):
    """Kills the process of Ray that it belongs to, as often as it finds that it may."""
    folder: str = ""
    times: int = 1
    def prepare(self, work): self.seed = work
    def run(self):
        done = list(Path(self.folder).glob("killed-*"))
        if len(done) < self.times:
            Path(self.folder, f"killed-{len(done)}").write_text(str(os.getpid()))
            worker = psutil.Process(os.getppid()).parent()
            worker.send_signal(signal.SIGKILL)
            time.sleep(60)
        return 0.9
'''


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes, of which each measures one comparison at a time."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "resources": {"harness-cpu": 1}}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def deadly(tmp_path: Path) -> Catalog:
    """The toys, and a method that kills the worker it is measured by."""
    folder = tmp_path / "deadly" / "family" / "paper"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text(_DEADLY)
    return Catalog([TOYS, tmp_path / "deadly"], builtin=False, entry_point_roots=False)


def _cluster_file(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def _deadly_run(catalog: Catalog, folder: Path, times: int, place: executors.Executor) -> list[Record]:
    path = folder / "deadly.yaml"
    path.write_text(
        "title: D\ncomparisons:\n  d:\n    task: training\n    methods:\n      - trainer\n"
        f"      - {{method: kills-its-worker, parameters: {{folder: '{folder}', times: {times}}}}}\n"
    )
    comparisons = suite.expand(catalog, [str(path)], "cpu")
    return runner.run(catalog, comparisons, Store(folder / "d.sqlite"), executor=place).records


@_IN_FULL
def test_verdicts_are_those_of_this_machine(address: str, toys: Catalog, tmp_path: Path) -> None:
    comparisons = suite.expand(toys, ["toys"], "cpu", papers=["timsort"])
    here, there = Store(tmp_path / "here.sqlite"), Store(tmp_path / "there.sqlite")
    runner.run(toys, comparisons, here)
    summary = runner.run(toys, comparisons, there, executor=executors.make("ray", address))
    assert summary.measured == 21
    assert {r.status for r in summary.records} == {"ok"}
    assert {r.environment["executor"]["attempts"] for r in summary.records} == {1}
    assert {r.key for r in there.records()} == {r.key for r in here.records()}
    outcomes = [
        {
            (v.claim, v.profile): v.outcome
            for v in decide(toys, s.records(), papers=["timsort"], profiles=["cpu"])
        }
        for s in (here, there)
    ]
    # Whether one of two fast methods is faster is a matter of luck on a machine that does other things too.
    timed = {"faster"}
    sure = [{k: o for k, o in each.items() if k[0] not in timed} for each in outcomes]
    assert sure[0] == sure[1]
    assert outcomes[0][("sorts", "cpu")] == "reproduced"
    again = runner.run(toys, comparisons, there, executor=executors.make("ray", address))
    assert (again.measured, again.stored) == (0, 21)


@_IN_FULL
@pytest.mark.timeout(1800)
def test_the_smoke_suite_has_the_verdicts_of_this_machine(address: str, tmp_path: Path) -> None:
    catalog = Catalog()
    comparisons = suite.expand(catalog, ["smoke"], "cpu")
    here, there = Store(tmp_path / "here.sqlite"), Store(tmp_path / "there.sqlite")
    local = runner.run(catalog, comparisons, here).records
    placed = runner.run(catalog, comparisons, there, executor=executors.make("ray", address)).records
    assert {r.key: r.status for r in placed} == {r.key: r.status for r in local}
    assert {r.environment["executor"]["name"] for r in placed} == {"ray"}
    outcomes = [
        {(v.paper, v.claim, v.profile): v.outcome for v in decide(catalog, store.records())}
        for store in (here, there)
    ]
    assert outcomes[0] == outcomes[1]
    assert len({r.key for r in local}) == len(local) > 0


@_IN_FULL
def test_a_worker_killed_in_the_middle_is_tried_again(address: str, deadly: Catalog, tmp_path: Path) -> None:
    records = _deadly_run(deadly, tmp_path, 1, executors.make("ray", address))
    assert [r.status for r in records] == ["ok", "ok"]
    assert {r.environment["executor"]["attempts"] for r in records} == {2}
    assert len(list(Store(tmp_path / "d.sqlite").records())) == 2
    left = int((tmp_path / "killed-0").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(left), "the method outlived its worker"


@_IN_FULL
def test_a_comparison_that_is_lost_each_time_is_a_failed_record(
    address: str, deadly: Catalog, tmp_path: Path
) -> None:
    file = _cluster_file(tmp_path, "attempts: 2\n")
    records = _deadly_run(deadly, tmp_path, 9, executors.make("ray", address, file))
    assert [r.status for r in records] == ["failed", "failed"]
    assert "it was lost 2 times on the way" in (records[0].reason or "")
    assert len(list(tmp_path.glob("killed-*"))) == 2


@_IN_FULL
def test_what_no_node_has_is_skipped_with_what_is_missing(address: str, toys: Catalog, tmp_path: Path) -> None:
    file = _cluster_file(tmp_path, "profiles:\n  cpu: {cpus: 64, resources: {a-license: 1}}\n")
    comparisons = [c for c in suite.expand(toys, ["toys"], "cpu") if c.name == "training"]
    store = Store(tmp_path / "r.sqlite")
    records = runner.run(toys, comparisons, store, executor=executors.make("ray", address, file)).records
    assert {r.status for r in records} == {"skipped"}
    assert "no node of the Ray cluster has 64 CPU, 1 a-license" in (records[0].reason or "")


def test_no_cluster_is_a_wrong_request(toys: Catalog, store: Store) -> None:
    comparisons = suite.expand(toys, ["toys"], "cpu", papers=["timsort"])
    with pytest.raises(RequestError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        runner.run(toys, comparisons, store, executor=executors.make("ray", "127.0.0.1:1"))


@_IN_FULL
def test_a_node_that_is_killed_loses_nothing(toys: Catalog, tmp_path: Path) -> None:
    """Both nodes work; one is killed with all its processes as soon as something has come back."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "resources": {"harness-cpu": 1}}
    cluster = Cluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False, "resources": {}}
    )
    doomed = cluster.add_node(**node)
    cluster.add_node(**node)

    class Kill(runner.Progress):
        def finish(self, step: runner.Step, record: Record) -> None:
            for process in doomed.live_processes():
                os.kill(process[1].pid, signal.SIGKILL)

    comparisons = suite.expand(toys, ["toys"], "cpu", papers=["timsort"])
    try:
        summary = runner.run(
            toys, comparisons, Store(tmp_path / "r.sqlite"), executor=executors.make("ray", cluster.address),
            progress=Kill(),
        )  # fmt: skip
    finally:
        cluster.shutdown()
    assert {r.status for r in summary.records} == {"ok"}
    assert len(list(Store(tmp_path / "r.sqlite").records())) == 21
