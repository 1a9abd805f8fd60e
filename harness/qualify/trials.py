"""Trials of the gate on methods that are the same on both sides, or slower on one by a known amount."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import environment, machine
from harness.catalog import Catalog
from harness.errors import RequestError
from harness.gate.decide import figures
from harness.gate.model import Side
from harness.gate.rounds import Rounds
from harness.gate.run import Options, confirm, screen
from harness.gate.sides import Pair
from harness.gate.trees import Tree
from harness.measure import disturbance
from harness.parameters import complete
from harness.suite import FIRST_SEED, Comparison, Contestant

KINDS = ("arithmetic", "dictionary", "sort", "matmul", "copy", "json", "allocate", "softmax", "gather", "mlp")
SIZES = (1, 6)
UNITS = 100

HOME = Path(__file__).resolve().parent

_BUSY = (
    "import os, random, time\nimport numpy as np\na = np.random.rand(400, 400)\nparent = os.getppid()\n"
    "while os.getppid() == parent:\n    end = time.monotonic() + random.expovariate(2.0)\n"
    "    while time.monotonic() < end:\n        a @ a\n        sum(range(100_000))\n"
    "    time.sleep(random.expovariate(4.0))\n"
)
"""Load in bursts: half a second of work and a quarter of rest, on average, until its parent ends."""


@dataclass(frozen=True)
class Trial:
    """One method measured against itself, or against a copy of known slowness.

    Attributes:
        run: number of the gate that it was part of; the methods of one were measured together.
        kind, size: the method.
        slowdown: relative, 0.05 for 5 %; 0 for itself.
        load: busy processes beside it.
        screened, confirmed: log differences of latency per launch.
        suspicious: whether screening picked it, whatever the figure.
        regressed: figures that the gate found regressed.
        seconds: of machine time.
    """

    run: int
    kind: str
    size: int
    slowdown: float
    load: int
    screened: list[float]
    confirmed: list[float]
    suspicious: bool
    regressed: list[str]
    seconds: float


def gate(
    run: int,
    slowdown: float,
    *,
    seconds: float,
    load: int = 0,
    kinds: Sequence[str] = KINDS,
    sizes: Sequence[int] = SIZES,
    tell: Callable[[str, int, int], None] = lambda text, done, of: None,
) -> tuple[list[Trial], dict[str, Any]]:
    """One gate over all kinds, the head slower than the base by `slowdown`.

    Args:
        run: its number, kept in the trials.
        slowdown: a multiple of 1 %.
        seconds: of machine time per method.
        load: busy processes to start beside it.
        kinds, sizes: which methods.
        tell: told what is measured.

    Returns:
        A trial per method, and what disturbed the machine (`harness.measure.disturbance`).
    """
    if abs(slowdown * UNITS - round(slowdown * UNITS)) > 1e-9 or slowdown < 0:
        raise RequestError(f"a slow-down of {slowdown:g} cannot be made", hint="whole percent, e.g. 0.05")
    catalog = Catalog(builtin=True, entry_point_roots=False, home=HOME)
    tree = Tree(Side(name="qualification"), catalog, sys.executable)
    points = [(kind, size) for size in sizes for kind in kinds]
    pairs = [pair_of(catalog, kind, size, slowdown, seconds) for kind, size in points]
    options = Options(suite="qualification", time=seconds)
    rounds = Rounds(tree, tree, "cpu", random.Random(), tell)
    with machine.reserved({"gate": "qualification"}), busy(load):
        watch = disturbance.Watch(_ours)
        screening = screen(rounds, pairs, options, catalog)
        confirmation, findings = confirm(rounds, pairs, screening, options, catalog)
        found = watch.stop()
    regressed: dict[str, list[str]] = {}
    for finding in findings:
        if finding.change == "regressed":
            regressed.setdefault(finding.label, []).append(finding.metric)
    return [
        Trial(
            run=run,
            kind=kind,
            size=size,
            slowdown=slowdown,
            load=load,
            screened=first.differences(),
            confirmed=second.differences() if second else [],
            suspicious=any(f.suspicious() for f in figures(pair, first, None, catalog)),
            regressed=regressed.get(pair.contestant.label, []),
            seconds=round(first.seconds + (second.seconds if second else 0.0), 2),
        )
        for (kind, size), pair, first, second in zip(points, pairs, screening, confirmation, strict=True)
    ], found


def save(trials: Sequence[Trial], path: Path) -> None:
    """Append trials to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as stream:
        for trial in trials:
            stream.write(json.dumps(asdict(trial)) + "\n")


def load_trials(path: Path) -> list[Trial]:
    """Trials of a file of JSON lines. Raises `RequestError` for a line that is none."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Trial(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RequestError(f"is not a trial: {error}", file=path, line=number) from error
    return found


@dataclass(frozen=True)
class Qualification:
    """What trials say of the instrument.

    Attributes:
        gates, methods: how many gates of how many methods.
        alarms: share of figures' methods found regressed although nothing changed, with its 95 % interval.
        suspicious: share picked by screening although nothing changed.
        found: by slow-down, share found, with its 95 % interval.
        spread: standard deviation of the estimated change over trials, by kind and size, relative.
        smallest: the smallest slow-down that is found 95 times in a hundred, over all kinds and at the worst of them.
        seconds: of machine time per method, median, without and with a second measurement.
    """

    gates: int
    methods: int
    alarms: tuple[float, float, float] | None
    suspicious: tuple[float, float, float] | None
    found: dict[float, tuple[float, float, float]]
    spread: dict[str, float]
    smallest: tuple[float, float] | None
    seconds: tuple[float, float | None]


def qualify(trials: Sequence[Trial], threshold: float) -> Qualification:
    """Rates, spreads and the smallest change found, from trials at one load.

    The smallest change is computed from the spread of the estimates: both stages must see the threshold or more, each
    with a chance of 97.5 %, so it lies 1.96 standard deviations above the threshold.
    """
    import numpy as np

    from harness.measure.statistics import trimmed

    same = [t for t in trials if t.slowdown == 0]
    slowed = sorted({t.slowdown for t in trials if t.slowdown > 0})
    groups: dict[str, list[float]] = {}
    for t in trials:
        if t.screened:
            # A bias that a kind has in every trial is no noise, but it moves what is found all the same.
            error = trimmed(t.screened).value - math.log1p(t.slowdown)
            groups.setdefault(f"{t.kind} {t.size}", []).append(error)
    spread = {name: float(np.sqrt(np.mean(np.square(errors)))) for name, errors in groups.items()}
    smallest = None
    if spread:
        middle, worst = float(np.median(list(spread.values()))), max(spread.values())
        smallest = (threshold + 1.96 * middle, threshold + 1.96 * worst)
    once = [t.seconds for t in trials if not t.confirmed]
    twice = [t.seconds for t in trials if t.confirmed]
    return Qualification(
        gates=len({(t.run, t.slowdown) for t in trials}),
        methods=len(trials),
        alarms=_rate([bool(t.regressed) for t in same]),
        suspicious=_rate([t.suspicious for t in same]),
        found={
            s: rate
            for s in slowed
            if (rate := _rate(["latency" in t.regressed for t in trials if t.slowdown == s])) is not None
        },
        spread=spread,
        smallest=smallest,
        seconds=(float(np.median(once)) if once else math.nan, float(np.median(twice)) if twice else None),
    )


def _rate(outcomes: Sequence[bool]) -> tuple[float, float, float] | None:
    """A share with Clopper and Pearson's 95 % interval."""
    from scipy import stats

    if not outcomes:
        return None
    found = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci(0.95, method="exact")
    return sum(outcomes) / len(outcomes), float(found.low), float(found.high)


def pair_of(catalog: Catalog, kind: str, size: int, slowdown: float, seconds: float) -> Pair:
    """A method of the qualification against a copy that does `slowdown` more of the same."""
    task, entry = catalog.task("units-of-work"), catalog.method("units")
    base = Contestant("units", f"{kind} {size}", complete(entry, {"kind": kind, "size": size, "units": UNITS}))
    head = replace(base, parameters={**base.parameters, "units": round(UNITS * (1 + slowdown))})
    comparison = Comparison(
        suite="qualification", name="qualification", paper=None, tags=(), task=task.name, parameters={}, seed=FIRST_SEED,
        profile="cpu", contestants=(base,), time_limit=600.0, memory_limit=None, repeats="adaptive", budget=seconds,
        min_samples=1, max_samples=100_000, threads=1,
    )  # fmt: skip
    return Pair(head=(comparison,), base=(comparison,), contestant=head, base_contestant=base)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that work in bursts, half the time or more, while it lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY], env=_one_thread()) for _ in range(count)]
    _load.extend(p.pid for p in processes)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        _load.clear()


_load: list[int] = []


def _ours() -> float:
    """CPU seconds of our own processes but for the load, which stands for somebody else's work."""
    return disturbance.cpu_seconds(os.getpid()) - sum(disturbance.cpu_seconds(pid) for pid in _load)


def _one_thread() -> dict[str, str]:
    return {**os.environ, **environment.thread_variables(1)}
