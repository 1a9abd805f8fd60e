"""The forest of CharBoundary: which characters it looks at, how it learns and decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from methods.text.legal_sentence_boundaries.boundary_features import Characters, candidates, features
from methods.text.sentence_data import Document


@dataclass(frozen=True)
class Shape:
    """The size of the forest and of its windows, as in the authors' training scripts.

    Attributes:
        trees: how many.
        depth: greatest depth of a tree.
        left, right: characters in the window before and after the candidate.
        split, leaf: least samples to split a node, and in a leaf.
    """

    trees: int
    depth: int
    left: int
    right: int
    split: int
    leaf: int

    @staticmethod
    def named(size: Literal["small", "medium", "large"]) -> Shape:
        """One of the three sizes of the paper."""
        return _SHAPES[size]


_SHAPES = {
    "small": Shape(trees=32, depth=16, left=5, right=3, split=8, leaf=4),
    "medium": Shape(trees=64, depth=32, left=7, right=5, split=8, leaf=4),
    "large": Shape(trees=256, depth=64, left=9, right=7, split=4, leaf=2),
}


class BoundaryForest:
    """A random forest over the features of candidate characters.

    Args:
        shape: its size.
        abbreviations: abbreviations as written, with their period.
        line_ends: whether line feeds and carriage returns are candidates.
    """

    def __init__(self, shape: Shape, *, abbreviations: frozenset[str], line_ends: bool) -> None:
        self.shape = shape
        self.abbreviations = abbreviations
        self.line_ends = line_ends

    def fit(self, documents: Sequence[Document], sample_rate: float, rng: np.random.Generator) -> None:
        """Learn from all boundaries, all other candidates, and a share of the other characters.

        Args:
            documents: texts with gold sentences; the last character of each sentence is a boundary.
            sample_rate: share of the characters that are neither.
            rng: draws that share and the forest.
        """
        from sklearn.ensemble import RandomForestClassifier

        inputs, labels = [], []
        for document in documents:
            positions, target = self._samples(document, sample_rate, rng)
            inputs.append(self._features(Characters(document.text), positions))
            labels.append(target)
        target = np.concatenate(labels)
        if len(np.unique(target)) < 2:
            raise ValueError(
                "the training documents must have characters that end sentences and others that do not"
            )
        self.forest = RandomForestClassifier(
            n_estimators=self.shape.trees,
            max_depth=self.shape.depth,
            min_samples_split=self.shape.split,
            min_samples_leaf=self.shape.leaf,
            class_weight="balanced_subsample",
            random_state=int(rng.integers(2**31)),
        )
        self.forest.fit(np.concatenate(inputs), target)

    def boundaries(self, texts: Sequence[str], threshold: float) -> list[NDArray[np.int64]]:
        """The offsets just after the characters whose probability of ending a sentence reaches `threshold`.

        The candidates of all texts go through the forest together.

        Returns:
            For each text, int64 offsets in rising order.
        """
        positions: list[NDArray[np.int64]] = []
        inputs: list[NDArray[np.int16]] = []
        for text in texts:
            characters = Characters(text)
            positions.append(candidates(characters, self.line_ends))
            inputs.append(self._features(characters, positions[-1]))
        together = np.concatenate(inputs) if inputs else np.empty((0, 0), np.int16)
        if not len(together):
            return positions
        likely = self.forest.predict_proba(together)[:, 1] >= threshold
        edges = np.cumsum([len(p) for p in positions])[:-1]
        return [p[keep] + 1 for p, keep in zip(positions, np.split(likely, edges), strict=True)]

    def _features(self, characters: Characters, positions: NDArray[np.int64]) -> NDArray[np.int16]:
        return features(characters, positions, self.shape.left, self.shape.right, self.abbreviations)

    def _samples(
        self, document: Document, sample_rate: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Positions to learn from, and which of them end a sentence."""
        labels = np.zeros(len(document.text), dtype=np.int8)
        labels[[end - 1 for start, end in document.spans if end > start]] = 1
        chosen = rng.random(len(labels)) < sample_rate
        chosen[candidates(Characters(document.text), self.line_ends)] = True
        positions = np.flatnonzero(chosen | (labels == 1))
        return positions, labels[positions]
