"""What the page of a large store costs. ``nox -s benchmarks`` measures it; the test session runs each once.

The targets, on two cores: 100,000 records and 2,000 claims make their page in under 20 s with under 1 GiB, it opens in
under 2 s, and a filter answers in under 100 ms. ``HARNESS_SCALE=1`` takes a store of that size; by default it is a
fiftieth.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.store import Store
from tests.benchmarks.synthetic import PER_COMPARISON, catalog, fill
from tests.reports.browser import Browser, browser, need_browser

PAPERS = 50 if os.environ.get("HARNESS_SCALE") else 1
CLAIMS, COMPARISONS = 40, 5

# A process of its own, whose greatest memory is the page's and not that of the tests before it.
_WRITE = """
import resource, sys
from pathlib import Path
from harness.catalog import Catalog
from harness.store import Store
from reports.collect import collect
from reports.write import write_page
catalog = Catalog([Path(sys.argv[1])], builtin=False, entry_point_roots=False)
write_page(catalog, collect(catalog, Store(sys.argv[2]), [], []), Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store and its catalog."""
    folder = tmp_path_factory.mktemp("scale")
    catalog(folder, PAPERS, CLAIMS, COMPARISONS)
    assert fill(Store(folder / "r.sqlite"), PAPERS, COMPARISONS) == PAPERS * COMPARISONS * PER_COMPARISON
    return folder


def write(home: Path) -> int:
    """Write the page; returns the process's greatest memory in bytes."""
    command = [sys.executable, "-c", _WRITE, str(home / "methods"), str(home / "r.sqlite"), str(home)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@pytest.fixture(scope="module")
def page(home: Path) -> Path:
    """The page itself."""
    if not (home / "index.html").exists():
        write(home)
    return home / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser."""
    need_browser()
    with browser() as one:
        yield one


@pytest.mark.slow
def test_make_the_page(benchmark: BenchmarkFixture, home: Path) -> None:
    """From the store to the file, a whole process."""
    benchmark.extra_info["memory"] = benchmark.pedantic(write, (home,), rounds=1)
    benchmark.extra_info["bytes"] = (home / "index.html").stat().st_size


def test_open_the_page(benchmark: BenchmarkFixture, page: Path, chromium: Browser) -> None:
    """Until it stands in Chromium, claims and all."""

    def load() -> int:
        chromium.driver.get("about:blank")
        chromium.driver.get(page.as_uri())
        return int(
            chromium.run("document.body.offsetHeight; return document.querySelectorAll('#rows tr').length")
        )

    assert benchmark.pedantic(load, rounds=5) == CLAIMS


def test_filter(benchmark: BenchmarkFixture, page: Path, chromium: Browser) -> None:
    """From a letter typed to the rows on the screen."""
    chromium.open(page)
    words = iter(["claim", "number 7", "half", "", "slope", "ours", "nothing", "at half the cost"] * 4)
    answer = (
        "const [word, done] = arguments; const q = document.querySelector('#q'); q.value = word;"
        "q.dispatchEvent(new Event('input')); requestAnimationFrame(() => setTimeout(done, 0));"
    )
    benchmark.pedantic(lambda: chromium.driver.execute_async_script(answer, next(words)), rounds=24)


def test_open_a_paper(benchmark: BenchmarkFixture, page: Path, chromium: Browser) -> None:
    """Unpacking and drawing what is behind a paper's claims."""

    def unfold() -> None:
        chromium.open(page, "#paper/paper-000")
        assert chromium.run("return document.querySelectorAll('svg.plot').length") >= 4

    benchmark.pedantic(unfold, rounds=3)
