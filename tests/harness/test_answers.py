"""A worker whose method writes what it likes: to the runner, to its log, and to the door of other workers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.answers import checked
from harness.channel import MAX_LINE, Channel
from harness.errors import BadOutput
from harness.launch import Failed, Nursery, Worker

ROGUE = '''
import glob, os, socket, sys, threading, time
from harness.method import Method, Metric, Task, method, task

@task("anything", metrics=[Metric("x")])
class Anything(Task[int, int]):
    """Anything."""

    def load(self, seed: int) -> int:
        return seed

    def score(self, work: int, output: int) -> dict[str, float]:
        return {"x": 1.0}

def own_socket() -> int:
    """The descriptor of the connection to the runner: the last socket that is not the log."""
    leads = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            leads[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return max(n for n, to in leads.items() if to.startswith("socket:") and to != leads[1])

@method("rogue", task="anything")
class Rogue(Method[int, int]):
    """Writes what it likes."""

    send: str = ""
    times: int = 1
    how: str = ""

    def prepare(self, work: int) -> None:
        if self.how == "send":
            for _ in range(self.times):
                os.write(own_socket(), self.send.encode())
            time.sleep(30)
        if self.how == "log":
            def spam() -> None:
                while True:
                    os.write(1, b"x" * 65536)
            for _ in range(2):
                threading.Thread(target=spam, daemon=True).start()
            time.sleep(30)
        if self.how == "knock":
            door = sys.argv[sys.argv.index("--socket") + 1]
            self.kept = []
            for greeting in (b"", b"x" * 5000, b"[]\\n", b'{"worker": "guess", "pid": 1}\\n', b'{"log": {}}\\n', b"1\\n"):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(door)
                if greeting:
                    connection.sendall(greeting)
                    self.kept.append(connection)

    def run(self) -> int:
        return 1
'''


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    folder = tmp_path_factory.mktemp("rogue")
    (folder / "rogue.py").write_text(ROGUE)
    with Nursery(packages={"rogue_package": folder}) as started:
        yield started


def load(nursery: Nursery, **parameters: Any) -> Worker:
    worker = nursery.launch()
    worker.deadline = time.monotonic() + 30
    worker.ask(
        "load",
        packages={},
        task={"module": "rogue_package.rogue", "class": "Anything", "parameters": {}},
        method={"module": "rogue_package.rogue", "class": "Rogue", "parameters": parameters},
        seed=1,
        device="cpu",
        profile="cpu",
    )
    return worker


@pytest.mark.parametrize(
    ("send", "times", "says"),
    [
        ("this is no JSON\n", 1, "not JSON"),
        ("[1, 2]\n", 1, "not an object"),
        ("{}\n", 1, "an answer that is none to prepare"),
        ('{"ok": 1}\n', 1, "an answer that is none"),
        ('{"ok": {"seconds": "soon"}}\n', 1, "an answer that is none"),
        ('{"ok": {"seconds": NaN}}\n', 1, "an answer that is none"),
        ('{"error": 3}\n', 1, "an error without its reason"),
        ('{"error": {"status": "ok", "reason": "", "traceback": ""}}\n', 1, "an error of the kind 'ok'"),
        ("[" * 100_000 + "\n", 1, "not JSON"),
        ("x" * (1 << 16), 10_000, f"more than {MAX_LINE >> 20} MiB"),
    ],
)
def test_a_message_that_is_none_fails_the_method(nursery: Nursery, send: str, times: int, says: str) -> None:
    worker = load(nursery, how="send", send=send, times=times)
    with pytest.raises(Failed, match=says) as caught:
        worker.ask("prepare")
    worker.end()
    assert caught.value.status == "failed"
    assert caught.value.reason.startswith("bad output: ")


def test_endless_output_ends_at_the_time_limit_with_its_tail(nursery: Nursery) -> None:
    worker = load(nursery, how="log")
    worker.deadline = time.monotonic() + 0.5
    with pytest.raises(Failed, match="time limit") as caught:
        worker.ask("prepare")
    worker.end()
    assert caught.value.status == "timeout"
    assert 0 < len(caught.value.log) <= 64 << 10


def test_nobody_comes_in_for_another_worker(nursery: Nursery) -> None:
    """A method that knocks at the runner's door keeps no other from starting."""
    rogue = load(nursery, how="knock")
    rogue.ask("prepare")
    worker = load(nursery)
    assert worker.ask("prepare")["seconds"] >= 0
    assert worker.ask("run", count=1, keep=True, first=True)["samples"]
    assert worker.ask("measure")["metrics"] == {"x": 1.0}
    worker.end()
    rogue.end()
    assert not nursery._waiting


_names = st.sampled_from(
    [
        "ok",
        "error",
        "status",
        "reason",
        "traceback",
        "samples",
        "cpu",
        "metrics",
        "series",
        "x",
        "y",
        "seconds",
        "amount",
    ]
)
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["load", "prepare", "run", "measure", "peaks"]), st.dictionaries(_names, Json, max_size=4)
)
def test_any_answer_is_an_answer_or_bad_output(verb: str, message: dict[str, Any]) -> None:
    try:
        ok, trouble = checked(verb, message)
    except BadOutput:
        return
    assert isinstance(ok, dict)
    if trouble is not None:
        assert all(isinstance(part, str) for part in (trouble.status, trouble.reason, trouble.traceback))
    elif verb == "run":
        assert all(0 <= sample < 1e300 for sample in ok["samples"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), max_size=6), st.data())
def test_messages_survive_being_cut_anywhere(messages: list[dict[str, int]], draw: st.DataObject) -> None:
    stream = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel, found = Channel(ours), []
        while stream:
            cut = draw.draw(st.integers(1, len(stream)))
            theirs.sendall(stream[:cut])
            stream = stream[cut:]
            channel.fill()
            while (message := channel.take()) is not None:
                found.append(message)
        theirs.close()
        while channel.fill():
            while (message := channel.take()) is not None:
                found.append(message)
    assert found == messages
