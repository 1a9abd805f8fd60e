"""Prepared artefacts (trained base models, indexes), kept by content.

The key of an artefact is everything that made it: a recipe as plain data, and the name of what it makes.
Two processes that need the same artefact make it once; a file is complete or absent, never half written, whatever
kills a process in the middle. Those that were used longest ago make room when there are too many bytes; what a process
has asked for stays until that process ends.

An artefact NAME is three files: NAME itself, NAME.json (its recipe and size) and NAME.lock. Who makes or removes an
artefact holds the lock alone; who uses it shares it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RequestError

VARIABLE = "HARNESS_CACHE"
SIZE_VARIABLE = "HARNESS_CACHE_SIZE"
SIZE = "20GB"
"""How much is kept unless ``HARNESS_CACHE_SIZE`` says otherwise."""

_used: dict[Path, int] = {}
"""Locks that this process shares for as long as it lives, as open files by path."""


@dataclass(frozen=True)
class Kept:
    """An artefact in a cache.

    Attributes:
        path: its file.
        bytes: its size.
        used: when it was last asked for, in seconds since 1970.
    """

    path: Path
    bytes: int
    used: float


def default_directory() -> Path:
    """``HARNESS_CACHE``, or the user's cache directory."""
    if value := os.environ.get(VARIABLE):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("harness"))


def limit() -> int:
    """How many bytes of artefacts are kept: ``HARNESS_CACHE_SIZE``, e.g. ``5GB``.

    Raises:
        RequestError: the variable is no size.
    """
    from harness.suitefile import size_in_bytes

    text = os.environ.get(SIZE_VARIABLE) or SIZE
    try:
        return size_in_bytes(text)
    except ValueError as error:
        raise RequestError(f"{SIZE_VARIABLE} is a size such as 5GB, not '{text}'") from error


def key(kind: str, recipe: Mapping[str, Any]) -> str:
    """The name of the artefact that `recipe` makes: a kind and 16 hexadecimal digits.

    Raises:
        ValueError: `kind` is not letters, digits and hyphens, or `recipe` is not plain data.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", kind):
        raise ValueError(f"the kind of an artefact is letters, digits and hyphens, not '{kind}'")
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def artefact(
    kind: str,
    recipe: Mapping[str, Any],
    make: Callable[[Path], None],
    directory: Path | None = None,
) -> Path:
    """The file of an artefact, made on first use.

    Args:
        kind: short name of what it is, part of the file's name.
        recipe: plain data (JSON) that names everything the artefact depends on, including a digest of
            the text or arrays it was made from.
        make: writes the artefact to the path it is given. Tensors are saved with ``safetensors`` or
            ``torch.save`` of a state dict, and loaded with ``weights_only=True``; never a pickle.
        directory: where artefacts are kept; the default is `default_directory`.

    Returns:
        A path that exists and is complete, and stays so until this process ends.
    """
    base = directory or default_directory()
    base.mkdir(parents=True, exist_ok=True)
    path = base / key(kind, recipe)
    made = False
    while not _use(path):
        with _alone(path) as locked:
            if locked and not _whole(path):
                _make(path, recipe, make)
                made = True
    if made:
        trim(base)
    return path


def kept(directory: Path | None = None) -> list[Kept]:
    """The artefacts of a cache, the one that was used longest ago first."""
    base = directory or default_directory()
    found = []
    for lock in base.glob("*.lock"):
        path = lock.with_suffix("")
        if not path.is_file() or not _note(path).is_file():
            continue  # the lock of something else, or of what is only being made
        # Another process may be removing it.
        with contextlib.suppress(FileNotFoundError):
            found.append(Kept(path, path.stat().st_size, lock.stat().st_mtime))
    return sorted(found, key=lambda each: (each.used, each.path.name))


def trim(directory: Path | None = None, size: int | None = None) -> list[Path]:
    """Remove artefacts that were used longest ago until those left have at most `size` bytes (default `limit`).

    What a process still uses stays, and so does the last one. Left-overs of processes that were killed go as well.

    Returns:
        What was removed.
    """
    base = directory or default_directory()
    there = kept(base)
    left = sum(each.bytes for each in there)
    removed: list[Path] = []
    most = limit() if size is None else size
    for each in there:
        if left <= most:
            break
        with _alone(each.path, wait=False) as locked:
            if locked and each.path.exists():
                _remove(each.path)
                removed.append(each.path)
                left -= each.bytes
    for rest in base.glob(".*-unfinished-*"):
        path = base / rest.name[1:].partition("-unfinished-")[0]
        with _alone(path, wait=False) as locked:
            if locked:
                rest.unlink(missing_ok=True)
                if not path.exists():
                    _remove(path)
    return removed


def _use(path: Path) -> bool:
    """Share the lock of an artefact for the life of this process; False where it is not there, or not whole."""
    if path in _used:
        if _whole(path):
            _touch(path)
            return True
        os.close(_used.pop(path))
        return False
    if not path.exists():
        return False
    try:
        handle = _locked(path, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return _whole(path)  # a cache that can only be read, in which nothing is removed either
    if handle is None or not _whole(path):
        if handle is not None:
            os.close(handle)
        return False
    _used[path] = handle
    _touch(path)
    return True


@contextlib.contextmanager
def _alone(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether the lock of an artefact is held alone."""
    if path in _used:
        yield False  # by this process itself, which would wait for itself
        return
    handle = _locked(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _locked(path: Path, how: int) -> int | None:
    """An open file with the lock of an artefact; None where another process holds it or has just removed it."""
    name = f"{path}.lock"
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, how)
        # A lock on a file that has been removed meanwhile keeps nobody out.
        if os.fstat(handle).st_ino == os.stat(name).st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _make(path: Path, recipe: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    for rest in path.parent.glob(f".{path.name}-unfinished-*"):
        rest.unlink(missing_ok=True)  # of a process that was killed: nobody else has the lock
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-unfinished-", dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        make(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        os.chmod(unfinished, 0o644)
        _write_note(path, {"recipe": recipe, "bytes": size})
        os.replace(unfinished, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        unfinished.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    """Where the recipe and the size of an artefact are."""
    return path.with_name(f"{path.name}.json")


def _write_note(path: Path, note: Mapping[str, Any]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-unfinished-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(note, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, _note(path))


def _whole(path: Path) -> bool:
    """Whether an artefact is there with the size it was written with; a full disk or a power cut can take its end."""
    try:
        size = path.stat().st_size
        note = json.loads(_note(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    # Without a size it was made by an earlier version of the harness, which renamed whole files only.
    return not isinstance(note, dict) or set(note) != {"recipe", "bytes"} or note["bytes"] == size


def _touch(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # a cache that others share to read
        os.utime(f"{path}.lock")


def _remove(path: Path) -> None:
    # The lock last: until then nobody else makes it.
    for name in (path, _note(path), path.with_name(f"{path.name}.lock")):
        name.unlink(missing_ok=True)
