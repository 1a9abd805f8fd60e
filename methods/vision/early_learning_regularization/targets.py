"""The running target of every training example, and the regulariser that pulls towards it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.method import Measurement, Metric, as_measurement
from methods.vision.early_learning_regularization.training import Training
from methods.vision.noisy_labels import NoisyLabels, Trained, share

TABLE_METRICS = (
    Metric("table_bytes", unit="B", better="lower", doc="The running targets.", deterministic=True),
    Metric(
        "target_accuracy", doc="Share of training examples whose running target is largest at the true class."
    ),
)

CLIP = 1e-4
"""Probabilities are kept this far from 0 and 1, so that the logarithm stays finite."""


def clipped_softmax(logits: Tensor) -> Tensor:
    """q = clip(softmax(f)), [B, C]."""
    return F.softmax(logits, dim=1).clamp(CLIP, 1 - CLIP)


class Targets:
    """T, one row per training example: the running mean of what the network said of it.

    Rows start at zero and sum to 1 - beta^m after m visits. The table is no parameter and has no gradient.
    """

    def __init__(self, examples: int, classes: int, beta: float, device: str | torch.device) -> None:
        self.beta = beta
        self.rows = torch.zeros(examples, classes, device=device)

    @torch.no_grad()
    def update(self, index: Tensor, q: Tensor) -> Tensor:
        """T_i <- beta T_i + (1 - beta) q_i / sum_c q_ic for the examples `index`; their new rows.

        Args:
            index: [B] int64, no example twice.
            q: [B, C] float32; its graph is cut.
        """
        q = q.detach()
        rows = self.rows[index].mul_(self.beta).add_(q / q.sum(1, keepdim=True), alpha=1 - self.beta)
        self.rows[index] = rows
        return rows


def table_metrics(work: NoisyLabels, *tables: Targets) -> dict[str, float]:
    """Bytes of the tables, and how often the class that they favour together is the true one."""
    return {
        "table_bytes": float(sum(table.rows.nbytes for table in tables)),
        "target_accuracy": share(likeliest(*tables) == work.true),
    }


def likeliest(*tables: Targets) -> Tensor:
    """The class at which the sum of the tables is largest, [n] int64 on the CPU."""
    return torch.stack([table.rows for table in tables]).sum(0).argmax(1).cpu()


class TargetTraining(Training):
    """A training with one table, whose suspects are the labels at which the running target is not largest."""

    def reset(self, beta: float) -> None:
        """Start with an empty table."""
        self.targets = Targets(len(self.work.inputs), self.work.classes, beta, self.context.device)

    def suspected(self) -> Tensor:
        return likeliest(self.targets) != self.work.given

    def measure(self, output: Trained) -> Measurement:
        return as_measurement(super().measure(output)) | table_metrics(self.work, self.targets)


def early_learning(targets: Tensor, q: Tensor) -> Tensor:
    """mean_i log(1 - <T_i, q_i>), the regulariser; it falls as q turns towards T.

    Its gradient in the logits is p_k / (1 - <T, p>) * sum_j (T_j - T_k) p_j where nothing is clipped.

    Args:
        targets: [B, C] without gradient.
        q: [B, C].
    """
    return torch.log(1 - (targets * q).sum(1)).mean()
