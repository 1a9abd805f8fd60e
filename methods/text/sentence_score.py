"""Boundary precision and recall with and without surrounding white space, and how chunks cut sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BadOutput
from methods.text.sentence_data import Document, Span

Sentences = Sequence[Span] | Sequence[str]
"""What a splitter returns for one document: offsets, or the sentences themselves in order."""


@dataclass(frozen=True)
class Counts:
    """Boundaries found (`hits`), predicted and in the gold annotation, pooled over documents."""

    hits: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        """Share of the predicted boundaries that are right; 0 when there is none."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold boundaries that were found; 0 when there is none."""
        return self.hits / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when both are 0."""
        both = self.predicted + self.gold
        return 2 * self.hits / both if both else 0.0


def locate(text: str, sentences: Sentences) -> list[Span]:
    """The offsets of `sentences`.

    Sentences given as strings are searched in the text from the end of the last one found, as the paper's
    evaluation does; one that is not found (a splitter changed it) has no offsets. Empty ones are dropped.

    Raises:
        BadOutput: an offset lies outside the text, or it is neither spans nor strings.
    """
    spans: list[Span] = []
    position = 0
    for sentence in sentences:
        if isinstance(sentence, str):
            start = text.find(sentence, position) if sentence else -1
            if start < 0:
                continue
            end = position = start + len(sentence)
        else:
            try:
                start, end = int(sentence[0]), int(sentence[1])
            except (TypeError, IndexError, ValueError):
                raise BadOutput(f"a sentence is a pair of offsets or a string, not {sentence!r}") from None
            if not 0 <= start <= end <= len(text):
                raise BadOutput(f"the span ({start}, {end}) is not inside a text of {len(text)} characters")
            if start == end:
                continue
        spans.append((start, end))
    return spans


def strip(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans without the white space at their ends; those that hold nothing else are dropped."""
    stripped = []
    for start, end in spans:
        sentence = text[start:end]
        left = len(sentence) - len(sentence.lstrip())
        if left < len(sentence):
            stripped.append((start + left, start + len(sentence.rstrip())))
    return stripped


def boundaries(spans: Iterable[Span]) -> set[int]:
    """All starts and ends of `spans`."""
    return {offset for span in spans for offset in span}


def compare(gold: Iterable[Iterable[Span]], predicted: Iterable[Iterable[Span]]) -> Counts:
    """Exact matches between the boundary sets of each document, pooled over documents."""
    hits = found = wanted = 0
    for these, those in zip(gold, predicted, strict=True):
        a, b = boundaries(these), boundaries(those)
        hits, found, wanted = hits + len(a & b), found + len(b), wanted + len(a)
    return Counts(hits, found, wanted)


@dataclass(frozen=True)
class Cuts:
    """What retrieval chunks of k predicted sentences do to the gold sentences of all documents.

    Attributes:
        cut: gold sentences with a chunk border strictly inside.
        sentences: gold sentences.
        borders: chunk borders; the end of a document is none.
        inside: borders that lie strictly inside a gold sentence.
    """

    cut: int
    sentences: int
    borders: int
    inside: int


def chunk_cuts(documents: Sequence[Document], predicted: Sequence[Sequence[Span]], k: int) -> Cuts:
    """Count the gold sentences that are cut when each `k` predicted sentences make a chunk.

    Args:
        documents: texts and gold sentences.
        predicted: the predicted sentences of each document in order, without white space at their ends.
        k: sentences in a chunk.
    """
    cut = sentences = borders = inside = 0
    for document, spans in zip(documents, predicted, strict=True):
        ends = np.sort(np.array([end for _, end in spans[k - 1 : -1 : k]], dtype=np.int64))
        gold = np.array(strip(document.text, document.spans), dtype=np.int64).reshape(-1, 2)
        first = np.searchsorted(ends, gold[:, 0], side="right")
        last = np.searchsorted(ends, gold[:, 1], side="left")
        cut += int(np.count_nonzero(last > first))
        sentences += len(gold)
        borders += len(ends)
        # A border is inside when more sentences have started before it than have ended up to it.
        started = np.searchsorted(np.sort(gold[:, 0]), ends, side="left")
        ended = np.searchsorted(np.sort(gold[:, 1]), ends, side="right")
        inside += int(np.count_nonzero(started > ended))
    return Cuts(cut, sentences, borders, inside)


def scores(documents: Sequence[Document], output: Sequence[Sentences], k: int) -> dict[str, float]:
    """All figures of one segmentation.

    Args:
        documents: texts and gold sentences.
        output: the predicted sentences of each document.
        k: predicted sentences in a retrieval chunk.

    Raises:
        BadOutput: `output` has not one list of sentences for each document.
    """
    if len(output) != len(documents):
        raise BadOutput(f"{len(output)} lists of sentences for {len(documents)} documents")
    found = [locate(d.text, sentences) for d, sentences in zip(documents, output, strict=True)]
    bare = [strip(d.text, spans) for d, spans in zip(documents, found, strict=True)]
    raw = compare([d.spans for d in documents], found)
    stripped = compare([strip(d.text, d.spans) for d in documents], bare)
    cuts = chunk_cuts(documents, bare, k)
    return {
        "precision_raw": raw.precision,
        "recall_raw": raw.recall,
        "f1_raw": raw.f1,
        "precision_stripped": stripped.precision,
        "recall_stripped": stripped.recall,
        "f1_stripped": stripped.f1,
        "fragmentation": cuts.cut / cuts.sentences if cuts.sentences else 0.0,
        "cut_borders": cuts.inside / cuts.borders if cuts.borders else 0.0,
        "sentences": float(sum(len(spans) for spans in bare)),
        "characters": float(sum(len(d.text) for d in documents)),
    }
