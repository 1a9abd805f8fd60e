"""Parameters that several methods have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.text.segment_any_text import model as models
from methods.text.segment_any_text import subwords, training
from methods.text.segment_any_text.model import TokenClassifier
from methods.text.segment_any_text.subwords import Subwords
from methods.text.segment_any_text.training import Recipe, Supervision
from methods.text.segment_any_text.windows import Inference


@dataclass(kw_only=True, eq=False)
class Windows:
    """How a text of any length goes through a model."""

    window: PositiveInt | None = None
    """Tokens of a window, special tokens counted; null for as many as the model has places, at most 512."""
    stride: PositiveInt = 64
    """Tokens from one window to the next."""
    weighting: Literal["uniform", "hat"] = "uniform"
    """How windows that overlap count: all alike, or less towards their ends."""
    inference_batch: PositiveInt = 32
    """Windows at a time."""

    def inference(self, places: int) -> Inference:
        """The parameters together, for a model with `places` places."""
        return Inference(self.window or min(512, places), self.stride, self.weighting, self.inference_batch)


@dataclass(kw_only=True, eq=False)
class Pretraining:
    """The model that is trained once on lines without labels and cached; or a checkpoint of the authors."""

    checkpoint: str = ""
    """A Hugging Face id such as "segment-any-text/sat-3l", or a folder; empty: a model is trained here."""
    checkpoint_tokenizer: str = "FacebookAI/xlm-roberta-base"
    """The tokenizer of the checkpoint: a Hugging Face id or a folder."""
    corpora: tuple[str, ...] = ("middlemarch", "moby-dick", "war-and-peace")
    """Texts to learn from: these, "wikitext-valid", "wikitext-test" and, without data, "opinions"."""
    lines: NonNegativeInt = 20000
    """Lines of them in all; 0 for all."""
    natural: bool = False
    """Whether lines are paragraphs, as in the texts, instead of sentences that nupunkt finds."""
    vocabulary: PositiveInt = 4000
    """Subwords of a byte-pair tokenizer trained on the lines."""
    hidden: PositiveInt = 128
    """Width."""
    layers: PositiveInt = 3
    """Transformer blocks."""
    heads: PositiveInt = 4
    """Attention heads."""
    lookahead: NonNegativeInt | None = 48
    """Future tokens that an output depends on, over all layers together; null for no limit."""
    dropout: Fraction = 0.0
    """In training; XLM-R's own is 0.1."""
    auxiliary: bool = True
    """Whether the model also learns which mark comes next."""
    corrupt: Fraction = 0.1
    """Probability that a block is made lower-case and loses all punctuation."""
    deleted: Fraction = 0.2
    """Probability that a mark is deleted from the input."""
    block: PositiveInt = 128
    """Tokens of a training block, special ones counted."""
    batch: PositiveInt = 16
    """Blocks of a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    warmup: Fraction = 0.1
    """Share of the steps that warm up; then the rate falls linearly."""
    steps: PositiveInt = 1000
    """Of pretraining."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward and backward passes in training, bfloat16 under autocast."""

    def recipe(self, seed: int) -> Recipe:
        """The parameters together."""
        return Recipe(
            corpora=tuple(self.corpora),
            lines=self.lines,
            natural=self.natural,
            vocabulary=self.vocabulary,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            lookahead=self.lookahead,
            dropout=self.dropout,
            auxiliary=self.auxiliary,
            corrupt=self.corrupt,
            deleted=self.deleted,
            block=self.block,
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            steps=self.steps,
            precision=self.precision,
            seed=seed,
        )

    def model_of(self, seed: int, cache: Path | None, device: str) -> tuple[Subwords, TokenClassifier]:
        """Tokenizer and model: the checkpoint, or the one trained here.

        Raises:
            MissingModel: the checkpoint or its tokenizer cannot be loaded.
            MissingData: a text to learn from is not here.
        """
        if self.checkpoint:
            return subwords.pretrained(self.checkpoint_tokenizer), models.published(self.checkpoint).to(device)
        return training.pretrained(self.recipe(seed), cache=cache, device=device)

    def untrained(self, seed: int, cache: Path | None, device: str) -> tuple[Subwords, TokenClassifier]:
        """Tokenizer and model of the same shape before any training."""
        recipe = self.recipe(seed)
        text = training.lines.lines(recipe.corpora, recipe.lines, recipe.natural, cache)
        tokenizer = subwords.trained(text, recipe.vocabulary, cache)
        return tokenizer, models.fresh(recipe.shape(len(tokenizer)), seed).to(device)


@dataclass(kw_only=True, eq=False)
class Learning:
    """How a model learns from labelled sentences."""

    learning_block: PositiveInt = 128
    """Tokens of a block, special ones counted."""
    learning_batch: PositiveInt = 16
    """Blocks of a step, or as many as there are."""
    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate of AdamW."""
    learning_warmup: Fraction = 0.1
    """Share of the steps that warm up; then the rate falls linearly."""
    learning_decay: NonNegativeFloat = 0.0
    """Weight decay, times the learning rate."""
    learning_steps: NonNegativeInt = 0
    """Steps; 0 for as many as the epochs take."""
    epochs: PositiveInt = 30
    """Times that each block is seen, when there is no number of steps."""
    learning_precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward and backward passes, bfloat16 under autocast."""

    def supervision(self) -> Supervision:
        """The parameters together."""
        return Supervision(
            block=self.learning_block,
            batch=self.learning_batch,
            lr=self.learning_rate,
            warmup=self.learning_warmup,
            weight_decay=self.learning_decay,
            steps=self.learning_steps,
            epochs=self.epochs,
            precision=self.learning_precision,
        )
