"""Programs that try to get out of the sandbox or to take the machine with them. Every one is really run."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.sandbox import mechanism, process

SECRET = "a secret of the parent"


def _says_no(result, *errors):
    """The attempt raised one of `errors` in the program, which printed the error's name."""
    assert result.status == "passed", (result.status, result.reason, result.stderr)
    assert result.stdout.split()[0] in errors, result.stdout


def _attempt(code: str) -> str:
    """A program that makes an attempt and prints the error that it got, or that it got through."""
    body = "\n".join("    " + line for line in code.strip().splitlines())
    return f"try:\n{body}\n    print('through')\nexcept Exception as error:\n    print(type(error).__name__, error)\n"


DENIED = ("PermissionError", "FileNotFoundError", "NotADirectoryError")


# -- network -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_it_cannot_connect_to_a_port_that_is_open(execute, listener):
    port = listener.getsockname()[1]
    result = execute(_attempt(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)"))
    _says_no(result, "PermissionError")
    listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize(
    "family", ["AF_INET, socket.SOCK_DGRAM", "AF_UNIX", "AF_NETLINK, socket.SOCK_RAW", "AF_INET6", "AF_VSOCK"]
)
def test_it_has_no_socket_of_any_kind(execute, family):
    _says_no(execute(_attempt(f"import socket\nsocket.socket(socket.{family})")), "PermissionError")


def test_a_pair_of_sockets_reaches_nothing_else(execute, tmp_path):
    """asyncio needs one. No other kind is there, and no end of it can be sent or joined to anything."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(path)
        for kind in (
            "socket.AF_UNIX, socket.SOCK_DGRAM",
            "socket.AF_UNIX, socket.SOCK_SEQPACKET",
            "socket.AF_INET",
        ):
            _says_no(
                execute(_attempt(f"import socket\nsocket.socketpair({kind})")), "PermissionError", "OSError"
            )
        for use in (
            f"a.sendto(b'x', {path!r})",
            f"a.connect({path!r})",
            "a.bind('mine')",
            "a.listen()",
            "a.sendmsg([b'x'])",
            "a.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)",
        ):
            _says_no(
                execute(_attempt(f"import socket\na, b = socket.socketpair()\n{use}")),
                "PermissionError",
                "OSError",
            )
        outside.setblocking(False)
        with pytest.raises(BlockingIOError):
            outside.recv(1)


# -- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/version", "/usr/bin/env", "/sys/kernel", "/"],
)
def test_it_cannot_read_the_system(execute, path):
    opened = f"import os\nos.listdir({path!r})" if os.path.isdir(path) else f"open({path!r}, 'rb').read()"
    result = execute(_attempt(opened))
    if result.stdout.startswith("through"):  # bubblewrap's / has what the sandbox was given
        assert path == "/"
        listed = execute("import os\nprint(*os.listdir('/'))").stdout.split()
        assert "home" not in listed
        assert "proc" not in listed
        return
    _says_no(result, *DENIED)


def test_it_cannot_read_a_file_of_the_user(execute, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o666)
    for path in (secret, Path.home(), Path(__file__)):
        _says_no(execute(_attempt(f"import os\nos.close(os.open({str(path)!r}, os.O_RDONLY))")), *DENIED)


def test_it_cannot_write_outside(execute, tmp_path):
    target = tmp_path / "target"
    target.write_text("as it was")
    target.chmod(0o666)
    tmp_path.chmod(0o777)
    attempts = [
        f"open({str(target)!r}, 'w')",
        f"open({str(target)!r}, 'a')",
        f"import os\nos.open({str(target)!r}, os.O_RDONLY | os.O_TRUNC)",
        f"import os\nos.truncate({str(target)!r}, 0)",
        f"import os\nos.remove({str(target)!r})",
        f"import os\nos.chmod({str(target)!r}, 0)",
        f"import os\nos.rename({str(target)!r}, 'mine')",
        f"import os\nos.link({str(target)!r}, 'mine')",
        f"import os\nos.utime({str(target)!r}, (0, 0))",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os\nos.mkdir({str(tmp_path / 'new')!r})",
        "open('../new', 'w')",
        "open('/tmp/harness-new', 'w')",
        "open('/dev/shm/harness-new', 'w')",
        "import os\nopen(os.__file__, 'a')",
    ]
    source = "\n".join(_attempt(attempt) for attempt in attempts)
    result = execute(source)
    answers = [line.split()[0] for line in result.stdout.splitlines()]
    assert len(answers) == len(attempts)
    # bubblewrap's folders above the scratch folder are empty ones of its own, which Landlock keeps it from writing to.
    assert set(answers) <= {*DENIED, "OSError"}, list(zip(attempts, answers, strict=True))
    assert target.read_text() == "as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_a_link_leads_nowhere(execute, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    source = f"""
import os
os.symlink({str(tmp_path)!r}, "link")
os.symlink("../" * 20 + "etc/passwd", "up")
for path in ("link/secret", "up", "./../../../../../../etc/passwd"):
    try:
        print(open(path).read())
    except OSError as error:
        print("denied")
"""
    assert execute(source).stdout.split() == ["denied"] * 3


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers of system calls are those of x86-64")
def test_it_cannot_make_devices_pipes_or_mounts(execute):
    source = """
import ctypes, os, stat
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
attempts = [
    lambda: os.mknod("device", 0o666 | stat.S_IFBLK, os.makedev(254, 0)),
    lambda: os.mkfifo("pipe"),
    lambda: os.chroot("."),
    lambda: os.setuid(0),
    lambda: call(165, b"none", b".", b"tmpfs", 0, 0),      # mount
    lambda: call(272, 0x10000000),                          # unshare(CLONE_NEWUSER)
    lambda: call(425, 8, 0),                                # io_uring_setup
    lambda: call(321, 0, 0, 0),                             # bpf
    lambda: call(298, 0, 0, 0, 0, 0),                       # perf_event_open
    lambda: call(319, b"x", 0),                             # memfd_create
    lambda: call(250, 0, 0, 0),                             # keyctl
    lambda: call(437, -100, b"/etc/passwd", 0, 0),          # openat2
    lambda: call(323, 0),                                   # userfaultfd
]
for number, attempt in enumerate(attempts):
    try:
        attempt()
        print(number)
    except PermissionError:
        continue
"""
    result = execute(source)
    assert (result.status, result.stdout) == ("passed", ""), result


# -- other processes ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers of system calls are those of x86-64")
def test_it_cannot_touch_its_parent(execute):
    parent = os.getpid()
    source = f"""
import ctypes, fcntl, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
word = ctypes.create_string_buffer(8)
attempts = [
    lambda: os.kill({parent}, signal.SIGTERM),
    lambda: os.kill(os.getppid(), signal.SIGKILL),
    lambda: os.kill(-1, signal.SIGKILL),
    lambda: os.killpg(0, signal.SIGKILL),
    lambda: call(234, {parent}, {parent}, signal.SIGTERM),   # tgkill
    lambda: call(200, {parent}, signal.SIGTERM),              # tkill
    lambda: call(129, {parent}, signal.SIGTERM, word),        # rt_sigqueueinfo
    lambda: call(101, 16, {parent}, 0, 0),                    # ptrace(PTRACE_ATTACH)
    lambda: call(310, {parent}, word, 1, word, 1, 0),         # process_vm_readv
    lambda: call(434, {parent}, 0),                           # pidfd_open
    lambda: fcntl.fcntl(1, fcntl.F_SETOWN, {parent}),
    lambda: os.setpriority(os.PRIO_PROCESS, {parent}, 19),
    lambda: os.sched_setaffinity({parent}, [0]),
    lambda: __import__("resource").prlimit({parent}, 7, (0, 0)),
    lambda: __import__("resource").setrlimit(7, (8, 8)),
]
for number, attempt in enumerate(attempts):
    try:
        attempt()
        print(number)
    except (PermissionError, ValueError):  # the second is how prlimit says it
        continue
"""
    result = execute(source)
    assert (result.status, result.stdout) == ("passed", ""), result


def test_it_cannot_read_its_parents_environment(execute, monkeypatch):
    monkeypatch.setenv("HARNESS_TEST_SECRET", SECRET)
    source = f"""
import os
print(dict(os.environ))
for pid in ("self", "thread-self", os.getppid(), {os.getpid()}, 1):
    for name in ("environ", "cmdline", "mem", "maps", "root/etc/passwd", "cwd"):
        try:
            print(open(f"/proc/{{pid}}/{{name}}", "rb").read())
        except OSError:
            pass
"""
    result = execute(source)
    assert result.passed
    assert SECRET not in result.stdout
    assert "HARNESS" not in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert str(Path.home()) not in result.stdout


def test_it_inherits_no_descriptors(execute, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    with open(tmp_path / "secret") as secret:
        os.set_inheritable(secret.fileno(), True)
        source = f"""
import os
found = []
for number in range(3, 200):
    try:
        os.fstat(number)
        found.append(number)
    except OSError:
        pass
print({secret.fileno()} in found, len(found))
"""
        shared, count = execute(source).stdout.split()
    assert shared == "False" or secret.fileno() < 20  # a number may be one of the sandbox's own
    assert int(count) <= 1  # the pipe that it answers on


# -- taking the machine with it ----------------------------------------------------------------------------------


def test_a_fork_bomb_has_no_first_child(execute):
    result = execute("import os\nwhile True:\n    os.fork()\n")
    assert result.status == "refused"
    assert result.reason.startswith("PermissionError")


def test_it_starts_no_program(execute):
    result = execute("import subprocess\nsubprocess.run(['/bin/true'])")
    assert result.status == "refused"
    _says_no(execute(_attempt("import os\nos.posix_spawn('/bin/true', ['true'], {})")), "PermissionError")


def test_threads_are_limited(execute):
    source = "import threading, time\nfor _ in range(200):\n    threading.Thread(target=time.sleep, args=(30,)).start()\n"
    result = execute(source, limits={"processes": 8})
    assert result.status in ("over-limit", "failed")  # the kernel may refuse a thread before they are counted
    assert execute(
        "import threading\nt = threading.Thread(target=print, args=('hello',))\nt.start()\nt.join()"
    ).passed


def test_a_memory_hog_is_stopped(execute):
    result = execute(
        "hoard = []\nwhile True:\n    hoard.append(bytearray(1 << 20))\n", limits={"memory": 128 << 20}
    )
    assert result.status == "out-of-memory"
    mapped = "import mmap\nhoard = [mmap.mmap(-1, 1 << 24) for _ in range(100)]"
    assert execute(mapped, limits={"memory": 128 << 20}).status in ("out-of-memory", "failed")


def test_an_endless_loop_ends_by_time(execute):
    result = execute("while True: pass", limits={"time": 0.3})
    assert result.status == "timeout"
    assert "0.3 s" in result.reason


def test_an_endless_loop_ends_by_processor_time(execute):
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    result = execute(ignoring, limits={"cpu_time": 1})
    assert result.status == "timeout", result
    assert "processor time" in result.reason


def test_sleep_and_ignored_signals_end_by_time(execute):
    source = (
        "import signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except Exception: pass\ntime.sleep(60)"
    )
    assert execute(source, limits={"time": 0.3}).status == "timeout"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_cut(execute, stream):
    result = execute(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", limits={"output": 5000})
    assert result.status == "over-limit"
    assert len(getattr(result, stream)) == 5000


def test_endless_answers_are_cut(execute):
    source = """
import os
for number in range(3, 4096):
    try:
        while True:
            os.write(number, b"x" * 4096)
    except OSError:
        pass
"""
    assert execute(source).status == "over-limit"


def test_a_huge_file_is_refused(execute):
    result = execute(
        "with open('huge', 'wb') as f:\n    while True: f.write(bytes(1 << 20))", limits={"disk": 4 << 20}
    )
    assert result.status in ("failed", "over-limit")
    result = execute("import os\nos.truncate(os.open('huge', os.O_RDWR | os.O_CREAT), 1 << 40)")
    assert result.status == "failed"


def test_many_files_are_refused(execute):
    many = "import os\nfor n in range(10**6):\n    os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY))"
    assert execute(many, limits={"entries": 100}).status == "over-limit"
    large = "for n in range(10**6):\n    open(str(n), 'wb').write(bytes(1 << 20))"
    assert execute(large, limits={"disk": 4 << 20}).status == "over-limit"


def test_removed_files_that_are_open_count(execute):
    source = """
import os, time
kept = []
for n in range(20):
    f = os.open("x", os.O_CREAT | os.O_RDWR)
    os.unlink("x")
    os.write(f, bytes(1 << 20))
    kept.append(f)
time.sleep(20)
"""
    assert execute(source, limits={"disk": 4 << 20}).status == "over-limit"


def test_folders_deeper_than_a_path_can_be_long_are_removed(execute):
    source = "import os\nwhile True:\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    before = set(Path(process.tempfile.gettempdir()).glob("harness-sandbox-*"))
    assert execute(source, limits={"entries": 100}).status == "over-limit"
    assert execute("import os\nos.mkdir('closed', 0)").passed
    assert set(Path(process.tempfile.gettempdir()).glob("harness-sandbox-*")) <= before


# -- what it answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["import os\nos._exit(0)", "raise SystemExit", "import sys\nsys.exit(0)"])
def test_leaving_before_the_tests_is_not_passing(execute, code):
    assert execute(code, tests="assert False").status == "failed"
    later = "def f():\n" + "".join(f"    {line}\n" for line in code.splitlines())
    assert execute(later, tests="f()\nassert False").status == "failed"


def test_a_made_up_answer_is_none(execute):
    source = """
import os
for number in range(3, 20):
    try:
        os.write(number, b"done guess passed 00\\n" * 2)
    except OSError:
        pass
os._exit(0)
"""
    assert execute(source, tests="assert False").status == "failed"


def test_errors_that_cannot_be_shown_are_errors(execute):
    source = "class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E"
    result = execute(source)
    assert (result.status, result.reason) == ("failed", "E in the program")


def test_a_crash_is_a_failure(execute):
    assert execute("import ctypes\nctypes.string_at(0)").status == "failed"


# -- the parent goes ---------------------------------------------------------------------------------------------


def test_it_ends_with_its_parent(tmp_path):
    """A parent that is killed leaves nothing running."""
    found = mechanism.candidates()
    if not found:
        pytest.skip("nothing here can lock a program in")
    script = """
from harness.sandbox import Limits, Program, mechanism, process
process.execute(Program("import time\\ntime.sleep(60)"), Limits(time=60), mechanism.candidates()[-1])
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        deadline = time.monotonic() + 30
        while not (below := _below(parent.pid)) and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert below
        time.sleep(0.2)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while _is_running(below[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(below[0])


def _below(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_is_waited_for_elsewhere_lives_on(execute):
    """A thread may start a program; it must not end with another thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(execute("import time\ntime.sleep(0.2)")))
    thread.start()
    threading.Thread(target=lambda: None).start()
    thread.join()
    assert results[0].passed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_holds_for_a_user_without_privileges(tmp_path):
    """The same mechanism for nobody, who has an interpreter that nobody may read."""
    system = Path("/usr/bin/python3")
    question = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not system.exists() or subprocess.run([system, "-c", question]).returncode:
        pytest.skip("there is no Python 3.11 that every user can read")
    home = Path(process.__file__).parents[1]
    source = tmp_path / "harness"
    (source / "sandbox").mkdir(parents=True)
    for path in (home / "errors.py", home / "__init__.py", *Path(process.__file__).parent.glob("*.py")):
        (source / path.relative_to(home)).write_text(path.read_text())
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from harness.sandbox import mechanism
for found in mechanism.candidates():
    print(found.kind, mechanism.broken(found))
"""
    for folder in (*reversed(tmp_path.parents), tmp_path, source, source / "sandbox"):
        if folder.is_relative_to(process.tempfile.gettempdir()) and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        [system, "-B", "-c", script, str(tmp_path)],
        user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert done.stdout.splitlines(), done
    assert all(line.endswith(" None") for line in done.stdout.splitlines()), done.stdout
