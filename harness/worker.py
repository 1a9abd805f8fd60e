"""One process, one method: load, prepare, run on request, measure.

``python -m harness.worker`` is a nursery: it imports once what the methods of a run need and forks a child per
method, so that a fresh process costs milliseconds instead of the seconds that importing torch takes. A child talks
to the runner over a socket in lines of JSON; nothing is unpickled on either side. It leads its own process group, so
that it can be ended with everything it started.

The nursery never starts a thread or touches a device, so its children can.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import math
import os
import random
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import strays
from harness.catalog import install_packages
from harness.channel import Channel
from harness.environment import THREAD_VARIABLES
from harness.errors import BadOutput, Unavailable

# -- the child --------------------------------------------------------------------------------------------


class Worker:
    """Carries out the runner's requests on one method."""

    def __init__(self) -> None:
        self._method: Any = None
        self._output: Any = None
        self._device = "cpu"
        self._clock = "host"
        self._memory: Any = None
        self._padding: list[bytes] = []

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import the task and the method, and load the work."""
        from harness.measure import clock
        from harness.measure.memory import Account
        from harness.method import Context

        self._padding = _shuffle_layout(request.get("layout"))
        _confine(request.get("cpus"), request.get("threads"))
        install_packages({name: Path(path) for name, path in request["packages"].items()})
        task = _construct(request["task"])
        self._method = _construct(request["method"])
        self._device = request["device"]
        self._clock = clock.name_of(self._device, request.get("threads"))
        cache = request.get("cache")
        context = Context(
            seed=request["seed"],
            device=self._device,
            profile=request["profile"],
            cache=Path(cache) if cache else None,
        )
        self._method.task, self._method.context = task, context
        self._method.work = task.load(request["seed"])
        if limit := request.get("memory"):
            _limit_memory(limit, self._device)
        self._memory = Account(self._device)
        amount = task.amount(self._method.work)
        return {"amount": None if amount is None else float(amount)}

    def prepare(self, _: dict[str, Any]) -> dict[str, Any]:
        """Time `prepare` and follow its memory."""
        from harness.measure import clock

        method = self._method
        with self._memory.preparing():
            timing = clock.timed(lambda: method.prepare(method.work), 1, _plain(self._clock))
        return {"seconds": timing.samples[0]}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time a number of runs. With ``keep`` the output of the first one is kept for `measure`."""
        from harness.measure import clock

        if request.get("first"):
            followed: contextlib.AbstractContextManager[None] = self._memory.running()
        else:
            self._memory.follow()
            followed = contextlib.nullcontext()
        with followed:
            timing = clock.timed(
                self._method.run,
                int(request["count"]),
                self._clock,
                runs_per_sample=int(request.get("runs_per_sample", 1)),
                flush=bool(request.get("flush")),
            )
        if request.get("keep"):
            self._output = timing.output
        # A nanosecond is the clock's resolution.
        samples = [round(seconds, 9) for seconds in timing.samples]
        return {"samples": samples, "cpu": timing.cpu, "preempted": timing.preempted, "clock": self._clock}

    def peaks(self, _: dict[str, Any]) -> dict[str, Any]:
        """Peaks of memory so far."""
        found: dict[str, Any] = self._memory.peaks()
        return found

    def measure(self, _: dict[str, Any]) -> dict[str, Any]:
        """Score the first output."""
        from harness.method import as_measurement

        method = self._method
        measurement = as_measurement(method.measure(self._output))
        self._output = None
        declared = {m.name for m in (*type(method.task).metrics, *type(method).metrics)}
        metrics = {name: _number(name, value) for name, value in measurement.metrics.items()}
        if missing := sorted(declared - set(metrics)):
            raise BadOutput(f"the metric '{missing[0]}' is declared but was not measured")
        if unknown := sorted(set(metrics) - declared):
            raise BadOutput(f"the metric '{unknown[0]}' was measured but is not declared")
        series = {
            name: {
                "x": [_number(name, v) for v in curve.x],
                "y": [_number(name, v) for v in curve.y],
                "x_label": curve.x_label,
                "y_label": curve.y_label,
            }
            for name, curve in measurement.series.items()
        }
        return {"metrics": metrics, "series": series}


def _construct(spec: dict[str, Any]) -> Any:
    cls = getattr(importlib.import_module(spec["module"]), spec["class"])
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in spec["parameters"].items()})


def _number(name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise BadOutput(f"'{name}' is {number}")
    return number


def _plain(clock: str) -> str:
    """The clock for what is not latency: on a host the wall clock."""
    return clock if clock == "cuda-events" else "host"


def _shuffle_layout(seed: int | None) -> list[bytes]:
    """Blocks of random sizes, to be kept, that shift where everything later lies in memory.

    Forked processes have their parent's layout. Without this all launches of a method would be lucky or unlucky with it
    together, and their spread would say nothing of it. The methods of one launch get the same `seed`, so that they
    share their luck as far as they are alike.
    """
    generator = random.Random(os.urandom(16) if seed is None else seed)
    return [bytes(generator.randrange(1, 4096)) for _ in range(generator.randrange(2000))]


def _confine(cpus: list[int] | None, threads: int | None) -> None:
    """Hold this process to some processors, and its numerical libraries to a number of threads."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    if threads:
        for name in THREAD_VARIABLES:
            os.environ[name] = str(threads)
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(threads)


def _limit_memory(limit: int, device: str) -> None:
    """Make allocations beyond `limit` bytes fail, so that a method learns of it before the machine does.

    Not on CUDA, whose driver reserves address space far beyond any memory; there the runner watches alone.
    """
    if device.startswith("cuda"):
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _serve(channel: Channel) -> None:
    worker = Worker()
    verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "load": worker.load,
        "prepare": worker.prepare,
        "run": worker.run,
        "peaks": worker.peaks,
        "measure": worker.measure,
    }
    while (request := channel.receive()) is not None:
        try:
            answer: dict[str, Any] = {"ok": verbs[request["do"]](request)}
        except Exception as error:  # the one boundary where whatever a method raises becomes its record
            answer = {"error": _describe(error)}
        channel.send(answer)
        if "error" in answer:
            return


def _describe(error: BaseException) -> dict[str, str]:
    name = type(error).__name__
    text = str(error).strip()
    reason = f"{name}: {text}" if text else name
    if isinstance(error, Unavailable):
        status, reason = "skipped", text
    elif isinstance(error, BadOutput):
        status, reason = "failed", f"bad output: {text}"
    elif isinstance(error, MemoryError) or _is_allocation_failure(error):
        status = "out-of-memory"
    else:
        status = "failed"
    trace = "" if status == "skipped" else "".join(traceback.format_exception(error))
    return {"status": status, "reason": reason[:2000], "traceback": trace[-16000:]}


def _is_allocation_failure(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("can't allocate memory", "not enough memory", "CUDA out of memory")
    )


def _child(path: str, token: str) -> None:
    """Become the process of one method."""
    os.setsid()
    log = socket.socket(socket.AF_UNIX)
    log.connect(path)
    log.sendall(json.dumps({"log": token}).encode() + b"\n")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    channel = Channel(connection)
    channel.send({"worker": token, "pid": os.getpid()})
    _serve(channel)


# -- the nursery ------------------------------------------------------------------------------------------


def _nursery(path: str, preload: list[str], packages: dict[str, Path], modules: list[str]) -> int:
    for name in preload:
        importlib.import_module(name)
    install_packages(packages)
    for name in modules:
        # A module that cannot be imported fails where it is used, in the child of the method that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # Not SIGKILL: what the methods started is ended first.
    strays.adopt_orphans()
    strays.signal_when_parent_ends(signal.SIGTERM)
    children: dict[int, str] = {}
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    parent = os.getppid()
    _report({"ready": os.getpid(), "fixed_addresses": _addresses_are_fixed()})
    orders = b""
    try:
        while True:
            readable, _, _ = select.select([0, read_end], [], [])
            if read_end in readable:
                signals = os.read(read_end, 4096)
                _reap(children)
                strays.end_strays(children)
                if signal.SIGTERM in signals or os.getppid() != parent:
                    break
            if 0 in readable:
                chunk = os.read(0, 1 << 16)
                if not chunk:
                    break
                orders += chunk
                while b"\n" in orders:
                    line, _, orders = orders.partition(b"\n")
                    token = json.loads(line)["fork"]
                    pid = os.fork()
                    if pid == 0:
                        _begin(path, token, read_end, write_end)
                    children[pid] = token
    except BrokenPipeError:
        pass  # the runner is gone
    finally:
        strays.end_all()
    return 0


def _begin(path: str, token: str, *inherited: int) -> None:
    """First steps of a child; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in inherited:
            os.close(descriptor)
        strays.signal_when_parent_ends(signal.SIGKILL)
        strays.adopt_orphans()
        _child(path, token)
        code = 0
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reap(children: dict[int, str]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        token = children.pop(pid, None)
        if token is not None:
            _report({"exit": token, "code": os.waitstatus_to_exitcode(status)})


def _report(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


_PERSONALITY = 0xFFFFFFFF
_ADDR_NO_RANDOMIZE = 0x0040000


def _addresses_are_fixed() -> bool:
    """Whether the kernel puts this process where it puts every other one of its kind."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).personality(_PERSONALITY) & _ADDR_NO_RANDOMIZE)


def _fix_addresses(luck: int, arguments: list[str]) -> None:
    """Start this program again without randomised addresses, where the system lets it; see personality(2).

    Where the kernel puts the interpreter decides by ten percent and more how fast pure Python runs. The stack still lies
    elsewhere for every `luck`: the environment is above it.
    """
    if sys.platform != "linux" or _addresses_are_fixed():
        return
    libc = ctypes.CDLL(None)
    if libc.personality(libc.personality(_PERSONALITY) | _ADDR_NO_RANDOMIZE) == -1:
        return  # a container may forbid it; the runner is told by `_report`
    os.environ["HARNESS_PADDING"] = "x" * random.Random(luck).randrange(4096)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "harness.worker", *arguments])


def main(arguments: list[str] | None = None) -> int:
    """Entry of ``python -m harness.worker``; started by the runner, not by hand."""
    parser = argparse.ArgumentParser(prog="python -m harness.worker", description=main.__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--preload", nargs="*", default=[], help="modules that every method needs")
    parser.add_argument("--packages", default="{}", help="JSON: folders to import as packages, by name")
    parser.add_argument("--modules", nargs="*", default=[], help="modules of the methods to come")
    parser.add_argument("--luck", type=int, help="seed that processes with the same luck share")
    options = parser.parse_args(arguments)
    if options.luck is not None:
        _fix_addresses(options.luck, sys.argv[1:] if arguments is None else arguments)
    packages = {name: Path(folder) for name, folder in json.loads(options.packages).items()}
    return _nursery(options.socket, options.preload, packages, options.modules)


if __name__ == "__main__":
    sys.exit(main())
