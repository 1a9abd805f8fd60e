"""Retrieved answers as arrays, the vote over them, and the pruning of their sources."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Retrievals:
    """What was retrieved for N questions, best first, padded to M items.

    Attributes:
        sources: integer[N, M], where each item comes from, in 0..count-1; `count` pads.
        utilities: [N, M] in [0, 1]: whether (or how far) the answer generated from the item alone is
            right; 0 pads. uint8 or float.
        count: S, the number of sources.
        answers: int32[N, M], equal numbers for equal answers to a question; -1 pads. None where
            nobody votes.
    """

    sources: NDArray[Any]
    utilities: NDArray[Any]
    count: int
    answers: NDArray[np.int32] | None = None

    def rows(self, index: NDArray[np.int64]) -> Retrievals:
        """Only the questions `index`."""
        answers = None if self.answers is None else self.answers[index]
        return dataclasses.replace(
            self, sources=self.sources[index], utilities=self.utilities[index], answers=answers
        )

    def grouped(self, groups: NDArray[np.int64], count: int) -> Retrievals:
        """With the groups as the sources: groups is int64[S], the group of every source."""
        extended = np.append(groups, count).astype(np.int32)
        return dataclasses.replace(self, sources=extended[self.sources], count=count)

    def documents(self) -> NDArray[np.int64]:
        """int64[S]: how many items come from each source."""
        return np.bincount(self.sources.ravel(), minlength=self.count + 1)[: self.count]


def first_existing(exists: NDArray[np.bool_], places: int) -> NDArray[np.int64]:
    """The positions of the first K existing items: int64[N, K], -1 where there are fewer.

    Args:
        exists: bool[N, M].
        places: K.
    """
    rank = np.cumsum(exists, axis=1)
    row, item = np.nonzero(exists & (rank <= places))
    positions = np.full((len(exists), places), -1)
    positions[row, rank[row, item] - 1] = item
    return positions


def vote(retrieved: Retrievals, exists: NDArray[np.bool_], places: int) -> Array:
    """The utility of the majority answer among the first K existing items; ties go to the earliest.

    Args:
        retrieved: questions with answers.
        exists: bool[N, M], false for padding.
        places: K.

    Returns:
        float64[N]; 0 where nothing exists.
    """
    if retrieved.answers is None:
        raise ValueError("a vote needs answers")
    positions = first_existing(exists, places)
    row = np.arange(len(positions))[:, None]
    seated = positions >= 0
    ballot = np.where(seated, retrieved.answers[row, positions], -1)
    votes = ((ballot[:, :, None] == ballot[:, None, :]) & seated[:, :, None]).sum(axis=1) * seated
    winner = positions[row[:, 0], votes.argmax(axis=1)]  # argmax takes the first, thus the earliest
    right = retrieved.utilities[row[:, 0], winner].astype(np.float64)
    return np.where(winner >= 0, right, 0.0)


def accuracy(retrieved: Retrievals, existence: Array, places: int, draws: Array) -> float:
    """The share of questions that the vote answers rightly, when every source exists with a probability.

    Args:
        retrieved: questions with answers.
        existence: float64[S], in each draw a source exists if its uniform number is below this.
        places: K.
        draws: float64[D, S], uniform numbers in [0, 1). Where all probabilities are 0 or 1 one draw
            is enough and one is used.
    """
    if np.isin(existence, (0.0, 1.0)).all():
        draws = draws[:1]
    shares = []
    for draw in draws:
        exists = np.append(draw < existence, False)[retrieved.sources]
        shares.append(vote(retrieved, exists, places).mean())
    return float(np.mean(shares))


def leave_one_out(retrieved: Retrievals, places: int) -> Array:
    """For every source the questions that the vote answers rightly with it, less those without: float64[S].

    Only a source among a question's first K items can change its vote, so those alone are tried.
    """
    real = retrieved.sources < retrieved.count
    with_all = vote(retrieved, real, places)
    first = retrieved.sources[:, :places].astype(np.int64)
    importance = np.zeros(retrieved.count + 1)
    for slot in range(first.shape[1]):
        source = first[:, slot]
        repeated = (first[:, :slot] == source[:, None]).any(axis=1)
        tried = np.flatnonzero(~repeated & (source < retrieved.count))
        without = real[tried] & (retrieved.sources[tried] != source[tried, None])
        np.add.at(importance, source[tried], with_all[tried] - vote(retrieved.rows(tried), without, places))
    return importance[: retrieved.count]


def kept_after(order: NDArray[np.int64], documents: NDArray[np.int64], tenths: int) -> NDArray[np.bool_]:
    """Which sources are left when, in `order`, sources go until a share of the documents is gone.

    Args:
        order: sources that may go, first to go first.
        documents: int64[S], how many documents each has.
        tenths: the share to remove, in tenths.

    Returns:
        bool[S].
    """
    sizes = documents[order]
    gone_before = np.cumsum(sizes) - sizes
    keep = np.ones(len(documents), dtype=bool)
    keep[order[10 * gone_before < tenths * sizes.sum()]] = False
    return keep


def tuned_removal(
    retrieved: Retrievals, scores: Array, places: int, within: NDArray[np.bool_]
) -> tuple[int, NDArray[np.bool_]]:
    """The removal rate in {0, .1, ..., .9} whose vote is best on `retrieved`; ties go to the smallest.

    Args:
        retrieved: validation questions.
        scores: float64[S], the least important sources go first; equal ones in order of their number.
        places: K of the vote.
        within: bool[S], the sources that may be kept at all.

    Returns:
        the rate in tenths, and bool[S]: the sources that are kept.
    """
    candidates = np.flatnonzero(within)
    order = candidates[np.argsort(scores[candidates], kind="stable")]
    documents = retrieved.documents()
    best = (-1.0, 0, within)
    for tenths in range(10):
        keep = kept_after(order, documents, tenths) & within
        share = float(vote(retrieved, np.append(keep, False)[retrieved.sources], places).mean())
        if share > best[0]:
            best = (share, tenths, keep)
    return best[1], best[2]
