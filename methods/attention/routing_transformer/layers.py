"""One layer's attention inside clusters."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.types import NonNegativeInt
from methods.attention.pairs import Pattern
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import routed_attention
from methods.attention.work import Inputs


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
