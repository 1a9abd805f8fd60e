"""Tasks of tensor attention: one layer of any order, the largest entries an approximation bears, and Match3."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import torch_generator
from harness.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.attention.inputs import draw
from methods.attention.partial import Partial
from methods.attention.tensor_attention import matching
from methods.attention.tensor_attention.exact import tensor_attention
from methods.attention.tensor_attention.polynomial import Monomials, least_degree, polynomial_attention

Order = Annotated[int, Ge(2)]
"""Of an attention: 2 is ordinary softmax attention."""

_SCORED = 1 << 28
"""Combinations of queries and keys that are computed exactly, at most, beyond one query."""

_MANY = 1 << 26
"""Combinations of keys from which on the reference is a polynomial where it can be."""

_CERTAIN = 1e-9
"""Proven relative error of a weight of that polynomial."""

_FEATURES = {"cpu": 1 << 28, "cuda": 1 << 35}
"""Features of all tokens together that such a polynomial may have."""


def reference(x: TensorInputs) -> Partial:
    """Attention of the rows of `x`, in float64, that outputs are compared with; see `TensorAttention`."""
    queries = x.q[:, x.rows]
    n, dim = x.q.shape[1:]
    if n ** len(x.keys) >= _MANY:
        degree = least_degree(largest_score(x), _CERTAIN, 64)
        if degree is not None and Monomials(dim, degree, x.scale).count * n <= _FEATURES[x.q.device.type]:
            return polynomial_attention(queries, x.keys, x.values, degree=degree, scale=x.scale, kernel="torch")
        out, lse = tensor_attention(queries[:, :1], x.keys, x.values, scale=x.scale)
        return Partial(out, lse)
    return tensor_attention(queries, x.keys, x.values, scale=x.scale)


def largest_score(x: TensorInputs) -> float:
    """|S| is at most scale * sum_l max |Q_l| max |K1_l| ...: scale * d * B^t for entries up to B."""
    peaks = [t.abs().amax((0, 1)) for t in (x.q, *x.keys)]
    return float(x.scale * torch.stack(peaks).double().prod(0).sum())


@dataclass(frozen=True)
class TensorInputs:
    """Queries, keys and values of a layer of order t.

    Attributes:
        q: shape (heads, n, d), the heads of all sequences of the batch one after another.
        keys, values: t - 1 of each, shape (key heads, n, d); query head h sees key head h // (heads / key heads).
        scale: of the scores.
        rows: queries whose output is scored, int64.
        upstream: gradient with respect to the output when the gradient is part of the task.
    """

    q: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    scale: float
    rows: Tensor
    upstream: Tensor | None = None

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> TensorInputs:
        """The same on `device`, in `dtype`."""

        def moved(x: Tensor) -> Tensor:
            return x.to(device, dtype)

        up = None if self.upstream is None else moved(self.upstream)
        keys, values = (tuple(map(moved, x)) for x in (self.keys, self.values))
        return replace(self, q=moved(self.q), keys=keys, values=values, rows=self.rows.to(device), upstream=up)


@dataclass(frozen=True)
class TensorAttended:
    """What a method returns.

    Attributes:
        out: shape of the queries.
        lse: logarithm of D, shape (heads, n).
        gradients: with respect to q, all keys and all values, in this order, when that is the task.
    """

    out: Tensor
    lse: Tensor
    gradients: tuple[Tensor, ...] | None = None


SCORES = (
    Metric("max_error", better="lower", doc="Largest absolute error of an entry of the output."),
    Metric("relative_error", better="lower", doc="Frobenius norm of the error over that of the output."),
    Metric("mass_error", better="lower", doc="Mean |D~ / D - 1| of the attention mass that a query sees."),
    Metric("largest_entry", better="neither", doc="Largest absolute entry of queries and keys: B."),
    Metric(
        "entry_threshold", better="neither", doc="(ln n)^(1/t), the regime of B that the theory calls fast."
    ),
)


@task("tensor-attention", metrics=SCORES, amount_unit="tokens", data=("gutenberg-novels",))
class TensorAttention(Task[TensorInputs, TensorAttended]):
    """Attention of order t of one layer, forward.

    The reference is exact attention in float64, of as many random queries as take 2^28 combinations of keys (all of
    them up to n = 645 at order 3). From 2^26 combinations of keys on, the reference is the polynomial method in
    float64 at the degree that is proven to be within 1e-9 of exact attention for the entries at hand, or, where
    that has too many features, exact attention of one query.
    """

    length: PositiveInt = 256
    """n, tokens."""
    heads: PositiveInt = 1
    """Heads of queries."""
    key_heads: NonNegativeInt = 0
    """Heads of keys and values, of which `heads` is a multiple; 0: as many."""
    batch: PositiveInt = 1
    """Sequences, all of the same length."""
    head_dim: PositiveInt = 4
    """d of queries, keys and values."""
    order: Order = 3
    """t: one set of queries and t - 1 sets of keys and values."""
    bound: PositiveFloat = 1.0
    """B, the largest absolute entry of queries and keys; not of those of a language model."""
    inputs: Literal["uniform", "clipped-gaussian", "language-model"] = "uniform"
    """Queries and keys: uniform in [-B, B]; standard normal, clipped at B; or those of the last layer of the
    family's byte-level model (keys of the other sets are those of other windows), trained on this length and
    cached, on held-out text. The values are uniform in [-1, 1], or the model's."""
    scale: NonNegativeFloat = 0.0
    """Of the scores; 0: 1/d."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float32"
    """Of queries, keys and values."""

    def load(self, seed: int) -> TensorInputs:
        key_heads = self.key_heads or self.heads
        if self.heads % key_heads:
            raise RequestError(f"heads ({self.heads}) must be a multiple of key_heads ({key_heads})")
        shape = (self.batch * self.heads, self.length, self.head_dim)
        key_shape = (self.batch * key_heads, self.length, self.head_dim)
        if self.inputs == "language-model":
            q, keys, values = self._of_model(seed, key_heads)
        else:
            q = self._bounded(seed, "queries", shape)
            keys = tuple(self._bounded(seed, f"keys {r}", key_shape) for r in range(1, self.order))
            values = tuple(
                torch.rand(key_shape, generator=torch_generator(seed, f"values {r}")) * 2 - 1
                for r in range(1, self.order)
            )
        combinations = self.length ** (self.order - 1)
        count = min(self.length, 4096 if combinations >= _MANY else max(1, _SCORED // combinations))
        rows = torch.randperm(self.length, generator=torch_generator(seed, "scored rows"))[:count]
        work = TensorInputs(q, keys, values, self.scale or 1 / self.head_dim, rows, self.upstream(seed, q))
        return work.to("cpu", getattr(torch, self.dtype))

    def upstream(self, seed: int, q: Tensor) -> Tensor | None:
        """The gradient that the backward pass starts from, of the output's shape, which is that of `q`."""
        return None

    def amount(self, work: TensorInputs) -> float:
        return float(self.batch * self.length)

    def score(self, work: TensorInputs, output: TensorAttended) -> Measurement:
        if output.out.shape != work.q.shape:
            raise BadOutput(f"the output has shape {tuple(output.out.shape)}, not {tuple(work.q.shape)}")
        if not bool(output.out.isfinite().all()):
            raise BadOutput("the output is not finite everywhere")
        x = work.to(output.out.device, torch.float64)
        exact, lse = reference(x)
        rows = x.rows[: exact.shape[1]]
        error = output.out[:, rows].double() - exact
        mass = torch.expm1(output.lse[:, rows].double() - lse)
        return Measurement(
            {
                "max_error": float(error.abs().max()),
                "relative_error": float(error.norm() / exact.norm()),
                "mass_error": float(mass.abs().mean()),
                "largest_entry": max(float(t.abs().max()) for t in (x.q, *x.keys)),
                "entry_threshold": math.log(self.length) ** (1 / self.order),
            }
        )

    def _bounded(self, seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
        generator = torch_generator(seed, name)
        if self.inputs == "uniform":
            return (torch.rand(shape, generator=generator) * 2 - 1) * self.bound
        return torch.randn(shape, generator=generator).clamp(-self.bound, self.bound)

    def _of_model(self, seed: int, key_heads: int) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Queries and the first keys of a window of held-out text; further sets from windows of their own."""
        sets = self.batch * (self.order - 1)
        q, k, v = draw(
            "language-model", seed, self.heads, self.length, self.head_dim, key_heads=key_heads, batch=sets
        )
        rows = self.batch * self.heads
        return q[:rows], k.split(rows), v.split(rows)


@task(
    "tensor-attention-gradient",
    metrics=(
        *SCORES,
        Metric(
            "gradient_error",
            better="lower",
            doc="Frobenius norm of the error of all gradients over that of the gradients.",
        ),
    ),
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class TensorAttentionGradient(TensorAttention):
    """Attention of order t of one layer, forward and backward to queries, keys and values."""

    def upstream(self, seed: int, q: Tensor) -> Tensor | None:
        return torch.randn(q.shape, generator=torch_generator(seed, "upstream"))

    def score(self, work: TensorInputs, output: TensorAttended) -> Measurement:
        scores = super().score(work, output)
        if output.gradients is None:
            raise BadOutput("the gradients are missing")
        x = work.to(output.out.device, torch.float64)
        leaves = [t.requires_grad_() for t in (x.q, *x.keys, *x.values)]
        out, _ = tensor_attention(leaves[0], leaves[1 : self.order], leaves[self.order :], scale=x.scale)
        exact = torch.autograd.grad(out, leaves, x.upstream)
        off = sum(float((g.double() - e).square().sum()) for g, e in zip(output.gradients, exact, strict=True))
        size = sum(float(e.square().sum()) for e in exact)
        return scores | {"gradient_error": math.sqrt(off / size)}


@task(
    "entry-bound",
    metrics=[
        Metric(
            "largest_bound",
            doc="Largest B of the grid up to which every error is within the tolerance; 0 if none is.",
        ),
    ],
)
class EntryBound(Task[list[TensorInputs], list[TensorAttended]]):
    """Attention of order t with entries uniform in [-B, B] for all B of a grid."""

    length: PositiveInt = 256
    """n, tokens."""
    head_dim: PositiveInt = 4
    """d of queries, keys and values."""
    order: Order = 3
    """t: one set of queries and t - 1 sets of keys and values."""
    step: PositiveFloat = 0.25
    """Between the Bs of the grid, which begins with it."""
    steps: PositiveInt = 16
    """Bs of the grid."""
    tolerance: PositiveFloat = 0.001
    """Largest absolute error of an entry of the output."""

    def _each(self) -> list[TensorAttention]:
        return [
            TensorAttention(
                length=self.length,
                head_dim=self.head_dim,
                order=self.order,
                bound=self.step * (i + 1),
                dtype="float64",
            )
            for i in range(self.steps)
        ]

    def load(self, seed: int) -> list[TensorInputs]:
        return [part.load(seed) for part in self._each()]

    def score(self, work: list[TensorInputs], output: list[TensorAttended]) -> Measurement:
        if len(output) != self.steps:
            raise BadOutput(f"{len(output)} outputs for {self.steps} inputs")
        parts = zip(self._each(), work, output, strict=True)
        errors = [part.score(x, y).metrics["max_error"] for part, x, y in parts]
        within = next((i for i, error in enumerate(errors) if error > self.tolerance), self.steps)
        bounds = [self.step * (i + 1) for i in range(self.steps)]
        return Measurement(
            {"largest_bound": self.step * within},
            {"errors": Series(bounds, errors, x_label="B", y_label="largest error")},
        )


@dataclass(frozen=True)
class Triples:
    """Inputs of Match3, int64 in 0..M-1, (inputs, n), and their labels, bool."""

    x: Tensor
    labels: Tensor


@task(
    "triple-matching",
    metrics=[
        Metric("accuracy", doc="Share of positions whose label is right."),
        Metric("input_accuracy", doc="Share of inputs with all labels right."),
        Metric("positives", better="neither", doc="Share of positions that are part of a triple."),
    ],
    repeats="once",
    amount_unit="inputs",
)
class TripleMatching(Task[Triples, Tensor]):
    """Match3: which positions i have j and k (repeats allowed) with x_i + x_j + x_k = 0 modulo M."""

    length: PositiveInt = 8
    """n, numbers of an input."""
    modulus: PositiveInt = 61
    """M."""
    test_inputs: PositiveInt = 200
    """Random inputs to answer."""

    def load(self, seed: int) -> Triples:
        return self.draw(torch_generator(seed, "test inputs"), self.test_inputs)

    def draw(self, generator: torch.Generator, count: int) -> Triples:
        """`count` random inputs, for training."""
        x = torch.randint(self.modulus, (count, self.length), generator=generator)
        return Triples(x, matching.labels(x, self.modulus))

    def amount(self, work: Triples) -> float:
        return float(len(work.x))

    def score(self, work: Triples, output: Tensor) -> dict[str, float]:
        """`output`: bool, shape (inputs, n)."""
        if output.shape != work.labels.shape or output.dtype != torch.bool:
            raise BadOutput(
                f"the answer is {output.dtype} of shape {tuple(output.shape)}, not bool of {tuple(work.labels.shape)}"
            )
        right = output.cpu() == work.labels
        return {
            "accuracy": float(right.double().mean()),
            "input_accuracy": float(right.all(1).double().mean()),
            "positives": float(work.labels.double().mean()),
        }
