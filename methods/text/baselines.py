"""General-purpose sentence splitters, each behind the same task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from harness import cache
from harness.errors import MissingModel
from harness.method import Method, method
from harness.types import PositiveInt
from methods.text import sentence_data
from methods.text.sentence_score import Sentences
from methods.text.tasks import Texts

_AFTER_MARK = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@method(
    "regex-splitter", task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries")
)
class RegexSplitter(Method[Texts, list[Sentences]]):
    """A break wherever ``. ! ?``, white space and a capital letter meet."""

    def prepare(self, work: Texts) -> None:
        """Keep the texts."""
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The spans between the breaks, without the white space there."""
        return [self.split(text) for text in self.texts]

    @staticmethod
    def split(text: str) -> list[tuple[int, int]]:
        """The sentences of one text."""
        breaks = [match.span() for match in _AFTER_MARK.finditer(text)]
        starts = [0, *(end for _, end in breaks)]
        ends = [*(start for start, _ in breaks), len(text)]
        return list(zip(starts, ends, strict=True))


@method(
    "nltk-punkt",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("nltk>=3.9",),
)
class NltkPunkt(Method[Texts, list[Sentences]]):
    """Punkt (Kiss and Strunk, 2006) as NLTK implements it; its sentences come without white space."""

    model: Literal["novels", "english", "untrained"] = "novels"
    """Where its abbreviations, collocations, starters and orthography come from: NLTK's trainer on novels, the
    English model of an ``nltk_data`` folder (the one that is usually meant by NLTK Punkt), or nowhere."""
    training_characters: PositiveInt = 1_500_000
    """Characters of prose to train on, for the model `novels`."""

    def prepare(self, work: Texts) -> None:
        """Load or train the model.

        Raises:
            MissingModel: the English model is in no ``nltk_data`` folder.
        """
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

        if self.model == "english":
            self.splitter = self._english()
        else:
            parameters = self._trained() if self.model == "novels" else PunktParameters()
            self.splitter = PunktSentenceTokenizer(parameters)
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The spans of `PunktSentenceTokenizer`."""
        return [list(self.splitter.span_tokenize(text)) for text in self.texts]

    @staticmethod
    def _english() -> Any:
        from nltk.tokenize.punkt import PunktTokenizer

        try:
            return PunktTokenizer("english")
        except LookupError as error:
            raise MissingModel(
                "NLTK's English model is not here: python -m nltk.downloader punkt_tab"
            ) from error

    def _trained(self) -> Any:
        import nltk
        from nltk.tokenize.punkt import PunktParameters

        recipe = {
            "nltk": nltk.__version__,
            "novels": sentence_data.NOVELS,
            "characters": self.training_characters,
        }
        path = cache.artefact("nltk-punkt", recipe, self._train, self.context.cache)
        table = json.loads(path.read_text())
        parameters = PunktParameters()
        parameters.abbrev_types = set(table["abbreviations"])
        parameters.collocations = {(first, second) for first, second in table["collocations"]}
        parameters.sent_starters = set(table["starters"])
        parameters.ortho_context.update(table["orthography"])
        return parameters

    def _train(self, path: Path) -> None:
        from nltk.tokenize.punkt import PunktTrainer

        trained = PunktTrainer(sentence_data.novels(self.training_characters)).get_params()
        table = {
            "abbreviations": sorted(trained.abbrev_types),
            "collocations": sorted(trained.collocations),
            "starters": sorted(trained.sent_starters),
            "orthography": dict(trained.ortho_context),
        }
        path.write_text(json.dumps(table))


@method(
    "pysbd",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("pysbd>=0.3.4",),
)
class PySbd(Method[Texts, list[Sentences]]):
    """The rules of pySBD (Sadvilkar and Neumann, 2020) for English."""

    clean: bool = True
    """Let it clean the text first, as in the paper's evaluation; its sentences then come without white space,
    and one that the cleaning changed cannot be found in the text again."""

    def prepare(self, work: Texts) -> None:
        """Build the segmenter."""
        import pysbd

        self.segmenter = pysbd.Segmenter(language="en", clean=self.clean)
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The sentences as strings."""
        return [self.segmenter.segment(text) for text in self.texts]


@method(
    "spacy-sentencizer",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("spacy>=3.8",),
)
class SpacySentencizer(Method[Texts, list[Sentences]]):
    """spaCy's rule-based sentencizer on its blank English pipeline, which needs no model."""

    def prepare(self, work: Texts) -> None:
        """Build the pipeline."""
        import spacy

        self.pipeline = spacy.blank("en")
        self.pipeline.add_pipe("sentencizer")
        self.texts = work.texts
        # The limit guards the memory of parsers; the sentencizer has none.
        self.pipeline.max_length = max(map(len, self.texts), default=0) + 1

    def run(self) -> list[Sentences]:
        """The spans of ``doc.sents``."""
        return [
            [(sentence.start_char, sentence.end_char) for sentence in self.pipeline(text).sents]
            for text in self.texts
        ]


@method(
    "sentencex",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("sentencex>=1.0",),
)
class Sentencex(Method[Texts, list[Sentences]]):
    """Wikimedia's sentencex: rules and abbreviation lists, compiled."""

    def prepare(self, work: Texts) -> None:
        """Keep the function."""
        from sentencex import segment

        self.segment = segment
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The sentences as strings."""
        return [list(self.segment("en", text)) for text in self.texts]


@method(
    "blingfire",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("blingfire>=0.1.8",),
)
class BlingFire(Method[Texts, list[Sentences]]):
    """Microsoft's Bling Fire: a finite-state machine compiled from rules."""

    def prepare(self, work: Texts) -> None:
        """Load the shared library."""
        from blingfire import text_to_sentences_and_offsets

        self.split = text_to_sentences_and_offsets
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """Its offsets, which count characters."""
        return [[(start, end) for start, end in self.split(text)[1]] for text in self.texts]
