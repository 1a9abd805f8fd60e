"""A reference without a network: an n-gram model of what p_0 writes, for want of any data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.decoding.contrastive_generation.models import TextModel
from methods.decoding.language_models import Vocabulary
from methods.decoding.ngram import Ngram


class NgramModel(TextModel):
    """An interpolated n-gram model (Witten-Bell) over the tokens of another model.

    Args:
        like: whose tokens and device it has.
        rows: tokens of the texts to count, each with the start first.
        order: n.
    """

    def __init__(self, like: TextModel, rows: Sequence[Sequence[int]], order: int = 4) -> None:
        self.module, self.start, self.banned, self.size = nn.Module(), like.start, like.banned, like.size
        self.like, self.order = like, order
        self._lines = [list(row[1:]) for row in rows]
        self._count()

    @property
    def device(self) -> torch.device:
        """Where logits are put."""
        return self.like.device

    def copy(self) -> NgramModel:
        """A model that can count further texts without the other's noticing."""
        return NgramModel(self.like, [[self.start, *line] for line in self._lines], self.order)

    def learn(self, row: Sequence[int], times: int = 1) -> None:
        """Count a text `times` times more."""
        self._lines += [list(row[1:])] * times
        self._count()

    def encode(self, text: str) -> list[int]:
        return self.like.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.like.decode(tokens)

    def logits(self, ids: Tensor) -> Tensor:
        rows = ids[:, 1:].tolist()
        laws = [[self._law(row[:place]) for place in range(len(row) + 1)] for row in rows]
        return torch.from_numpy(np.array(laws, np.float32)).to(ids.device)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        # The start is what n-grams have anyway in front of a line.
        state = tokens.new_empty((len(tokens), 0)) if state is None else torch.cat([state, tokens[:, None]], 1)
        laws = np.array([self._law(row) for row in state.tolist()], np.float32)
        return torch.from_numpy(laws).to(tokens.device), state

    def reorder(self, state: Any, rows: Tensor) -> Any:
        return state[rows]

    def _law(self, prefix: Sequence[int]) -> np.ndarray:
        return self._counts.log_probabilities(prefix[-self.order :] if len(prefix) > self.order else prefix)

    def _count(self) -> None:
        vocabulary = Vocabulary((b"",) * self.size, eos=self.start)
        self._counts = Ngram.fit(self._lines, vocabulary, self.order)
