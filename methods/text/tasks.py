"""The tasks of the text family: finding the sentences of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.method import Metric, Task, task
from harness.seeding import rng
from harness.types import NonNegativeInt, PositiveInt
from methods.text import marks, sentence_data, sentence_views
from methods.text.sentence_data import Document
from methods.text.sentence_score import Sentences, scores
from methods.text.sentence_views import Thresholded, Views, views


@dataclass(frozen=True)
class Texts:
    """The work of a sentence splitter.

    Attributes:
        documents: what is to be split, with its gold sentences (which only the score may look at).
        training: other documents whose gold sentences a method may learn from; often none.
    """

    documents: tuple[Document, ...]
    training: tuple[Document, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The bare texts of the documents."""
        return [document.text for document in self.documents]

    @property
    def characters(self) -> int:
        """The length of all documents."""
        return sum(len(document.text) for document in self.documents)


@task(
    "sentence-boundaries",
    amount_unit="characters",
    data=("legal-sbd", "ud-english-ewt-sentences"),
    metrics=(
        Metric("precision_raw", doc="Boundary precision at raw offsets, pooled.", deterministic=True),
        Metric("recall_raw", doc="Boundary recall at raw offsets, pooled.", deterministic=True),
        Metric("f1_raw", doc="Boundary F1 at raw offsets, pooled.", deterministic=True),
        Metric("precision_stripped", doc="Boundary precision, white space stripped.", deterministic=True),
        Metric("recall_stripped", doc="Boundary recall, white space stripped.", deterministic=True),
        Metric("f1_stripped", doc="Boundary F1, white space stripped.", deterministic=True),
        Metric(
            "fragmentation", better="lower", doc="Gold sentences cut by a chunk border.", deterministic=True
        ),
        Metric("cut_borders", better="lower", doc="Chunk borders inside a gold sentence.", deterministic=True),
        Metric("sentences", better="neither", doc="Predicted sentences.", deterministic=True),
        Metric("characters", better="neither", doc="Characters to split.", deterministic=True),
    ),
)
class SentenceBoundaries(Task[Texts, list[Sentences]]):
    """Split documents into sentences.

    The output has one list per document: ``(start, end)`` character offsets, or the sentences as strings in
    their order. A document's boundaries are all starts and ends of its sentences; predicted and gold
    ones are compared exactly and pooled over documents, once at the offsets as returned (``_raw``, the
    measure of arXiv 2504.04131) and once with the white space at both ends of every sentence stripped
    (``_stripped``): a splitter that leaves the blank before a sentence misses every gold start at
    raw offsets.
    """

    corpus: Literal["legal", "bva", "ip", "scotus", "ewt", "opinions"] = "legal"
    """The documents: the three legal sets of MultiLegalSBD or one of them (Board of Veterans' Appeals,
    intellectual property, Supreme Court), the general-domain UD English-EWT, or made-up opinions (no data needed)."""
    copies: PositiveInt = 1
    """How many times the documents occur; each copy has its digits exchanged, so that it is unseen text."""
    piece: NonNegativeInt = 0
    """Cut the documents into pieces of at least this many characters; 0 leaves them whole."""
    joined: bool = False
    """Whether all documents are joined to a single one."""
    chunk: PositiveInt = 3
    """Predicted sentences in a retrieval chunk, for `fragmentation`."""

    def load(self, seed: int) -> Texts:
        """The documents; the same for every seed."""
        return Texts(tuple(self._multiplied(self._documents())))

    def _documents(self) -> list[Document]:
        if self.corpus == "ewt":
            return sentence_data.web_treebank()
        if self.corpus == "opinions":
            return sentence_data.opinions()
        return sentence_data.legal(*(sentence_data.LEGAL if self.corpus == "legal" else (self.corpus,)))

    def _multiplied(self, documents: list[Document]) -> list[Document]:
        copies = [sentence_data.copy(d, number) for number in range(self.copies) for d in documents]
        if self.piece:
            copies = [piece for d in copies for piece in sentence_data.cut(d, self.piece)]
        return [sentence_data.join(copies)] if self.joined else copies

    def score(self, work: Texts, output: list[Sentences]) -> dict[str, float]:
        """The metrics of `sentence_score.scores`."""
        return scores(work.documents, output, self.chunk)

    def amount(self, work: Texts) -> float:
        """Characters."""
        return float(work.characters)


@task(
    "held-out-sentence-boundaries",
    amount_unit="characters",
    data=("legal-sbd", "ud-english-ewt-sentences"),
    metrics=(
        Metric("precision_raw", doc="Boundary precision at raw offsets, pooled."),
        Metric("recall_raw", doc="Boundary recall at raw offsets, pooled."),
        Metric("f1_raw", doc="Boundary F1 at raw offsets, pooled."),
        Metric("precision_stripped", doc="Boundary precision, white space stripped."),
        Metric("recall_stripped", doc="Boundary recall, white space stripped."),
        Metric("f1_stripped", doc="Boundary F1, white space stripped."),
        Metric("fragmentation", better="lower", doc="Gold sentences cut by a chunk border."),
        Metric("cut_borders", better="lower", doc="Chunk borders inside a gold sentence."),
        Metric("sentences", better="neither", doc="Predicted sentences."),
        Metric("characters", better="neither", doc="Characters to split.", deterministic=True),
    ),
)
class HeldOutSentenceBoundaries(SentenceBoundaries):
    """Split documents into sentences, with other documents of the corpus to learn from.

    Document i is split in fold i mod `folds` and belongs to the training documents of the other folds. With
    the default three folds each legal set gives a fold at least one of its four documents.
    """

    folds: PositiveInt = 3
    """How many parts the documents are dealt into; at least two."""
    fold: NonNegativeInt = 0
    """The part that is split."""

    def __post_init__(self) -> None:
        if self.folds < 2 or self.fold >= self.folds:
            raise ValueError(
                f"fold {self.fold} of {self.folds}: there must be two folds or more, counted from 0"
            )

    def load(self, seed: int) -> Texts:
        """The documents of the fold and, as training documents, the others; the same for every seed."""
        documents = self._documents()
        held_out = documents[self.fold :: self.folds]
        rest = [d for number, d in enumerate(documents) if number % self.folds != self.fold]
        if not held_out:
            raise ValueError(f"fold {self.fold} is empty: the corpus has {len(documents)} documents")
        return Texts(tuple(self._multiplied(held_out)), tuple(rest))


@task(
    "robust-sentence-boundaries",
    repeats="once",
    amount_unit="characters",
    data=("ud-english-ewt-sentences", "legal-sbd"),
    metrics=(
        Metric("f1_clean", doc="F1 of sentence ends in text as written, at the splitter's own threshold."),
        Metric("f1_corrupted", doc="The same in lower-case text without punctuation."),
        Metric("f1_short", doc="The same inside short inputs of a few sentences each."),
        Metric("f1_clean_tuned", doc="F1 in text as written, threshold tuned on labelled sentences."),
        Metric(
            "f1_corrupted_tuned", doc="F1 in corrupted text, threshold tuned on corrupted labelled sentences."
        ),
        Metric("f1_short_tuned", doc="F1 inside short inputs, threshold tuned on such inputs."),
        Metric("f1_corrupted_clean_threshold", doc="F1 in corrupted text, threshold tuned on text as written."),
        Metric("exact_short", doc="Short inputs split exactly right, at the splitter's own threshold."),
        Metric("exact_short_tuned", doc="Short inputs split exactly right, threshold tuned."),
        Metric("threshold_clean", better="neither", doc="The threshold tuned on text as written."),
        Metric("threshold_corrupted", better="neither", doc="The threshold tuned on corrupted text."),
    ),
)
class RobustSentenceBoundaries(Task[Views, list[Sentences] | Thresholded]):
    """Find sentence ends in text as written, without punctuation and case, and in inputs of a few sentences.

    The sentences of a test set are joined by blanks to one text. A boundary is the offset behind a sentence's last
    character; that of the whole text counts for nobody. A splitter returns sentences, or probabilities with its own
    threshold: then F1 is reported at that threshold and at the one that is best on the labelled sentences.
    """

    corpus: Literal["ewt", "legal", "opinions"] = "ewt"
    """The sentences: UD English-EWT, its test part, with labelled ones from its development part; legal decisions, every
    third document, with labelled ones from the other eight; or made-up opinions, likewise (no data needed)."""
    sentences: NonNegativeInt = 0
    """Test sentences, the first ones; 0 for all."""
    labelled: NonNegativeInt = 0
    """Labelled sentences that thresholds are tuned on and a method may learn from; drawn by the seed; 0 for all."""
    k: PositiveInt = 2
    """Sentences of a short input, neighbours of one document."""

    def load(self, seed: int) -> Views:
        """The test sentences, the same for every seed, and the labelled ones."""
        test, other = self._parts()
        if self.sentences:
            test = _first(test, self.sentences)
        labelled = sentence_data.sample(other, self.labelled, rng(seed, "labelled sentences"))
        return Views(
            views(test, marks.corrupt, self.k),
            views(labelled, marks.corrupt, self.k),
            tuple(tuple(run) for run in labelled),
        )

    def _parts(self) -> tuple[list[list[str]], list[list[str]]]:
        if self.corpus == "ewt":
            return sentence_data.treebank_sentences("test"), sentence_data.treebank_sentences("dev")
        legal = self.corpus == "legal"
        documents = sentence_data.legal(*sentence_data.LEGAL) if legal else sentence_data.opinions()
        runs = [sentence_data.outermost_sentences(d) for d in documents]
        return runs[::3], [run for i, run in enumerate(runs) if i % 3]

    def score(self, work: Views, output: list[Sentences] | Thresholded) -> dict[str, float]:
        """The figures of `sentence_views.scores`."""
        return sentence_views.scores(work, output)

    def amount(self, work: Views) -> float:
        """Characters of the test texts."""
        return float(sum(map(len, work.texts)))


def _first(runs: list[list[str]], most: int) -> list[list[str]]:
    """The first `most` sentences."""
    kept: list[list[str]] = []
    for run in runs:
        kept.append(run[:most])
        most -= len(kept[-1])
        if not most:
            break
    return kept
