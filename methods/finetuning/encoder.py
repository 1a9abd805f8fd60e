"""A classifier over the pretrained sentence encoder of `methods.common.sentence_encoder`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods.common.sentence_encoder import PACKAGE, encoder, folder, pool, tokenize

__all__ = ["PACKAGE", "SentenceClassifier", "encoder", "folder", "pool", "tokenize"]


class SentenceClassifier(nn.Module):
    """The encoder's sentence vector and a linear layer over it.

    Args:
        encoder: maps ids and mask to ``.last_hidden_state``.
        classes: outputs of the layer `head`.
        seed: of the layer's weights; the global random state is not touched.
    """

    def __init__(self, encoder: Any, classes: int, seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.head = nn.utils.skip_init(nn.Linear, width, classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.weight.normal_(0.0, 0.02, generator=generator)
            self.head.bias.zero_()

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Unit sentence vectors, shape (rows, d)."""
        return pool(self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state, mask)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (rows, classes). The unit vector is scaled by sqrt(d), so its entries are about 1."""
        vectors = self.embed(tokens, mask)
        return self.head(vectors * vectors.shape[-1] ** 0.5)  # type: ignore[no-any-return]
