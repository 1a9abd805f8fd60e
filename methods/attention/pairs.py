"""Layers that attend to some pairs of queries and keys, and how much of the exact softmax mass these hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from harness.method import Metric
from methods.attention.layer import Layer
from methods.attention.work import Attended

PATTERN = (
    Metric("mass_recall", doc="Mean share of a query's exact softmax mass on the keys that it sees."),
    Metric(
        "kept_share", better="neither", doc="Pairs of query and key that are attended to, over those of dense."
    ),
    Metric(
        "scored_pairs",
        "pairs",
        "lower",
        "Dot products of a head, of queries with keys, masked ones included, and with centroids.",
        deterministic=True,
    ),
)

_CHUNK = 1 << 24
"""Scores held at a time."""


class Pattern(Layer):
    """A layer that attends to some pairs of queries and keys, and says to which."""

    @abstractmethod
    def kept(self, rows: Tensor) -> Tensor:
        """Whether the queries `rows` see each key of `inputs`: bool, (heads or 1, rows, n)."""

    @abstractmethod
    def scored(self, n: int) -> float:
        """Dot products of a head in a sequence of n tokens, masked ones included."""

    def measure(self, output: Attended) -> Mapping[str, float]:
        x = self.inputs
        n = x.q.shape[1]
        recall, seen, dense, count = 0.0, 0.0, 0.0, 0
        keys = x.k.float().repeat_interleave(x.group, 0)
        for rows in x.rows.split(max(1, _CHUNK // (n * len(x.q)))):
            scores = x.q[:, rows].float() @ keys.mT * x.scale
            visible = torch.ones(len(rows), n, dtype=torch.bool, device=rows.device)
            if x.causal:
                visible = torch.arange(n, device=rows.device) <= rows[:, None]
                scores = scores.masked_fill(~visible, -torch.inf)
            kept = (self.kept(rows) & visible).expand(len(x.q), -1, -1)
            recall += float((scores.softmax(-1) * kept).sum())
            seen += float(kept.sum())
            dense += float(visible.sum()) * len(x.q)
            count += len(rows) * len(x.q)
        return {
            **self.task.score(self.work, output),  # type: ignore[dict-item]
            "mass_recall": recall / count,
            "kept_share": seen / dense,
            "scored_pairs": self.scored(n),
        }
