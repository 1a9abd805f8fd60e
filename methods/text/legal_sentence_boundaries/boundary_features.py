"""The features of CharBoundary: a window of character classes and eight observations, for all candidates at once.

Every feature is computed with arrays over the document, so that the cost is linear in its length.
"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

PRIMARY = ".!?"
SECONDARY = "\"”'’;:"
CANDIDATES = PRIMARY + SECONDARY
LINE_ENDS = "\n\r"
CLOSING_QUOTES = "\"”'’"
QUOTES = "\"“”'‘’"
EXTRAS = 8
"""Features after the window."""

OUTSIDE = -3
"""The class of what lies outside the text: that of white space."""

_LIST_SPACE = 20
_SEMICOLON_SPACE = 50
_COLON_SPACE = 10

_MARKER = re.compile(
    r"""
    (?: ^[ \t]* | (?<=[;:,])\s+ | (?<=\sand\s) | (?<=\sor\s) )          # at a line's start, or in an enumeration
    (?P<marker> \((?:\d{1,2}|[ivx]{1,4}|[a-z])\) | (?:\d{1,2}|[ivx]{1,4}|[a-z])[.)] | [•·○●■□▪▫] )
    """,
    re.VERBOSE | re.MULTILINE,
)
_INTRODUCTION = re.compile(
    r"(?:following(?: items)?|as follows|includ(?:e|ing)|such as|namely|(?:listed|items) below):"
)
_CONJUNCTION = re.compile(r"\s(?:and/or|and|or|as well as)\s")


def character_class(character: str) -> int:
    """The class of a character.

    Letters a-z are 1 to 26 without regard to case and other letters 27, digits 0, sentence terminators -1, paragraph
    marks -2, white space -3, other punctuation -4, the rest -5.
    """
    if character.isalpha():
        letter = ord(character.lower()[0]) - ord("a") + 1
        return letter if 1 <= letter <= 26 else 27
    if character.isdigit():
        return 0
    if character in CANDIDATES:
        return -1
    if character in LINE_ENDS:
        return -2
    if character.isspace():
        return -3
    return -4 if character in ")]}({[»«›‹“‘_,&-–—‐‑‒―" else -5


class Characters:
    """A text as arrays over its n characters.

    Args:
        text: the text; lone surrogates are allowed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def _distinct(self) -> tuple[list[str], NDArray[np.intp]]:
        codes, inverse = np.unique(self.codes, return_inverse=True)
        return [chr(code) for code in codes.tolist()], inverse.reshape(-1)

    @cached_property
    def classes(self) -> NDArray[np.int16]:
        """Shape (n,), int16: the `character_class` of each."""
        distinct, inverse = self._distinct
        return np.array([character_class(c) for c in distinct], dtype=np.int16)[inverse]

    def among(self, characters: str) -> Mask:
        """Shape (n,), bool: which are one of `characters`."""
        distinct, inverse = self._distinct
        return np.array([c in characters for c in distinct], dtype=bool)[inverse]

    @cached_property
    def lower(self) -> Mask:
        """Shape (n,), bool: which are lower-case."""
        distinct, inverse = self._distinct
        return np.array([c.islower() for c in distinct], dtype=bool)[inverse]

    @cached_property
    def in_word(self) -> Mask:
        """Shape (n,), bool: letters, digits and periods."""
        distinct, inverse = self._distinct
        return np.array([c.isalnum() or c == "." for c in distinct], dtype=bool)[inverse]

    def sums(self, mask: Mask) -> NDArray[np.int64]:
        """Shape (n + 1,), int64: how many of `mask` lie before each offset."""
        return np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))

    def count(self, mask: Mask, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of `mask` lie in each [start, end), cut to the text."""
        sums = self.sums(mask)
        return sums[np.clip(end, 0, len(self))] - sums[np.clip(start, 0, len(self))]


def candidates(characters: Characters, line_ends: bool = False) -> NDArray[np.int64]:
    """The positions of the characters that may end a sentence, in rising order: int64."""
    return np.flatnonzero(characters.among(CANDIDATES + (LINE_ENDS if line_ends else "")))


def features(
    characters: Characters,
    positions: NDArray[np.int64],
    left: int,
    right: int,
    abbreviations: frozenset[str],
) -> NDArray[np.int16]:
    """The features of the characters at `positions`.

    Args:
        characters: the text.
        positions: shape (m,), int64.
        left, right: characters in the window before and after the position.
        abbreviations: abbreviations as written, with their period.

    Returns:
        Shape (m, left + 1 + right + 8), int16: the classes in the window, then
        in an abbreviation, kind of terminator (1, -1 or 0), quotes balanced so far, word complete at a quote,
        next character lower-case, in a list item, semicolon in a list, colon shortly before.
    """
    padded = np.concatenate(
        (np.full(left, OUTSIDE, np.int16), characters.classes, np.full(right, OUTSIDE, np.int16))
    )
    window = padded[positions[:, None] + np.arange(left + 1 + right)]
    primary = characters.among(PRIMARY)[positions].astype(np.int16)
    secondary = characters.among(SECONDARY)[positions].astype(np.int16)
    next_lower = np.append(characters.lower, False)[positions + 1]
    extras = (
        _abbreviated(characters, positions, abbreviations),
        primary - secondary,
        _balanced(characters, positions),
        ~(characters.among(CLOSING_QUOTES)[positions] & next_lower),
        next_lower,
        _in_list(characters, positions),
        _semicolon_in_list(characters, positions),
        characters.count(characters.among(":"), positions - _COLON_SPACE, positions) > 0,
    )
    return np.column_stack((window, *(extra.astype(np.int16) for extra in extras)))


def _abbreviated(characters: Characters, positions: NDArray[np.int64], abbreviations: frozenset[str]) -> Mask:
    """Whether the position is a period that ends one of `abbreviations`."""
    places = np.arange(len(characters))
    starts = np.maximum.accumulate(np.where(characters.in_word, -1, places)) + 1
    period = characters.among(".")[positions]
    flags = np.zeros(len(positions), dtype=bool)
    text = characters.text
    flags[period] = [
        text[start : end + 1] in abbreviations
        for start, end in zip(starts[positions[period]].tolist(), positions[period].tolist(), strict=True)
    ]
    return flags


def _balanced(characters: Characters, positions: NDArray[np.int64]) -> Mask:
    """Whether all quotes up to a position are paired; True where the position is no quote."""

    def seen(quote: str) -> NDArray[np.int64]:
        return characters.sums(characters.among(quote))[positions + 1]

    paired = (seen('"') % 2 == 0) & (seen("'") % 2 == 0) & (seen("“") == seen("”")) & (seen("‘") == seen("’"))
    balanced: Mask = paired | ~characters.among(QUOTES)[positions]
    return balanced


def _covered(characters: Characters, pattern: re.Pattern[str], group: int | str = 0) -> Mask:
    """Shape (n,), bool: the characters of the matches of `pattern`."""
    steps = np.zeros(len(characters) + 1, dtype=np.int64)
    for match in pattern.finditer(characters.text):
        steps[match.start(group)] += 1
        steps[match.end(group)] -= 1
    return np.cumsum(steps[:-1]) > 0


def _ends(characters: Characters, pattern: re.Pattern[str], group: int | str = 0) -> Mask:
    """Shape (n,), bool: the last characters of the matches of `pattern`."""
    mask = np.zeros(len(characters), dtype=bool)
    mask[[match.end(group) - 1 for match in pattern.finditer(characters.text)]] = True
    return mask


def _in_list(characters: Characters, positions: NDArray[np.int64]) -> Mask:
    """In or right after an enumeration mark, or shortly after the colon that introduces a list."""
    marked = _covered(characters, _MARKER, "marker")
    introduced = characters.count(_ends(characters, _INTRODUCTION), positions - _LIST_SPACE, positions + 1)
    return marked[positions] | marked[np.maximum(positions - 1, 0)] | (introduced > 0)


def _semicolon_in_list(characters: Characters, positions: NDArray[np.int64]) -> Mask:
    """A semicolon with another one, an enumeration mark, a list's colon before it or a conjunction after it nearby."""
    semicolons = characters.among(";")
    before, after = positions - _SEMICOLON_SPACE, positions + _SEMICOLON_SPACE
    evidence = (
        (characters.count(semicolons, before, after) >= 2)
        | (characters.count(_ends(characters, _MARKER, "marker"), before, after) > 0)
        | (characters.count(_ends(characters, _INTRODUCTION), before, positions) > 0)
        | (characters.count(_ends(characters, _CONJUNCTION), positions, after) > 0)
    )
    return semicolons[positions] & evidence
