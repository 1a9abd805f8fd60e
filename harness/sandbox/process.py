"""Starts one sandboxed process, watches it and says how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from harness.errors import HarnessError
from harness.sandbox import calls, mechanism, watching

Status = Literal["passed", "failed", "timeout", "out-of-memory", "over-limit", "refused"]

_TICK = 0.02
_ANSWER = 64 << 10
_START = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use.

    Attributes:
        time: seconds from start to end.
        cpu_time: seconds of processor time, all threads together; whole seconds count.
        memory: bytes of address space, the interpreter's own 40 MB included.
        processes: threads, the first included. A program is one process and cannot start another.
        output: bytes that it may print, standard output and standard error each.
        disk: bytes in its scratch folder, and in any one file.
        entries: files and folders in its scratch folder.
        files: open files.
    """

    time: float = 10.0
    cpu_time: float = 10.0
    memory: int = 512 << 20
    processes: int = 16
    output: int = 64 << 10
    disk: int = 16 << 20
    entries: int = 1000
    files: int = 64

    def __post_init__(self) -> None:
        for name in ("time", "cpu_time", "output", "disk", "entries", "processes"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"the limit '{name}' is above zero and finite, not {value}")
        if self.memory < 64 << 20:
            raise ValueError(
                "the limit 'memory' is at least 64 MiB, of which the interpreter takes the greater part"
            )
        if self.files < 16:
            raise ValueError("the limit 'files' is at least 16")


@dataclass(frozen=True)
class Program:
    """What is run: Python source and what goes with it.

    Attributes:
        source: the program.
        tests: statements that run in the program's namespace after it, such as assertions; the program is then the
            module ``program`` rather than ``__main__``. None: it is a main program and passes when it ends without
            an error.
        stdin: what it can read from standard input.
        files: files that lie in its scratch folder, which is its current folder, by relative path.
    """

    source: str
    tests: str | None = None
    stdin: str | bytes = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How a program ended.

    Attributes:
        status: "passed": it and its tests ran to the end. "failed": it raised, crashed, or exited before its tests
            were done. "refused": it raised because of something that the sandbox forbids. "timeout": time or
            processor time was used up. "out-of-memory". "over-limit": it printed, stored or started more than it may.
        reason: one sentence; empty when it passed.
        stdout, stderr: what it printed, at most `Limits.output` bytes each.
        duration: seconds from start to end.
        cpu_time: seconds of processor time, the interpreter's start included.
        exit_code: of the process; negative: the signal that ended it.
    """

    status: Status
    reason: str
    stdout: str
    stderr: str
    duration: float
    cpu_time: float
    exit_code: int

    @property
    def passed(self) -> bool:
        """Whether `status` is "passed"."""
        return self.status == "passed"


def execute(program: Program, limits: Limits, how: mechanism.Mechanism) -> Result:
    """Run `program` locked in by `how`; permission is the caller's matter.

    Raises:
        ValueError: a name in `files` leads out of the scratch folder.
        Unavailable, HarnessError: it could not be locked in, and was not run.
    """
    scratch = Path(tempfile.mkdtemp(prefix="harness-sandbox-")).resolve()
    try:
        for name, content in program.files.items():
            _write(scratch, name, content)
        return _Run(program, limits, how, scratch).result()
    finally:
        _remove(scratch)


def _write(scratch: Path, name: str, content: str | bytes) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"'{name}' is not the name of a file in the scratch folder")
    target = scratch / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)


class _Run:
    """One run, from start to result."""

    def __init__(self, program: Program, limits: Limits, how: mechanism.Mechanism, scratch: Path) -> None:
        self._limits, self._scratch, self._how = limits, scratch, how
        self._token = secrets.token_hex(16).encode()
        self._text = {"stdout": bytearray(), "stderr": bytearray(), "answer": bytearray()}
        self._stopped: tuple[Status, str] | None = None
        self._cpu_time = 0.0
        config = _sealed(self._request(program))
        stdin = _sealed(
            program.stdin.encode(errors="surrogatepass") if isinstance(program.stdin, str) else program.stdin
        )
        reading, answering = os.pipe()
        # The process ends with the thread that starts it, which is therefore the one that waits for it.
        try:
            self._began = time.monotonic()
            self._process = subprocess.Popen(
                how.command(str(scratch), (config, answering)),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(config, answering),
                env={**_VARIABLES, "HOME": str(scratch), "TMPDIR": str(scratch)},
                cwd=scratch,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            os.close(reading)
            raise HarnessError(f"no sandboxed process can be started: {error}") from error
        finally:
            for descriptor in (config, stdin, answering):
                os.close(descriptor)
        self._answers = reading

    def result(self) -> Result:
        """Wait for the end and tell how it was."""
        try:
            self._watch()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            os.close(self._answers)
        duration = time.monotonic() - self._began
        cpu_time = max(usage.ru_utime + usage.ru_stime, self._cpu_time)
        status_, reason = self._verdict(self._process.returncode, cpu_time)
        return Result(
            status=status_,
            reason=reason,
            stdout=self._text["stdout"].decode(errors="replace"),
            stderr=self._text["stderr"].decode(errors="replace"),
            duration=duration,
            cpu_time=cpu_time,
            exit_code=self._process.returncode,
        )

    def _request(self, program: Program) -> bytes:
        """What the stage reads."""
        limits = self._limits
        values: dict[str, bytes | int] = {
            "program": program.source.encode(errors="surrogatepass"),
            "token": self._token,
            "parent": os.getpid(),
            "namespaces": int(self._how.bwrap is not None),
            "landlock": self._how.landlock,
            "readable": b"\0".join(map(os.fsencode, mechanism.readable())),
            "devices": b"\0".join(map(os.fsencode, mechanism.devices())),
            "scratch": os.fsencode(self._scratch),
            "filter": calls.compiled(),
            "memory": limits.memory,
            "disk": limits.disk,
            "files": limits.files,
            "cpu_time": math.ceil(limits.cpu_time),
        }
        if program.tests is not None:
            values["tests"] = program.tests.encode(errors="surrogatepass")
        plain = {
            name: value if isinstance(value, bytes) else str(value).encode() for name, value in values.items()
        }
        return "".join(f"{name} {value.hex()}\n" for name, value in plain.items()).encode()

    def _watch(self) -> None:
        """Read what comes until the process has ended or must."""
        ended = os.pidfd_open(self._process.pid)
        streams = {self._process.stdout: "stdout", self._process.stderr: "stderr", self._answers: "answer"}
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ)
                for stream, name in streams.items():
                    assert stream is not None
                    selector.register(stream, selectors.EVENT_READ, name)
                looked = time.monotonic()
                while self._stopped is None:
                    events = selector.select(_TICK)
                    for key, _ in events:
                        if key.data is not None and not self._read(key.fd, key.data):
                            selector.unregister(key.fileobj)
                    if self._stopped is None and any(key.data is None for key, _ in events):
                        self._drain(selector)
                        return
                    if (now := time.monotonic()) - looked >= _TICK:
                        looked = now
                        self._look(now)
        finally:
            os.close(ended)

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Read what a process that has ended left in its pipes."""
        while self._stopped is None:
            events = [(key, mask) for key, mask in selector.select(0) if key.data is not None]
            if not events:
                return
            for key, _ in events:
                if not self._read(key.fd, key.data):
                    selector.unregister(key.fileobj)

    def _read(self, descriptor: int, name: str) -> bool:
        chunk = os.read(descriptor, 1 << 16)
        most = _ANSWER if name == "answer" else self._limits.output
        text = self._text[name]
        text += chunk[: most - len(text) + 1]
        if len(text) > most:
            del text[most:]
            self._stopped = self._stopped or ("over-limit", f"printed more than {most} bytes on {name}")
        return bool(chunk)

    def _look(self, now: float) -> None:
        """End it where it is over a limit that the kernel does not keep."""
        limits = self._limits
        if now - self._began > limits.time + (0 if b"\n" in self._text["answer"] else _START):
            self._stopped = ("timeout", f"was still going after {limits.time:g} s")
            return
        seen = watching.look_inside(self._process.pid)
        # Bubblewrap does not hand on what its processes used.
        self._cpu_time = max(self._cpu_time, seen.cpu_time)
        if seen.threads > limits.processes:
            self._stopped = ("over-limit", f"had {seen.threads} threads; {limits.processes} are allowed")
            return
        size, entries = watching.usage(self._scratch, limits.entries)
        if entries > limits.entries:
            self._stopped = ("over-limit", f"made more than {limits.entries} files and folders")
        elif size + seen.hidden > limits.disk:
            self._stopped = ("over-limit", f"wrote more than {limits.disk} bytes")

    def _verdict(self, code: int, cpu_time: float) -> tuple[Status, str]:
        told = _answers(bytes(self._text["answer"]))
        if told.get("confined") is None:
            why = told.get("unconfined") or [self._text["stderr"].decode(errors="replace").strip()[-300:]]
            raise HarnessError(
                f"the sandbox could not be set up, and nothing was run: {why[0] or f'exit code {code}'}"
            )
        if self._stopped is not None:
            return self._stopped
        token, status, reason = told.get("done", ["", "", ""])
        spent = cpu_time >= math.ceil(self._limits.cpu_time) - 0.1
        ends = (-signal.SIGXCPU, -signal.SIGKILL, 128 + signal.SIGXCPU, 128 + signal.SIGKILL)
        if spent and code in ends:
            return "timeout", f"used {self._limits.cpu_time:g} s of processor time"
        if token.encode() != self._token:
            if code < 0 or code > 128:
                name = _signal_name(-code if code < 0 else code - 128)
                return ("out-of-memory" if name == "SIGKILL" else "failed"), f"was ended by {name}"
            return "failed", f"ended its process with exit code {code} before it was done"
        if status == "passed":
            return ("passed", "") if code == 0 else ("failed", f"ended with exit code {code} after it was done")
        ended: Status = (
            "refused" if status == "refused" else "out-of-memory" if status == "out-of-memory" else "failed"
        )
        return ended, reason


# A program's environment: nothing of this process's. Hashes are fixed, so that it does the same each time.
_VARIABLES = {"LC_ALL": "C", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


def _sealed(content: bytes) -> int:
    """A descriptor to read `content` from, which nobody can change any more."""
    descriptor = os.memfd_create("harness", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _remove(folder: Path) -> None:
    """Remove what a program left, which may be nested deeper than Python's own removal recurses."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, capture_output=True)
        if folder.exists():
            raise HarnessError(f"the scratch folder {folder} cannot be removed") from None


def _answers(text: bytes) -> dict[str, list[str]]:
    """What the process said, by first word. The program may have written there too: what is no answer is left out."""
    found: dict[str, list[str]] = {}
    for line in text.split(b"\n")[:2]:
        words = line.decode("ascii", errors="replace").split(" ")
        try:
            match words:
                case ["confined"]:
                    found["confined"] = []
                case ["unconfined", why]:
                    found["unconfined"] = [bytes.fromhex(why).decode(errors="replace")]
                case ["done", token, status, reason]:
                    found["done"] = [token, status, bytes.fromhex(reason).decode(errors="replace")[:600]]
        except ValueError:
            continue
    return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
