"""Pairs of perturbed words with a choice between them: from the reader, or the annotators' in LEGIT."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from harness import data
from harness.errors import MissingData, RequestError
from methods.text.legibility import ocr
from methods.text.legibility.glyphs import unifont
from methods.text.legibility.perturbation import MOST, neighbours, perturb
from methods.text.legibility.reader import Reader, choose

WORD = re.compile(r"[a-z]+")
POLARITY = ("sentence-polarity", "sentence_polarity.jsonl.gz")
LEGIT = "legit"
LEGIT_HUB = "dvsth/LEGIT"

Oracle = Literal["noisy-channel-reader", "ocr-reader"]
"""Who says what is legible where there are no annotators: see `reader` and `ocr`."""


@dataclass(frozen=True)
class Pairs:
    """Records: a word, two perturbations of it, and which is more legible.

    Attributes:
        words: the clean words.
        first, second: the perturbations.
        k, n: their strengths: int64 and float64, shape (pairs, 2).
        choice: int64, shape (pairs,): 0 first more legible, 1 second, 2 both legible, 3 neither.
        pictures: of the data set, where it has them: for each pair two arrays, uint8, shape (height, width).
    """

    words: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    k: np.ndarray
    n: np.ndarray
    choice: np.ndarray
    pictures: tuple[tuple[np.ndarray, np.ndarray], ...] | None = None

    def __len__(self) -> int:
        return len(self.words)

    def perturbed(self) -> list[str]:
        """All first perturbations, then all second ones."""
        return [*self.first, *self.second]

    def take(self, rows: Sequence[int] | np.ndarray) -> Pairs:
        """Some of the pairs."""
        places = [int(row) for row in rows]
        return Pairs(
            *(tuple(column[p] for p in places) for column in (self.words, self.first, self.second)),
            *(column[places] for column in (self.k, self.n, self.choice)),
            None if self.pictures is None else tuple(self.pictures[p] for p in places),
        )

    def swapped(self) -> Pairs:
        """The same pairs with first and second exchanged."""
        choice = np.where(self.choice < 2, 1 - self.choice, self.choice)
        pictures = None if self.pictures is None else tuple((b, a) for a, b in self.pictures)
        return Pairs(self.words, self.second, self.first, self.k[:, ::-1], self.n[:, ::-1], choice, pictures)


@lru_cache(maxsize=1)
def polarity() -> tuple[tuple[str, int], ...]:
    """The sentences of the data set ``sentence-polarity`` and their labels, 1 = positive.

    Raises:
        MissingData: it is not here.
    """
    rows = map(json.loads, data.text(*POLARITY).splitlines())
    return tuple((row["text"], int(row["label"])) for row in rows)


def word_counts(texts: Sequence[str]) -> Counter[str]:
    """How often each word of the letters a to z stands between white space in `texts`."""
    return Counter(token for text in texts for token in text.split() if WORD.fullmatch(token))


@lru_cache(maxsize=2)
def polarity_reader() -> tuple[Reader, tuple[str, ...]]:
    """The reader over the words of ``sentence-polarity``, and those words in alphabetical order."""
    counts = word_counts([text for text, _ in polarity()])
    return Reader(unifont(), counts), tuple(sorted(counts))


def oracle_pairs(
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    longest: int,
    least_n: float,
    space: str,
    oracle: Oracle = "noisy-channel-reader",
) -> list[Pairs]:
    """Parts of pairs whose choices are an oracle's; no word is in two of them, and none twice in one.

    Args:
        sizes: pairs of each part.
        rng: of words, strengths, perturbations and the participants' noise.
        longest: letters of the longest word; the shortest has 3.
        least_n: n is uniform from here to 1; k is uniform from 1 to `MOST`.
        space: see `neighbours`.
        oracle: the reader over the corpus's words, or a recogniser that calls two legible words equally legible.

    Raises:
        MissingPackage: the recogniser's package is not installed.
        RequestError: there are not so many words.
    """
    reader, dictionary = polarity_reader()
    table = neighbours(space)
    candidates = [word for word in dictionary if 3 <= len(word) <= longest]
    total = sum(sizes)
    if total > len(candidates):
        raise RequestError(
            f"{total} pairs need as many words of 3 to {longest} letters, there are {len(candidates)}"
        )
    words = [candidates[place] for place in rng.permutation(len(candidates))[:total]]
    k = rng.integers(1, MOST + 1, (total, 2))
    n = rng.uniform(least_n, 1.0, (total, 2))
    columns = [
        [perturb(word, int(k[row, side]), float(n[row, side]), table, rng) for row, word in enumerate(words)]
        for side in (0, 1)
    ]
    if oracle == "ocr-reader":
        legible = np.stack([ocr.legible(words, column) for column in columns], 1)
        choice = choose(legible, np.zeros(legible.shape))
    else:
        judged = [reader.judge(words, column, rng) for column in columns]
        choice = choose(np.stack([j[0] for j in judged], 1), np.stack([j[1] for j in judged], 1))
    whole = Pairs(tuple(words), tuple(columns[0]), tuple(columns[1]), k, n, choice)
    ends = np.cumsum([0, *sizes])
    return [whole.take(range(a, b)) for a, b in itertools.pairwise(ends)]


def legit_pairs(split: str) -> Pairs:
    """A split of LEGIT with its annotators' choices: ``train``, ``valid`` or ``test``.

    Read from ``HARNESS_DATA``/legit/<split>.jsonl, or from the Hugging Face hub.

    Raises:
        MissingData: it is in neither place, or a column is missing.
    """
    table = data.table(LEGIT, f"{split}.jsonl", data.Hub(LEGIT_HUB, split))
    needed = {"word", "word0", "word1", "k", "n", "k1", "n1", "choice"}
    if missing := needed - set(table.column_names):
        raise MissingData(f"LEGIT's {split} has no column {', '.join(sorted(missing))}")
    pictures = None
    if {"img0", "img1"} <= set(table.column_names):
        pictures = tuple((_grey(row["img0"]), _grey(row["img1"])) for row in table)
    return Pairs(
        tuple(table["word"]),
        tuple(table["word0"]),
        tuple(table["word1"]),
        np.stack([np.asarray(table["k"], np.int64), np.asarray(table["k1"], np.int64)], 1),
        np.stack([np.asarray(table["n"], float), np.asarray(table["n1"], float)], 1),
        np.asarray(table["choice"], np.int64),
        pictures,
    )


def _grey(picture: Any) -> np.ndarray:
    return np.asarray(picture.convert("L"), np.uint8)
