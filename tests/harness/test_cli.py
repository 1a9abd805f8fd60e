"""The command as a user meets it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOYS = Path(__file__).resolve().parent.parent / "toys"
ROOT = TOYS.parent.parent


def harness(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_CACHE": str(cwd / "cache")},
        timeout=120,
        check=False,
    )


def test_list_as_json(tmp_path: Path) -> None:
    done = harness("list", "methods", "--methods", str(TOYS), "--json", cwd=tmp_path)
    assert done.returncode == 0
    names = {m["name"] for m in json.loads(done.stdout)}
    assert "timsort" in names


def test_list_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom harness.cli import main\ntry:\n    main(['list', '--json'])\nexcept SystemExit as leaving:\n"
        "    heavy = {'torch', 'numpy', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "    sys.exit(leaving.code or ', '.join(heavy) or None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_run_claims_report_and_resume(tmp_path: Path) -> None:
    arguments = ("run", "toys", "--methods", str(TOYS), "--paper", "timsort", "--report", "out")
    done = harness(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "reproduced" in done.stdout
    assert "needs the profile" in done.stdout
    assert (tmp_path / "out" / "index.html").is_file()
    assert (tmp_path / ".harness" / "records.sqlite").is_file()
    again = harness(*arguments[:-2], "--json", cwd=tmp_path)
    found = json.loads(again.stdout)
    assert found["measured"] == 0
    assert found["stored"] == 21
    verdicts = {v["claim"]: v["outcome"] for v in found["verdicts"]}
    assert verdicts["sorts"] == "reproduced"
    shown = harness("show", "timsort", "--methods", str(TOYS), cwd=tmp_path)
    assert "Sorting in tests" in shown.stdout
    claims = harness("claims", "--methods", str(TOYS), "--paper", "timsort", "--json", cwd=tmp_path)
    assert {v["claim"] for v in json.loads(claims.stdout)} == {"sorts", "faster", "on-gpu", "unknowable"}


def test_exit_code_1_when_something_failed(tmp_path: Path) -> None:
    suite = tmp_path / "bad.yaml"
    suite.write_text(
        "title: B\ncomparisons: {b: {task: sorting, methods: [faulty, no-op], measure: {budget: 0.01}}}\n"
    )
    done = harness("run", str(suite), "--methods", str(TOYS), cwd=tmp_path)
    assert done.returncode == 1
    assert "ValueError: as asked" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_exit_code_1_when_contradicted_and_asked_for(tmp_path: Path) -> None:
    suite = tmp_path / "unsorted.yaml"
    suite.write_text(
        "title: S\ncomparisons:\n  s:\n    paper: timsort\n    task: sorting\n    seeds: 3\n    measure: {budget: 0.05}\n"
        "    methods: [{method: no-op, label: timsort}]\n"
    )
    arguments = ("run", str(suite), "--methods", str(TOYS))
    assert harness(*arguments, cwd=tmp_path).returncode == 0
    assert harness(*arguments, "--fail-on-contradicted", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "toyz"), "there is no suite 'toyz'"),
        (("run", "toys", "--profile", "gpu"), "there is no profile 'gpu'"),
        (("run", "toys", "--paper", "x"), "there is no paper 'x'"),
        (("show", "timsrot"), "did you mean 'timsort'"),
        (("list", "metods"), "did you mean 'methods'"),
        (("claims", "--verdict", "fine"), "'fine' is not a verdict"),
        (("frobnicate",), "No such command"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    extra = () if arguments == ("frobnicate",) else ("--methods", str(TOYS))
    done = harness(*arguments, *extra, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".harness").exists()


def test_a_wrong_claim_stops_a_run_before_anything_is_written(tmp_path: Path) -> None:
    paper = tmp_path / "mine" / "sorting" / "wrong"
    paper.mkdir(parents=True)
    (paper / "paper.yaml").write_text(
        "title: W\nyear: 2020\nsummary: s\nclaims:\n  - id: c\n    kind: value\n    statement: s\n    source: abstract\n"
        "    claimed: {text: x}\n    setting: {text: y}\n    consistent:\n      on: {task: sorting}\n"
        "      all: [{quantity: 'disordr(\"timsort\")', at_most: 1}]\n"
    )
    suite = tmp_path / "s.yaml"
    suite.write_text("title: S\ncomparisons: {s: {paper: wrong, task: sorting, methods: [timsort]}}\n")
    done = harness("run", str(suite), "--methods", str(TOYS), "--methods", str(tmp_path / "mine"), cwd=tmp_path)
    assert done.returncode == 2
    assert "paper.yaml:13: claims.0.consistent.all.0.quantity: 'disordr' is neither a metric" in done.stderr
    assert "did you mean 'disorder'?" in done.stderr
    assert not (tmp_path / ".harness").exists()


def test_version(tmp_path: Path) -> None:
    from harness import __version__

    assert harness("--version", cwd=tmp_path).stdout.split() == ["harness", __version__]
