"""A store and a catalog of any size, for measuring what reports cost.

Papers are copies of one another with their own names: each has its tasks, claims of several kinds, and comparisons of
four methods over ten sizes with ten seeds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from harness.catalog import Catalog
from harness.record import Latency, Memory, Record, SeriesRecord
from harness.store import Store

SIZES = [2**i for i in range(7, 17)]
METHODS = ["ours", "plain", "sparse", "cached"]
SEEDS = range(1000, 1010)
PER_COMPARISON = len(SIZES) * len(METHODS) * len(SEEDS)

_TASKS = '''"""Tasks."""
from harness.method import Metric, Task, task
from harness.types import PositiveInt


@task("{name}", metrics=[Metric("accuracy"), Metric("loss", better="lower", unit="nats")], amount_unit="items")
class Work(Task[int, int]):
    """Some work."""

    size: PositiveInt = 128
    """How much."""

    def load(self, seed: int) -> int:
        return self.size

    def score(self, work: int, output: int) -> dict[str, float]:
        return {{"accuracy": 1.0}}
'''

_CLAIMS = [
    ("ratio", "value: 2.0, unit: x", 'latency("plain", size={size}) / latency("ours", size={size})', "at_least: 1.5"),
    ("parity", "value: 0.9", 'mean(accuracy("ours", size={size}))', "between: [0.85, 0.95]"),
    ("ratio", "value: 0.5, unit: x", 'max(peak_memory("ours")) / max(peak_memory("plain"))', "at_most: 0.6"),
    ("scaling", "value: 1.0", 'slope(latency("ours"), "size")', "at_most: 1.2"),
]  # fmt: skip


def catalog(folder: Path, papers: int, claims: int, comparisons: int) -> Catalog:
    """A catalog with `papers` papers of `claims` claims each, on `comparisons` tasks each."""
    root = folder / "methods"
    for i in range(papers):
        home = root / f"family_{i % 8}" / f"paper_{i:03d}"
        home.mkdir(parents=True)
        lines = [
            f"title: A synthetic paper, number {i}",
            "year: 2020",
            "authors: [A. Nonymous]",
            "summary: It does not exist; it is as large as a real one.",
            "claims:",
        ]
        for j in range(claims):
            kind, claimed, quantity, bound = _CLAIMS[j % len(_CLAIMS)]
            lines += [
                f"  - id: claim-{j:03d}",
                f"    kind: {kind}",
                f"    statement: Method number {i} does what claim number {j} says it does, and at half the cost.",
                f"    source: table {j % 7 + 1}",
                f"    claimed: {{text: figure {j}, {claimed}}}",
                "    setting: {text: a data set and a model of the paper's own, profile: datacenter-gpu}",
                "    consistent:",
                f"      on: {{task: work-{i % 8}, comparison: c-{i:03d}-{j % comparisons}}}",
                f"      all: [{{quantity: '{quantity.format(size=SIZES[j % len(SIZES)])}', {bound}}}]",
            ]
        (home / "paper.yaml").write_text("\n".join(lines) + "\n")
    for i in range(min(papers, 8)):
        (root / f"family_{i}" / "tasks.py").write_text(_TASKS.format(name=f"work-{i}"))
    return Catalog([root], builtin=False, entry_point_roots=False)


def records(papers: int, comparisons: int) -> Iterator[Record]:
    """``papers * comparisons * PER_COMPARISON`` records, the same each time."""
    rng = random.Random(0)
    environment = {
        "machine": {"cpu": "A CPU", "threads": 2, "memory": 2**34, "gpus": [], "system": "Linux"},
        "versions": {"python": "3.12.1", "torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.17.1"},
        "source": {"revision": "0" * 40, "clean": True},
        "disturbances": {"load": 0.1, "governor": "performance"},
    }
    count = 0
    for i in range(papers):
        for c in range(comparisons):
            for size in SIZES:
                for seed in SEEDS:
                    for m, label in enumerate(METHODS):
                        count += 1
                        base = size * 1e-6 * (1 + m) * rng.uniform(0.9, 1.1)
                        epochs = [float(e) for e in range(20)] if size == SIZES[-1] else []
                        series = {"accuracy": SeriesRecord(x=epochs, y=[1 - 0.9**e for e in epochs])}
                        yield Record(
                            key=f"{count:032x}",
                            suite=f"family-{i % 8}",
                            comparison=f"c-{i:03d}-{c}",
                            paper=f"paper-{i:03d}",
                            task=f"work-{i % 8}",
                            task_parameters={"size": size, "source": "random", "dtype": "float32"},
                            method=label,
                            label=label,
                            method_parameters={"rate": 0.1, "blocks": 4},
                            seed=seed,
                            profile="cpu",
                            source="0" * 32,
                            status="ok",
                            latency=Latency(
                                samples=[base * rng.uniform(0.97, 1.03) for _ in range(25)], first=base * 2
                            ),
                            prepare_time=0.2,
                            memory=Memory(peak=int(size * 1000 * (1 + m)), run=size * 100),
                            amount=float(size),
                            metrics={"accuracy": 0.9 + rng.gauss(0, 0.01), "loss": 1.0 + rng.gauss(0, 0.1)},
                            series=series if epochs else {},
                            environment=environment,
                            started=f"2026-01-01T{count // 3600 % 24:02d}:{count // 60 % 60:02d}:{count % 60:02d}",
                            duration=2.5,
                        )


def fill(store: Store, papers: int, comparisons: int) -> int:
    """Write them; returns how many."""
    count = 0
    found = records(papers, comparisons)
    while portion := list(itertools.islice(found, 5000)):
        store.add(*portion)
        count += len(portion)
    return count
