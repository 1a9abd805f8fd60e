"""``harness qualify`` on a terminal."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.console import console, table
from harness.gate.command import Display
from harness.gate.decide import LATENCY, LEVEL
from harness.qualify.trials import KINDS, Qualification, Trial, gate, load_trials, qualify, save


def main(
    *, seconds: float, repeats: int, slowdown: float, loads: list[int], out: Path | None, as_json: bool
) -> int:
    """Run trials and print what they say. Returns the exit code.

    Args:
        seconds: of machine time per method.
        repeats: gates of unchanged and of slowed methods each.
        slowdown: of the slowed ones.
        loads: numbers of busy processes to measure beside.
        out: file of trials; what it holds already counts, and new ones are added.
        as_json: print JSON and nothing else to the standard output.
    """
    trials = load_trials(out) if out is not None and out.exists() else []
    number = max((t.run for t in trials), default=-1) + 1
    disturbances: dict[int, list[dict[str, Any]]] = {}
    with Display(quiet=as_json) as display:
        for _ in range(repeats):
            for load in loads:
                for slow in (0.0, slowdown):
                    what = f"slowed by {slow:.0%}" if slow else "unchanged"
                    display.say(f"{what} methods, {load} busy processes beside them")
                    found, seen = gate(number, slow, seconds=seconds, load=load, tell=display.tell)
                    number += 1
                    trials += found
                    disturbances.setdefault(load, []).append(seen)
                    if out is not None:
                        save(found, out)
    results = {
        load: qualify([t for t in trials if t.load == load], LATENCY)
        for load in sorted({t.load for t in trials})
    }
    if as_json:
        print(
            json.dumps(
                {
                    str(load): {**asdict(q), "disturbances": disturbances.get(load)}
                    for load, q in results.items()
                }
            )
        )
    else:
        for load, result in results.items():
            show(result, load, [t for t in trials if t.load == load])
    return 0


def show(result: Qualification, load: int, trials: list[Trial]) -> None:
    """Print what the trials at one load say."""
    out = console()
    title = f"{load} busy processes beside the methods" if load else "nothing else started"
    rows = table(title, ["figure", "measured", "95 % interval"])
    if result.alarms:
        rows.add_row(f"found regressed, of {_count(trials, 0)} unchanged methods", *_rate(result.alarms))
    if result.suspicious:
        rows.add_row("picked by the screening, of the same", *_rate(result.suspicious))
    for slow, rate in result.found.items():
        rows.add_row(f"found, of {_count(trials, slow)} methods slower by {slow:.0%}", *_rate(rate))
    if result.smallest:
        rows.add_row(
            "smallest slow-down found 95 times in 100", f"{result.smallest[0]:.1%}", "of the median method"
        )
        rows.add_row("", f"{result.smallest[1]:.1%}", "of the noisiest method")
    once, twice = result.seconds
    if not math.isnan(once):
        rows.add_row("machine time per method, unchanged", f"{once:.1f} s", "")
    if twice is not None:
        rows.add_row("machine time per method, measured twice", f"{twice:.1f} s", "")
    out.print(rows)
    spread = table("error of the measured change (root mean square)", ["method", "error"])
    for name, value in sorted(result.spread.items(), key=lambda kv: kv[1]):
        spread.add_row(name, f"{value:.2%}")
    out.print(spread)
    out.print(
        f"{result.gates} gates of {len(KINDS) * 2} methods; the gate's level is {LEVEL:.0%} for a whole suite, and its"
        f" threshold for latency {LATENCY:.1%}"
    )


def _count(trials: list[Trial], slowdown: float) -> int:
    return sum(t.slowdown == slowdown for t in trials)


def _rate(rate: tuple[float, float, float]) -> tuple[str, str]:
    return f"{rate[0]:.1%}", f"[{rate[1]:.1%}, {rate[2]:.1%}]"
