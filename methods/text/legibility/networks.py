"""Networks that score a perturbed word beside the clean one: over pictures, and over characters.

All have the paper's head: the mean over the last hidden states, a linear layer, ReLU, a linear layer to one score.
Each has ``inputs(clean, perturbed, pictures)``, tensors on the CPU, and maps them to scores, shape (words,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError
from methods.text import encoders
from methods.text.legibility import glyphs
from methods.text.legibility.perturbation import vision_encoder

Pictures = Sequence[np.ndarray] | None
TROCR_SHAPE = "trocr-base-shape"
"""A ViT of TrOCR-base's shape with random weights, for latency and memory."""
SMALL_VIT = "small-vit"
"""A ViT of width 256 with 6 blocks over pictures of 32 x 256 pixels, with random weights to start from."""


class Head(nn.Module):
    """Width -> width -> ReLU -> one score."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden or width)
        self.last = nn.Linear(hidden or width, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Scores, shape (words,), from shape (words, width)."""
        return self.last(F.relu(self.first(pooled.to(self.first.weight.dtype)))).squeeze(-1)


class _Stacked(nn.Module):
    """Pictures with the perturbed word above the clean one, each character in a cell of 16 x 16 pixels."""

    head: Head

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("ink", torch.from_numpy(glyphs.inked(glyphs.unifont())), persistent=False)

    def inputs(self, clean: Sequence[str], perturbed: Sequence[str], pictures: Pictures = None) -> Tensor:
        """Rows of the glyph table, int64, shape (words, 2, length), the perturbed word first."""
        font = glyphs.unifont()
        return torch.from_numpy(
            np.stack([glyphs.cells(words, font, self.length) for words in (perturbed, clean)], axis=1)
        )

    def picture(self, cells: Tensor) -> Tensor:
        """1 = ink, in the dtype of the weights: shape (words, 1, 32, 16 * length)."""
        ink = self.ink[cells].permute(0, 1, 3, 2, 4)  # words, row of text, row of pixels, cell, column
        return ink.reshape(len(cells), 1, 2 * glyphs.SIDE, -1).to(self.head.first.weight.dtype)


class GlyphCnn(_Stacked):
    """Four convolutions over the stacked picture; the last sees both words at once.

    Args:
        length: cells of a line.
        width: channels of the last convolution.
    """

    def __init__(self, length: int, width: int = 32) -> None:
        super().__init__(length)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width // 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, (4, 3), padding=(0, 1)),
            nn.ReLU(),
        )
        self.head = Head(width)

    def forward(self, cells: Tensor) -> Tensor:
        """Scores from `inputs`."""
        return self.head(self.convolutions(self.picture(cells)).mean((2, 3)))


class SmallViT(_Stacked):
    """A ViT of `transformers`, from random weights, over the stacked picture in patches of 8 x 8 pixels."""

    def __init__(self, length: int, width: int = 256, blocks: int = 6, heads: int = 4) -> None:
        from transformers import ViTConfig, ViTModel

        super().__init__(length)
        config = ViTConfig(
            hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width,
            image_size=(2 * glyphs.SIDE, glyphs.SIDE * length), patch_size=8, num_channels=1,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.encoder = ViTModel(config, add_pooling_layer=False)
        self.head = Head(width)

    def forward(self, cells: Tensor) -> Tensor:
        """Scores from `inputs`."""
        return self.head(self.encoder(self.picture(cells)).last_hidden_state.mean(1))


class LineEncoder(nn.Module):
    """A pretrained vision encoder over the paper's picture: perturbed word, two blanks, clean word on one line.

    Args:
        encoder: maps pixel values (words, 3, side, side) to ``.last_hidden_state`` (words, patches, width).
        side: of the square that the picture is stretched to.
        mean, deviation: what pixel values in [0, 1] are normalised with, per channel.
    """

    def __init__(self, encoder: Any, side: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.encoder, self.side = encoder, side
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self.head = Head(encoder.config.hidden_size)

    def inputs(self, clean: Sequence[str], perturbed: Sequence[str], pictures: Pictures = None) -> Tensor:
        """Grey pictures stretched to the square: uint8, shape (words, side, side); drawn here unless given."""
        font = glyphs.unifont() if pictures is None else None
        rows = []
        for number, (word, shown) in enumerate(zip(clean, perturbed, strict=True)):
            drawn = glyphs.line(shown, word, font) if font is not None else pictures[number]  # type: ignore[index]
            one = torch.from_numpy(drawn)[None, None].float()
            stretched = F.interpolate(one, (self.side, self.side), mode="bilinear", antialias=True)
            rows.append(stretched[0, 0].round().clamp(0, 255).to(torch.uint8))
        return torch.stack(rows)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores from `inputs`."""
        values = (pictures[:, None].to(self.mean.dtype) / 255 - self.mean) / self.deviation
        dtype = next(self.encoder.parameters()).dtype
        return self.head(self.encoder(values.to(dtype)).last_hidden_state.float().mean(1))


class CharacterGru(nn.Module):
    """A two-way GRU over the characters of "perturbed [SEP] clean".

    Args:
        width: units in each direction.
        embedding: numbers for each character of the font.
    """

    def __init__(self, width: int = 64, embedding: int = 32) -> None:
        super().__init__()
        size = len(glyphs.unifont().codepoints)
        self.padding, self.separator = size + 1, size + 2
        self.embedding = nn.Embedding(size + 3, embedding, padding_idx=self.padding)
        self.recurrent = nn.GRU(embedding, width, batch_first=True, bidirectional=True)
        self.head = Head(2 * width)

    def inputs(self, clean: Sequence[str], perturbed: Sequence[str], pictures: Pictures = None) -> Tensor:
        """Numbers of the characters, int64, shape (words, longest); one for all without a glyph."""
        font = glyphs.unifont()
        unknown = len(font.codepoints)
        rows = []
        for word, shown in zip(clean, perturbed, strict=True):
            sides = [[unknown if p < 0 else p for p in font.places(text)] for text in (shown, word)]
            rows.append(torch.tensor([*sides[0], self.separator, *sides[1]]))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)

    def forward(self, characters: Tensor) -> Tensor:
        """Scores from `inputs`; what is padded counts neither in the states nor in their mean."""
        there = characters != self.padding
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(characters), there.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return self.head(states.sum(1) / there.sum(1, keepdim=True))


class TextEncoder(nn.Module):
    """A pretrained text encoder, of characters, bytes or sub-words, over "perturbed [SEP] clean".

    Args:
        encoder: maps ids and mask to ``.last_hidden_state``.
        tokenizer: joins the two texts with its own separator.
    """

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.head = Head(encoder.config.hidden_size)

    def inputs(self, clean: Sequence[str], perturbed: Sequence[str], pictures: Pictures = None) -> Tensor:
        """Ids and mask, int64, shape (words, 2, longest)."""
        batch = self.tokenizer(list(perturbed), list(clean), padding=True, return_tensors="pt")
        return torch.stack([batch["input_ids"], batch["attention_mask"]], 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores from `inputs`."""
        ids, mask = tokens.unbind(1)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return self.head((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def vision_network(encoder: str, length: int) -> nn.Module:
    """A network over pictures by name, new weights from torch's global generator.

    Args:
        encoder: ``cnn``, ``small-vit``, ``trocr-base-shape`` (random weights), or a Hugging Face vision encoder.
        length: cells of a line, for the first two.

    Raises:
        MissingModel: a Hugging Face model that cannot be loaded.
    """
    if encoder == "cnn":
        return GlyphCnn(length)
    if encoder == SMALL_VIT:
        return SmallViT(length)
    if encoder == TROCR_SHAPE:
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            image_size=384, qkv_bias=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        return LineEncoder(ViTModel(config, add_pooling_layer=False), 384, [0.5] * 3, [0.5] * 3)
    model, processor = vision_encoder(encoder)
    side = model.config.image_size
    if not isinstance(side, int):
        raise RequestError(f"'{encoder}' takes pictures of {side} pixels, not of one size in both directions")
    return LineEncoder(model, side, processor.image_mean, processor.image_std)


def text_network(encoder: str) -> nn.Module:
    """A network over characters by name, new weights from torch's global generator.

    Args:
        encoder: ``gru``, ``minilm``, or a Hugging Face text encoder such as ``google/canine-s``.

    Raises:
        MissingModel: a model that cannot be loaded.
    """
    if encoder == "gru":
        return CharacterGru()
    return TextEncoder(encoders.load_encoder(encoder), encoders.load_tokenizer(encoder))


def multiply_adds(width: int, blocks: int, tokens: int, patch_values: int) -> float:
    """Multiply-adds of a ViT on one picture: its blocks, and the projection of its patches.

    ``blocks * (12 * tokens * width^2 + 2 * tokens^2 * width) + (tokens - 1) * patch_values * width``
    """
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return float(blocks * block + (tokens - 1) * patch_values * width)
