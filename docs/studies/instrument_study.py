"""The study behind the instrument's choices; docs/instrument.md shows what it printed.

    python docs/studies/instrument_study.py noise --load 2     how far off a launch is, by clock, processors, blocks
    python docs/studies/instrument_study.py estimators         level and power of tests over launches, by simulation
    python docs/studies/instrument_study.py overhead           CPU time that goes to anything but the methods
    python docs/studies/instrument_study.py memory             peaks of methods that allocate 64 MiB

The first takes about eight minutes, the second two, the others one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from harness import environment, measuring, runner, suite
from harness.catalog import Catalog
from harness.gate import rounds
from harness.launch import Nursery
from harness.measure import turns
from harness.measure.statistics import log_differences, sign_flip
from harness.measuring import Seat
from harness.qualify import trials
from harness.store import Store

LAUNCHES = 8
KINDS = ("arithmetic", "sort", "matmul", "gather", "mlp")


@dataclass(frozen=True)
class Setting:
    """A way of measuring: on which clock, on one processor or all, in blocks of how many seconds."""

    clock: str
    held: bool
    block: float
    alternating: bool = True


SETTINGS = (
    Setting("host", False, 0.2, alternating=False),
    Setting("host", False, 0.02),
    Setting("host", True, 0.02),
    Setting("host", True, 0.005),
    Setting("host-ready", True, 0.02),
    Setting("host-ready", True, 0.005),
    Setting("host-ready", True, 0.002),
)


def noise(load: int) -> None:
    """Measure methods against themselves in every setting and print the error of a launch."""
    catalog = Catalog(entry_point_roots=False, home=trials.HOME)
    print(
        f"{'clock':<11} {'processors':<11} {'block':<8} {'turns':<12} {'median error':>12} {'worst kind':>11}"
    )
    with trials.busy(load):
        for setting in SETTINGS:
            errors = []
            for size in trials.SIZES:
                for kind in KINDS:
                    pair = trials.pair_of(catalog, kind, size, 0.0, 10.0)
                    errors.append(_error(catalog, pair, setting))
            line = f"{setting.clock:<11} {'one' if setting.held else 'any':<11} {setting.block * 1e3:>4.0f} ms "
            line += f" {'alternating' if setting.alternating else 'one block':<12}"
            print(f"{line} {np.median(errors):>11.2%} {max(errors):>11.2%}", flush=True)


def _error(catalog: Catalog, pair: object, setting: Setting) -> float:
    """Root mean square of the log difference of a method and itself, over launches."""
    comparison, contestant = pair.comparison, pair.contestant  # type: ignore[attr-defined]
    request = runner.request_for(
        catalog, comparison, contestant, "cpu", None, 1 if setting.clock == "host-ready" else None
    )
    variables = {**environment.thread_variables(1), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    rng = random.Random(0)
    found: list[float] = []
    original = turns.BLOCK
    turns.BLOCK = setting.block  # type: ignore[misc]
    try:
        nursery = _nursery(catalog, variables)
        seats = [Seat(str(i), nursery, request, 600.0, 8 << 30) for i in range(2)]
        cpus = environment.cpus()
        for launch in range(LAUNCHES):
            chosen = [rng.choice(cpus)] if setting.held else cpus
            for seat in seats:
                seat.launch(launch == 0, chosen)
            budget = 0.2 if setting.alternating else setting.block
            plan = turns.Plan(budget=budget, min_samples=2, max_samples=4000)
            measuring.turns(seats, plan, launch, 1, rng)
        left, right = (seat.latency() for seat in seats)
        assert left is not None
        assert right is not None
        found += log_differences([left, right])[1].tolist()
    finally:
        turns.BLOCK = original  # type: ignore[misc]
    return float(np.sqrt(np.mean(np.square(found))))


_nurseries: list[Nursery] = []


def _nursery(catalog: Catalog, variables: dict[str, str]) -> Nursery:
    if not _nurseries:
        modules = [catalog.task("units-of-work").source.module, catalog.method("units").source.module]
        _nurseries.append(
            Nursery(runner.PRELOAD, packages=catalog.modules(), modules=modules, variables=variables)
        )
    return _nurseries[0]


# -- overhead ---------------------------------------------------------------------------------------------


def overhead() -> None:
    """CPU time while methods take their turns: theirs, and that of the runner and of the protocol in their processes."""
    catalog = Catalog(entry_point_roots=False, home=trials.HOME)
    nursery = _nursery(catalog, environment.thread_variables(1))
    rng = random.Random(0)
    print(f"{'method':<14} {'of the methods':>15} {'of all':>9} {'outside':>8}")
    for kind in trials.KINDS:
        pair = trials.pair_of(catalog, kind, 1, 0.0, 10.0)
        request = runner.request_for(catalog, pair.comparison, pair.contestant, "cpu", None, 1)
        seats = [Seat(str(i), nursery, request, 600.0, 8 << 30) for i in range(2)]
        everything = 0.0
        for launch in range(LAUNCHES):
            chosen, layout = [rng.choice(environment.cpus())], rng.getrandbits(32)
            for seat in seats:
                seat.launch(launch == 0, chosen, layout)
            workers = [seat._worker.pid for seat in seats if seat._worker is not None]
            began = time.process_time() + _nanoseconds(workers) * 1e-9
            active = [(seat, seat.taken) for seat in seats]
            plan = turns.Plan(budget=rounds.LAUNCH, min_samples=2, max_samples=4000)
            taken = turns.take(seats, plan, 1, rng)
            everything += time.process_time() + _nanoseconds(workers) * 1e-9 - began
            for (_, kept), found in zip(active, taken, strict=True):
                kept.append((launch, found))
            for seat in seats:
                seat.end()
        own = sum(
            block.cpu * len(block.samples) * each.runs_per_sample
            for seat in seats
            for _, each in seat.taken
            for _, block in each.blocks
        )
        # Runs that warm up are a method's work, not the instrument's; how long they took is in no block.
        own += sum(each.warm_up * block_seconds(each) for seat in seats for _, each in seat.taken)
        print(f"{kind:<14} {own:>13.2f} s {everything:>7.2f} s {1 - own / everything:>8.1%}", flush=True)


def block_seconds(taken: turns.Taken) -> float:
    """CPU seconds of one run."""
    return float(np.median([block.cpu for _, block in taken.blocks]))


def _nanoseconds(pids: list[int]) -> int:
    """CPU time of processes of one thread, as the scheduler counts it."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)


# -- memory -----------------------------------------------------------------------------------------------

TASK = """
from harness.method import Metric, Task, task

@task("nothing", metrics=[Metric("zero")])
class Nothing(Task):
    "Nothing."

    def load(self, seed):
        return None

    def score(self, work, output):
        return {"zero": 0.0}
"""

METHOD = """
import os, threading, time
import numpy as np
from harness.method import Method, method

def work(seconds):
    block = np.ones(64 << 20, dtype=np.uint8)
    time.sleep(seconds)
    return block

@method("allocates", task="nothing")
class Allocates(Method):
    "64 MiB, in some way."

    how: str = "prepare"

    def prepare(self, _):
        self.kept = work(0) if self.how == "prepare" else None

    def run(self):
        if self.how == "run":
            work(0)
        elif self.how == "thread":
            thread = threading.Thread(target=work, args=(0.01,))
            thread.start()
            thread.join()
        elif self.how == "child":
            pid = os.fork()
            if pid == 0:
                work(0.3)
                os._exit(0)
            os.waitpid(pid, 0)
"""

SUITE = """
title: Memory
comparisons:
  memory:
    task: nothing
    methods:
      - {method: allocates, grid: {how: [prepare, run, thread, child]}}
    measure: {budget: 1, launches: 3}
"""


def memory() -> None:
    """Measured peaks against the 64 MiB that were allocated."""
    with tempfile.TemporaryDirectory() as place:
        family, suites = Path(place, "family"), Path(place, "suites")
        family.mkdir()
        suites.mkdir()
        (family / "tasks.py").write_text(TASK)
        (family / "baselines.py").write_text(METHOD)
        (suites / "memory.yaml").write_text(SUITE)
        catalog = Catalog([Path(place)], builtin=False, entry_point_roots=False)
        store = Store(Path(place, "r.sqlite"))
        for record in runner.run(catalog, suite.expand(catalog, ["memory"], "cpu"), store).records:
            errors = [(launch.peak or 0) / (64 << 20) - 1 for launch in record.launches]
            told = ", ".join(f"{error:+.2%}" for error in errors)
            print(f"64 MiB in {record.method_parameters['how']:<8} {told}  ({record.status})")


# -- estimators -------------------------------------------------------------------------------------------


def estimators() -> None:
    """Level and power of three tests over the launches of one method, on noise like the measured one."""
    tests: dict[str, Callable[[np.ndarray], float]] = {
        "Student's t": lambda x: float(stats.ttest_1samp(x, 0.0, alternative="greater").pvalue),
        "t of a 20 % trimmed mean": _trimmed,
        "Wilcoxon's signed rank": lambda x: float(stats.wilcoxon(x, alternative="greater").pvalue),
        "sign flips of trimmed mean": sign_flip,
    }
    noises: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
        "normal, 1.2 %": lambda rng, n: rng.normal(0, 0.012, n),
        "long tails (Laplace), 1.7 %": lambda rng, n: rng.laplace(0, 0.012, n),
        "one launch in 20 off by 30 %": lambda rng, n: _contaminated(rng, n, 0.05),
        "one launch in 5 off by 30 %": lambda rng, n: _contaminated(rng, n, 0.2),
    }
    print(f"{'noise':<32} {'test':<26} {'false alarms at 1 %':>20} {'5 % found':>10}")
    for name, draw in noises.items():
        for label, test in tests.items():
            rng = np.random.default_rng(1)
            alarms = np.mean([test(draw(rng, 12)) <= 0.01 for _ in range(3000)])
            found = np.mean([test(draw(rng, 12) + np.log(1.05)) <= 0.01 for _ in range(1000)])
            print(f"{name:<32} {label:<26} {alarms:>19.2%} {found:>10.1%}", flush=True)


def _trimmed(x: np.ndarray) -> float:
    """Tukey and McLaughlin's: the trimmed mean over its standard error from the winsorised variance."""
    cut = int(0.2 * len(x))
    error = float(stats.mstats.trimmed_stde(x, limits=(0.2, 0.2)))
    return float(stats.t.sf(stats.trim_mean(x, 0.2) / error, len(x) - 2 * cut - 1))


def _contaminated(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    x = rng.normal(0, 0.012, n)
    hit = rng.random(n) < share
    x[hit] += rng.choice([-1, 1], hit.sum()) * rng.exponential(0.3, hit.sum())
    return x


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("noise").add_argument("--load", type=int, default=0, help="busy processes beside it")
    commands.add_parser("estimators")
    commands.add_parser("overhead")
    commands.add_parser("memory")
    options = parser.parse_args()
    if options.command in ("noise", "overhead"):
        if options.command == "noise":
            noise(options.load)
        else:
            overhead()
        for nursery in _nurseries:
            nursery.close()
    elif options.command == "memory":
        memory()
    else:
        estimators()
    return 0


if __name__ == "__main__":
    sys.exit(main())
