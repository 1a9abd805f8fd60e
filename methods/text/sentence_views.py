"""Labelled sentences shown in several ways (as written, corrupted, in short inputs) and scored at a threshold.

Sentences are joined by a blank. What counts is where a sentence ends: the offset behind its last character. The end of
a whole text counts for nobody, since every splitter finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadOutput
from methods.text.sentence_score import Sentences, locate, strip

VIEWS = ("clean", "corrupted", "short")


@dataclass(frozen=True)
class Scored:
    """What a splitter with a threshold returns for a text.

    Attributes:
        ends: int64, shape (n,): offsets behind which a sentence may end, never falling.
        probabilities: float64, shape (n,): that one does.
    """

    ends: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class Thresholded:
    """The output of a splitter with a threshold: the test texts, the texts to tune the threshold on, and its own.

    Attributes:
        test: one for each of `Views.texts`.
        tuning: one for each of `Views.tuning_texts`.
        threshold: a sentence ends where the probability is above it, when nothing is tuned.
    """

    test: Sequence[Scored]
    tuning: Sequence[Scored]
    threshold: float


@dataclass(frozen=True)
class View:
    """Texts, and in each of them the ends of its sentences but for that of the text: int64, rising."""

    texts: tuple[str, ...]
    ends: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class Views:
    """The work: test sentences and labelled sentences to learn from, each shown in every way of `VIEWS`.

    Attributes:
        test: by the name of the view; only the score looks at its ends.
        tuning: the labelled sentences, likewise.
        labelled: the labelled sentences themselves, in runs that were neighbours in a document.
    """

    test: dict[str, View]
    tuning: dict[str, View]
    labelled: tuple[tuple[str, ...], ...] = field(repr=False)

    @property
    def texts(self) -> list[str]:
        """The test texts of all views."""
        return [text for view in VIEWS for text in self.test[view].texts]

    @property
    def tuning_texts(self) -> list[str]:
        """The labelled texts of all views."""
        return [text for view in VIEWS for text in self.tuning[view].texts]


def joined(sentences: Sequence[str]) -> tuple[str, NDArray[np.int64]]:
    """The sentences with a blank between them, and the ends of all but the last."""
    lengths = np.array([len(s) for s in sentences], dtype=np.int64)
    return " ".join(sentences), (np.cumsum(lengths) + np.arange(len(lengths)))[:-1]


def views(runs: Sequence[Sequence[str]], corrupt: Callable[[str], str], k: int) -> dict[str, View]:
    """Runs of neighbouring sentences in every way of `VIEWS`.

    Args:
        runs: sentences; those of all runs are joined to one text, as the paper does with a test set.
        corrupt: what is done to each sentence of the corrupted view; empty ones are gone.
        k: sentences of a short input; the last ones of a run that do not fill one are left out.
    """
    written = [sentence for run in runs for sentence in run]
    bare = [changed for sentence in written if (changed := corrupt(sentence))]
    short = [joined(run[i : i + k]) for run in runs for i in range(0, len(run) - k + 1, k)]
    whole, spoilt = joined(written), joined(bare)
    return {
        "clean": View((whole[0],), (whole[1],)),
        "corrupted": View((spoilt[0],), (spoilt[1],)),
        "short": View(tuple(text for text, _ in short), tuple(ends for _, ends in short)),
    }


def f1(hits: int, predicted: int, gold: int) -> float:
    """Harmonic mean of precision and recall; 0 where there is nothing to find."""
    return 2 * hits / (predicted + gold) if predicted + gold else 0.0


def inner(text: str, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `ends` the offset without white space before it; 0 for one at the end or the beginning of the text."""
    bare = np.zeros(len(text) + 1, dtype=np.int64)
    for i, character in enumerate(text):
        bare[i + 1] = bare[i] if character.isspace() else i + 1
    places = bare[ends]
    return np.where(places < bare[-1], places, 0)


def _table(view: View, outputs: Sequence[Scored]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Pooled over the texts: the probability of each place, whether a sentence ends there, and how many do."""
    probability: list[NDArray[np.float64]] = []
    right: list[NDArray[np.bool_]] = []
    for text, gold, scored in zip(view.texts, view.ends, outputs, strict=True):
        places = inner(text, scored.ends)
        best = np.zeros(len(text) + 1)
        np.maximum.at(best, places, scored.probabilities)
        there = np.unique(places[places > 0])
        probability.append(best[there])
        right.append(np.isin(there, gold))
    if not probability:
        return np.zeros(0), np.zeros(0, dtype=bool), 0
    return np.concatenate(probability), np.concatenate(right), sum(len(g) for g in view.ends)


def f1_at(view: View, outputs: Sequence[Scored], threshold: float) -> float:
    """F1 of the ends whose probability is above `threshold`, pooled over the texts of a view."""
    probability, right, gold = _table(view, outputs)
    chosen = probability > threshold
    return f1(int(right[chosen].sum()), int(chosen.sum()), gold)


def exact_at(view: View, outputs: Sequence[Scored], threshold: float) -> float:
    """Share of the texts all of whose inner ends, and no others, have a probability above `threshold`."""
    exact = 0
    for text, gold, scored in zip(view.texts, view.ends, outputs, strict=True):
        places = inner(text, scored.ends[scored.probabilities > threshold])
        exact += set(places[places > 0].tolist()) == set(gold.tolist())
    return exact / len(view.texts) if view.texts else 0.0


def best_threshold(view: View, outputs: Sequence[Scored]) -> float:
    """The threshold with the best F1, halfway between the probabilities that it parts; 0.5 where no sentence ends."""
    probability, right, gold = _table(view, outputs)
    if not gold or not len(probability):
        return 0.5
    order = np.argsort(-probability, kind="stable")
    sorted_probability = probability[order]
    hits = np.cumsum(right[order])
    score = 2 * hits / (np.arange(1, len(hits) + 1) + gold)
    # A threshold cannot part equal probabilities.
    score[:-1][sorted_probability[:-1] == sorted_probability[1:]] = -1
    last = int(np.argmax(score))
    below = sorted_probability[last + 1] if last + 1 < len(order) else 0.0
    return float((sorted_probability[last] + below) / 2)


def _hard(texts: Sequence[str], output: Sequence[Sentences]) -> list[Scored]:
    """Sentences without probabilities as ends that are certain."""
    found = []
    for text, sentences in zip(texts, output, strict=True):
        ends = np.array(sorted({end for _, end in strip(text, locate(text, sentences))}), dtype=np.int64)
        found.append(Scored(ends, np.ones(len(ends))))
    return found


def _by_view(of: dict[str, View], outputs: Sequence[Scored]) -> dict[str, Sequence[Scored]]:
    rest, found = list(outputs), {}
    for name in VIEWS:
        n = len(of[name].texts)
        found[name], rest = rest[:n], rest[n:]
    return found


def scores(work: Views, output: Any) -> dict[str, float]:
    """All figures of one splitter; see the task `robust-sentence-boundaries`.

    Args:
        work: the sentences.
        output: a `Thresholded`, or for each test text its sentences.

    Raises:
        BadOutput: it has not one part for each text, or ends lie outside their text.
    """
    texts = work.texts
    if isinstance(output, Thresholded):
        _check(output.test, texts)
        _check(output.tuning, work.tuning_texts)
        test = _by_view(work.test, output.test)
        tuning = _by_view(work.tuning, output.tuning)
        fixed = output.threshold
        tuned = {name: best_threshold(work.tuning[name], tuning[name]) for name in VIEWS}
    else:
        if len(output) != len(texts):
            raise BadOutput(f"{len(output)} lists of sentences for {len(texts)} texts")
        test = _by_view(work.test, _hard(texts, output))
        fixed = 0.5
        tuned = dict.fromkeys(VIEWS, 0.5)
    found = {f"f1_{name}": f1_at(work.test[name], test[name], fixed) for name in VIEWS}
    found |= {f"f1_{name}_tuned": f1_at(work.test[name], test[name], tuned[name]) for name in VIEWS}
    return found | {
        "f1_corrupted_clean_threshold": f1_at(work.test["corrupted"], test["corrupted"], tuned["clean"]),
        "exact_short": exact_at(work.test["short"], test["short"], fixed),
        "exact_short_tuned": exact_at(work.test["short"], test["short"], tuned["short"]),
        "threshold_clean": tuned["clean"],
        "threshold_corrupted": tuned["corrupted"],
    }


def _check(outputs: Sequence[Scored], texts: Sequence[str]) -> None:
    if len(outputs) != len(texts):
        raise BadOutput(f"{len(outputs)} outputs for {len(texts)} texts")
    for scored, text in zip(outputs, texts, strict=True):
        if scored.ends.shape != scored.probabilities.shape:
            raise BadOutput(f"{scored.ends.shape} ends have {scored.probabilities.shape} probabilities")
        if len(scored.ends) and not 0 <= scored.ends.min() <= scored.ends.max() <= len(text):
            raise BadOutput(f"an end lies outside a text of {len(text)} characters")
        if not np.isfinite(scored.probabilities).all():
            raise BadOutput("a probability is not a number")
