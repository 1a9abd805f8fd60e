"""Sessions: each makes its own environment and installs what it needs."""

from __future__ import annotations

import os

import nox

nox.needs_version = ">=2024.4.15"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    # With the heavy package of one paper's authors, so that the tests of the method that wraps it run too.
    session.install("-e", ".[all,genlm,test]")
    # Two test processes, one computing thread each: on two cores that is what does not get in its own way.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # In the order of the files: sorted by their number of tests, the few long ones would come last, on one process.
    together = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    session.run("pytest", *(session.posargs or together), env=threads)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types: ruff, mypy --strict, and that papers and suites are well-formed."""
    session.install("-e", ".[all,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("harness", "check")


@nox.session
def reproduce(session: nox.Session) -> None:
    """Measure the headline claims of all papers and report which hold; narrow it with -- --paper lion."""
    session.install("-e", ".[all]")
    arguments = ["run", "headline", "--report", "harness-report", *session.posargs]
    session.run("harness", *arguments, success_codes=[0, 1])


@nox.session
def report(session: nox.Session) -> None:
    """Write the report of what is stored to harness-report/, without measuring anything."""
    session.install("-e", ".[all]")
    session.run("harness", "report", *session.posargs)


@nox.session
def gate(session: nox.Session) -> None:
    """Say whether a change made a method slower, larger or less accurate: -- --base main (suite ci unless named)."""
    session.install("-e", ".[all]")
    suite = [] if _names_a_suite(session.posargs) else ["ci"]
    session.run("harness", "gate", *suite, *session.posargs)


def _names_a_suite(arguments: list[str]) -> bool:
    """Whether one of the arguments is neither an option of ``harness gate`` nor the value of one."""
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument.startswith("-"):
            is_value = "=" not in argument and argument not in ("--json", "--help", "-h")
        else:
            return True
    return False


@nox.session
def qualify(session: nox.Session) -> None:
    """Measure how often the gate errs on this machine, and which changes it finds; arguments go to the command."""
    session.install("-e", ".[all]")
    session.run("harness", "qualify", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the parsers of what comes from elsewhere for a minute; arguments go to libFuzzer: -- -max_total_time=3600."""
    session.install("-e", ".[fuzz]")
    session.run(
        "python", os.path.join("tests", "fuzz", "parsers.py"), *(session.posargs or ["-max_total_time=60"])
    )


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure the engine itself with pytest-benchmark: launch overhead, planning, two hundred comparisons."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/benchmarks", "--benchmark-only", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill runs two hundred times, and what else the tests of faults do, in full; takes some minutes."""
    session.install("-e", ".[test]")
    command = ["pytest", "tests/harness/test_faults.py", "tests/harness/executors", "-rP", "--timeout", "3000"]
    session.run(*command, *session.posargs, env={"HARNESS_SCALE": "1"})


@nox.session
def schemas(session: nox.Session) -> None:
    """Write the JSON Schemas of papers and suites to docs/schemas/ again."""
    session.install("-e", ".")
    session.run("harness", "schema", os.path.join("docs", "schemas"))
