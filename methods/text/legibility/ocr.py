"""Who says what is legible where a recogniser of text does: PP-OCRv4, as the package rapidocr-onnxruntime carries it.

It sees the picture of a word in the paper's font, black on white, and no dictionary. A word is legible if it reads the
clean one, whatever the case and the accents of the letters that it reads: a person who reads "gréat" has read "great".
It says nothing of how well a word can be read, so that of two legible words none is the more legible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from harness import cache
from harness.errors import MissingPackage, first_line
from methods.text.legibility.glyphs import Glyphs, draw, stripped, unifont

PACKAGE = "rapidocr-onnxruntime"
MARGIN = 8
"""Pixels of white around a word whose glyphs are 32 px high."""


@lru_cache(maxsize=1)
def _recogniser() -> Any:
    """The package's recogniser of one line, and nothing of what finds lines.

    Raises:
        MissingPackage: the package is not installed, or what it needs of the system is not.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise MissingPackage(
            f"labels of a recogniser need the package {PACKAGE} ({first_line(error)}):"
            f" pip install '{PACKAGE}>=1.4.4,<2'"
        ) from error
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_rec


def picture(word: str, glyphs: Glyphs) -> np.ndarray:
    """`word` alone at 32 px, black (0) on white (255): uint8, shape (48, width, 3)."""
    ink = np.kron(draw(word, glyphs), np.ones((2, 2), np.uint8))
    return np.repeat(255 - 255 * np.pad(ink, MARGIN)[..., None], 3, axis=2)


def recognise(words: Sequence[str]) -> list[str]:
    """What the recogniser reads for each of `words`, "" where it sees no text.

    Raises:
        MissingPackage: the package is not installed.
    """
    if not words:
        return []
    glyphs = unifont()
    found, _ = _recogniser()([picture(word, glyphs) for word in words])
    return [text for text, _ in found]


def plain(text: str) -> str:
    """`text` in compatibility decomposition without accents, white space and case."""
    return "".join(stripped(text).split()).casefold()


def readings(words: Sequence[str], directory: Path | None = None) -> dict[str, str]:
    """What is read for each distinct word of `words`; read once, then kept in the cache.

    Raises:
        MissingPackage: the package is not installed.
    """
    distinct = sorted(set(words))
    _recogniser()  # so that a missing package shows here
    recipe = {
        "package": metadata.version(PACKAGE),
        "margin": MARGIN,
        "words": hashlib.sha256("\n".join(distinct).encode()).hexdigest(),
        "version": 1,
    }

    def make(path: Path) -> None:
        read = dict(zip(distinct, recognise(distinct), strict=True))
        path.write_text(json.dumps(read, ensure_ascii=False), encoding="utf-8")

    kept = cache.artefact("ocr-readings", recipe, make, directory)
    found: dict[str, str] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def legible(words: Sequence[str], perturbed: Sequence[str], directory: Path | None = None) -> np.ndarray:
    """Whether the recogniser reads each word from the picture of its perturbation: bool, shape (words,).

    Raises:
        MissingPackage: the package is not installed.
    """
    read = readings(perturbed, directory)
    return np.array(
        [plain(read[shown]) == word for word, shown in zip(words, perturbed, strict=True)], dtype=bool
    )
