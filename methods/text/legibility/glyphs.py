"""GNU Unifont: the glyphs of the paper's font, and lines of text drawn with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from harness import data
from harness.errors import RequestError

SIDE = 16
"""Rows and columns of a glyph's bitmap; a narrow glyph has its ink in the left half."""
LEFT = 10
HEIGHT = 40
"""A line in the paper's layout is `HEIGHT` pixels high and begins `LEFT` pixels from the left edge, at 32 px."""


@dataclass(frozen=True)
class Glyphs:
    """A table of glyphs in the order of their code points.

    Attributes:
        codepoints: int32, shape (glyphs,), ascending.
        widths: advance in pixels, 8 or 16, shape (glyphs,).
        bitmaps: uint8, 1 = ink, shape (glyphs, 16, 16).
    """

    codepoints: np.ndarray
    widths: np.ndarray
    bitmaps: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """The bitmaps as unit vectors: float32, shape (glyphs, 256); of a glyph without ink the zero vector."""
        flat = self.bitmaps.reshape(len(self.bitmaps), -1).astype(np.float32)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {chr(codepoint): place for place, codepoint in enumerate(self.codepoints.tolist())}

    def places(self, text: str) -> list[int]:
        """The rows of the characters of `text` in this table; -1 for a character without a glyph."""
        return [self._place.get(character, -1) for character in text]

    def cosines(self, letters: str) -> np.ndarray:
        """Cosines between `letters` and all glyphs: float32, shape (letters, glyphs).

        Raises:
            RequestError: one of them has no glyph.
        """
        rows = self.places(letters)
        if -1 in rows:
            raise RequestError(f"the font has no glyph for {letters[rows.index(-1)]!r}")
        return self.vectors[rows] @ self.vectors.T


@lru_cache(maxsize=1)
def unifont() -> Glyphs:
    """The glyphs of the data set ``unifont-glyphs``.

    Raises:
        MissingData: it is not here.
    """
    archive = data.arrays("unifont-glyphs", "unifont_glyphs.npz")
    bitmaps = np.unpackbits(archive["bitmaps"], axis=1).reshape(-1, SIDE, SIDE)
    return Glyphs(archive["codepoints"], archive["width"], bitmaps)


def missing_glyph() -> np.ndarray:
    """What stands for a character without a glyph: an empty box, uint8, shape (16, 16)."""
    box = np.zeros((SIDE, SIDE), np.uint8)
    box[1:-1, 1:-1] = 1
    box[2:-2, 2:-2] = 0
    return box


def draw(text: str, glyphs: Glyphs) -> np.ndarray:
    """`text` on one line at 16 px, each glyph with its own advance: uint8, 1 = ink, shape (16, width)."""
    parts: list[np.ndarray] = []
    for character, place in zip(text, glyphs.places(text), strict=True):
        if character == " ":
            parts.append(np.zeros((SIDE, SIDE // 2), np.uint8))
        elif place < 0:
            parts.append(missing_glyph())
        else:
            parts.append(glyphs.bitmaps[place][:, : int(glyphs.widths[place])])
    return np.concatenate(parts, axis=1) if parts else np.zeros((SIDE, 0), np.uint8)


def line(perturbed: str, clean: str, glyphs: Glyphs) -> np.ndarray:
    """The picture that the paper's model sees: uint8, black (0) on white (255), shape (40, width).

    The perturbed word, two blanks and the clean word, at 32 px, at (10, 0).
    """
    ink = np.kron(draw(f"{perturbed}  {clean}", glyphs), np.ones((2, 2), np.uint8))
    picture = np.full((HEIGHT, LEFT + ink.shape[1]), 255, np.uint8)
    picture[: ink.shape[0], LEFT:] -= 255 * ink
    return picture


def cells(words: Sequence[str], glyphs: Glyphs, length: int) -> np.ndarray:
    """Rows of the glyph table, one for each character: int64, shape (words, length); `len(glyphs)` is a blank.

    A character without a glyph is `len(glyphs) + 1`, an empty box. `inked` has the pictures.

    Raises:
        RequestError: a word has more than `length` characters.
    """
    blank, box = len(glyphs.codepoints), len(glyphs.codepoints) + 1
    found = np.full((len(words), length), blank, np.int64)
    for row, word in enumerate(words):
        if len(word) > length:
            raise RequestError(f"'{word}' has {len(word)} characters, there is room for {length}")
        found[row, : len(word)] = [box if place < 0 else place for place in glyphs.places(word)]
    return found


def inked(glyphs: Glyphs) -> np.ndarray:
    """The bitmaps with a blank and an empty box behind them: uint8, shape (glyphs + 2, 16, 16)."""
    return np.concatenate([glyphs.bitmaps, np.zeros((1, SIDE, SIDE), np.uint8), missing_glyph()[None]])


def stripped(text: str) -> str:
    """`text` in compatibility decomposition (NFKD) without its marks, as an accent-stripping tokenizer sees it."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
