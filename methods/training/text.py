"""Text to train byte-level language models on."""

from __future__ import annotations

import dataclasses
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from harness.errors import MissingData
from harness.seeding import torch_generator
from methods.common.corpora import corpus
from methods.common.language_model import Precision, bits_per_byte, next_token_loss
from methods.training.loop import Batches

Corpus = Literal["tinyshakespeare", "python-sources"]


def named_text(name: Corpus, cap: int) -> Tensor:
    """The bytes of a text, uint8 (bytes,); the first `cap` of them unless that is 0.

    Raises:
        MissingData: it is not here.
    """
    if name == "python-sources":
        return python_sources(cap)
    return corpus("gutenberg-novels/tinyshakespeare.txt.gz", cap or None)


def python_sources(cap: int = 0, folders: tuple[Path, ...] | None = None) -> Tensor:
    """All .py files of this Python's standard library and installed packages, uint8 (bytes,).

    Files come in an order that depends on their paths alone but mixes packages, so that the end of the text
    is like its beginning. What is installed differs between machines, and so does the text.

    Args:
        cap: stop after so many bytes; 0 reads all.
        folders: where to look instead.
    """
    if folders is None:
        folders = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
    # The packages' folder may lie in the library's; no file is to be in the text twice.
    names: dict[Path, str] = {}
    for folder in folders:
        for path in folder.rglob("*.py"):
            if path.is_file():
                names.setdefault(path.resolve(), path.relative_to(folder).as_posix())
    parts, size = [], 0
    for path in sorted(names, key=lambda path: hashlib.sha256(names[path].encode()).digest()):
        parts.append(path.read_bytes())
        size += len(parts[-1]) + 1
        if cap and size >= cap:
            break
    if not parts:
        raise MissingData(f"no Python sources in {', '.join(map(str, folders))}")
    return torch.frombuffer(bytearray(b"\n".join(parts)[: cap or None]), dtype=torch.uint8)


@dataclass(frozen=True)
class TextWindows(Batches):
    """Windows of a text at given places.

    Attributes:
        text: to train on, uint8 (bytes,).
        held_out: to validate on, uint8 (bytes,).
        starts: first bytes of the windows of each step, int64 (steps, batch).
        context: tokens that the model sees at a time; windows have one more.
        precision: of the validation.
    """

    text: Tensor
    held_out: Tensor
    starts: Tensor
    context: int
    precision: Precision = "float32"

    @property
    def classes(self) -> int:
        """Byte values."""
        return 256

    def to(self, device: str) -> TextWindows:
        """Text and places on `device`."""
        return dataclasses.replace(self, text=self.text.to(device), starts=self.starts.to(device))

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Cross-entropy in nats per byte."""
        window = torch.arange(self.context + 1, device=self.text.device)
        return next_token_loss(model, self.text[self.starts[step][:, None] + window].long())

    def validate(self, model: nn.Module) -> float:
        """Bits per byte of the held-out text."""
        return bits_per_byte(model, self.held_out, self.context, precision=self.precision)


def window_starts(size: int, steps: int, batch: int, context: int, seed: int) -> Tensor:
    """Uniformly random places of windows of context + 1 bytes in a text of `size`: int64 (steps, batch)."""
    if size <= context:
        raise ValueError(f"a text of {size} bytes has no window of {context + 1}")
    return torch.randint(size - context, (steps, batch), generator=torch_generator(seed, "windows"))
