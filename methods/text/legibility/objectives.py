"""The paper's multi-task loss on pairs, and its measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Objective = Literal["multi-task", "ranking", "classification"]


def pair_loss(first: Tensor, second: Tensor, choice: Tensor, objective: Objective = "multi-task") -> Tensor:
    """The mean loss of pairs.

    With b(s, t) the binary cross-entropy with logits, a pair with scores s0, s1 and choice y costs

        1[y < 2] b(s0 - s1, 1[y = 0]) + 1[y in {0, 2, 3}] b(s0, 1[y in {0, 2}]) + 1[y in {1, 2, 3}] b(s1, 1[y in {1, 2}]).

    Args:
        first: s0, shape (pairs,).
        second: s1, shape (pairs,).
        choice: int64, shape (pairs,): 0 first more legible, 1 second, 2 both legible, 3 neither.
        objective: all terms, the first alone (`ranking`), or the last two alone (`classification`).
    """
    import torch.nn.functional as F

    total = first.new_zeros(len(first))
    if objective != "classification":
        ranking = F.binary_cross_entropy_with_logits(
            first - second, (choice == 0).to(first.dtype), reduction="none"
        )
        total = total + (choice < 2) * ranking
    if objective != "ranking":
        for score, mine, others in ((first, 0, 1), (second, 1, 0)):
            target = ((choice == mine) | (choice == 2)).to(first.dtype)
            term = F.binary_cross_entropy_with_logits(score, target, reduction="none")
            total = total + (choice != others) * term
    return total.mean()


def known_labels(choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What choices say of single words: labels and whether they are known, both bool, shape (pairs, 2)."""
    choice = np.asarray(choice)
    labels = np.stack([(choice == 0) | (choice == 2), (choice == 1) | (choice == 2)], axis=1)
    known = np.stack([choice != 1, choice != 0], axis=1)
    return labels, known


def measures(scores: np.ndarray, choice: np.ndarray) -> dict[str, float]:
    """The paper's measures of scores, shape (pairs, 2); a word is called legible where its score is above 0.

    Ranking accuracy is over pairs with y < 2 and counts ties as right, as the paper does; `ties` is their share and
    `rank_accuracy_strict` counts each as half. Where there is nothing to count, a measure is 0. `all_legible_f1` is
    the F1 of calling every word legible, 2 p / (1 + p).
    """
    scores, choice = np.asarray(scores, float), np.asarray(choice)
    ordered = choice < 2
    ahead = np.where(choice == 0, scores[:, 0] - scores[:, 1], scores[:, 1] - scores[:, 0])[ordered]
    right, tied = _mean(ahead >= 0), _mean(ahead == 0)
    labels, known = known_labels(choice)
    truth, called = labels[known], scores[known] > 0
    hits = float((truth & called).sum())
    precision = hits / max(float(called.sum()), 1.0)
    recall = hits / max(float(truth.sum()), 1.0)
    share = _mean(truth)
    return {
        "rank_accuracy": right,
        "rank_accuracy_strict": right - tied / 2,
        "ties": tied,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "accuracy": _mean(truth == called),
        "legible_share": share,
        "all_legible_f1": 2 * share / (1 + share),
    }


def best_threshold(scores: np.ndarray, choice: np.ndarray) -> float:
    """The threshold above which calling a word legible has the highest F1 on pairs, halfway between two scores."""
    labels, known = known_labels(choice)
    values, truth = np.asarray(scores, float)[known], labels[known]
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    if not truth.any():
        return float(values[0]) if len(values) else 0.0
    hits = np.cumsum(truth)
    f1 = 2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())
    # A threshold stands only between two different scores, or below all of them.
    ends = np.append(values[:-1] != values[1:], True)
    best = int(np.where(ends, f1, -1).argmax())
    below = values[best + 1] if best + 1 < len(values) else values[best] - 1
    return float((values[best] + below) / 2)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
