"""Runs Python programs that a language model wrote, locked in.

    from harness.sandbox import Limits, run_program

    result = run_program("def add(a, b): return a + b", tests="assert add(1, 2) == 3", limits=Limits(time=2))
    result.passed, result.status, result.stdout

A program has no network, no files but a scratch folder and, to read, the standard library; it cannot start processes,
see this process's environment or touch other processes; time, processor time, memory, output and files are limited. See
docs/security.md for what that rests on.

It runs only when the user allowed it, with ``harness run --allow-generated-code`` or the environment variable
``HARNESS_ALLOW_GENERATED_CODE=1``, and only where this machine can lock it in. Otherwise `Unavailable` is raised, which
skips a method with that reason. A method that uses this says so: ``@method(..., runs_generated_code=True)``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from harness.errors import Unavailable
from harness.sandbox.mechanism import Mechanism, find
from harness.sandbox.process import Limits, Program, Result, Status, execute

VARIABLE = "HARNESS_ALLOW_GENERATED_CODE"
NOT_ALLOWED = "runs programs that a language model writes: allow it with --allow-generated-code"

_DEFAULT = Limits()


def allowed() -> bool:
    """Whether the user allowed generated code to run."""
    return os.environ.get(VARIABLE, "") == "1"


@contextmanager
def allowing(yes: bool) -> Iterator[None]:
    """Allow generated code, or forbid it, in this process and in those that it starts meanwhile."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1" if yes else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def check() -> Mechanism:
    """The mechanism that programs are locked in by.

    Raises:
        Unavailable: the user did not allow it, or nothing on this machine can lock a program in.
    """
    if not allowed():
        raise Unavailable(f"{NOT_ALLOWED}, or {VARIABLE}=1 outside of harness run")
    return find()


def run_program(
    source: str,
    *,
    tests: str | None = None,
    stdin: str | bytes = "",
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits = _DEFAULT,
) -> Result:
    """Run one program.

    A program that sets out to can pretend that its tests passed, for it runs in one process with them. Where that
    matters, give it input and compare what it prints.

    Args:
        source: Python source.
        tests: statements that run after it in the same namespace, such as assertions; see `Program`.
        stdin: what it reads from standard input.
        files: files in its scratch folder, by relative path.
        limits: what it may use.

    Raises:
        Unavailable: it is not allowed to run, or cannot be locked in; see `check`.
        ValueError: a name in `files` leads out of the scratch folder.
        HarnessError: the sandbox could not be set up; nothing was run.
    """
    return execute(Program(source, tests, stdin, files or {}), limits, check())


def run_programs(programs: Sequence[Program], *, limits: Limits = _DEFAULT, parallel: int = 1) -> list[Result]:
    """Run several programs, `parallel` at a time; results are in the programs' order. Raises as `run_program` does."""
    how = check()
    if parallel <= 1:
        return [execute(program, limits, how) for program in programs]
    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(lambda program: execute(program, limits, how), programs))


__all__ = [
    "Limits",
    "Mechanism",
    "Program",
    "Result",
    "Status",
    "allowed",
    "allowing",
    "check",
    "find",
    "run_program",
    "run_programs",
]
