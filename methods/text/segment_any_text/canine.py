"""CANINE as a character-level token classifier: what stands for WtP, the predecessor on characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import seeding
from methods.text.segment_any_text.subwords import Pieces


class Characters:
    """Each character is a token; its id is its code point. There are no special tokens, and nothing is padding but 0."""

    cls = sep = pad = 0

    def encode(self, texts: Sequence[str]) -> list[Pieces]:
        """The characters of each text."""
        return [
            Pieces(
                np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64),
                np.arange(1, len(text) + 1, dtype=np.int64),
            )
            for text in texts
        ]


class CharacterClassifier(nn.Module):
    """CANINE of the library transformers with one logit for each character.

    Args:
        net: a ``CanineForTokenClassification``.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (rows, n, 1), of ids int64 (rows, n) and mask bool (rows, n), n a multiple of 4."""
        return self.net(input_ids=ids, attention_mask=mask.long()).logits  # type: ignore[no-any-return]


def fresh(layers: int, hidden: int, heads: int, seed: int = 0) -> CharacterClassifier:
    """CANINE with `layers` deep blocks and random weights, in evaluation mode; they depend on `seed` alone."""
    from transformers import CanineConfig, CanineForTokenClassification

    config = CanineConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
        net = CanineForTokenClassification(config)
    return CharacterClassifier(net).eval()
