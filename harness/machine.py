"""One comparison at a time on a machine that is measured, whoever runs it, and what ran beside one that may share it.

Processes of a machine agree through a folder that they all see, by default in ``/dev/shm``; ``HARNESS_MACHINE`` names
another. A comparison holds the lock in it alone, or together with others when its suite says ``measure: {share: true}``.
The kernel frees the lock of a process that ends, however it ends, and no clock is read.

Runs that keep their records in one store claim a comparison before they measure it, so that the second finds what the
first has stored.

Each comparison keeps a visitors' book: whoever comes while it is measured writes into it. So it knows all that ran beside
it, also what came and went in between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

VARIABLE = "HARNESS_MACHINE"
_LONGEST = 1 << 20


def folder() -> Path:
    """Where the processes of this machine agree: ``HARNESS_MACHINE``, or a folder that is the same for all users."""
    if value := os.environ.get(VARIABLE):
        return Path(value).expanduser()
    shared = Path("/dev/shm")
    return (shared if shared.is_dir() else Path("/tmp")) / "harness-machine"


@contextmanager
def reserved(
    what: Mapping[str, str],
    *,
    share: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[list[dict[str, str]]]:
    """Hold this machine while the body runs.

    Args:
        what: describes the holder to those beside it.
        share: whether other holders that share may be here at the same time.
        waiting: called once when the machine is not free at once.

    Yields:
        A list that is empty until the body has ended, and then has the descriptions of all that were here meanwhile.

    Raises:
        HarnessError: the folder cannot be used.
    """
    base = _made(folder())
    beside: list[dict[str, str]] = []
    with _opened(base / "turnstile") as turnstile, _opened(base / "lock") as lock:
        # Whoever waits for the machine holds the turnstile, so that a stream of sharers cannot keep it out.
        _acquire(turnstile, fcntl.LOCK_EX, waiting)
        _acquire(lock, fcntl.LOCK_SH if share else fcntl.LOCK_EX, waiting)
        with _book(base, what, beside):
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield beside


@contextmanager
def claimed(what: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes of this machine from claiming `what` while the body runs; wait for one that has.

    A process holds one claim at a time. The kernel frees that of a process that ends.

    Args:
        what: any text.
        waiting: called once when another has claimed it.

    Raises:
        HarnessError: the folder cannot be used.
    """
    # A byte of one file for each text, in place of a file for each that would have to be removed without a race.
    byte = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=7).digest())
    with _opened(_made(folder()) / "claims", os.O_RDWR) as descriptor:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # either, by POSIX
            waiting()
            fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, byte)
        yield


@contextmanager
def _book(base: Path, what: Mapping[str, str], beside: list[dict[str, str]]) -> Iterator[None]:
    """A visitors' book of our own, and our name in those of the others. Begun behind the turnstile."""
    entry = {"id": uuid.uuid4().hex, **what}
    line = json.dumps(entry).encode() + b"\n"
    own = base / f"{entry['id']}.here"
    seen: dict[str, dict[str, str]] = {}
    with open(own, "x+b", buffering=0) as book:
        os.fchmod(book.fileno(), 0o666)
        fcntl.flock(book, fcntl.LOCK_EX)
        book.write(line)
        for other in sorted(base.glob("*.here")):
            if other != own and (host := _sign(other, line)):
                seen[host["id"]] = host
        try:
            yield
        finally:
            book.seek(0)
            for text in book.read(_LONGEST).splitlines()[1:]:
                if visitor := _entry(text):
                    seen[visitor["id"]] = visitor
            own.unlink(missing_ok=True)
            beside += [{k: v for k, v in each.items() if k != "id"} for each in seen.values()]


def _sign(path: Path, line: bytes) -> dict[str, Any] | None:
    """Write into another's book; None, and the book removed, when its owner has ended."""
    try:
        # Every user may write in this folder: no link of another's leads us to a file of ours.
        with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as book:
            try:
                fcntl.flock(book, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                host = _entry(book.readline(_LONGEST))
                book.seek(0, os.SEEK_END)
                book.write(line)
                return host
            with contextlib.suppress(PermissionError):  # another user's, who will remove it
                path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # its owner has just left
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    return None


def _entry(line: bytes) -> dict[str, str] | None:
    """A line of a book; None where another user wrote what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "id" not in found or not all(isinstance(v, str) for v in found.values()):
        return None
    return found


def _made(base: Path) -> Path:
    try:
        base.mkdir(parents=True, exist_ok=True)
        if base.stat().st_uid == os.getuid():
            base.chmod(0o1777)
    except OSError as error:
        raise HarnessError(
            f"the folder '{base}', in which comparisons take turns on this machine, cannot be made:"
            f" {error.strerror}. Name another with {VARIABLE}"
        ) from error
    return base


@contextmanager
def _opened(path: Path, access: int = os.O_RDONLY) -> Iterator[int]:
    """A file to lock. One that is there is not opened to create: a system may refuse that for a file of another user."""
    try:
        try:
            descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(path, access | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(PermissionError):  # made by another user in between
                os.fchmod(descriptor, 0o666)
    except OSError as error:
        raise HarnessError(f"'{path}' cannot be locked: {error.strerror}. See {VARIABLE}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, mode: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, mode)
