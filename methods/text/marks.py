"""Punctuation marks, and the ways in which training and test text loses or multiplies them."""

from __future__ import annotations

import re
import string
import unicodedata

import numpy as np

# fmt: off
MARKS: tuple[str, ...] = tuple(
    string.punctuation
    + "“”‘’„‚«»‹›–—…•·¡¿§¶†‡°′″‐‑‒―№"  # of European typography
    + "。、，．！？；：（）【】「」『』《》〈〉・～〜－"  # of Chinese and Japanese
    + "،؛؟۔" + "।॥" + "።፣፤፥፧"  # of Arabic, Indic and Ethiopic script
    + "។៕៖" + "၊။" + "།" + "՝՜՞։" + "־׳״"  # of Khmer, Burmese, Tibetan, Armenian and Hebrew script
)
# fmt: on
"""The marks that the auxiliary objective tells apart: as many as in the paper, 109, chosen here."""

_RUN = re.compile(r"[^\S\n]+")
_AROUND_LINE_END = re.compile(r" ?\n[ \n]*")


class _Stripped(dict[int, str | None]):
    """A table for `str.translate` that deletes marks and leaves every other character, filled on demand."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept = None if character in MARKS or unicodedata.category(character)[0] == "P" else character
        self[code] = kept
        return kept


_STRIPPED = _Stripped()


def tidy(text: str) -> str:
    """`text` with one blank for each run of white space, and none beside a line end or at either end."""
    return _AROUND_LINE_END.sub("\n", _RUN.sub(" ", text)).strip(" \n")


def without_marks(text: str) -> str:
    """`text` without `MARKS` and all other characters of Unicode's punctuation categories, tidied."""
    return tidy(text.translate(_STRIPPED))


def corrupt(text: str) -> str:
    """Full corruption, as text from speech recognition: lower-case and without any punctuation.

    Line ends stay where they are; lines that held nothing but marks are gone. Idempotent.
    """
    return without_marks(text.lower())


def social(sentence: str, draw: np.random.Generator) -> str:
    """A sentence as in social media: marks gone with probability 0.5, lower-case with 0.5, marks repeated.

    Each mark that is left is followed by c copies of itself, c geometric with parameter 1/2, counted from 0.
    """
    if draw.random() < 0.5:
        sentence = without_marks(sentence)
    if draw.random() < 0.5:
        sentence = sentence.lower()
    return "".join(c * int(draw.geometric(0.5)) if c in MARKS else c for c in sentence)
