"""What a method gets from the sandbox when nobody attacks it."""

from __future__ import annotations

import pytest

from harness import sandbox
from harness.errors import Unavailable
from harness.sandbox import Limits, Program, mechanism, process, run_program, run_programs

here = pytest.mark.skipif(not mechanism.candidates(), reason="nothing here can lock a program in")


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")


def test_nothing_runs_unless_it_is_allowed(monkeypatch):
    for value in (None, "", "0", "yes"):
        monkeypatch.delenv(sandbox.VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(sandbox.VARIABLE, value)
        with pytest.raises(Unavailable, match="--allow-generated-code"):
            run_program("print(1)")
        with pytest.raises(Unavailable, match="--allow-generated-code"):
            run_programs([Program("print(1)")])


def test_nothing_runs_where_nothing_locks_it_in(allowed, monkeypatch):
    """No mechanism, or one that fails its own trial: an error that says so, and no unconfined process."""
    mechanism.find.cache_clear()
    try:
        monkeypatch.setattr(mechanism, "candidates", list)
        with pytest.raises(Unavailable, match="no Landlock, and bubblewrap is not installed"):
            run_program("print(1)")
        monkeypatch.setattr(
            mechanism, "candidates", lambda: [mechanism.Mechanism("bubblewrap", 0, "/bin/false")]
        )
        with pytest.raises(
            Unavailable, match="bubblewrap: the sandbox could not be set up, and nothing was run"
        ):
            run_program("print(1)")
    finally:
        mechanism.find.cache_clear()


@here
def test_a_mechanism_that_confines_nothing_is_found_out(monkeypatch):
    """Without its Landlock the trial reads what it must not."""
    reason = mechanism.broken(mechanism.Mechanism("landlock", 0))
    assert reason is not None
    assert "got out" in reason


@here
def test_tests_decide(allowed):
    add = "def add(a, b):\n    return a + b\n"
    assert run_program(add, tests="assert add(1, 2) == 3").passed
    wrong = run_program(add, tests="assert add(1, 2) == 4, 'one and two'")
    assert (wrong.status, wrong.reason) == ("failed", "AssertionError: one and two in the tests")
    assert "assert add(1, 2) == 4" in wrong.stderr
    assert run_program("def add(a, b)", tests="").reason.startswith("SyntaxError")


@here
def test_a_main_program_reads_and_prints(allowed):
    source = "if __name__ == '__main__':\n    print(sum(map(int, input().split())))"
    result = run_program(source, stdin="1 2 3\n")
    assert (result.status, result.stdout, result.exit_code) == ("passed", "6\n", 0)
    assert run_program(source, stdin="1 2 3\n", tests="pass").stdout == ""


@here
def test_files_lie_in_its_folder(allowed):
    source = "import helper\nopen('out', 'w').write('x')\nprint(helper.x, open('data/in.txt').read(), open('out').read())"
    result = run_program(source, files={"helper.py": "x = 7", "data/in.txt": b"content"})
    assert result.stdout == "7 content x\n", result


@pytest.mark.parametrize("name", ["/etc/harness", "../harness", "a/../../harness", "", "."])
def test_a_file_has_its_place_in_the_folder(allowed, monkeypatch, name):
    monkeypatch.setattr(sandbox, "find", lambda: mechanism.Mechanism("landlock", 1))
    with pytest.raises(ValueError, match="not the name of a file"):
        run_program("pass", files={name: "x"})


@here
def test_the_standard_library_is_there_and_packages_are_not(allowed):
    source = """
import array, asyncio, bisect, collections, copy, ctypes, dataclasses, datetime, decimal, fractions, functools, hashlib
import heapq, itertools, json, math, queue, random, re, sqlite3, statistics, string, tempfile, threading, unittest, zlib
import concurrent.futures
with tempfile.NamedTemporaryFile() as f:
    f.write(b"x")
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
@dataclasses.dataclass
class Point:
    x: int = 0
assert Point() == Point(0)
try:
    import numpy
except ImportError:
    print("no packages")
"""
    result = run_program(source)
    assert (result.status, result.stdout) == ("passed", "no packages\n"), result


@here
def test_what_programs_are_used_to_is_there(allowed):
    source = """
import asyncio, os, sys
async def main():
    print(await asyncio.wait_for(asyncio.sleep(0.01, "slept"), 5))
    print(await asyncio.to_thread(max, 1, 2))
asyncio.run(main())
print(os.path.basename(__file__), __name__, sys.argv)
sys.setrecursionlimit(50_000)
exit(0)
"""
    result = run_program(source)
    assert (result.status, result.stdout) == ("passed", "slept\n2\nprogram.py __main__ ['program.py']\n"), (
        result
    )


@here
def test_the_same_program_does_the_same_each_time(allowed):
    source = "print(list({str(n) for n in range(20)}))"
    assert run_program(source).stdout == run_program(source).stdout


@here
def test_a_batch_keeps_its_order(allowed):
    programs = [Program(f"print({n})") for n in range(5)]
    for parallel in (1, 2):
        assert [r.stdout for r in run_programs(programs, parallel=parallel)] == [f"{n}\n" for n in range(5)]


@pytest.mark.parametrize(
    "wrong",
    [{"time": 0}, {"time": float("inf")}, {"memory": 1 << 20}, {"files": 3}, {"disk": -1}, {"output": 0}],
)
def test_limits_are_limits(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


@pytest.mark.parametrize(
    "text", [b"", b"\n\n", b"\xff", b"done", b"done a b zz", b"confined now", b" " * 1000, b"done a b c d"]
)
def test_an_answer_that_is_none_is_left_out(text):
    assert process._answers(text) == {}


def test_only_the_first_two_lines_are_answers():
    assert process._answers(b"confined\ndone t passed \ndone t failed \n") == {
        "confined": [],
        "done": ["t", "passed", ""],
    }


@here
def test_text_that_is_not_unicode_is_a_failure_of_the_program(allowed):
    assert run_program("print('\ud800')").status == "failed"
    assert run_program("x = 1", tests="'\ud800'").status == "failed"
    assert run_program("print('ü€')").stdout == "ü€\n"
