"""NUPunkt and CharBoundary (arXiv 2504.04131), written from the paper's description.

The packages that the authors published are in `baselines.py`, as references on the same work.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from harness import cache
from harness.method import Method, method
from harness.types import NonNegativeFloat, NonNegativeInt, PositiveInt
from methods.text import sentence_data
from methods.text.legal_sentence_boundaries.boundary_forest import BoundaryForest, Shape
from methods.text.legal_sentence_boundaries.punkt_splitter import PunktSplitter
from methods.text.legal_sentence_boundaries.punkt_tables import (
    Tables,
    legal_abbreviations,
    published_tables,
)
from methods.text.legal_sentence_boundaries.punkt_training import train
from methods.text.sentence_score import Sentences
from methods.text.tasks import Texts


@method("legal-punkt", task=("sentence-boundaries", "held-out-sentence-boundaries"))
class LegalPunkt(Method[Texts, list[Sentences]]):
    """NUPunkt: Punkt trained without labels, a list of legal abbreviations, and memories for speed.

    A period ends a sentence unless the word that it ends is an abbreviation, an initial or a number and the
    next word does not speak for a start: collocations, then orthography, then known sentence starters.
    ``?`` and ``!`` always do, an ellipsis before a capitalised word. Closing quotes and brackets after the mark
    go to the sentence that ends.
    """

    tables: Literal["trained", "published", "empty"] = "trained"
    """Where Punkt's tables come from: learned here from novels, those of the published nupunkt model (learned by
    its authors from legal text), or nowhere."""
    abbreviations: Literal["legal", "none"] = "legal"
    """The list of legal abbreviations that is added to the tables: charboundary's, or none."""
    training_characters: PositiveInt = 1_500_000
    """Characters of prose to train on, for the tables `trained`."""
    next_word: bool = True
    """Whether the decision sees the word after the period, as Punkt's does; the published
    nupunkt 0.5.1 shows its decision one white space only, so that abbreviations alone count."""
    trim: bool = False
    """Whether sentences are returned without the white space at their ends."""
    memory: NonNegativeInt = 32768
    """Tokens, words and decisions that are remembered; 0 for none."""
    document_memory: NonNegativeInt = 0
    """Documents that are remembered with their sentences; 0 for none."""
    memories: Literal["cold", "warm"] = "cold"
    """Whether each run starts with empty memories, as on unseen text, or with what a run on the same texts left."""

    def prepare(self, work: Texts) -> None:
        """Load or train the tables, and with warm memories split everything once.

        Raises:
            MissingPackage: the tables or the list are in a package that is not installed.
            MissingData: the novels to train on are not here.
        """
        tables = self._tables()
        if self.abbreviations == "legal":
            tables.add_abbreviations(legal_abbreviations())
        self.splitter = PunktSplitter(
            tables,
            next_word=self.next_word,
            trim=self.trim,
            memory=self.memory,
            document_memory=self.document_memory,
        )
        self.texts = work.texts
        if self.memories == "warm":
            self._split_all()

    def run(self) -> list[Sentences]:
        """The spans of the sentences of each document."""
        if self.memories == "cold":
            self.splitter.forget()
        return self._split_all()

    def _split_all(self) -> list[Sentences]:
        return [self.splitter.split(text) for text in self.texts]

    def _tables(self) -> Tables:
        if self.tables == "empty":
            return Tables()
        if self.tables == "published":
            return published_tables()
        text = sentence_data.novels(self.training_characters)
        recipe = {"version": 1, "text": hashlib.sha256(text.encode()).hexdigest()}

        def make(path: Path) -> None:
            train(text).save(path)

        return Tables.load(cache.artefact("punkt-tables", recipe, make, self.context.cache))


@method("boundary-forest", task="held-out-sentence-boundaries")
class BoundaryForestMethod(Method[Texts, list[Sentences]]):
    """CharBoundary: a random forest decides at each mark from the characters around it.

    It learns from the training documents; a boundary is predicted where the forest's probability reaches the threshold.
    """

    size: Literal["small", "medium", "large"] = "small"
    """Size of the forest: 32 trees of depth 16 that see 5 characters before and 3 after; 64 of 32, 7 and 5; or
    256 of 64, 9 and 7."""
    threshold: NonNegativeFloat = 0.5
    """Least probability of a boundary; 0 makes every candidate one, above 1 none."""
    sample_rate: NonNegativeFloat = 0.001
    """Share of the characters that are neither candidates nor boundaries to learn from as negatives."""
    line_ends: bool = False
    """Whether line feeds and carriage returns are candidates too, as in the published package."""
    abbreviations: Literal["legal", "none"] = "legal"
    """The list of legal abbreviations behind the feature of that name: charboundary's, or none."""
    trim: bool = False
    """Whether sentences are returned without the white space at their ends."""

    def prepare(self, work: Texts) -> None:
        """Train the forest on the training documents.

        Raises:
            ValueError: there are no training documents.
            MissingPackage: the list of abbreviations is in a package that is not installed.
        """
        if not work.training:
            raise ValueError("the forest has no documents to learn from")
        known = frozenset(legal_abbreviations() if self.abbreviations == "legal" else ())
        self.forest = BoundaryForest(Shape.named(self.size), abbreviations=known, line_ends=self.line_ends)
        self.forest.fit(work.training, self.sample_rate, self.context.rng("forest"))
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The spans between the predicted boundaries of each document."""
        ends = self.forest.boundaries(self.texts, self.threshold)
        return [
            spans_between(text, places, trim=self.trim) for text, places in zip(self.texts, ends, strict=True)
        ]


def spans_between(text: str, ends: np.ndarray, *, trim: bool) -> list[tuple[int, int]]:
    """Contiguous spans of `text` that end at `ends` (int64, rising, each at most the length), trimmed if asked for."""
    edges = sorted({0, *ends.tolist(), len(text)})
    spans = list(pairwise(edges))
    if not trim:
        return spans
    bare = [(a, b, text[a:b]) for a, b in spans if not text[a:b].isspace()]
    return [(a + len(s) - len(s.lstrip()), a + len(s.rstrip())) for a, _, s in bare]
