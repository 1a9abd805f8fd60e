"""FlexPrefill (Lai et al., ICLR 2025): sparse attention for long prompts, by what each head attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.method import Metric, method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from methods.attention.block_sparse import Kernel, attend_causal
from methods.attention.flexprefill.algorithm import FlexPrefill, gamma_of
from methods.attention.layer import LanguageModel
from methods.attention.partial import Partial
from methods.attention.prefill import SELECTION, MatchingLayer
from methods.attention.work import Attended, Text


@dataclass(kw_only=True, eq=False)
class Parameters:
    """The parameters of the algorithm."""

    gamma: Fraction = 0.95
    """Share of a head's attention mass that the blocks should cover; 1: everything. The authors take 0.9 for some
    models and 0.95 for others."""
    tau: NonNegativeFloat = 0.1
    """Heads whose divergence in the pattern test is below are query-aware. 0: none, 1: all."""
    block: PositiveInt = 128
    """B, tokens of a block and queries that represent the prompt."""
    min_budget: NonNegativeInt = 1024
    """Least columns and diagonals of a head, in tokens. Prompts up to this length are attended to in full."""
    max_budget: NonNegativeInt = 0
    """Most columns and diagonals of a head, in tokens; 0: no limit."""
    rule: Literal["token-count", "block-cover"] = "token-count"
    """How a budget follows from gamma: "token-count" counts columns of tokens and divides by 128, as the authors'
    code does; "block-cover" counts blocks of columns."""

    def algorithm(self, gamma: Tensor, kernel: Kernel) -> FlexPrefill:
        """With this gamma, shape () or (heads,)."""
        if self.max_budget and self.max_budget < self.min_budget:
            raise RequestError(f"max_budget ({self.max_budget}) is below min_budget ({self.min_budget})")
        return FlexPrefill(
            gamma=gamma,
            tau=self.tau,
            block=self.block,
            min_budget=self.min_budget,
            max_budget=self.max_budget or None,
            rule=self.rule,
            kernel=kernel,
        )


@method(
    "flexprefill",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=(
        *SELECTION,
        Metric("query_aware", better="neither", doc="Share of the heads that are query-aware."),
        Metric("divergence", better="neither", doc="Mean result of the pattern test."),
        Metric(
            "query_aware_shortfall",
            better="lower",
            doc="How far mass recall is below gamma; mean over the query-aware heads, 0 without one.",
        ),
        Metric(
            "vertical_slash_shortfall",
            better="lower",
            doc="How far mass recall is below gamma; mean over the other heads, 0 without one.",
        ),
    ),
)
class FlexPrefillAttention(Parameters, MatchingLayer):
    """Attention over the blocks of columns and diagonals, or of similar means, that hold a share of the mass."""

    def plain(self) -> FlexPrefill:
        return self.algorithm(torch.tensor(self.gamma), self.kernel)

    def strengthened(self, strength: Tensor) -> FlexPrefill:
        return self.algorithm(gamma_of(strength), self.kernel)

    def measure(self, output: Attended) -> dict[str, float]:
        assert isinstance(self.selection, FlexPrefill)
        x = self.inputs
        choice = self.selection.choose(x.q, x.k, scale=x.scale)
        assert output.lse is not None
        exact = attend_causal(x.q, x.k, x.v, scale=x.scale).lse
        recall = (output.lse - exact).exp().clamp(max=1.0).double().mean(-1)
        short = (self.selection.gamma.to(recall) - recall).clamp(min=0)

        def mean(heads: Tensor) -> float:
            return float(short[heads].mean()) if bool(heads.any()) else 0.0

        return {
            **super().measure(output),
            "query_aware_shortfall": mean(choice.query_aware),
            "vertical_slash_shortfall": mean(~choice.query_aware),
            "query_aware": float(choice.query_aware.float().mean()),
            "divergence": float(choice.divergence.mean()),
        }


@method(
    "flexprefill-language-model",
    task="long-context-language-model",
    metrics=[
        Metric("density", better="lower", doc="Pairs attended to over all causal pairs, in those layers.")
    ],
)
class FlexPrefillLanguageModel(Parameters, LanguageModel):
    """The model with FlexPrefill in its last layers, without any training."""

    patched_layers: NonNegativeInt = 4
    """Layers, from the last, whose attention is replaced."""
    kernel: Literal["auto", "torch", "triton"] = "auto"
    """See `flexprefill`."""

    def prepare(self, work: Text) -> None:
        self.flex = self.algorithm(torch.tensor(self.gamma), self.kernel)
        super().prepare(work)

    def run(self) -> Tensor:
        self.densities: list[float] = []
        return super().run()

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        result = self.flex(q, k, v, scale=scale)
        heads, n, _ = q.shape
        self.densities.append(float(result.pairs.sum()) / (heads * n * (n + 1) / 2))
        return result.part

    def measure(self, output: Tensor) -> dict[str, float]:
        return {
            **self.task.score(self.work, output),
            "density": sum(self.densities) / len(self.densities) if self.densities else 1.0,
        }
