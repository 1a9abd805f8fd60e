"""How good a ranking of candidates is: precision and recall over the pooled candidates of all pages.

Candidates with equal scores are one step of the ranking: all of them are taken or none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# At the top, so that the processes of all methods have it from the one that they are forked from.
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class Curve:
    """Precision and recall of the candidates at or above each distinct score, the highest first.

    Attributes:
        precision, recall: float64 [steps].
        thresholds: the scores, falling.
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray

    def precision_at(self, recall: float) -> float:
        """The greatest precision at this recall or a greater one."""
        reached = self.recall >= recall - 1e-12
        return float(self.precision[reached].max()) if reached.any() else 0.0

    def recall_at(self, precision: float) -> float:
        """The greatest recall at this precision or a greater one; 0 where it is never reached."""
        reached = self.precision >= precision - 1e-12
        return float(self.recall[reached].max()) if reached.any() else 0.0

    def threshold_at(self, precision: float) -> float:
        """The lowest score above which precision is at least this; infinite where it is never reached."""
        reached = self.precision >= precision - 1e-12
        return float(self.thresholds[reached].min()) if reached.any() else float("inf")

    @property
    def average_precision(self) -> float:
        """The sum of the precisions of the steps, each weighted by what it adds to recall."""
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    @property
    def max_f1(self) -> float:
        """The greatest harmonic mean of precision and recall."""
        total = self.precision + self.recall
        f1 = np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)
        return float(f1.max())


def curve(scores: np.ndarray, right: np.ndarray) -> Curve:
    """The curve of a ranking.

    Args:
        scores: float64 [n]; higher is better.
        right: bool [n], with at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], np.cumsum(right[order])
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    return Curve(hits[last] / (last + 1), hits[last] / hits[-1], falling[last])


def area_under_roc(scores: np.ndarray, right: np.ndarray) -> float:
    """The probability that a positive is above a negative, ties a half; not a number where there is only one kind."""
    return float(roc_auc_score(right, scores)) if right.any() and not right.all() else float("nan")


def point(chosen: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Precision and recall of a set: bool [n] each. The precision of an empty set is 0."""
    hits = int((chosen & right).sum())
    return hits / max(1, int(chosen.sum())), hits / int(right.sum())
