"""The cache of artefacts, with processes that really race and really die."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from harness import cache
from harness.errors import RequestError

CONTEXT = multiprocessing.get_context("fork")


def write(size: int) -> object:
    def make(path: Path) -> None:
        path.write_bytes(b"x" * size)

    return make


@pytest.fixture(autouse=True)
def _nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this process have asked for is not in use."""
    monkeypatch.setattr(cache, "_used", {})


def forget(*paths: Path) -> None:
    """As if the process that used them had ended."""
    for path in paths:
        os.close(cache._used.pop(path))


def names(folder: Path) -> set[str]:
    return {each.path.name for each in cache.kept(folder)}


def test_those_used_longest_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE_VARIABLE, "3kB")
    paths = []
    for number in range(3):
        paths.append(cache.artefact("thing", {"n": number}, write(1000), tmp_path))
        os.utime(f"{paths[-1]}.lock", (number, number))
    forget(*paths)
    cache.artefact("thing", {"n": 0}, write(1000), tmp_path)  # used again, so that the second is now the oldest
    forget(paths[0])
    cache.artefact("thing", {"n": 3}, write(1000), tmp_path)
    assert names(tmp_path) == {p.name for p in (paths[0], paths[2])} | {cache.key("thing", {"n": 3})}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(paths[1].name)]


def test_what_a_process_uses_stays(tmp_path: Path) -> None:
    ready, done = CONTEXT.Event(), CONTEXT.Event()

    def use() -> None:
        cache.artefact("thing", {"n": 0}, write(1000), tmp_path)
        ready.set()
        done.wait(30)

    process = CONTEXT.Process(target=use)
    process.start()
    assert ready.wait(30)
    try:
        assert cache.trim(tmp_path, 0) == []
    finally:
        done.set()
        process.join()
    assert [p.name for p in cache.trim(tmp_path, 0)] == [cache.key("thing", {"n": 0})]
    assert list(tmp_path.iterdir()) == []


def test_a_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    """Twenty processes are killed while they write; the artefact is whole or absent, and in the end it is there."""
    rng = random.Random(0)

    def make(path: Path) -> None:
        with path.open("wb") as file:
            for _ in range(50):
                file.write(b"0123456789" * 100)
                file.flush()
                time.sleep(0.001)

    path = tmp_path / cache.key("thing", {})
    for _ in range(20):
        process = CONTEXT.Process(target=cache.artefact, args=("thing", {}, make, tmp_path))
        process.start()
        time.sleep(rng.uniform(0.005, 0.06))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not path.exists() or path.stat().st_size == 50_000
    assert cache.artefact("thing", {}, make, tmp_path).stat().st_size == 50_000
    cache.trim(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json", f"{path.name}.lock"]


def test_what_lost_its_end_is_made_again(tmp_path: Path) -> None:
    path = cache.artefact("thing", {}, write(1000), tmp_path)
    path.write_bytes(b"x" * 10)
    assert cache.artefact("thing", {}, write(1000), tmp_path).stat().st_size == 1000


def test_what_an_earlier_version_made_is_kept(tmp_path: Path) -> None:
    path = tmp_path / cache.key("thing", {"a": 1})
    path.write_text("old")
    (tmp_path / f"{path.name}.json").write_text('{"a": 1}')
    assert cache.artefact("thing", {"a": 1}, write(1000), tmp_path).read_text() == "old"


def _churn(folder: Path, seed: int, failures: object) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        number = rng.randrange(4)
        path = cache.artefact("thing", {"n": number}, write(100 * (number + 1)), folder)
        if path.stat().st_size != 100 * (number + 1):
            failures.value += 1  # type: ignore[attr-defined]
        if rng.random() < 0.7:
            os.close(cache._used.pop(path))
        if rng.random() < 0.5:
            cache.trim(folder, 150)


def test_making_using_and_removing_at_the_same_time(tmp_path: Path) -> None:
    failures = CONTEXT.Value("i", 0)
    processes = [CONTEXT.Process(target=_churn, args=(tmp_path, seed, failures)) for seed in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 6
    assert failures.value == 0
    cache.trim(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_folder_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees.lock").touch()
    (tmp_path / "catalog-4.json").write_text("{}")
    cache.artefact("thing", {}, write(10), tmp_path)
    cache._used.clear()
    cache.trim(tmp_path, 0)
    assert {"trees", "trees.lock", "catalog-4.json"} <= {p.name for p in tmp_path.iterdir()}


def test_a_size_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE_VARIABLE, "much")
    with pytest.raises(RequestError, match="HARNESS_CACHE_SIZE is a size such as 5GB, not 'much'"):
        cache.limit()
