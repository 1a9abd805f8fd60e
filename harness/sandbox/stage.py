"""The first steps of a sandboxed process, and the program after them. Run as a script, never imported.

``python stage.py CONFIG RESULT`` with two file descriptors: JSON to read and a pipe to answer on. It gives up, in this
order, what the program must not have: memory, time and files beyond the limits, paths outside the scratch folder,
capabilities, and all system calls but those on a list. Each step that fails ends the process before the program
begins. Nothing here can be taken back by the program, which runs in the same interpreter.

Only the standard library is imported, and of that as little as possible: this is most of the time that a run takes.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import resource
import signal
import sys
from types import ModuleType
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PATH_BENEATH = 1

# Rights of landlock(7), by the version of the interface that brought them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 10, 1 << 11
_FIRST = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_TCP = 3
_SCOPES = 3


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _limit(limits: dict[str, int]) -> None:
    """Hold this process to its limits; see setrlimit(2). Processes are limited by the list of system calls."""
    for name, value in (
        ("AS", limits["memory"]),
        ("FSIZE", limits["disk"]),
        ("NOFILE", limits["files"]),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    # The first is a signal that the program may ignore, the second is not.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_time"], limits["cpu_time"] + 1))


def _restrict_files(abi: int, readable: list[str], devices: list[str], scratch: str) -> None:
    """Leave of the file system what may be read and the scratch folder; see landlock(7)."""
    handled = (
        _FIRST | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    )
    ruleset = _Ruleset(handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0), "landlock_create_ruleset")
    own = handled & ~(_MAKE_CHAR | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _IOCTL_DEV | _EXECUTE)
    rights = [(scratch, own), *((p, _READ_FILE | _READ_DIR | _EXECUTE) for p in readable)]
    rights += [(p, _READ_FILE | _WRITE_FILE) for p in devices]
    for path, allowed in rights:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            allowed &= ~_READ_DIR
        rule = _PathBeneath(allowed, parent)
        _checked(_libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0), "landlock_add_rule")
        os.close(parent)
    _checked(_libc.syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _drop_capabilities(groups: bool) -> None:
    """Root without capabilities is a user like any other; see capset(2). Inside bubblewrap groups cannot be dropped."""
    if groups and os.geteuid() == 0:
        os.setgroups([])
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _filter_calls(code: bytes) -> None:
    """Refuse every system call that is not on the list; see seccomp(2)."""
    program = _Program(len(code) // 8, code)
    _checked(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


def _confine(config: dict[str, Any]) -> None:
    # The parent may have gone before the first line asked to go with it.
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if not config["namespaces"] and os.getppid() != config["parent"]:
        os._exit(1)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    if config["landlock"]:
        _restrict_files(config["landlock"], config["readable"], config["devices"], config["scratch"])
    _drop_capabilities(groups=not config["namespaces"])
    _limit(config["limits"])
    _filter_calls(base64.b64decode(config["filter"]))


def _run(program: str, tests: str | None) -> tuple[str, str]:
    """Run the program, then its tests in the same namespace. Returns status and reason."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    # With tests it is a module that they use, and without them it is the main program.
    module.__name__ = "__main__" if tests is None else "program"
    if tests is not None:
        sys.modules["program"] = module
    where = "program"
    try:
        exec(compile(program, "<program>", "exec"), module.__dict__)
        if tests is not None:
            where = "tests"
            exec(compile(tests, "<tests>", "exec"), module.__dict__)
    except SystemExit as stop:
        if tests is not None:
            return "failed", f"exited in its {where}, before the tests were done"
        if stop.code in (None, 0):
            return "passed", ""
        return "failed", f"exited with {stop.code!r:.200}"
    except MemoryError:
        return "out-of-memory", f"MemoryError in the {where}"
    except BaseException as error:
        _show(error, {"<program>": program, "<tests>": tests or ""})
        status = "refused" if isinstance(error, PermissionError) else "failed"
        return status, f"{_words(error)} in the {where}"
    return "passed", ""


def _words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # `__str__` is the program's
        text = ""
    return f"{name}: {text}"[:500] if text else name


def _show(error: BaseException, sources: dict[str, str]) -> None:
    """Print the traceback with the lines of the program, which are in no file."""
    try:
        import linecache
        import traceback

        for name, text in sources.items():
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace.tb_next if trace else None)
    except BaseException:  # what can be printed is the program's too; the reason says what happened
        return


def main() -> None:
    """Read the request, confine this process, say so, and run."""
    with open(int(sys.argv[1]), "rb") as stream:
        config = json.load(stream)
    answers = int(sys.argv[2])
    try:
        _confine(config)
    except Exception as error:
        os.write(answers, json.dumps({"unconfined": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)
    os.write(answers, b'{"confined": true}\n')
    sys.argv[:] = ["program.py"]
    sys.path.insert(0, config["scratch"])
    status, reason = _run(config["program"], config["tests"])
    answer = {"token": config["token"], "status": status, "reason": reason}
    os.write(answers, json.dumps(answer).encode() + b"\n")
    if status != "passed":
        sys.exit(1)


main()
