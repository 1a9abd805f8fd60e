"""What legibility models and legible attacks are compared with."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.method import Method, method
from harness.types import PositiveInt
from methods.text.legibility import attacks
from methods.text.legibility.glyphs import stripped, unifont
from methods.text.legibility.objectives import best_threshold, known_labels
from methods.text.legibility.pairs import Pairs
from methods.text.legibility.perturbation import neighbours
from methods.text.legibility.tasks import Judgements
from methods.text.legibility.victims import Attacked, AttackWork


@method("always-legible", task="word-legibility")
class AlwaysLegible(Method[Judgements, np.ndarray]):
    """Every word is legible, so that every pair is a tie."""

    def prepare(self, work: Judgements) -> None:
        """Nothing."""

    def run(self) -> np.ndarray:
        """One score for all."""
        return np.ones((len(self.work.test), 2))


def glyph_distances(words: Sequence[str], perturbed: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest cosine distance of the glyphs of each perturbed word to those of the clean one, shape
    (words,) each.

    A character without a glyph is at distance 1. Words are compared character by character, as far as both go.
    """
    font = unifont()
    vectors = np.vstack([font.vectors, np.zeros((1, font.vectors.shape[1]), np.float32)])
    mean, largest = np.zeros(len(words)), np.zeros(len(words))
    for row, (word, shown) in enumerate(zip(words, perturbed, strict=True)):
        pairs = zip(font.places(word), font.places(shown), word, shown, strict=False)
        gaps = [0.0 if c == s else 1 - float(vectors[a] @ vectors[b]) for a, b, c, s in pairs]
        mean[row], largest[row] = float(np.mean(gaps)), max(gaps)
    return mean, largest


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's: least insertions, deletions and exchanges that make `b` of `a`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


class _Threshold(Method[Judgements, np.ndarray]):
    """A distance; a word is legible below the threshold with the best F1 on the training pairs."""

    @abstractmethod
    def distances(self, words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
        """Shape (words,)."""

    def prepare(self, work: Judgements) -> None:
        """Read what the distance needs."""

    def run(self) -> np.ndarray:
        """Find the threshold, then threshold less distance for the test pairs."""
        work = self.work
        threshold = best_threshold(-self._both(work.training), work.training.choice)
        return -self._both(work.test) - threshold

    def _both(self, pairs: Pairs) -> np.ndarray:
        return np.stack([self.distances(pairs.words, shown) for shown in (pairs.first, pairs.second)], 1)


@method("share-changed", task="word-legibility")
class ShareChanged(_Threshold):
    """The share of characters that differ from the clean word's."""

    def distances(self, words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
        """Characters that differ over characters of the word."""
        return np.array(
            [
                np.mean([a != b for a, b in zip(w, s, strict=False)])
                for w, s in zip(words, perturbed, strict=True)
            ]
        )


@method("glyph-distance", task="word-legibility")
class GlyphDistance(_Threshold):
    """The mean cosine distance of the glyphs' pixels (`imgdot`)."""

    def distances(self, words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
        """Of `glyph_distances`."""
        return glyph_distances(words, perturbed)[0]


@method("stripped-edit-distance", task="word-legibility")
class StrippedEditDistance(_Threshold):
    """Edits between the words once accents are stripped (NFKD), over the length."""

    def distances(self, words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
        """Levenshtein's distance over the length of the word."""
        return np.array([edit_distance(w, stripped(s)) / len(w) for w, s in zip(words, perturbed, strict=True)])


@method("confusables-table", task="word-legibility", packages=("confusable-homoglyphs>=3.3",))
class ConfusablesTable(_Threshold):
    """The share of characters that Unicode's table of confusables does not hold for the letter, accents stripped."""

    def prepare(self, work: Judgements) -> None:
        """For each letter the characters that the table takes for it."""
        from methods.text.legibility.perturbation import ALPHABET

        self.look_alikes = {letter: {letter, *confusable_with(letter)} for letter in ALPHABET}

    def distances(self, words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
        """Characters that are neither the letter, nor a confusable of it, nor the letter with accents."""
        return np.array(
            [
                np.mean(
                    [
                        b not in self.look_alikes.get(a, {a}) and stripped(b) != a
                        for a, b in zip(word, shown, strict=False)
                    ]
                )
                for word, shown in zip(words, perturbed, strict=True)
            ]
        )


def confusable_with(letter: str) -> set[str]:
    """The single characters that Unicode's table of confusables has for a letter, by confusable-homoglyphs."""
    from confusable_homoglyphs import confusables

    found = confusables.is_confusable(letter, greedy=True, preferred_aliases=[])
    entries: list[dict[str, Any]] = [] if found is False else found
    return {h["c"] for entry in entries for h in entry["homoglyphs"] if len(h["c"]) == 1}


SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")


def features(words: Sequence[str], perturbed: Sequence[str]) -> np.ndarray:
    """Mean and largest glyph distance, share changed, length, and the shares of scripts: shape (words, 4 +
    scripts + 1)."""
    mean, largest = glyph_distances(words, perturbed)
    rows = []
    for word, shown in zip(words, perturbed, strict=True):
        scripts = [unicodedata.name(c, "").partition(" ")[0] for c in shown]
        shares = [scripts.count(s) / len(scripts) for s in SCRIPTS]
        n = float(np.mean([a != b for a, b in zip(word, shown, strict=False)]))
        rows.append([n, len(word), *shares, 1 - sum(shares)])
    return np.column_stack([mean, largest, np.array(rows)])


@method("feature-regression", task="word-legibility")
class FeatureRegression(Method[Judgements, np.ndarray]):
    """A logistic regression on glyph distances, share changed, length and scripts; a word is legible from
    even odds on."""

    iterations: PositiveInt = 1000
    """Most iterations of the solver."""

    def prepare(self, work: Judgements) -> None:
        """Read the font."""
        unifont()

    def run(self) -> np.ndarray:
        """Fit on the words of the training pairs whose label is known; log odds of the test pairs."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        training, test = self.work.training, self.work.test
        labels, known = known_labels(training.choice)
        sides = [features(training.words, shown) for shown in (training.first, training.second)]
        rows = np.concatenate([side[known[:, place]] for place, side in enumerate(sides)])
        truth = np.concatenate([labels[known[:, place], place] for place in (0, 1)])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=self.iterations)).fit(rows, truth)
        return np.stack(
            [model.decision_function(features(test.words, shown)) for shown in (test.first, test.second)], 1
        )


class _Attack(Method[AttackWork, Attacked]):
    """Each word changed at each of the rates."""

    @abstractmethod
    def change(self, rate: float) -> attacks.Change:
        """What is done to a word at a rate."""

    @abstractmethod
    def strengths(self) -> tuple[float, ...]:
        """The rates."""

    def prepare(self, work: AttackWork) -> None:
        """Read the font."""
        unifont()

    def run(self) -> Attacked:
        """The changed texts by rate."""
        return {
            f"rate={rate}": attacks.changed(
                self.work.test, self.change(rate), self.context.rng("attack", repr(rate))
            )
            for rate in self.strengths()
        }


@method("accent-attack", task="legible-attack")
class AccentAttack(_Attack):
    """Each letter gets a random accent with a probability (VIPER, its easy variant)."""

    rates: tuple[float, ...] = (0.3, 0.6, 1.0)
    """Probabilities of a letter."""

    def strengths(self) -> tuple[float, ...]:
        """The rates."""
        return self.rates

    def change(self, rate: float) -> attacks.Change:
        """Letters exchanged for themselves with a mark; q, for which there is none, stays."""
        table = attacks.accented()
        return lambda word, rng: attacks.replaced(word, rate, table, 10**6, rng)


@method("viper-attack", task="legible-attack")
class ViperAttack(_Attack):
    """Each letter is exchanged with a probability for one of its nearest neighbours in pixels (VIPER)."""

    rates: tuple[float, ...] = (0.2, 0.4, 0.8)
    """Probabilities of a letter."""
    k: PositiveInt = 20
    """Neighbours to draw from, at most 50."""

    def strengths(self) -> tuple[float, ...]:
        """The rates."""
        return self.rates

    def change(self, rate: float) -> attacks.Change:
        """Letters exchanged for neighbours."""
        table = neighbours()
        return lambda word, rng: attacks.replaced(word, rate, table, self.k, rng)


class _Edits(_Attack):
    """One edit in a share of the words."""

    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 1.0)
    """Shares of the words."""

    def strengths(self) -> tuple[float, ...]:
        """The rates."""
        return self.rates


@method("letter-swaps", task="legible-attack")
class LetterSwaps(_Edits):
    """Two neighbouring letters of a word are exchanged."""

    def change(self, rate: float) -> attacks.Change:
        """Of `attacks.swapped`."""
        return attacks.at_rate(attacks.swapped, rate)


@method("letter-drops", task="legible-attack")
class LetterDrops(_Edits):
    """A letter of a word is left out."""

    def change(self, rate: float) -> attacks.Change:
        """Of `attacks.dropped`."""
        return attacks.at_rate(attacks.dropped, rate)


@method("letter-insertions", task="legible-attack")
class LetterInsertions(_Edits):
    """A random letter is put into a word."""

    def change(self, rate: float) -> attacks.Change:
        """Of `attacks.inserted`."""
        return attacks.at_rate(attacks.inserted, rate)
