"""Changing the words of a text: look-alikes, accents and letter edits."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from methods.text.legibility.glyphs import unifont
from methods.text.legibility.pairs import WORD
from methods.text.legibility.perturbation import ALPHABET

Change = Callable[[str, np.random.Generator], str]


def changed(texts: Sequence[str], change: Change, rng: np.random.Generator) -> list[str]:
    """`texts` with `change` applied to each word of the letters a to z; everything else stays."""
    return [
        " ".join(change(token, rng) if WORD.fullmatch(token) else token for token in text.split())
        for text in texts
    ]


def replaced(word: str, rate: float, table: Mapping[str, str], k: int, rng: np.random.Generator) -> str:
    """Each character with probability `rate` exchanged for one of the first k of its entry in `table`, if it has one."""
    hit = rng.random(len(word)) < rate
    return "".join(
        table[letter][rng.integers(min(k, len(table[letter])))] if struck and table.get(letter) else letter
        for letter, struck in zip(word, hit, strict=True)
    )


@lru_cache(maxsize=1)
def accented() -> Mapping[str, str]:
    """For each letter the characters of Unifont that are the letter and one combining mark; none for q.

    Characters that decompose canonically (NFD), so that a victim that strips accents sees the letter itself.
    """
    found: dict[str, list[str]] = {letter: [] for letter in ALPHABET}
    for codepoint in unifont().codepoints.tolist():
        parts = unicodedata.normalize("NFD", chr(codepoint))
        if len(parts) == 2 and parts[0] in found and unicodedata.category(parts[1]) == "Mn":
            found[parts[0]].append(chr(codepoint))
    return {letter: "".join(characters) for letter, characters in found.items()}


def swapped(word: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters exchanged, not the first or the last where there are two others; unchanged below 2."""
    low, high = (1, len(word) - 2) if len(word) > 3 else (0, len(word) - 1)
    places = [place for place in range(low, high) if word[place] != word[place + 1]]
    if not places:
        return word
    at = places[rng.integers(len(places))]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def dropped(word: str, rng: np.random.Generator) -> str:
    """One letter left out, not the first or the last; unchanged below 3."""
    if len(word) < 3:
        return word
    at = rng.integers(1, len(word) - 1)
    return word[:at] + word[at + 1 :]


def inserted(word: str, rng: np.random.Generator) -> str:
    """A random letter put in after the first or later; unchanged below 2."""
    if len(word) < 2:
        return word
    at = rng.integers(1, len(word))
    return word[:at] + ALPHABET[rng.integers(len(ALPHABET))] + word[at:]


def at_rate(edit: Change, rate: float) -> Change:
    """`edit` for a share `rate` of the words."""
    return lambda word, rng: edit(word, rng) if rng.random() < rate else word
