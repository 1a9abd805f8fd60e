from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.catalog import Catalog
from harness.record import Latency, Record
from harness.store import Store
from reports.write import write

TOYS = Path(__file__).resolve().parent.parent / "toys"
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    catalog = Catalog([TOYS], builtin=False, entry_point_roots=False)
    store = Store(tmp_path / "r.sqlite")
    for label, factor in (("timsort", 1.0), ("slowed", 3.0)):
        for size in (100, 1000, 10000):
            for seed in (1000, 1001, 1002):
                store.add(_record(label, factor * size * 1e-6, size, seed))
    bad = _record(EVIL, 1.0, 7, 1000)
    store.add(bad.model_copy(update={"status": "failed", "reason": EVIL, "latency": None, "metrics": {}}))
    write(catalog, store, tmp_path / "out", papers=["timsort"])
    return tmp_path / "out"


def _record(label: str, latency: float, size: int, seed: int) -> Record:
    return Record(
        key=f"{label}{size}{seed}",
        suite="s",
        comparison="growth",
        paper="timsort",
        task="sorting",
        task_parameters={"size": size, "source": "random"},
        method="timsort",
        label=label,
        method_parameters={"delay": 0.0},
        seed=seed,
        profile="cpu",
        source="",
        status="ok",
        latency=Latency(samples=[latency, latency * 1.01, latency * 0.99] * 5, first=latency),
        metrics={"disorder": 0.0, "length": float(size)},
        series={"curve": {"x": [1, 2, 3], "y": [0.1, 0.2, 0.3], "x_label": "epoch", "y_label": "accuracy"}},  # type: ignore[dict-item]
        environment={"machine": {"cpu": "A CPU", "threads": 2, "memory": 2**33, "gpus": [], "system": "Linux"}},
        started="2026-01-01T00:00:00",
        duration=1.0,
    )


def test_writes_the_page_and_figures_of_our_own(out: Path) -> None:
    assert (out / "index.html").is_file()
    assert len(list((out / "figures").glob("*.svg"))) == 4  # one of them over all papers
    assert "<script" not in "".join(p.read_text() for p in (out / "figures").iterdir())


def test_tables_for_machines(out: Path) -> None:
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert {v["claim"] for v in verdicts} == {"sorts", "faster", "on-gpu", "unknowable"}
    frame = pd.read_csv(out / "verdicts.csv").set_index("claim")
    assert frame.loc["faster", "value"] == pytest.approx(3.0)
    assert len(pd.read_csv(out / "records.csv")) == 19
    markdown = (out / "claims.md").read_text()
    assert markdown.count("\n| timsort |") == 5
