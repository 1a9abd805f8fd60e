"""Parameters that several tasks have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.seeding import torch_generator
from harness.types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from methods.common.language_model import Precision, Recipe, Schedule
from methods.finetuning.half_fine_tuning import texts
from methods.finetuning.half_fine_tuning.single import Shape
from methods.finetuning.half_fine_tuning.stages import Host


@dataclass(kw_only=True, eq=False)
class HostRecipe:
    """How each stage is trained, the same for all methods: AdamW, gradient norm clipped at 1."""

    steps: PositiveInt = 120
    """Of each stage."""
    batch: PositiveInt = 16
    """Rows a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled, times the learning rate."""
    schedule: Schedule = "cosine"
    """How the learning rate falls."""
    warmup: Fraction = 0.05
    """Share of the steps that warm up."""
    precision: Precision = "float32"
    """With "bfloat16", forward and backward run under autocast."""

    def host(self) -> Host:
        """The recipe without the batch, which is part of the stages."""
        return Host(
            self.steps,
            self.lr,
            self.weight_decay,
            self.schedule,
            self.warmup,
            precision=self.precision,
        )


@dataclass(kw_only=True, eq=False)
class PretrainedText:
    """The language model before the first stage, and the text that it knows."""

    base_model: str = ""
    """A Hugging Face id or folder; empty: a byte-level Llama trained once on `base_text` and cached."""
    base_text: str = "gutenberg-novels/war-and-peace.txt.gz"
    """The knowledge to keep; a name as in `methods.common.corpora.corpus`."""
    base_steps: PositiveInt = 700
    """Steps of the byte-level model's pretraining."""
    base_batch: PositiveInt = 24
    """Windows a step in pretraining."""
    base_lr: PositiveFloat = 2e-3
    """Peak learning rate of pretraining."""
    base_precision: Precision = "float32"
    """Of pretraining."""
    cap: PositiveInt = 1_500_000
    """Bytes kept of each stage's text."""
    held_out: Fraction = 0.05
    """Share at the end of each text that is only evaluated on."""
    evaluated: PositiveInt = 9216
    """Bytes of each held-out part that are scored."""
    hidden: PositiveInt = 128
    """Width of the byte-level model."""
    feed_forward: PositiveInt = 344
    """Width of its feed-forward layers."""
    layers: PositiveInt = 4
    """Its layers."""
    heads: PositiveInt = 4
    """Its attention heads."""
    context: PositiveInt = 96
    """Tokens of a window."""

    def model(self) -> texts.BaseModel:
        """The base model's recipe."""
        recipe = Recipe(
            corpora=(self.base_text,),
            held_out=self.held_out,
            hidden=self.hidden,
            feed_forward=self.feed_forward,
            layers=self.layers,
            heads=self.heads,
            context=self.context,
            steps=self.base_steps,
            batch=self.base_batch,
            lr=self.base_lr,
            precision=self.base_precision,
        )
        return texts.BaseModel(self.base_model, recipe, self.context)

    def parts(self, name: str, cap: int | None) -> tuple[Tensor, str]:
        """See `texts.parts`."""
        return texts.parts(name, cap, self.held_out, self.evaluated)


@dataclass(kw_only=True, eq=False)
class LlamaShape:
    """Shape of a Llama with fresh weights."""

    vocabulary: PositiveInt = 256
    """Token ids."""
    hidden: PositiveInt = 128
    """Width of the residual stream."""
    feed_forward: PositiveInt = 344
    """Width of the gated feed-forward layers."""
    layers: PositiveInt = 4
    """Decoder layers."""
    heads: PositiveInt = 4
    """Attention heads."""
    context: PositiveInt = 96
    """Tokens of a window."""
    batch: PositiveInt = 16
    """Windows."""

    def shape(self) -> Shape:
        """The shape on its own."""
        return Shape(self.vocabulary, self.hidden, self.feed_forward, self.layers, self.heads, self.context)

    def tokens(self, seed: int, name: str) -> Tensor:
        """Random tokens, int64, shape (batch, context + 1)."""
        size = (self.batch, self.context + 1)
        return torch.randint(self.vocabulary, size, generator=torch_generator(seed, name))
