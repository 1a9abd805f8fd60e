"""Who says what is legible where there are no human labels: a noisy-channel reader with Unifont eyes.

It knows the words of a corpus and how often each occurs. Of a perturbed word w' it takes a word w of the same length for

    score(w | w') = beta sum_i cos(g(w'_i), g(w_i)) + 0.5 ln count(w),

with g the unit vectors of the glyphs' pixels. In a trial, Gumbel noise is added to every score: that is a participant who
picks word w with a probability proportional to exp(score / noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from methods.text.legibility.glyphs import Glyphs
from methods.text.legibility.perturbation import ALPHABET

BETA = 12.0
NOISE = 1.0
TRIALS = 5
NEEDED = 4
"""Of `TRIALS` participants so many must name the true word for it to be legible."""
MARGIN = 1.0
"""Two legible words whose margins differ by less are equally legible."""


@dataclass(frozen=True)
class _Lexicon:
    """The words of one length: letters as numbers (words, length), half the log counts (words,)."""

    words: list[str]
    place: Mapping[str, int]
    letters: np.ndarray
    prior: np.ndarray


class Reader:
    """The reader over a dictionary.

    Args:
        glyphs: the font.
        counts: words of the letters a to z and how often each occurs, at least once.
        beta: weight of the looks.
        noise: scale of the Gumbel noise of a trial.
    """

    def __init__(
        self, glyphs: Glyphs, counts: Mapping[str, int], beta: float = BETA, noise: float = NOISE
    ) -> None:
        self.glyphs, self.noise = glyphs, noise
        # A character without a glyph, at place -1, looks like nothing.
        self._looks = beta * np.vstack([glyphs.cosines(ALPHABET).T, np.zeros((1, len(ALPHABET)), np.float32)])
        by_length: dict[int, list[str]] = {}
        for word in sorted(counts):
            by_length.setdefault(len(word), []).append(word)
        self._lexicons = {
            length: _Lexicon(
                words,
                {word: place for place, word in enumerate(words)},
                np.array([[ALPHABET.index(letter) for letter in word] for word in words]),
                0.5 * np.log([counts[word] for word in words]),
            )
            for length, words in by_length.items()
        }

    def scores(self, perturbed: Sequence[str]) -> np.ndarray:
        """Scores of all words of the dictionary with the length of `perturbed`, which is one: (perturbed, words)."""
        group = self._lexicons[len(perturbed[0])]
        looks = self._looks[np.array([self.glyphs.places(word) for word in perturbed])]
        total = np.tile(group.prior, (len(perturbed), 1))
        for position in range(looks.shape[1]):
            total += looks[:, position][:, group.letters[:, position]]
        return total

    def read(self, perturbed: Sequence[str]) -> list[str]:
        """What the noise-free reader reads; "" where no word has that length."""
        found = [""] * len(perturbed)
        for rows, group in self._groups(perturbed):
            best = self.scores([perturbed[row] for row in rows]).argmax(1)
            for row, place in zip(rows, best.tolist(), strict=True):
                found[row] = group.words[place]
        return found

    def judge(
        self, words: Sequence[str], perturbed: Sequence[str], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether participants read each word, and by how much it wins without noise.

        Args:
            words: the true words, of the dictionary.
            perturbed: what is shown instead of each, of the same length or longer or shorter.
            rng: of the participants' noise.

        Returns:
            legible: bool, shape (words,): at least `NEEDED` of `TRIALS` participants name the true word. Of another
                length than the true word, it is read by nobody.
            margins: float64, shape (words,): the true word's score less the best other one; -inf where it is read by
                nobody.
        """
        legible = np.zeros(len(words), bool)
        margins = np.full(len(words), -np.inf)
        for rows, group in self._groups(perturbed):
            kept = [row for row in rows if words[row] in group.place]
            for start in range(0, len(kept), 256):  # scores and noise of a batch fit into the processor's cache
                part = kept[start : start + 256]
                truth = np.array([group.place[words[row]] for row in part])
                scores = self.scores([perturbed[row] for row in part])
                named = sum(
                    (scores + self.noise * rng.gumbel(size=scores.shape)).argmax(1) == truth
                    for _ in range(TRIALS)
                )
                legible[part] = named >= NEEDED
                at = np.arange(len(part)), truth
                true = scores[at].copy()
                scores[at] = -np.inf
                margins[part] = true - scores.max(1)
        return legible, margins

    def _groups(self, perturbed: Sequence[str]) -> list[tuple[list[int], _Lexicon]]:
        by_length: dict[int, list[int]] = {}
        for row, word in enumerate(perturbed):
            by_length.setdefault(len(word), []).append(row)
        return [(rows, self._lexicons[n]) for n, rows in sorted(by_length.items()) if n in self._lexicons]


def choose(legible: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """An annotator's choice for pairs: int64, shape (pairs,).

    3 where neither is legible, 2 where both are and their margins differ by less than `MARGIN`, else 0 or 1 for the
    first or the second: the legible one where only one is, the one with the larger margin where both are.

    Args:
        legible: bool, shape (pairs, 2).
        margins: shape (pairs, 2).
    """
    both, neither = legible.all(1), ~legible.any(1)
    with np.errstate(invalid="ignore"):  # the difference of two words that nobody reads
        ahead = margins[:, 1] - margins[:, 0]
    second = np.where(both, ahead > 0, legible[:, 1])
    choice = second.astype(np.int64)
    choice[both & (np.abs(ahead) < MARGIN)] = 2
    choice[neither] = 3
    return choice
