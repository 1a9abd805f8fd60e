"""The contrast of a fine-tuned model p_1 with a reference p_0: of next tokens, and of whole texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.decoding.contrastive_generation.models import TextModel, mean_log_probability


def plausible(log_p1: Tensor, alpha: float) -> Tensor:
    """Tokens with p_1(v) >= alpha max p_1: bool, same shape (..., size).

    With alpha = 0 every token that has a probability at all; with alpha = 1 the most probable one.
    """
    threshold = math.log(alpha) if alpha > 0 else -math.inf
    return (log_p1 >= log_p1.amax(-1, keepdim=True) + threshold) & (log_p1 > -torch.inf)


def token_scores(log_p1: Tensor, log_p0: Tensor | None, gamma: float, alpha: float) -> Tensor:
    """log p_1(v) - gamma log p_0(v) for plausible tokens, minus infinity for the others.

    Args:
        log_p1, log_p0: natural logs of two normalised laws, shape (..., size). None in place of the second is allowed
            where gamma is 0.
        gamma: weight of the reference.
        alpha: least share of the largest probability that a plausible token has.

    Returns:
        Scores, which generation uses as logits as they are: shape (..., size).
    """
    scores = log_p1
    if gamma:
        if log_p0 is None:
            raise ValueError("a contrast with gamma above 0 needs a reference")
        scores = log_p1 - gamma * log_p0
    return scores.masked_fill(~plausible(log_p1, alpha), -torch.inf)


@dataclass
class Contrast:
    """p_1 against p_0, token by token.

    Attributes:
        tuned: p_1.
        reference: p_0; not asked where gamma is 0.
        gamma, alpha: see `token_scores`.
    """

    tuned: TextModel
    reference: TextModel
    gamma: float = 1.0
    alpha: float = 0.1

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Scores of the next token, float32 (rows, size), and the state of both models; see `TextModel.step`."""
        first, second = state or (None, None)
        logits, first = self.tuned.step(tokens, first)
        log_p1, log_p0 = self.tuned.log_law(logits), None
        if self.gamma:
            logits, second = self.reference.step(tokens, second)
            log_p0 = self.reference.log_law(logits)
        return token_scores(log_p1, log_p0, self.gamma, self.alpha), (first, second)

    def reorder(self, state: Any, rows: Tensor) -> Any:
        """See `TextModel.reorder`."""
        first, second = state
        second = None if second is None else self.reference.reorder(second, rows)
        return self.tuned.reorder(first, rows), second


def contrastive_scores(
    tuned: TextModel, reference: TextModel, rows: Sequence[Sequence[int]], gamma: float = 1.0, batch: int = 64
) -> Tensor:
    """s(x) = (1 / |x|) sum over i of [log p_1(x_i | x_<i) - gamma log p_0(x_i | x_<i)] of each row.

    Args:
        rows: tokens, the start first.
        gamma: weight of the reference.
        batch: rows at a time.

    Returns:
        Float64, shape (rows,), on the CPU.
    """
    scores = mean_log_probability(tuned, rows, batch)
    return scores - gamma * mean_log_probability(reference, rows, batch) if gamma else scores
