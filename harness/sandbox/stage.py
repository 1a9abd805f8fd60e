"""The first steps of a sandboxed process, and the program after them. Run as a script, never imported.

``python stage.py CONFIG RESULT`` with two file descriptors: a request to read and a pipe to answer on. It gives up what
the program must not have: paths outside the scratch folder, capabilities, memory, time and files beyond the limits,
and all system calls but those on a list. Each step that fails ends the process before the program begins. Nothing here
can be taken back by the program, which runs in the same interpreter.

As little as possible is imported, for that is most of the time that a run takes. So a request is lines of a name and a
value in hexadecimal digits, and an answer is words of them, where JSON would bring regular expressions with it.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import resource
import sys

_SIGKILL = 9
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


def _limit(memory: int, disk: int, files: int, cpu_time: int) -> None:
    """Hold this process to its limits; see setrlimit(2). Processes are limited by the list of system calls."""
    for name, value in (
        ("AS", memory),
        ("FSIZE", disk),
        ("NOFILE", files),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    # The first is a signal that the program may ignore, the second is not.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_time, cpu_time + 1))


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


def _confine(request: dict[str, bytes]) -> None:
    def number(name: str) -> int:
        return int(request[name])

    def paths(name: str) -> list[str]:
        return [os.fsdecode(path) for path in request[name].split(b"\0") if path]

    # The parent may have gone before the first line asked to go with it.
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    namespaces = bool(number("namespaces"))
    if not namespaces and os.getppid() != number("parent"):
        os._exit(1)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    if number("landlock"):
        scratch = os.fsdecode(request["scratch"])
        _restrict_files(number("landlock"), paths("readable"), paths("devices"), scratch)
    _drop_capabilities(groups=not namespaces)
    _limit(number("memory"), number("disk"), number("files"), number("cpu_time"))
    _filter_calls(request["filter"])


def _run(program: str, tests: str | None) -> tuple[str, str]:
    """Run the program, then its tests in the same namespace. Returns status and reason."""
    module = type(sys)("__main__")
    module.__file__ = os.path.join(os.getcwd(), "program.py")
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


def _read(descriptor: int) -> dict[str, bytes]:
    with open(descriptor, "rb") as stream:
        lines = [line.partition(b" ") for line in stream.read().splitlines()]
    return {name.decode(): bytes.fromhex(value.decode()) for name, _, value in lines}


def main() -> None:
    """Read the request, confine this process, say so, and run."""
    answers = int(sys.argv[2])

    def answer(*words: bytes) -> None:
        os.write(answers, b" ".join(words) + b"\n")

    request = _read(int(sys.argv[1]))
    program = request["program"].decode(errors="surrogatepass")
    tests = request["tests"].decode(errors="surrogatepass") if "tests" in request else None
    try:
        _confine(request)
    except Exception as error:
        answer(b"unconfined", f"{type(error).__name__}: {error}".encode(errors="replace").hex().encode())
        os._exit(1)
    answer(b"confined")
    sys.argv[:] = ["program.py"]
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # `site` would, which costs a start-up
    sys.path.insert(0, os.fsdecode(request["scratch"]))
    status, reason = _run(program, tests)
    answer(b"done", request["token"], status.encode(), reason.encode(errors="replace").hex().encode())
    if status != "passed":
        sys.exit(1)


main()
