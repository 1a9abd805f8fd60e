"""One layer's attention by clusters, blocks or strides, with the pairs that are kept and the mass that they hold."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.method import Metric
from harness.types import NonNegativeInt
from methods.attention.layer import Layer
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import routed_attention
from methods.attention.tasks import Attended, Inputs

PATTERN = (
    Metric("mass_recall", doc="Mean share of a query's exact softmax mass on the keys that it sees."),
    Metric(
        "kept_share", better="neither", doc="Pairs of query and key that are attended to, over those of dense."
    ),
    Metric(
        "scored_pairs",
        "pairs",
        "lower",
        "Dot products of a head, of queries with centroids and, without a mask, with keys.",
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


class Clustered(Pattern):
    """A layer whose tokens attend inside clusters; the subclasses say which those are.

    Vectors are compared as the clusters are made by their layer norm; they attend as they are. A routing head of the
    paper has normalised queries and keys, and its keys are its queries: then the clusters are shared.
    """

    clusters: NonNegativeInt = 0
    """c; 0: the square root of the length, rounded."""
    window: NonNegativeInt = 0
    """w, tokens of a cluster; 0: length / c, rounded up."""
    self_mask: bool = True
    """Whether a token sees itself only when it sees no other."""
    kernel: Literal["auto", "torch", "triton"] = "auto"
    """"torch" gathers for torch's fused attention; "triton" gathers inside a kernel (a GPU, forward only; needs the
    package triton); "auto" takes the one made for the device."""

    def prepare(self, work: Inputs) -> None:
        super().prepare(work)
        x = self.inputs
        n = x.q.shape[1]
        self.count = self.clusters or max(1, round(math.sqrt(n)))
        self.size = self.window or -(-n // self.count)
        if max(self.count, self.size) > n:
            raise RequestError(f"{self.count} clusters of {self.size} tokens in a sequence of {n}")
        self.shared = x.group == 1 and torch.equal(x.q, x.k)

    @abstractmethod
    def members(self, x: Tensor) -> Tensor:
        """Members of each cluster, int64, (heads, c, w), of x, (heads, n, d)."""

    def find(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor | None]:
        """Members among the queries, and among the keys where they are others."""
        with torch.no_grad():
            return self.members(q), None if self.shared else self.members(k)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        members, keys = self.find(q, k)
        return routed_attention(
            q, k, v, members, keys, scale=scale, causal=causal, self_mask=self.self_mask, kernel=self.kernel
        )

    def kept(self, rows: Tensor) -> Tensor:
        x = self.inputs
        members, keys = self.find(x.q, x.k.repeat_interleave(x.group, 0))
        n = x.q.shape[1]
        of_query, of_key = (
            torch.zeros(*m.shape[:2], n, device=m.device).scatter_(2, m, 1.0)
            for m in (members, members if keys is None else keys)
        )
        kept = of_query[:, :, rows].mT @ of_key > 0
        if not self.self_mask:
            return kept
        place = torch.arange(n, device=rows.device)
        others = kept & (place != rows[:, None])
        if x.causal:
            others = others & (place < rows[:, None])
        alone = ~others.any(-1, keepdim=True)
        return torch.where(alone, kept, others)

    def scored(self, n: int) -> float:
        return float(self.count * self.size**2 + self.searched(n))

    def searched(self, n: int) -> float:
        """Dot products with centroids."""
        return 0.0


class Centred(Clustered):
    """Clusters around centroids; the subclasses say which those are."""

    @abstractmethod
    def initial(self, x: Inputs) -> Tensor:
        """Centroids of norm sqrt(d), (heads, c, d)."""

    def prepare(self, work: Inputs) -> None:
        super().prepare(work)
        self.centroids = self.initial(self.inputs).to(self.context.device)

    def members(self, x: Tensor) -> Tensor:
        scores = routing.similarities(routing.normalise(x), self.centroids)
        return routing.balanced_members(scores, self.size)

    def searched(self, n: int) -> float:
        return float(n * self.count)
