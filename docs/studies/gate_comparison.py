"""The gate beside pytest-benchmark, asv and pyperf; docs/instrument.md shows what it printed.

    python docs/studies/gate_comparison.py run TOOL... --load 2 --trials trials.jsonl
    python docs/studies/gate_comparison.py show trials.jsonl

Each tool compares the functions of `harness qualify` with themselves, and with copies that do exactly 5 % more, in the
way its manual asks for, and gets ten seconds of runs for each function, five on either side:

- pytest-benchmark: two sessions one after the other, decided by its own ``--benchmark-compare-fail=min:...``;
- asv: ``asv continuous --interleave-rounds`` over two commits of a small project, decided by ``asv compare``;
- pyperf: two files made one after the other, decided by ``pyperf compare_to``.

Starting interpreters does not count against the ten seconds. Every tool is shown at a threshold of 5 % and at the gate's
own, 2.5 %. A run of one tool takes ten to fifteen minutes. Needs ``pip install asv virtualenv pyperf`` as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy import stats

from harness import environment
from harness.qualify import trials

SECONDS = 10.0
THRESHOLDS = 0.05, 0.025
SORTS = {"unchanged": trials.UNITS, "slower": 105}
SIZES = (1,)


@dataclass(frozen=True)
class Trial:
    """What one tool said of one function: whether it is slower, at each threshold."""

    tool: str
    function: str
    slowdown: float
    load: int
    found: dict[str, bool]


def names() -> list[str]:
    """Of all functions."""
    return [f"{kind} {size}" for kind in trials.KINDS for size in SIZES]


FUNCTIONS = f"""
from harness.qualify.methods.instrument.baselines import Units
from harness.qualify.methods.instrument.tasks import UnitsOfWork
from harness.testing import prepared

NAMES = {names()!r}

def function(name, units):
    kind, size = name.split()
    return prepared(Units(kind=kind, size=int(size), units=units), UnitsOfWork()).run
"""

PYTEST = """
import pytest
from functions import NAMES, function
from project import UNITS

@pytest.mark.parametrize("name", NAMES)
def test_units(benchmark, name):
    benchmark(function(name, UNITS))
"""


def pytest_benchmark(folder: Path, units: int) -> dict[str, dict[float, bool]]:
    """Two sessions, decided by pytest-benchmark's own check."""
    from pytest_benchmark.utils import PercentageRegressionCheck

    (folder / "test_units.py").write_text(PYTEST)
    seen: list[dict[str, dict[str, float]]] = []
    for side, count in (("base", trials.UNITS), ("head", units)):
        (folder / "project.py").write_text(f"UNITS = {count}\n")
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-only", "--rootdir", str(folder)]
        command += [f"--benchmark-max-time={SECONDS / 2}", f"--benchmark-json={side}.json", "test_units.py"]
        python(folder, *command)
        read = json.loads((folder / f"{side}.json").read_text())
        seen.append({each["param"]: each["stats"] for each in read["benchmarks"]})
    base, head = seen
    return {
        name: {
            t: bool(PercentageRegressionCheck("min", t * 100).fails(head[name], base[name])) for t in THRESHOLDS
        }
        for name in base
    }


ASV = """
from functions import NAMES, function
from project import UNITS

class Units:
    params = NAMES
    rounds = 8
    repeat = (3, 10, 0.5)
    sample_time = 0.05
    warmup_time = 0.1

    def setup(self, name):
        self.run = function(name, UNITS)

    def time_units(self, name):
        self.run()
"""

INSTALL = """
import pathlib, shutil, sys, sysconfig

site = pathlib.Path(sysconfig.get_paths()["purelib"])
shutil.copy(pathlib.Path(sys.argv[1]) / "project.py", site)
(site / "study.pth").write_text("\\n".join(sys.argv[2:]))
"""


def asv(folder: Path, units: int) -> dict[str, dict[float, bool]]:
    """Two commits of a project, in rounds that alternate between them."""
    repository = folder / "repository"
    repository.mkdir()
    git = ["git", "-c", "user.name=Study", "-c", "user.email=study@example.org", "-C", str(repository)]
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    revisions = []
    for count in (trials.UNITS, units):
        (repository / "project.py").write_text(f"UNITS = {count}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", f"{count} units"], check=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        revisions.append(found.stdout.strip())
    benchmarks = folder / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "__init__.py").write_text("")
    (benchmarks / "units.py").write_text(ASV)
    (folder / "install.py").write_text(INSTALL)
    # What the functions need comes from this interpreter's packages; only the project itself is installed.
    paths = [
        str(folder),
        *(p for p in sys.path if p.endswith("site-packages")),
        str(Path(__file__).resolve().parents[2]),
    ]
    settings = {
        "version": 1, "project": "project", "repo": str(repository), "branches": ["main"],
        "environment_type": "virtualenv",
        "benchmark_dir": str(benchmarks), "env_dir": "env", "results_dir": "results", "html_dir": "html",
        "pythons": [f"{sys.version_info.major}.{sys.version_info.minor}"], "build_command": [],
        "install_command": [shlex.join(["python", f"{folder}/install.py", "{build_dir}", *paths])],
        "uninstall_command": ["python --version"],
    }  # fmt: skip
    (folder / "asv.conf.json").write_text(json.dumps(settings))
    python(folder, "-m", "asv", "machine", "--yes", "--machine", "here", env={"HOME": str(folder)})
    continuous = ["-m", "asv", "continuous", "--interleave-rounds", "--machine", "here", "-f", "1.05"]
    # An exit code of 1 says that something was found slower.
    python(folder, *continuous, *revisions, codes=(0, 1), env={"HOME": str(folder)})
    results: dict[str, dict[float, bool]] = defaultdict(dict)
    for threshold in THRESHOLDS:
        compare = ["-m", "asv", "compare", "--machine", "here", "-f", str(1 + threshold), *revisions]
        text = python(folder, *compare, env={"HOME": str(folder)})
        for line in text.splitlines():
            for name in [n for n in names() if f"time_units('{n}')" in line]:
                results[name][threshold] = line.split("|")[1].strip() == "+"
    return dict(results)


PYPERF = """
import pyperf
from functions import NAMES, function
from project import UNITS

runner = pyperf.Runner(processes=8, values=5, warmups=1, min_time=0.1)
runner.parse_args()
for name in NAMES:
    # A worker runs one of them, and must not prepare the others.
    if runner.args.worker and NAMES.index(name) != runner.args.worker_task:
        runner.bench_func(name, lambda: None)
    else:
        runner.bench_func(name, function(name, UNITS))
"""


def pyperf(folder: Path, units: int) -> dict[str, dict[float, bool]]:
    """Two files, decided by what ``pyperf compare_to`` calls slower."""
    (folder / "bench.py").write_text(PYPERF)
    for side, count in (("base", trials.UNITS), ("head", units)):
        (folder / "project.py").write_text(f"UNITS = {count}\n")
        python(folder, "bench.py", "-q", "-o", f"{side}.json", "--copy-env")
    results: dict[str, dict[float, bool]] = defaultdict(dict)
    for threshold in THRESHOLDS:
        compare = ["-m", "pyperf", "compare_to", "base.json", "head.json", f"--min-speed={threshold * 100}"]
        slower = [line for line in python(folder, *compare).splitlines() if line.endswith("slower")]
        for name in names():
            results[name][threshold] = any(line.startswith(f"{name}: ") for line in slower)
    return dict(results)


def python(folder: Path, *command: str, codes: Sequence[int] = (0,), env: dict[str, str] | None = None) -> str:
    """What a command of this interpreter prints. Raises `RuntimeError` with all of it for another exit code."""
    home = str(Path(__file__).resolve().parents[2])
    variables = {
        **os.environ,
        **environment.thread_variables(1),
        "PYTHONPATH": os.pathsep.join([str(folder), home]),
        **(env or {}),
    }
    done = subprocess.run([sys.executable, *command], cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


TOOLS: dict[str, Callable[[Path, int], dict[str, dict[float, bool]]]] = {
    "pytest-benchmark": pytest_benchmark,
    "asv": asv,
    "pyperf": pyperf,
}


def run(tools: Sequence[str], sorts: Sequence[str], load: int, out: Path) -> None:
    """Trials of `tools`, added to a file of JSON lines."""
    for tool in tools:
        for sort in sorts:
            units = SORTS[sort]
            slowdown = units / trials.UNITS - 1
            print(f"{tool}, {load} busy processes, {slowdown:.0%} slower", flush=True)
            with tempfile.TemporaryDirectory() as place, trials.busy(load):
                folder = Path(place)
                (folder / "functions.py").write_text(FUNCTIONS)
                found = TOOLS[tool](folder, units)
            if missing := set(names()) - set(found):
                raise RuntimeError(f"{tool} said nothing of {sorted(missing)}")
            with open(out, "a", encoding="utf-8") as stream:
                for name, said in found.items():
                    trial = Trial(tool, name, round(slowdown, 4), load, {str(t): v for t, v in said.items()})
                    stream.write(json.dumps(asdict(trial)) + "\n")


def show(path: Path) -> None:
    """A line per tool, load and threshold: shares found, of unchanged and of slower functions."""
    found = [Trial(**json.loads(line)) for line in path.read_text().splitlines()]
    for tool in TOOLS:
        for load in sorted({t.load for t in found if t.tool == tool}):
            for threshold in map(str, THRESHOLDS):
                mine = [t for t in found if t.tool == tool and t.load == load]
                same = [t.found[threshold] for t in mine if not t.slowdown]
                slower = [t.found[threshold] for t in mine if t.slowdown]
                alarms = sum(same) / len(same) if same else math.nan
                print(
                    f"{tool:<17} load {load}  threshold {float(threshold):.1%}  unchanged: {_share(same)}"
                    f"  a suite of 20 fails: {1 - (1 - alarms) ** 20:.0%}  slower by 5 %: {_share(slower)}"
                )


def _share(outcomes: Sequence[bool]) -> str:
    if not outcomes:
        return "none"
    interval = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci(0.95, method="exact")
    return f"{sum(outcomes)} of {len(outcomes)} [{interval.low:.0%}, {interval.high:.0%}]"


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("tools", nargs="+", choices=list(TOOLS))
    running.add_argument("--sort", action="append", choices=list(SORTS), help="one sort of trials alone")
    running.add_argument("--load", type=int, default=0, help="busy processes beside it")
    running.add_argument("--trials", type=Path, required=True, help="file to add to")
    commands.add_parser("show").add_argument("trials", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options.tools, options.sort or list(SORTS), options.load, options.trials)
    else:
        show(options.trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
