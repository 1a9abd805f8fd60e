"""What confines a program on this machine, found out by trying.

Two kinds. **landlock**: the kernel's own means, which need no privileges and no program: Landlock for files, seccomp for
everything else. **bubblewrap**: where ``bwrap`` is installed, its namespaces around the same, so that the program does
not even see what it may not open. A kind is used only after a program that tries to break out of it failed to. Where
none holds, `Unavailable` says why, and nothing is run.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from harness.errors import HarnessError, Unavailable

_STAGE = Path(__file__).with_name("stage.py")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_LANDLOCK_CREATE_RULESET = 444


@dataclass(frozen=True)
class Mechanism:
    """How programs are confined.

    Attributes:
        kind: "landlock" or "bubblewrap".
        landlock: version of the kernel's Landlock, 0 where it has none; needed unless bubblewrap hides the files.
        bwrap: path of bubblewrap, for that kind.
    """

    kind: Literal["landlock", "bubblewrap"]
    landlock: int
    bwrap: str | None = None

    def command(self, scratch: str, descriptors: Sequence[int]) -> list[str]:
        """The command that starts a sandboxed process on `descriptors`, in the folder `scratch`."""
        # -S: no packages of an environment; -P: no modules of the current folder before the standard library's.
        python = [*_python(), "-s", "-S", "-P", "-B", "-X", "utf8", str(_STAGE), *map(str, descriptors)]
        if self.bwrap is None:
            return python
        shown = [*readable(), str(_STAGE), _python()[0]]
        return [
            *(
                self.bwrap,
                "--unshare-all",
                "--unshare-user",
                "--die-with-parent",
                "--cap-drop",
                "ALL",
                "--dev",
                "/dev",
            ),
            *(part for path in shown for part in ("--ro-bind", path, path)),
            *_links(),
            *("--bind", scratch, scratch, "--chdir", scratch, "--", *python),
        ]

    def describe(self) -> dict[str, Any]:
        """For a record."""
        return {name: value for name, value in asdict(self).items() if name != "bwrap"}


@lru_cache(maxsize=1)
def readable() -> list[str]:
    """What a program may read: the standard library, and the shared libraries that its modules are linked with."""
    paths = sysconfig.get_paths()
    found = [Path(paths["stdlib"]), Path(paths["platstdlib"])]
    # An interpreter that is not the system's may bring its libraries beside it, behind links to their versions.
    found += sorted(p for p in Path(sys.base_prefix, "lib").glob("*.so*") if p.is_file())
    machine = sysconfig.get_config_var("MULTIARCH")
    folders = (
        [f"/lib/{machine}", f"/usr/lib/{machine}"] if machine and Path(f"/usr/lib/{machine}").is_dir() else []
    )
    found += [Path(p) for p in folders or ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]]
    found += [Path(p) for p in ("/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")]
    return list(dict.fromkeys(str(p.resolve() if p.is_dir() else p) for p in found if p.exists()))


def devices() -> list[str]:
    """Devices that a program may open."""
    return [path for path in _DEVICES if os.path.exists(path)]


@lru_cache(maxsize=1)
def find() -> Mechanism:
    """The mechanism of this machine: bubblewrap where it works, otherwise the kernel's own means.

    Raises:
        Unavailable: none holds; the message says why each did not.
    """
    if sys.platform != "linux":
        raise Unavailable("programs that a model wrote are run on Linux only, where they can be locked in")
    reasons = []
    for candidate in candidates():
        reason = broken(candidate)
        if reason is None:
            return candidate
        reasons.append(f"{candidate.kind}: {reason}")
    if not reasons:
        reasons.append("the kernel has no Landlock, and bubblewrap is not installed")
    raise Unavailable(
        f"programs that a model wrote cannot be locked in here ({'; '.join(reasons)}):"
        " it takes a kernel with Landlock (5.13 or later) and seccomp, or bubblewrap (apt-get install bubblewrap)"
    )


def candidates() -> list[Mechanism]:
    """The mechanisms that may work here, the strongest first."""
    version = _landlock_version()
    bwrap = shutil.which("bwrap")
    found = [Mechanism("bubblewrap", version, bwrap)] if bwrap else []
    return [*found, Mechanism("landlock", version)] if version else found


def broken(mechanism: Mechanism) -> str | None:
    """Why `mechanism` does not hold here, or None when it does: a program is run in it that tries to get out."""
    from harness.sandbox.process import Limits, Program, execute

    try:
        result = execute(Program(_ESCAPES, files={"inside": "here"}), Limits(time=20, cpu_time=5), mechanism)
    except HarnessError as error:
        return str(error)
    if result.status == "passed":
        return None
    return result.reason or result.stderr.strip()[-200:]


_ESCAPES = f"""
import os, socket
assert open("inside").read() == "here"
open("new", "w").close()
outside = [{str(Path(__file__))!r}, "/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/usr/bin/env"]
def tries():
    for path in outside:
        yield lambda: open(path)
    yield lambda: open(os.path.join(os.path.dirname(os.getcwd()), "harness-was-here"), "w")
    yield lambda: open(os.__file__, "a")
    yield lambda: socket.socket()
    yield lambda: os.fork()
    yield lambda: os.execv("/bin/true", ["true"])
    yield lambda: os.kill(os.getppid(), 0)
for number, attempt in enumerate(tries()):
    try:
        attempt()
    except OSError:
        continue
    raise SystemExit(f"it does not hold: attempt {{number}} got out")
"""


def _landlock_version() -> int:
    """Version of the kernel's Landlock; 0 where it is missing or switched off."""
    if sys.platform != "linux":
        return 0
    version = int(ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1))
    return max(version, 0)


def _python() -> list[str]:
    """The interpreter without its virtual environment, whose packages are not for the program."""
    return [os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)]


def _links() -> list[str]:
    """Links at the top of the file system, such as /lib to usr/lib, for bubblewrap to repeat."""
    found = []
    for name in ("/lib", "/lib64"):
        if os.path.islink(name):
            found += ["--symlink", os.readlink(name), name]
    return found
