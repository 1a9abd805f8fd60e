"""The runner's side of workers: starts them, asks them, watches their time and memory, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from harness.answers import checked
from harness.channel import Channel
from harness.errors import BadOutput, HarnessError
from harness.record import Status

_LOG = 64 << 10
_CHUNK = 64 << 10
_GREETING = 256
_POLL = 0.05
_START = 120.0
_HELLO = 2.0


@dataclass
class Failed(HarnessError):
    """A method did not get through: the status and reason of its record."""

    status: Status
    reason: str
    log: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class Nursery:
    """A process that forks workers, with the socket that they report to.

    Args:
        preload: modules that are imported once for all workers.
        packages: folders to import as packages, by name.
        modules: modules of the methods to come, imported once as well where that works.
        variables: environment variables set for all workers, on top of this process's.
        python: the interpreter.
        luck: seed of what a process's luck depends on: hashes of strings, and on Linux the addresses of its
            interpreter and libraries, which are not randomised then. Nurseries with the same seed share their luck.
        wait: whether to wait until it is ready; otherwise `ready` has to be called before the first launch. Always
            in the thread that goes on living: the nursery ends with the thread that started it.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        *,
        packages: Mapping[str, Path] | None = None,
        modules: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        python: str = sys.executable,
        luck: int | None = None,
        wait: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-")
        path = os.path.join(self._folder.name, "runner")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._waiting: dict[tuple[str, str], tuple[socket.socket, dict[str, Any]]] = {}
        self._expected: set[str] = set()
        self.exits: dict[str, int] = {}
        home = str(Path(__file__).resolve().parent.parent)
        known = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            **(variables or {}),
            "PYTHONPATH": os.pathsep.join([home, known] if known else [home]),
            **({} if luck is None else {"PYTHONHASHSEED": str(luck)}),
        }
        # A file, not a pipe: nobody reads it while the nursery works, and a full pipe would stop it.
        self._errors = open(os.path.join(self._folder.name, "errors"), "w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                *(python, "-P", "-m", "harness.worker", "--socket", path, "--preload", *preload),
                *("--packages", json.dumps({name: str(folder) for name, folder in (packages or {}).items()})),
                *("--modules", *modules),
                *(() if luck is None else ("--luck", str(luck))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            bufsize=0,
        )
        self.pid = self._process.pid
        self._reports = b""
        self.fixed_addresses = False
        if wait:
            self.ready()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> None:
        """Wait until everything is imported. Raises `HarnessError` with the reason when it cannot be."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            error = self._errors.read().decode(errors="replace").strip()
            raise HarnessError(
                f"no worker can be started: {error.splitlines()[-1] if error else 'no reason given'}"
            )
        self.fixed_addresses = bool(json.loads(line)["fixed_addresses"])

    @property
    def alive(self) -> bool:
        """Whether it can still launch workers."""
        return self._process.poll() is None

    def launch(self) -> Worker:
        """A new worker. Raises `Failed` when it cannot be started."""
        token = uuid.uuid4().hex
        self._expected = {token}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"fork": token}).encode() + b"\n")
        except OSError:
            raise Failed("failed", "the process that starts methods was ended from outside") from None
        deadline = time.monotonic() + _START
        while {("worker", token), ("log", token)} - set(self._waiting):
            if self.exited(token) is not None or time.monotonic() > deadline:
                raise Failed("failed", "its process ended before it began")
            self._accept(_POLL)
        log, _ = self._waiting.pop(("log", token))
        connection, hello = self._waiting.pop(("worker", token))
        return Worker(self, token, int(hello["pid"]), Channel(connection), log)

    def exited(self, token: str) -> int | None:
        """The exit code of a worker (negative: a signal), or None while it runs."""
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while selector.select(0):
                chunk = os.read(stream.fileno(), 1 << 16)
                if not chunk:
                    break
                self._reports += chunk
        while b"\n" in self._reports:
            line, _, self._reports = self._reports.partition(b"\n")
            report = json.loads(line)
            if "exit" in report:
                self.exits[report["exit"]] = report["code"]
        return self.exits.get(token)

    def close(self) -> None:
        """End the nursery and every worker that is left."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.close()
        self._folder.cleanup()

    def _accept(self, timeout: float) -> None:
        self._listener.settimeout(timeout)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return
        # Another worker's method can connect too. Only the token of the one that is waited for opens this door.
        connection.settimeout(_HELLO)
        hello = _greeting(connection)
        kind = "log" if "log" in hello else "worker"
        key = (kind, hello.get(kind))
        if (
            key[1] not in self._expected
            or key in self._waiting
            or (kind == "worker" and type(hello.get("pid")) is not int)
        ):
            connection.close()
            return
        connection.settimeout(_START)
        self._waiting[(kind, str(key[1]))] = (connection, hello)


def _greeting(connection: socket.socket) -> dict[str, Any]:
    """The first line of a connection; nothing where it is none."""
    line = b""
    try:
        # Byte by byte: what follows it on a log connection is the method's output.
        while not line.endswith(b"\n") and len(line) < _GREETING:
            byte = connection.recv(1)
            if not byte:
                return {}
            line += byte
        hello = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return {}
    return hello if isinstance(hello, dict) and all(isinstance(v, (str, int)) for v in hello.values()) else {}


@dataclass
class Worker:
    """A method's process, as the runner sees it."""

    nursery: Nursery
    token: str
    pid: int
    channel: Channel
    log: socket.socket
    deadline: float = float("inf")
    memory_limit: int | None = None
    children_peak: int = 0
    _tail: bytes = b""
    _log_open: bool = True
    _selector: selectors.BaseSelector | None = None

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer, watching the limits.

        Raises:
            Failed: the method raised, crashed, ran out of time or memory, or sent what is not an answer.
        """
        try:
            self.channel.send({"do": verb, **arguments})
        except OSError:
            raise self._died(verb) from None
        selector = self._listening()
        while True:
            for event, _ in selector.select(_POLL):
                if event.fileobj is self.log:
                    if not self._drain():
                        selector.unregister(self.log)
                    continue
                answer = self._answer(verb)
                if answer is not None:
                    return answer
            self._watch(verb)

    def _listening(self) -> selectors.BaseSelector:
        """What waits for the worker's answers and output; kept, for a block of runs lasts milliseconds."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self.channel, selectors.EVENT_READ)
            if self._log_open:
                self._selector.register(self.log, selectors.EVENT_READ)
        return self._selector

    def look_at_children(self) -> int:
        """Bytes that processes which the method started have for themselves now; keeps the peak of it.

        What a child shares with its parent is counted there already.
        """
        now = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    now += child.memory_full_info().uss
        self.children_peak = max(self.children_peak, now)
        return now

    def end(self) -> None:
        """End the process and everything that it started."""
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        self.channel.close()
        self.log.close()

    def printed(self) -> str:
        """The last of what the method printed."""
        if self._log_open:
            self.log.setblocking(False)
            with contextlib.suppress(BlockingIOError, OSError):
                # A process that still prints may do so faster than this reads.
                for _ in range(_LOG // _CHUNK + 16):
                    if not self._drain():
                        break
        return self._tail.decode(errors="replace")

    def _answer(self, verb: str) -> dict[str, Any] | None:
        try:
            if not self.channel.fill():
                raise self._died(verb)
            message = self.channel.take()
            if message is None:
                return None
            ok, trouble = checked(verb, message)
        except BadOutput as error:
            raise Failed("failed", f"bad output: {error}", self.printed()) from error
        if trouble is not None:
            log = (self.printed() + "\n" + trouble.traceback).strip()
            raise Failed(trouble.status, trouble.reason, log)
        return ok

    def _watch(self, verb: str) -> None:
        if time.monotonic() > self.deadline:
            raise Failed("timeout", f"{verb} was still going at the time limit", self.printed())
        children = self.look_at_children()
        if self.memory_limit is None:
            return
        try:
            used = psutil.Process(self.pid).memory_info().rss + children
        except psutil.NoSuchProcess:
            return
        if used > self.memory_limit:
            raise Failed(
                "out-of-memory",
                f"{verb} used {used / 2**20:.0f} MiB; the limit is {self.memory_limit / 2**20:.0f} MiB",
                self.printed(),
            )

    def _died(self, verb: str) -> Failed:
        deadline = time.monotonic() + 5
        code = self.nursery.exited(self.token)
        while code is None and time.monotonic() < deadline and self.nursery.alive:
            time.sleep(0.01)
            code = self.nursery.exited(self.token)
        if code is None and not self.nursery.alive:
            return Failed("failed", f"{verb} ended with the process that started it", self.printed())
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return Failed("failed", f"{verb} was ended by {name}", self.printed())
        return Failed("failed", f"{verb} ended its process with exit code {code}", self.printed())

    def _drain(self) -> bool:
        try:
            chunk = self.log.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        self._tail = (self._tail + chunk)[-_LOG:]
        self._log_open = bool(chunk)
        return self._log_open
