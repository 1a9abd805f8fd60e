"""AnchorAttention (2025): attention to the single keys that come close to a row's likely maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.method import Metric, method
from harness.types import NonNegativeInt, PositiveInt
from methods.attention.anchor_attention.algorithm import AnchorAttention, theta_of
from methods.attention.block_sparse import Kernel
from methods.attention.layer import LanguageModel
from methods.attention.partial import Partial
from methods.attention.prefill import SELECTION, MatchingLayer, seconds
from methods.attention.work import Attended, Text


@dataclass(kw_only=True, eq=False)
class Parameters:
    """The parameters of the algorithm."""

    theta: float = 12.0
    """How far below the anchor, its row's likely maximum, the score of a key may be, in nats."""
    block: PositiveInt = 128
    """B, rows whose mean query stands for them, and keys of the window at the start."""
    step: PositiveInt = 16
    """Blocks of a group, whose rows share their stripes. Rows at the end that make no whole group are attended to in
    full."""
    pool: Literal["mean", "max-score"] = "mean"
    """"mean" compares a block's mean query with its mean anchor. "max-score" compares every row with its own, an
    oracle that costs all scores."""
    granularity: Literal["stripe", "block"] = "stripe"
    """Whether single keys are attended to, or the whole blocks of B keys that they lie in."""

    def algorithm(self, theta: Tensor, kernel: Kernel) -> AnchorAttention:
        """With this theta, shape () or (heads,)."""
        return AnchorAttention(
            theta=theta,
            block=self.block,
            step=self.step,
            pool=self.pool,
            granularity=self.granularity,
            kernel=kernel,
        )


@method(
    "anchor-attention",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=(
        *SELECTION,
        Metric("anchor_time", unit="s", better="lower", doc="Of attention to the anchor region; median of 5."),
        Metric(
            "anchor_density",
            better="neither",
            doc="Pairs of the anchor region, and of rows in no whole group, over all causal pairs.",
            deterministic=True,
        ),
    ),
)
class AnchorAttentionMethod(Parameters, MatchingLayer):
    """Exact attention to the first keys and nearby, which gives each row an anchor, and to the keys that come
    within theta of it."""

    def plain(self) -> AnchorAttention:
        return self.algorithm(torch.tensor(self.theta, dtype=torch.float64), self.kernel)

    def strengthened(self, strength: Tensor) -> AnchorAttention:
        return self.algorithm(theta_of(strength), self.kernel)

    def measure(self, output: Attended) -> dict[str, float]:
        x, anchor = self.inputs, self.selection
        assert isinstance(anchor, AnchorAttention)
        n = x.q.shape[1]
        rows = n // anchor.group * anchor.group
        pairs = anchor.anchor_pairs(rows) + (n * (n + 1) - rows * (rows + 1)) // 2

        def first_step() -> None:
            if rows:
                anchor.anchor(x.q[:, :rows], x.k, x.v, scale=x.scale)

        return {
            **super().measure(output),
            "anchor_time": seconds(first_step, x.q.device),
            "anchor_density": pairs / (n * (n + 1) / 2),
        }


@method(
    "anchor-attention-language-model",
    task="long-context-language-model",
    metrics=[
        Metric("density", better="lower", doc="Pairs attended to over all causal pairs, in those layers.")
    ],
)
class AnchorAttentionLanguageModel(Parameters, LanguageModel):
    """The model with AnchorAttention in its last layers, without any training."""

    patched_layers: NonNegativeInt = 4
    """Layers, from the last, whose attention is replaced."""
    kernel: Literal["auto", "torch", "triton"] = "auto"
    """See `anchor-attention`."""

    def prepare(self, work: Text) -> None:
        self.anchor = self.algorithm(torch.tensor(self.theta, dtype=torch.float64), self.kernel)
        super().prepare(work)

    def run(self) -> Tensor:
        self.densities: list[float] = []
        return super().run()

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        result = self.anchor(q, k, v, scale=scale)
        heads, n, _ = q.shape
        self.densities.append(float(result.pairs.sum()) / (heads * n * (n + 1) / 2))
        return result.part

    def measure(self, output: Tensor) -> dict[str, float]:
        return {
            **self.task.score(self.work, output),
            "density": math.fsum(self.densities) / len(self.densities) if self.densities else 1.0,
        }
