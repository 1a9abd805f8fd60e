"""Segment Any Text (arXiv 2406.16678): pretraining with limited lookahead, the supervised mixture, adaptation.

A subword model says behind which tokens a line would end. `training.py` makes it, `windows.py` reads it; the package
that the authors published is in `baselines.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch

from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.text.segment_any_text import costs, training, windows
from methods.text.segment_any_text import model as models
from methods.text.segment_any_text.fields import Learning, Pretraining, Windows
from methods.text.segment_any_text.model import Shape, TokenClassifier
from methods.text.segment_any_text.subwords import Pieces, Subwords, Tokenizer, XlmRoberta, trained
from methods.text.segment_any_text.tasks import Plain
from methods.text.segment_any_text.windows import Inference
from methods.text.sentence_data import Span
from methods.text.sentence_score import Sentences
from methods.text.sentence_views import Scored, Thresholded, Views
from methods.text.tasks import Texts

OWN_THRESHOLD = {"limited": 0.025, "unlimited": 0.01, "mixture": 0.25, "lora": 0.5}
"""The paper's default thresholds: the base model, the one without a limit, the supervised mixture, and LoRA."""


class Segmenting(Windows, Method[Views, Thresholded]):
    """What all models do: probabilities of the labelled texts in `prepare`, of the test texts in `run`."""

    threshold: Fraction | None = None
    """A sentence ends where the probability is above it; null for the paper's default."""

    @abstractmethod
    def build(self, work: Views) -> tuple[Subwords, TokenClassifier, float]:
        """Tokenizer, model and the paper's default threshold."""

    def prepare(self, work: Views) -> None:
        """Train or load the model, and score the labelled texts, on which thresholds are tuned.

        Raises:
            MissingData: a text to learn from is not here.
            MissingModel: a checkpoint cannot be loaded.
            MissingPackage: nupunkt, tokenizers or peft is not installed.
        """
        self.tokenizer, self.model, default = self.build(work)
        self.own = default if self.threshold is None else self.threshold
        self.how = self.inference(self.model.window)
        self.texts = work.texts
        self.tuning = self._score(work.tuning_texts)

    def run(self) -> Thresholded:
        """Probabilities of the test texts."""
        return Thresholded(self._score(self.texts), self.tuning, self.own)

    def _score(self, texts: list[str]) -> list[Scored]:
        return windows.probabilities(self.model, self.tokenizer, texts, self.how, self.context.device)


def default_threshold(model: TokenClassifier) -> float:
    """Of a model without supervision."""
    return OWN_THRESHOLD["unlimited" if model.ahead is None else "limited"]


@method("segment-any-text", task="robust-sentence-boundaries")
class SegmentAnyText(Pretraining, Segmenting):
    """The base model: line ends of text without labels, some of it corrupted, seen with limited lookahead."""

    def build(self, work: Views) -> tuple[Subwords, TokenClassifier, float]:
        """The pretrained model."""
        tokenizer, model = self.model_of(self.context.seed, self.context.cache, self.context.device)
        return tokenizer, model, default_threshold(model)


@method("sat-supervised-mixture", task="robust-sentence-boundaries")
class SupervisedMixture(Learning, Pretraining, Segmenting):
    """SaT+SM: the base model trained on with labelled sentences, a third each clean, spoken and as in social media.

    In the paper the base model for it has no limit of lookahead: set `lookahead` to null.
    """

    def build(self, work: Views) -> tuple[Subwords, TokenClassifier, float]:
        """The pretrained model with one logit, trained on the mixture."""
        tokenizer, model = self.model_of(self.context.seed, self.context.cache, self.context.device)
        model = models.with_one_logit(model)
        draw = self.context.rng("mixture")
        parts = training.mixture(work.labelled, tokenizer, self.learning_block, draw)
        training.supervise(model, tokenizer, parts, self.supervision(), draw, self.context.device)
        return tokenizer, model, OWN_THRESHOLD["mixture"]


@method(
    "sat-lora",
    task="robust-sentence-boundaries",
    metrics=(Metric("trainable_parameters", better="lower", doc="In low-rank matrices and the head."),),
    packages=("peft>=0.15",),
)
class LoraAdaptation(Learning, Pretraining, Segmenting):
    """The base model adapted to the labelled sentences with low-rank matrices."""

    rank: PositiveInt = 16
    """Rank r."""
    alpha: PositiveFloat = 32.0
    """The product of the matrices counts alpha / r times."""
    matrices: Literal["attention and feed-forward", "attention"] = "attention and feed-forward"
    """Which of a block's matrices are adapted."""
    train_head: bool = True
    """Whether the head learns too."""
    start: Literal["pretrained", "untrained"] = "pretrained"
    """What is adapted: the base model, or one of its shape with random weights, as an ablation."""

    def __post_init__(self) -> None:
        if self.checkpoint and self.start == "untrained":
            raise ValueError(
                "a checkpoint is adapted as it is: start is 'untrained' for models trained here only"
            )

    def build(self, work: Views) -> tuple[Subwords, TokenClassifier, float]:
        """The adapted model with one logit."""
        make = self.model_of if self.start == "pretrained" else self.untrained
        tokenizer, model = make(self.context.seed, self.context.cache, self.context.device)
        seed = self.context.derive("lora")
        model = training.add_lora(
            models.with_one_logit(model), self.rank, self.alpha, self.matrices, seed, self.train_head
        ).to(self.context.device)
        self.trainable = training.trainable(model)
        parts = training.labelled_blocks(work.labelled, tokenizer, self.learning_block)
        draw = self.context.rng("adaptation")
        training.supervise(model, tokenizer, parts, self.supervision(), draw, self.context.device)
        return tokenizer, model, OWN_THRESHOLD["lora"]

    def measure(self, output: Thresholded) -> Measurement:
        """The task's score and the number of parameters that learnt."""
        score = as_measurement(self.task.score(self.work, output))
        return score | {"trainable_parameters": float(self.trainable)}


@method("sat-splitter", task=("sentence-boundaries", "held-out-sentence-boundaries"))
class SatSplitter(Windows, Pretraining, Method[Texts, list[Sentences]]):
    """The base model at one threshold, beside splitters that have none."""

    threshold: Fraction | None = None
    """A sentence ends where the probability is above it; null for the paper's default."""
    at_line_ends: bool = True
    """Whether a line end ends a sentence, too, as in the published package."""
    trim: bool = True
    """Whether sentences are returned without the white space at their ends."""

    def prepare(self, work: Texts) -> None:
        """Train or load the model.

        Raises:
            MissingData: a text to learn from is not here.
            MissingModel: the checkpoint cannot be loaded.
        """
        self.tokenizer, self.model = self.model_of(self.context.seed, self.context.cache, self.context.device)
        self.own = default_threshold(self.model) if self.threshold is None else self.threshold
        self.how = self.inference(self.model.window)
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The spans of each document."""
        scored = windows.probabilities(self.model, self.tokenizer, self.texts, self.how, self.context.device)
        return [
            self._spans(text, windows.split(text, one, self.own, at_line_ends=self.at_line_ends))
            for text, one in zip(self.texts, scored, strict=True)
        ]

    def _spans(self, text: str, spans: list[Span]) -> Sentences:
        from methods.text.sentence_score import strip

        return strip(text, spans) if self.trim else spans


@method(
    "subword-segmenter",
    task="segmentation-latency",
    metrics=(
        Metric("tokens_per_character", better="lower", doc="Tokens of the texts.", deterministic=True),
        Metric("flops_per_character", better="lower", doc="Operations, by count.", deterministic=True),
    ),
)
class SubwordSegmenter(Method[Plain, list[list[Span]]]):
    """A model of the base model's shape with random weights, XLM-R's by default, tokenisation included.

    Its table of embeddings is cut to the tokens that the texts use, which changes neither time nor output.
    """

    layers: PositiveInt = 3
    """Blocks."""
    hidden: PositiveInt = 768
    """Width."""
    heads: PositiveInt = 12
    """Attention heads."""
    lookahead: PositiveInt | None = 48
    """Tokens of the future, over all layers together; null for no limit."""
    subwords: Literal["xlm-roberta", "trained"] = "xlm-roberta"
    """The real tokenizer of XLM-R, from the package blingfire, or 4,000 byte pairs trained on the texts themselves."""
    window: PositiveInt = 512
    """Tokens of a window, special ones counted."""
    stride: PositiveInt = 256
    """Tokens from one window to the next."""
    inference_batch: PositiveInt = 32
    """Windows at a time."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of weights and activations."""

    def prepare(self, work: Plain) -> None:
        """Build the model and warm the tokenizer up.

        Raises:
            MissingPackage: blingfire is not installed.
        """
        source = (
            XlmRoberta() if self.subwords == "xlm-roberta" else trained(work.texts, 4000, self.context.cache)
        )
        pieces = source.encode(work.texts)
        special = [source.cls, source.pad, source.sep]
        used = np.unique(np.concatenate([special, *(p.ids for p in pieces)]))
        shape = Shape(
            int(used.max()) + 1,
            self.hidden,
            self.layers,
            self.heads,
            self.window,
            self.lookahead,
            auxiliary=False,
        )
        made = models.fresh(shape, self.context.seed)
        models.shrink(made, torch.from_numpy(used))
        self.model = made.to(self.context.device, getattr(torch, self.precision))
        self.tokenizer: Tokenizer = _Renumbered(source, used)
        self.how = Inference(self.window, self.stride, "uniform", self.inference_batch)
        self.texts = work.texts
        self.tokens = sum(len(p.ids) for p in pieces)
        self.context_length = float(np.mean([min(len(p.ids), self.how.room) for p in pieces]))

    def run(self) -> list[list[Span]]:
        """The segments of each text."""
        scored = windows.probabilities(self.model, self.tokenizer, self.texts, self.how, self.context.device)
        return [windows.split(text, one, 0.5) for text, one in zip(self.texts, scored, strict=True)]

    def measure(self, output: list[list[Span]]) -> Measurement:
        """The task's score, the number of tokens and the count of operations without overlap of windows."""
        score = as_measurement(self.task.score(self.work, output))
        characters = score.metrics["characters"]
        flops = costs.token_flops(self.layers, self.hidden, self.context_length, characters / self.tokens)
        return score | {"tokens_per_character": self.tokens / characters, "flops_per_character": flops}


class _Renumbered:
    """A tokenizer whose ids are places in `used`, which begins with its special ids."""

    def __init__(self, source: Tokenizer, used: np.ndarray) -> None:
        self._source, self._used = source, used
        self.cls, self.pad, self.sep = (
            int(np.searchsorted(used, i)) for i in (source.cls, source.pad, source.sep)
        )

    def encode(self, texts: list[str]) -> list[Pieces]:
        return [Pieces(np.searchsorted(self._used, p.ids), p.ends) for p in self._source.encode(texts)]
