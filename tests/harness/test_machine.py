"""One comparison at a time on a machine: real processes, some of them killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import machine
from harness.errors import HarnessError

_HOLDER = """
import sys
from harness import machine
with machine.reserved({"comparison": sys.argv[1]}, share=sys.argv[2] == "share") as beside:
    print("here", flush=True)
    sys.stdin.readline()
print(sorted(each["comparison"] for each in beside), flush=True)
"""


class Holder:
    """A process that holds the machine until it is told to leave."""

    def __init__(self, name: str, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, name, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told = self.line()
        self.process.wait()
        return told


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.VARIABLE, str(tmp_path / "machine"))


def test_one_at_a_time_whoever_comes() -> None:
    holder = Holder("a", "alone")
    assert holder.line() == "here"
    order: list[str] = []

    def come() -> None:
        with machine.reserved({"comparison": "b"}, waiting=lambda: order.append("waiting")):
            order.append("in")

    thread = threading.Thread(target=come)
    thread.start()
    while not order:
        time.sleep(0.01)
    assert order == ["waiting"]
    assert holder.leave() == "[]"
    thread.join(20)
    assert order == ["waiting", "in"]


def test_a_holder_that_is_killed_keeps_nobody_out() -> None:
    holder = Holder("a", "alone")
    assert holder.line() == "here"
    holder.process.send_signal(signal.SIGKILL)
    holder.process.wait()
    with machine.reserved({"comparison": "b"}) as beside:
        pass
    assert beside == []
    assert not list(machine.folder().glob("*.here")), "the book of the dead is gone"


def test_those_that_share_know_of_each_other_also_of_who_came_and_went() -> None:
    first = Holder("first", "share")
    assert first.line() == "here"
    second = Holder("second", "share")
    assert second.line() == "here"
    assert second.leave() == "['first']"
    third = Holder("third", "share")
    assert third.line() == "here"
    assert first.leave() == "['second', 'third']"
    assert third.leave() == "['first']"


def test_who_wants_the_machine_alone_is_not_kept_out_by_a_stream_of_sharers() -> None:
    first = Holder("first", "share")
    assert first.line() == "here"
    entered: list[str] = []

    def come(name: str, share: bool, waits: threading.Event) -> threading.Thread:
        def hold() -> None:
            with machine.reserved({"comparison": name}, share=share, waiting=waits.set):
                entered.append(name)

        thread = threading.Thread(target=hold)
        thread.start()
        assert waits.wait(20)
        return thread

    alone = come("alone", False, threading.Event())
    later = come("later", True, threading.Event())  # waits although first shares, for alone came before
    first.leave()
    alone.join(20)
    later.join(20)
    assert entered == ["alone", "later"]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(machine.VARIABLE, str(tmp_path / "file" / "machine"))
    with pytest.raises(HarnessError, match=machine.VARIABLE), machine.reserved({}):
        pass


def test_what_another_user_left_in_the_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a file of ours stays a link, and books that are none are passed over."""
    monkeypatch.setenv(machine.VARIABLE, str(tmp_path / "shared"))
    mine = tmp_path / "mine"
    mine.write_text("as it was")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.here").symlink_to(mine)
    books = [b"", b"no JSON\n", b"[]\n", b'{"id": 1}\n', b"[" * 100_000 + b"\n"]
    with contextlib.ExitStack() as stack:
        for number, content in enumerate(books):
            book = stack.enter_context((tmp_path / "shared" / f"b{number}.here").open("w+b"))
            book.write(content)
            book.flush()
            fcntl.flock(book, fcntl.LOCK_EX)
        with machine.reserved({"comparison": "one"}) as beside:
            pass
    assert beside == []
    assert mine.read_text() == "as it was"


_CLAIMER = """
import sys
from harness import machine
with machine.claimed(sys.argv[1], waiting=lambda: print("waiting", flush=True)):
    print("here", flush=True)
    sys.stdin.readline()
"""


def _claimer(what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CLAIMER, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_claim_keeps_others_out_until_its_process_ends_however_it_does() -> None:
    with _claimer("one") as first, _claimer("other") as other:
        assert first.stdout is not None
        assert other.stdout is not None
        assert first.stdout.readline() == "here\n"
        assert other.stdout.readline() == "here\n", "another text is another claim"
        with _claimer("one") as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            first.kill()
            assert second.stdout.readline() == "here\n"
            second.kill()
        other.kill()
    with machine.claimed("one"), machine.claimed("other"):
        pass
