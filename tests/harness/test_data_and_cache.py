from __future__ import annotations

import gzip
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from harness import cache, data, seeding
from harness.errors import MissingData


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "words"
    folder.mkdir(parents=True)
    rows = "".join(json.dumps({"text": t, "label": i}) + "\n" for i, t in enumerate(("ä", "b", "c")))
    with gzip.open(folder / "rows.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(rows)
    (folder / "rows.csv").write_text("text,label\nx,1\ny,2\n")
    (folder / "book.txt").write_text("line\r\nline\n", newline="")
    np.savez(folder / "arrays.npz", a=np.arange(3))
    np.savez(folder / "pickled.npz", a=np.array([{}], dtype=object))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "data"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return folder


def test_tables_text_and_arrays(sets: Path) -> None:
    assert data.table("words", "rows.jsonl.gz")["text"][:] == ["ä", "b", "c"]
    assert data.table("words", "rows.csv")["label"][:] == [1, 2]
    assert data.text("words", "book.txt") == "line\r\nline\n"
    assert data.arrays("words", "arrays.npz")["a"].tolist() == [0, 1, 2]
    assert data.available("words")


def test_pickled_arrays_are_refused(sets: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        data.arrays("words", "pickled.npz")


def test_missing_data_says_how_to_get_it(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData, match=r"put a folder 'nothing' into .*data \(HARNESS_DATA\)"):
        data.folder("nothing")
    with pytest.raises(MissingData, match=r"has no file 'gone\.txt'"):
        data.text("words", "gone.txt")
    monkeypatch.delenv(data.VARIABLE)
    with pytest.raises(MissingData, match="set HARNESS_DATA to a directory"):
        data.folder("words")


def test_an_artefact_is_made_once_and_never_half(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    first = cache.artefact("thing", {"a": 1}, make, tmp_path)
    assert cache.artefact("thing", {"a": 1}, make, tmp_path) == first
    assert first.read_text() == "whole"
    assert len(made) == 1
    assert cache.artefact("thing", {"a": 2}, make, tmp_path) != first

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.artefact("thing", {"a": 3}, fail, tmp_path)
    assert not [p for p in tmp_path.iterdir() if "half" in p.read_text()]
    assert cache.artefact("thing", {"a": 3}, make, tmp_path).read_text() == "whole"


def _make_slowly(folder: Path) -> None:
    import time

    def make(path: Path) -> None:
        time.sleep(0.2)
        with open(folder / "count", "a") as stream:
            stream.write("x")
        path.write_text("whole")

    cache.artefact("thing", {"a": 1}, make, folder)


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_make_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert (tmp_path / "count").read_text() == "x"


def test_streams_are_independent_and_stable() -> None:
    assert seeding.derive(1000, "a") != seeding.derive(1000, "b") != seeding.derive(1001, "b")
    # Written out, because a change here would change every record's work without changing its key.
    assert seeding.derive(1000, "numbers") == 2263197127056861213
    assert seeding.rng(1000, "a").random() == seeding.rng(1000, "a").random()
    assert seeding.torch_generator(1, "a").initial_seed() == seeding.derive(1, "a")
