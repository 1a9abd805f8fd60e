"""Suites as test files: what is collected, how it is selected, timed, skipped and reported."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

# Imported before pytester takes stock of the modules: it forgets what its runs import, and numpy cannot come twice.
import harness.runner
import harness.suite
from harness.catalog import Catalog

pytest.importorskip("torch")

TOYS = Path(__file__).resolve().parent.parent / "toys"
ROOT = TOYS.parent.parent
CI = ROOT / "suites" / "ci.yaml"
# Where the harness is installed pytest finds the plugin by itself.
PLUGIN = [] if entry_points(group="pytest11", name="harness") else ["-p", "harness.pytest_plugin"]
QUICK = ("--benchmark-max-time=0.001", "--benchmark-min-rounds=1", "--benchmark-warmup=off")

SUITE = """\
title: Small
comparisons:
  sorts:
    paper: timsort
    tags: [quick, headline]
    task: sorting
    grid: {size: [10, 100]}
    methods:
      - timsort
      - {method: numpy-sort, grid: {kind: [quicksort, stable]}}
  trains:
    tags: [long]
    task: training
    methods: [trainer]
    seeds: 2
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share: reading the sources of all methods anew in each takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(pytester: pytest.Pytester, index: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs pytest on a suite in an empty folder; the text of the suite, further arguments, and what to name."""
    monkeypatch.setenv("HARNESS_CACHE", str(index))
    # These runs are nobody's workers, even where the tests themselves are spread over several.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def running(
        text: str, *arguments: str, target: str = "small.yaml", process: bool = False
    ) -> pytest.RunResult:
        (pytester.path / "small.yaml").write_text(text)
        pytester.makeini(
            "[pytest]\naddopts = --strict-markers -p no:cacheprovider -p no:hypothesispytest -p no:anyio\n"
        )
        command = [*PLUGIN, target, f"--harness-methods={TOYS}", *arguments]
        return pytester.runpytest_subprocess(*command) if process else pytester.runpytest_inprocess(*command)

    return running


def ids(found: pytest.RunResult) -> list[str]:
    return [line for line in found.outlines if "::" in line and line.startswith("small.yaml")]


def test_the_plugin_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"harness": "harness.pytest_plugin"}


def test_importing_the_plugin_costs_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import harness.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"harness", "harness.pytest_plugin"}


def test_every_method_seed_and_grid_point_is_an_item(run: Any) -> None:
    found = run(SUITE, "--collect-only", "-q")
    assert found.ret == 0
    assert ids(found) == [
        "small.yaml::sorts[timsort-size=10]",
        "small.yaml::sorts[numpy-sort-size=10-kind=quicksort]",
        "small.yaml::sorts[numpy-sort-size=10-kind=stable]",
        "small.yaml::sorts[timsort-size=100]",
        "small.yaml::sorts[numpy-sort-size=100-kind=quicksort]",
        "small.yaml::sorts[numpy-sort-size=100-kind=stable]",
        "small.yaml::trains[trainer-seed=1000]",
        "small.yaml::trains[trainer-seed=1001]",
    ]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [(["-m", "long"], 2), (["-m", "timsort"], 6), (["-m", "quick and not headline"], 0), (["-k", "stable"], 2)],
)
def test_items_are_selected_as_tests_are(run: Any, arguments: list[str], count: int) -> None:
    assert len(ids(run(SUITE, "--collect-only", "-q", *arguments))) == count


@pytest.mark.parametrize(
    ("target", "count"),
    [("small.yaml::sorts[numpy-sort-size=10-kind=stable]", 1), ("small.yaml::trains", 2)],
)
def test_items_are_named_as_tests_are(run: Any, target: str, count: int) -> None:
    found = ids(run(SUITE, "--collect-only", "-q", target=target))
    assert len(found) == count
    assert all(each.startswith(target) for each in found)


def test_methods_are_timed_and_scored(run: Any, pytester: pytest.Pytester) -> None:
    found = run(SUITE, *QUICK, "--benchmark-json=out.json")
    found.assert_outcomes(passed=8)
    written = json.loads((pytester.path / "out.json").read_text())
    items = {b["name"]: b for b in written["benchmarks"]}
    assert len(items) == 8
    one = items["sorts[numpy-sort-size=100-kind=stable]"]
    assert one["group"] == "sorts"
    assert one["extra_info"]["metrics"] == {"disorder": 0.0, "length": 100.0}
    assert one["extra_info"]["parameters"]["task"]["size"] == 100
    assert one["extra_info"]["paper"] == "timsort"
    assert one["params"]["kind"] == "stable"
    trained = items["trains[trainer-seed=1001]"]
    assert trained["extra_info"]["seed"] == 1001
    assert (trained["stats"]["rounds"], trained["stats"]["iterations"]) == (
        1,
        1,
    )  # run once per seed, never padded


def test_saved_runs_are_compared_and_grouped(run: Any) -> None:
    first = run(SUITE, *QUICK, "-k", "timsort", "--benchmark-save=base")
    first.assert_outcomes(passed=6)
    second = run(SUITE, *QUICK, "-k", "timsort", "--benchmark-compare", "--benchmark-group-by=param:size")
    assert second.ret == 0
    second.stdout.fnmatch_lines(["*benchmark 'size=100': 6 tests*"])
    gated = run(SUITE, *QUICK, "-k", "timsort", "--benchmark-compare", "--benchmark-compare-fail=min:10000000%")
    assert gated.ret == 0


def test_what_is_not_here_is_skipped_with_the_reason(run: Any) -> None:
    text = """\
title: Absent
comparisons:
  missing-data: {task: sorting, parameters: {source: file}, methods: [timsort]}
  missing-package: {task: sorting, methods: [needs-package]}
"""
    found = run(text, "-rs")
    found.assert_outcomes(skipped=2)
    found.stdout.fnmatch_lines(
        ["*data set 'numbers' is not here*", "*needs the package surely-not-installed>=1*"]
    )


def test_another_profile_is_skipped_where_its_hardware_is_missing(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.profile.gpus", lambda: ())
    text = "title: G\ncomparisons:\n  on-gpu: {task: sorting, methods: [timsort], profiles: [datacenter-gpu]}\n"
    found = run(text, "-rs", "--harness-profile=datacenter-gpu")
    found.assert_outcomes(skipped=1)
    found.stdout.fnmatch_lines(["*needs a CUDA GPU*"])
    nothing = run(text)
    assert nothing.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    nothing.stdout.fnmatch_lines(["*no comparison of small.yaml runs on the profile 'cpu'*"])


def test_a_method_that_fails_is_a_failed_test_without_our_frames(run: Any) -> None:
    text = "title: F\ncomparisons:\n  faults: {task: sorting, methods: [{method: faulty, grid: {how: [raise, nan]}}]}\n"
    found = run(text)
    found.assert_outcomes(failed=2)
    found.stdout.fnmatch_lines(["*ValueError: as asked*", "*BadOutput: 'faults' is nan*"])
    assert "def measured" not in str(found.stdout)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (SUITE.replace("numpy-sort", "numpy-sotr"), [], "small.yaml:10: *did you mean 'numpy-sort'*"),
        (SUITE.replace("size:", "sise:"), [], "small.yaml:7: *sise*"),
        ("title: T\ncomparisons: [\n", [], "small.yaml:*"),
        ("comparisons: {}\n", [], "small.yaml*title*"),
        (SUITE, ["--harness-profile=gpu"], "*there is no profile 'gpu'*"),
        (SUITE, ["--harness-methods=nowhere"], "*there is no folder*nowhere'*"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_clear_error(run: Any, text: str, arguments: list[str], message: str) -> None:
    found = run(text, *arguments)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines([f"*{message}"])
    assert "Traceback" not in str(found.stdout)
    assert "pytest_plugin.py" not in str(found.stdout)


def test_no_stray_yaml_is_collected(run: Any, pytester: pytest.Pytester) -> None:
    other = "services: {web: {image: x}}\ninclude: [other.yaml]\n"
    found = run(other, "--collect-only")
    found.stdout.fnmatch_lines(["collected 0 items"])  # as pytest says of any file that is no test
    (pytester.path / "folder").mkdir()
    (pytester.path / "folder" / "suite.yaml").write_text(SUITE)
    (pytester.path / "test_one.py").write_text("def test_one(): pass\n")
    found = pytester.runpytest_inprocess("--collect-only", "-q", ".", "-p", "no:cacheprovider")
    assert "suite.yaml" not in str(found.stdout)
    found.stdout.fnmatch_lines(["test_one.py::test_one"])


def test_tags_that_pytest_knows_do_not_skip_anything(run: Any) -> None:
    text = "title: T\ncomparisons:\n  sorts: {tags: [skip, benchmark], task: sorting, methods: [timsort]}\n"
    found = run(text, *QUICK)
    found.assert_outcomes(passed=1, warnings=2)
    found.stdout.fnmatch_lines(["*the tag 'skip' is no mark here*"])


def test_threads_of_the_suite_hold_while_a_method_runs(run: Any) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        text = "title: T\ncomparisons:\n  sorts: {task: sorting, methods: [timsort], measure: {threads: 1}}\n"
        run(text, *QUICK).assert_outcomes(passed=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_with_xdist_methods_run_and_are_not_timed(run: Any) -> None:
    found = run(SUITE, "-n", "2", process=True)
    found.assert_outcomes(passed=8)
    assert "Rounds" not in str(found.stdout)


def test_the_suite_for_ci_has_every_paper_and_needs_no_data() -> None:
    catalog = Catalog(entry_point_roots=False)
    comparisons = harness.suite.expand(catalog, [str(CI)], "cpu")
    assert {c.paper for c in comparisons} >= {
        "hyperattention", "grammar-aligned-decoding", "half-fine-tuning", "data-importance",
        "legal-sentence-boundaries", "more-is-better", "lion", "early-learning-regularization",
    }  # fmt: skip
    assert sum(len(c.contestants) for c in comparisons) >= 20
    for comparison in comparisons:
        assert comparison.repeats == "adaptive"
        for contestant in comparison.contestants:
            assert harness.runner.missing_packages(catalog.method(contestant.method)) is None
            assert contestant.gate.latency == 0.025


@pytest.mark.slow
def test_the_suite_for_ci_passes() -> None:
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-q", *QUICK, str(CI)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "20 passed" in done.stdout
