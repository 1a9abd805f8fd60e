"""HyperAttention (Han et al., ICLR 2024): hashing finds the heavy keys of a query, a sample stands for the
rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.errors import MissingPackage
from harness.method import Context, Metric, method
from harness.types import NonNegativeInt, PositiveFloat, PositiveInt
from methods.attention.error import lse_errors
from methods.attention.floor import FLOOR, attention_floor
from methods.attention.hyperattention import algorithm, steps, theory
from methods.attention.layer import LanguageModel, Layer
from methods.attention.layer_scores import exact_log_sums
from methods.attention.partial import Partial
from methods.attention.work import Attended, Inputs, Text

LSE = (
    Metric("lse_bias", unit="nats", better="neither", doc="Mean error of the log row sums."),
    Metric("lse_error", unit="nats", better="lower", doc="Mean absolute error of the log row sums."),
    Metric("relative_lse_error", better="lower", doc="Mean of |error| / |value| of the log row sums."),
)

_OUTSIDE = 1e-5
"""Shares of a row sum below this are rounding errors of its float32 logarithm."""

_LARGEST = 700.0
"""Log of the largest ratio that is reported."""


@dataclass(kw_only=True, eq=False)
class Parameters:
    """The parameters of the practical algorithm."""

    block: NonNegativeInt = 256
    """b, queries and keys of a block; what is left over at the end is a smaller one. 0: no blocks."""
    samples: NonNegativeInt = 256
    """m, keys sampled with replacement for what is outside the blocks. 0: nothing stands for it."""
    bits: PositiveInt = 8
    """r, random directions of the hash; at most 30."""
    min_seq_len: NonNegativeInt = 2048
    """n0, sequences up to this length (and pieces, when causal) are attended to exactly."""
    sampling: Literal["uniform", "prefix"] = "uniform"
    """"uniform" is the paper. "prefix" is the authors' Triton kernel: the first m keys, without the weight
    n/m and without leaving out those that are also in the block."""
    gray: Literal["sequence", "official"] = "sequence"
    """"sequence" numbers buckets so that neighbours differ in one bit; "official" as the authors' code does."""
    order: Literal["lsh", "random"] = "lsh"
    """What blocks are cut from: the sorted hashes, or a random permutation to compare with."""
    kernel: Literal["torch", "triton"] = "torch"
    """"torch" gathers and calls torch's fused attention; "triton" attends to blocks and sample in one kernel
    (on a GPU; needs the package triton)."""

    def build(self, head_dim: int, context: Context) -> algorithm.HyperAttention:
        """The algorithm, with directions drawn once for all heads."""
        directions = torch.randn(head_dim, self.bits, generator=context.torch_generator("directions"))
        runner = steps.run_step
        if self.kernel == "triton":
            try:
                from methods.attention.hyperattention import fused
            except ImportError as error:
                raise MissingPackage(
                    "the kernel 'triton' needs the package triton: pip install triton"
                ) from error
            runner = fused.run_step
        return algorithm.HyperAttention(
            directions=directions.to(context.device),
            block=self.block,
            samples=self.samples,
            min_seq_len=self.min_seq_len,
            sampling=self.sampling,
            gray=self.gray,
            order=self.order,
            runner=runner,
        )


@method(
    "hyperattention",
    task=("self-attention", "self-attention-gradient"),
    metrics=(
        *LSE,
        *FLOOR,
        Metric(
            "key_visits", better="lower", doc="Keys that a query attended to, on average.", deterministic=True
        ),
        Metric("block_mass", doc="Mean share of a query's softmax mass on keys that are attended to exactly."),
        Metric(
            "kappa",
            better="neither",
            doc="Largest over smallest row sum of what is left; 1 when nothing is left.",
        ),
    ),
)
class HyperAttention(Parameters, Layer):
    """Exact attention in blocks of sorted hashes, and to a uniform sample of keys for the rest."""

    def prepare(self, work: Inputs) -> None:
        super().prepare(work)
        self.hyper = self.build(work.q.shape[-1], self.context)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        return self.hyper(q, k, v, causal=causal, generator=self.draws(), scale=scale)

    def draws(self) -> torch.Generator:
        """The stream of the samples, from its start."""
        generator: torch.Generator = self.context.torch_generator("samples", device=self.context.device)
        return generator

    def measure(self, output: Attended) -> dict[str, float]:
        assert output.lse is not None
        x = self.inputs
        exact = exact_log_sums(x, output.lse.device)
        keys = x.k.repeat_interleave(x.group, 0)
        covered = self.hyper.covered(x.q, keys, causal=x.causal, generator=self.draws(), scale=x.scale)
        covered = covered[:, x.rows]
        share = torch.exp(covered - exact).clamp(max=1.0)
        left = exact[share < 1 - _OUTSIDE] + torch.log1p(-share[share < 1 - _OUTSIDE])
        return {
            **self.task.score(self.work, output),
            **lse_errors(output.lse[:, x.rows], exact),
            **attention_floor(
                self.hyper.visits, x.q[..., 0].numel(), x.k[..., 0].numel(), x.q.shape[-1], x.q.element_size()
            ).metrics(),
            "key_visits": self.hyper.visits / output.lse.numel(),
            "block_mass": float(share.mean()),
            "kappa": math.exp(min(float(left.max() - left.min()), _LARGEST)) if left.numel() else 1.0,
        }


@method("hyperattention-theory", task="self-attention", metrics=LSE)
class HyperAttentionTheory(Layer):
    """The form that the paper's theorem is about: ApproxD for the row sums, keys drawn by the norms of their
    values for the product. Without a causal mask."""

    block: PositiveInt = 256
    """b, queries and keys of a block of the mask; what is left over at the end is a smaller one."""
    bits: PositiveInt = 8
    """r, random directions of the hash; at most 30."""
    samples: PositiveInt = 256
    """m of ApproxD: queries that bound the row sums, and keys that estimate them."""
    value_samples: PositiveInt = 512
    """Keys drawn with probabilities ||V_i||^2 / ||V||_F^2."""
    kappa: PositiveFloat = 16.0
    """Assumed ratio between the largest and the smallest row sum outside the mask: a floor for the
    estimates."""
    cap: PositiveFloat = 1.0
    """Constant in the largest value that ApproxD lets one entry have: C_i = cap m / (n log n) (...)."""

    def prepare(self, work: Inputs) -> None:
        if work.causal:
            raise ValueError("hyperattention-theory has no causal form")
        super().prepare(work)
        directions = torch.randn(
            work.q.shape[-1], self.bits, generator=self.context.torch_generator("directions")
        )
        self.blocks = algorithm.HyperAttention(
            directions.to(self.context.device), block=self.block, samples=0, min_seq_len=0
        )

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        draws = self.context.torch_generator("samples", device=self.context.device)
        mask = theory.block_mask(self.blocks, q, k, scale, draws)
        log_d = theory.approx_d(
            q, k, mask, samples=self.samples, kappa=self.kappa, cap=self.cap, scale=scale, generator=draws
        )
        return theory.sampled_product(q, k, v, log_d, samples=self.value_samples, scale=scale, generator=draws)

    def measure(self, output: Attended) -> dict[str, float]:
        assert output.lse is not None
        exact = exact_log_sums(self.inputs, output.lse.device)
        return {
            **self.task.score(self.work, output),
            **lse_errors(output.lse[:, self.inputs.rows], exact),
        }


@method("hyperattention-language-model", task="long-context-language-model")
class HyperAttentionLanguageModel(Parameters, LanguageModel):
    """The model with causal HyperAttention in its last layers, without any training."""

    patched_layers: NonNegativeInt = 4
    """Layers, from the last, whose attention is replaced."""

    def prepare(self, work: Text) -> None:
        self.hyper = self.build(work.recipe.hidden // work.recipe.heads, self.context)
        super().prepare(work)

    def run(self) -> Tensor:
        self.draws = self.context.torch_generator("samples", device=self.context.device)
        return super().run()

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        return self.hyper(q, k, v, causal=causal, generator=self.draws, scale=scale)
