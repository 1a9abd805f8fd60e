"""The flag, from the command line and the catalog to a record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import runner, sandbox, suite
from harness.catalog import Catalog
from harness.record import Record
from harness.sandbox import mechanism
from harness.store import Store

TASKS = '''
from harness.method import Metric, Task, task

@task("adding", metrics=[Metric("passes", doc="Whether the program passes its tests.")], repeats="once")
class Adding(Task[str, bool]):
    """Write a program that adds."""

    def load(self, seed: int) -> str:
        return "assert add(1, 2) == 3"

    def score(self, work: str, output: bool) -> dict[str, float]:
        return {"passes": float(output)}
'''

METHODS = '''
from harness.method import Method, method
from harness.sandbox import run_program

class Writer(Method[str, bool]):
    def prepare(self, work: str) -> None:
        self.tests = work

    def run(self) -> bool:
        return run_program("def add(a, b): return a + b", tests=self.tests).passed

@method("writer", task="adding", runs_generated_code=True)
class Declared(Writer):
    """Says that it runs programs."""

@method("secret-writer", task="adding")
class Undeclared(Writer):
    """Does not say it."""
'''


@pytest.fixture
def measure(tmp_path: Path):
    family = tmp_path / "methods" / "coding"
    family.mkdir(parents=True)
    (family / "tasks.py").write_text(TASKS)
    (family / "baselines.py").write_text(METHODS)
    file = tmp_path / "one.yaml"
    file.write_text(
        "title: One\ncomparisons:\n  one:\n    task: adding\n"
        "    methods: [writer, secret-writer]\n    limits: {time: 60}\n"
    )
    catalog = Catalog([tmp_path / "methods"])

    def run() -> list[Record]:
        comparisons = suite.expand(catalog, [str(file)], "cpu")
        return runner.run(catalog, comparisons, Store(tmp_path / "store.sqlite")).records

    return run


@pytest.mark.skipif(not mechanism.candidates(), reason="nothing here can lock a program in")
def test_methods_that_run_programs_are_skipped_until_they_are_allowed(measure):
    with sandbox.allowing(False):
        declared, undeclared = measure()
    assert (declared.status, undeclared.status) == ("skipped", "skipped")
    assert "--allow-generated-code" in (declared.reason or "")
    # What did not say so was started and found out when it asked for the sandbox.
    assert "--allow-generated-code" in (undeclared.reason or "")
    with sandbox.allowing(True):
        declared, undeclared = measure()
    assert (declared.status, declared.metrics) == ("ok", {"passes": 1.0}), declared.reason
    assert declared.environment["generated_code"]["kind"] in ("landlock", "bubblewrap")
    assert "generated_code" not in undeclared.environment


def test_permission_ends_where_it_was_given(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    with sandbox.allowing(False):
        assert not sandbox.allowed()
        with sandbox.allowing(True):
            assert sandbox.allowed()
        assert not sandbox.allowed()
    assert sandbox.allowed()
    monkeypatch.delenv(sandbox.VARIABLE)
    with sandbox.allowing(True):
        assert sandbox.allowed()
    assert sandbox.VARIABLE not in os.environ


@pytest.mark.parametrize(("arguments", "expected"), [([], "0"), (["--allow-generated-code"], "1")])
def test_the_command_line_sets_it(monkeypatch, arguments, expected):
    from typer.testing import CliRunner

    from harness import cli, running

    seen = []
    monkeypatch.delenv(sandbox.VARIABLE, raising=False)
    monkeypatch.setattr(running, "main", lambda *a, **k: seen.append(os.environ[sandbox.VARIABLE]) or 0)
    assert CliRunner().invoke(cli.app, ["run", "smoke", *arguments]).exit_code == 0
    assert seen == [expected]


@pytest.mark.parametrize("here", [True, False])
def test_doctor_says_what_locks_programs_in(monkeypatch, capsys, toys, here):
    from harness import console, doctor
    from harness.errors import Unavailable

    def find():
        if here:
            return mechanism.Mechanism("landlock", 7)
        raise Unavailable("programs cannot be locked in here: no Landlock")

    monkeypatch.setattr(sandbox, "find", find)
    console.console.cache_clear()
    doctor.show(doctor.examine(toys))
    console.console.cache_clear()
    assert ("sandbox landlock, for programs" if here else "sandbox: programs cannot be locked in here") in (
        capsys.readouterr().out
    )
