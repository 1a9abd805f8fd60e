"""Texts as bytes: novels, code and other files of data sets, and the standard library's own sources."""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness import data
from harness.errors import MissingData

STANDARD_LIBRARY = "python-stdlib"
"""The name of the corpus that is this Python's own standard library."""


def corpus(name: str, cap: int | None = None) -> Tensor:
    """The bytes of a named text: uint8, shape (bytes,), on the CPU.

    Args:
        name: ``"gutenberg-novels/moby-dick.txt.gz"`` is a text file of a data set;
            ``"java-cs-translation/train.jsonl.gz#java"`` one field of its JSON lines, joined by blank lines;
            ``"python-stdlib"`` the sources of this Python's standard library without its tests.
        cap: keep only the first `cap` bytes.

    Raises:
        MissingData: the data set or the standard library's sources are not here.
    """
    if name == STANDARD_LIBRARY:
        raw = _standard_library(cap)
    else:
        path, _, field = name.partition("#")
        folder, slash, filename = path.partition("/")
        if not slash:
            raise ValueError(
                f"a corpus is '<data set>/<file>', with '#<field>' for JSON lines, or "
                f"'{STANDARD_LIBRARY}', not '{name}'"
            )
        raw = _field(folder, filename, field) if field else _file(folder, filename)
    return torch.frombuffer(bytearray(raw[:cap]), dtype=torch.uint8)


def _file(folder: str, filename: str) -> bytes:
    path = data.file(folder, filename)
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _field(folder: str, filename: str, field: str) -> bytes:
    lines = data.text(folder, filename).splitlines()
    return "\n\n".join(json.loads(line)[field] for line in lines if line.strip()).encode()


def _standard_library(cap: int | None) -> bytes:
    """Sources in the order of their paths; test packages and what is installed beside them left out."""
    base = Path(sysconfig.get_path("stdlib"))
    parts: list[bytes] = []
    size = 0
    for path in _sources(base):
        parts.append(path.read_bytes())
        size += len(parts[-1]) + 1
        if cap is not None and size >= cap:
            break
    if not parts:
        raise MissingData(f"this Python has no sources of its standard library in {base}")
    return b"\n".join(parts)


def _sources(folder: Path) -> Iterator[Path]:
    skip = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in skip and not path.name.startswith("config-"):
                yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def split(text: Tensor, held_out: float = 0.05) -> tuple[Tensor, Tensor]:
    """The first part of `text` to train on and its last share `held_out`, both views of it."""
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, not {held_out}")
    cut = len(text) - round(held_out * len(text))
    return text[:cut], text[cut:]


def windows(text: Tensor, count: int, length: int, generator: torch.Generator, device: str = "cpu") -> Tensor:
    """Windows at uniformly random places of `text`: int64, shape (count, length), on `device`.

    The places are drawn on the generator's device and depend on nothing but its state.
    """
    if len(text) < length:
        raise ValueError(f"a text of {len(text)} bytes has no window of {length}")
    starts = torch.randint(len(text) - length + 1, (count,), generator=generator).to(text.device)
    return text[starts[:, None] + torch.arange(length, device=text.device)].to(device, torch.int64)


def encode(text: str) -> Tensor:
    """The UTF-8 bytes of `text`: int64, shape (bytes,)."""
    return torch.tensor(list(text.encode()), dtype=torch.int64)


def decode(tokens: Tensor | Sequence[int]) -> str:
    """The text of UTF-8 bytes; what is not UTF-8 becomes U+FFFD."""
    return bytes(int(t) for t in tokens).decode(errors="replace")
