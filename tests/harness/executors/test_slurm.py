"""Job arrays through submitit, with its executor that starts processes on this machine in place of Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import executors, runner, suite
from harness.catalog import Catalog
from harness.errors import RequestError, RequestErrors
from harness.executors import placed, slurm
from harness.executors.cluster import read
from harness.store import Store

pytest.importorskip(
    "submitit", reason="submitit is not installed: python -m pip install 'paper-harness[slurm]'"
)

TOYS = Path(__file__).resolve().parents[2] / "toys"


def _file(folder: Path, text: str = "", cluster: str = "local") -> Path:
    path = folder / "slurm.yaml"
    path.write_text(
        text
        or f"cluster: {cluster}\nfolder: {folder / 'slurm'}\npoll: 0.2\nattempts: 2\nprofiles: {{cpu: {{}}}}\n"
    )
    return path


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_comparisons_come_back_from_jobs(toys: Catalog, tmp_path: Path, cluster: str) -> None:
    comparisons = [c for c in suite.expand(toys, ["toys"], "cpu") if c.name == "training"][:2]
    store = Store(tmp_path / "r.sqlite")
    before = set(psutil.Process().children(recursive=True))
    place = executors.make("slurm", cluster=_file(tmp_path, cluster=cluster))
    summary = runner.run(toys, comparisons, store, executor=place)
    assert summary.measured == 6
    assert {r.status for r in summary.records} == {"ok"}
    assert {str(r.environment["executor"]) for r in summary.records} == {"{'name': 'slurm', 'attempts': 1}"}
    again = runner.run(toys, comparisons, store)
    assert (again.measured, again.stored) == (0, 6), "the keys are those of a run on this machine"
    placed._close()  # with the executor for debugging the job is this process, which keeps its nursery
    left = [p for p in psutil.Process().children(recursive=True) if p not in before]
    assert not [p.cmdline() for p in left if "harness.worker" in p.cmdline()]


def test_a_job_that_is_killed_is_placed_again(tmp_path: Path) -> None:
    folder = tmp_path / "deadly" / "family" / "paper"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text(
        "import os, signal, time\nfrom pathlib import Path\nimport psutil\nfrom harness.method import Method, method\n"
        "@method('kills-its-job', task='training')\nclass Kills(Method):\n    folder: str = ''\n"
        "    def prepare(self, work): pass\n    def run(self):\n        done = Path(self.folder, 'killed')\n"
        "        if not done.exists():\n            done.touch()\n"
        "            job = psutil.Process(os.getppid()).parent()\n            job.send_signal(signal.SIGKILL)\n"
        "            time.sleep(60)\n        return 0.9\n"
    )
    path = tmp_path / "d.yaml"
    path.write_text(
        "title: D\ncomparisons: {d: {task: training, methods: [{method: kills-its-job, parameters: {folder: '"
        + str(tmp_path)
        + "'}}]}}\n"
    )
    catalog = Catalog([TOYS, tmp_path / "deadly"], builtin=False, entry_point_roots=False)
    place = executors.make("slurm", cluster=_file(tmp_path))
    (record,) = runner.run(
        catalog, suite.expand(catalog, [str(path)], "cpu"), Store(tmp_path / "r.sqlite"), executor=place
    ).records
    assert record.status == "ok"
    assert record.environment["executor"]["attempts"] == 2


def test_what_a_profile_asks_for_reaches_slurm(
    toys: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read(
        slurm.SlurmFile,
        _file(
            tmp_path,
            "folder: out\nsetup: [module load cuda]\nprofiles:\n  datacenter-gpu:\n    partition: gpus\n"
            "    account: lab\n    constraint: a100\n    cpus: 8\n    memory: 64GiB\n    options: {nodelist: n1}\n",
        ),
    )
    given: dict[str, Any] = {}

    class Submitit:
        class AutoExecutor:
            def __init__(self, folder: Path, cluster: str) -> None:
                given.update(folder=folder, cluster=cluster)

            def update_parameters(self, **options: Any) -> None:
                given.update(options)

    comparison = next(c for c in suite.expand(toys, ["toys"], "datacenter-gpu"))
    steps = runner.plan(toys, [comparison])
    monkeypatch.chdir(tmp_path)
    slurm.Slurm(settings)._executor(Submitit, [placed.Parcel((steps,))])
    assert given == {
        "folder": tmp_path / "out",
        "cluster": "slurm",
        "name": "harness",
        "timeout_min": 10 + 3 * 10,
        "cpus_per_task": 8,
        "gpus_per_node": 1,
        "mem_gb": 64.0,
        "slurm_partition": "gpus",
        "slurm_account": "lab",
        "slurm_constraint": "a100",
        "slurm_exclusive": True,
        "slurm_array_parallelism": 100,
        "slurm_setup": ["module load cuda"],
        "slurm_additional_parameters": {"nodelist": "n1"},
    }


def test_a_wrong_file_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(RequestErrors, match=r"slurm\.yaml:3: profiles\.cpu\.partitoin") as caught:
        executors.make("slurm", cluster=_file(tmp_path, "profiles:\n  cpu:\n    partitoin: x\n"))
    assert "partition" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("slurm", None, None), "needs a cluster file"),
        (("slurm", "host:1", None), "takes no --address"),
        (("local", "host:1", None), "takes no --address"),
        (("sulrm", None, None), "did you mean 'slurm'"),
    ],
)
def test_a_wrong_request_says_what_to_do(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        executors.make(*arguments)


def test_a_profile_that_the_file_leaves_out(toys: Catalog, store: Store, tmp_path: Path) -> None:
    place = executors.make("slurm", cluster=_file(tmp_path, "profiles: {datacenter-gpu: {}}\n"))
    comparisons = suite.expand(toys, ["toys"], "cpu", papers=["timsort"])
    with pytest.raises(RequestError, match="nothing of the profile 'cpu'"):
        runner.run(toys, comparisons, store, executor=place)
