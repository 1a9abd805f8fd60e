from __future__ import annotations

import json
from html.parser import HTMLParser
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


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(out: Path) -> _Reader:
    reader = _Reader()
    reader.feed((out / "index.html").read_text())
    return reader


def test_page_stands_alone(out: Path) -> None:
    for tag, attributes in read(out).tags:
        assert tag not in ("link", "iframe", "img"), tag
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert not value.startswith(("http:", "https:", "//")), value


def test_links_lead_somewhere(out: Path) -> None:
    tags = read(out).tags
    ids = {a.get("id") for _, a in tags}
    for tag, attributes in tags:
        if tag == "a":
            assert (attributes.get("href") or "").removeprefix("#") in ids


def test_text_from_records_stays_text(out: Path) -> None:
    page = read(out)
    assert not [t for t, _ in page.tags if t == "script"]
    assert EVIL in page.text
    assert "<script" not in "".join(p.read_text() for p in (out / "figures").iterdir())


def test_shows_claims_figures_and_verdicts(out: Path) -> None:
    text = read(out).text
    for expected in (
        "consistent",
        "contradicted",
        "not measured",
        "Claimed and measured",
        "latency over size",
        "A CPU",
    ):
        assert expected in text
    assert len(list((out / "figures").glob("*.svg"))) == 4  # one of them over all papers


def test_tables_for_machines(out: Path) -> None:
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert {v["claim"] for v in verdicts} == {"sorts", "faster", "on-gpu", "unknowable"}
    frame = pd.read_csv(out / "verdicts.csv").set_index("claim")
    assert frame.loc["faster", "value"] == pytest.approx(3.0)
    assert len(pd.read_csv(out / "records.csv")) == 19
    markdown = (out / "claims.md").read_text()
    assert markdown.count("\n| timsort |") == 5


def test_an_empty_store_makes_a_page(tmp_path: Path) -> None:
    catalog = Catalog([TOYS], builtin=False, entry_point_roots=False)
    write(catalog, Store(tmp_path / "none.sqlite"), tmp_path / "out")
    assert "not measured" in (tmp_path / "out" / "index.html").read_text()
