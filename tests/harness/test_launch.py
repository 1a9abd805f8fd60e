"""The nursery and what it forks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from harness import runner, suite
from harness.catalog import Catalog
from harness.errors import HarnessError
from harness.launch import Nursery
from harness.store import Store


def test_workers_are_processes_of_their_own() -> None:
    with Nursery() as nursery:
        first, second = nursery.launch(), nursery.launch()
        assert first.pid != second.pid
        assert os.getpgid(first.pid) == first.pid
        first.end()
        second.end()


def test_closing_leaves_nothing() -> None:
    nursery = Nursery()
    worker = nursery.launch()
    process = psutil.Process(worker.pid)
    nursery.close()
    gone, alive = psutil.wait_procs([process], timeout=5)
    assert gone
    assert not alive


def test_killing_the_nursery_ends_its_workers() -> None:
    nursery = Nursery()
    worker = nursery.launch()
    process = psutil.Process(worker.pid)
    nursery._process.send_signal(signal.SIGKILL)
    nursery._process.wait()
    _, alive = psutil.wait_procs([process], timeout=5)
    assert not alive
    nursery.close()


def test_nurseries_of_the_same_luck_share_hashes_and_addresses() -> None:
    def told(luck: int | None) -> tuple[bool, list[str], str]:
        with Nursery(luck=luck) as nursery:
            process = psutil.Process(nursery.pid)
            maps = Path(f"/proc/{nursery.pid}/maps").read_text().splitlines()
            places = [line.split()[0] for line in maps if line.endswith(("[heap]", "[stack]", process.exe()))]
            return nursery.fixed_addresses, places, process.environ().get("PYTHONHASHSEED", "")

    fixed, places, hashes = told(7)
    assert hashes == "7"
    if not fixed:
        pytest.skip("this system does not let a process fix its addresses")
    assert told(7) == (True, places, "7")
    assert told(None)[0] is False
    assert told(8)[2] == "8"


def test_a_nursery_that_cannot_start_says_why() -> None:
    with pytest.raises(HarnessError, match="no_such_module_here"):
        Nursery(["no_such_module_here"])


def test_a_module_that_cannot_be_imported_costs_only_its_method(tmp_path: Path, store: Store) -> None:
    for name, text in {
        "good": "VALUE = 1\n",
        "broken": "raise RuntimeError('at import')\n",
        "deadly": "import os\nif os.getppid() != 1 and not os.environ.get('IN_CHILD'): os._exit(3)\n",
    }.items():
        folder = tmp_path / "family" / name
        folder.mkdir(parents=True)
        (folder / "method.py").write_text(
            f"{text}\nfrom harness.method import Method, method\n@method('{name}', task='sorting')\nclass M(Method):\n"
            "    def prepare(self, work): self.numbers = work\n    def run(self): return sorted(self.numbers)\n"
        )
    toys = Path(__file__).resolve().parent.parent / "toys"
    catalog = Catalog([toys, tmp_path], builtin=False, entry_point_roots=False)
    path = tmp_path / "s.yaml"
    path.write_text(
        "title: S\ncomparisons: {s: {task: sorting, methods: [broken, deadly, good], measure: {repeats: once}}}\n"
    )
    records = runner.run(catalog, suite.expand(catalog, [str(path)], "cpu"), store).records
    assert [r.status for r in records] == ["failed", "failed", "ok"]
    assert "at import" in (records[0].reason or "")
    assert "exit code 3" in (records[1].reason or "")


def test_a_worker_that_says_nothing_sensible_is_a_failed_record(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "family" / "paper"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text(
        "import gc, socket\nfrom harness.method import Method, method\n@method('liar', task='sorting')\n"
        "class Liar(Method):\n    def prepare(self, work): pass\n    def run(self):\n"
        "        for thing in gc.get_objects():\n"
        "            if isinstance(thing, socket.socket) and thing.fileno() > 2: thing.sendall(b'not json\\n')\n"
        "        return []\n"
    )
    toys = Path(__file__).resolve().parent.parent / "toys"
    catalog = Catalog([toys, tmp_path], builtin=False, entry_point_roots=False)
    path = tmp_path / "s.yaml"
    path.write_text(
        "title: S\ncomparisons: {s: {task: sorting, methods: [liar, no-op], measure: {repeats: once}}}\n"
    )
    started = time.monotonic()
    records = runner.run(catalog, suite.expand(catalog, [str(path)], "cpu"), store).records
    assert records[0].status == "failed"
    assert "bad output" in (records[0].reason or "")
    assert records[1].status == "ok"
    assert time.monotonic() - started < 120
