"""What only this paper claims: the time that it takes to segment text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.errors import BadOutput
from harness.method import Metric, Task, task
from harness.types import NonNegativeInt, PositiveInt
from methods.text import sentence_data
from methods.text.sentence_data import Span
from methods.text.sentence_views import joined


@dataclass(frozen=True)
class Plain:
    """Texts to segment."""

    texts: tuple[str, ...]


@task(
    "segmentation-latency",
    amount_unit="characters",
    data=("ud-english-ewt-sentences", "legal-sbd"),
    metrics=(
        Metric("characters", better="neither", doc="Characters to segment.", deterministic=True),
        Metric("segments", better="neither", doc="Segments returned."),
    ),
)
class SegmentationLatency(Task[Plain, list[list[Span]]]):
    """Segment texts; only the time counts, so that the models' weights may be random.

    The output has for each text contiguous spans that restore it.
    """

    corpus: Literal["ewt", "legal", "opinions"] = "ewt"
    """Sentences of the test part of UD English-EWT, of legal decisions, or made up (no data needed)."""
    characters: PositiveInt = 4000
    """Characters of one text, at least, as long as there are sentences; they begin anew when they are used up."""
    short_texts: NonNegativeInt = 0
    """So many texts of one sentence each instead of one long text."""

    def load(self, seed: int) -> Plain:
        """The same texts for every seed."""
        if self.corpus == "ewt":
            runs = sentence_data.treebank_sentences("test")
        else:
            documents = (
                sentence_data.opinions()
                if self.corpus == "opinions"
                else sentence_data.legal(*sentence_data.LEGAL)
            )
            runs = [sentence_data.outermost_sentences(d) for d in documents]
        sentences = [sentence for run in runs for sentence in run]
        if self.short_texts:
            return Plain(tuple(sentences[i % len(sentences)] for i in range(self.short_texts)))
        chosen: list[str] = []
        size = 0
        while size < self.characters:
            chosen.append(sentences[len(chosen) % len(sentences)])
            size += len(chosen[-1]) + 1
        return Plain((joined(chosen)[0],))

    def score(self, work: Plain, output: list[list[Span]]) -> dict[str, float]:
        """How much there was, and how many segments.

        Raises:
            BadOutput: the segments do not restore the texts.
        """
        if len(output) != len(work.texts):
            raise BadOutput(f"{len(output)} lists of segments for {len(work.texts)} texts")
        for text, spans in zip(work.texts, output, strict=True):
            if "".join(text[a:b] for a, b in spans) != text:
                raise BadOutput("the segments of a text do not restore it")
        return {
            "characters": self.amount(work),
            "segments": float(sum(len(spans) for spans in output)),
        }

    def amount(self, work: Plain) -> float:
        """Characters."""
        return float(sum(map(len, work.texts)))
