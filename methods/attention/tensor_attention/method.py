"""Tensor attention (Alman and Song, ICLR 2024): softmax over pairs of keys, and how fast it can be."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import RequestError
from harness.method import Measurement, Method, Metric, Series, as_measurement, method
from harness.types import NonNegativeInt, PositiveFloat, PositiveInt
from methods.attention.partial import Partial
from methods.attention.tensor_attention import matching
from methods.attention.tensor_attention.exact import tensor_attention
from methods.attention.tensor_attention.polynomial import Monomials, least_degree, polynomial_attention
from methods.attention.tensor_attention.sampled import sampled_attention
from methods.attention.tensor_attention.tasks import (
    TensorAttended,
    TensorInputs,
    TripleMatching,
    Triples,
    largest_score,
)
from methods.common.language_model import fit

_MOST = 10_000
"""Degrees from here on are not told apart."""


class TensorLayer(Method[TensorInputs, TensorAttended]):
    """A method that is a function of q, the keys and the values; its gradient is autograd's."""

    def prepare(self, work: TensorInputs) -> None:
        self.inputs = work.to(self.context.device)

    @abstractmethod
    def attention(self, x: TensorInputs) -> Partial:
        """The output and the logarithm of D."""

    def run(self) -> TensorAttended:
        return self.attend(self.inputs)

    def attend(self, x: TensorInputs) -> TensorAttended:
        """Attention of `x`, with its gradients when they are asked for."""
        if x.upstream is None:
            with torch.no_grad():
                return TensorAttended(*self.attention(x))
        sets = len(x.keys)
        leaves = [t.detach().requires_grad_() for t in (x.q, *x.keys, *x.values)]
        own = TensorInputs(
            leaves[0], tuple(leaves[1 : sets + 1]), tuple(leaves[sets + 1 :]), x.scale, x.rows, x.upstream
        )
        out, lse = self.attention(own)
        return TensorAttended(out.detach(), lse.detach(), torch.autograd.grad(out, leaves, x.upstream))


@method("exact-tensor-attention", task=("tensor-attention", "tensor-attention-gradient"))
class ExactTensorAttention(TensorLayer):
    """All n^t scores, by torch's fused attention over the queries combined with all but one set of keys."""

    def attention(self, x: TensorInputs) -> Partial:
        return tensor_attention(x.q, x.keys, x.values, scale=x.scale)


@method(
    "polynomial-tensor-attention",
    task=("tensor-attention", "tensor-attention-gradient"),
    metrics=(
        Metric("used_degree", better="lower", doc="Degree g of the polynomial."),
        Metric("features", better="lower", doc="m = C(d + g, g), features of a token."),
        Metric(
            "proven_degree",
            better="lower",
            doc="Least even degree that is proven to keep every weight within the tolerance, at most 10,000.",
        ),
    ),
)
class PolynomialTensorAttention(TensorLayer):
    """The paper's fast algorithm: a Taylor polynomial of exp, whose features make the sums over keys factor."""

    degree: NonNegativeInt = 2
    """g, even. 0: the least even one at which the largest error of the probed queries is within `tolerance`."""
    max_degree: PositiveInt = 12
    """Of that search, even; it ends with this one though the tolerance be missed."""
    tolerance: PositiveFloat = 0.001
    """Largest absolute error of an entry of the output in that search."""
    probe: PositiveInt = 256
    """Queries of each head, from the first, whose exact attention that search computes, in n^(t-1) d steps each."""
    kernel: Literal["auto", "torch", "triton"] = "auto"
    """"triton" never writes the features (a GPU, forward only; needs the package triton); "auto" takes it where
    it can."""

    def prepare(self, work: TensorInputs) -> None:
        super().prepare(work)
        if self.degree % 2 or self.max_degree % 2:
            raise RequestError(
                f"degree ({self.degree}) and max_degree ({self.max_degree}) must be even: odd polynomials give "
                "negative weights"
            )
        self.used = self.degree or self.search()

    def search(self) -> int:
        """The degree that `degree` 0 stands for."""
        x = self.inputs.to(self.context.device, torch.float64)
        queries = x.q[:, : self.probe]
        exact = tensor_attention(queries, x.keys, x.values, scale=x.scale).out
        for degree in range(2, self.max_degree, 2):
            found = polynomial_attention(
                queries, x.keys, x.values, degree=degree, scale=x.scale, kernel="torch"
            ).out
            if float((found - exact).abs().max()) <= self.tolerance:
                return degree
        return self.max_degree

    def attention(self, x: TensorInputs) -> Partial:
        return polynomial_attention(x.q, x.keys, x.values, degree=self.used, scale=x.scale, kernel=self.kernel)

    def measure(self, output: TensorAttended) -> Measurement:
        features = Monomials(self.work.q.shape[-1], self.used, self.work.scale).count
        score = as_measurement(self.task.score(self.work, output))
        proven = least_degree(largest_score(self.work), self.tolerance, _MOST) or _MOST
        return score | {
            "used_degree": float(self.used),
            "features": float(features),
            "proven_degree": float(proven),
        }


@method("sampled-tensor-attention", task=("tensor-attention", "tensor-attention-gradient"))
class SampledTensorAttention(TensorLayer):
    """Monte-Carlo: softmax over combinations of keys that are drawn uniformly."""

    samples: PositiveInt = 1024
    """R, combinations that all queries of a head share."""

    def attention(self, x: TensorInputs) -> Partial:
        generator = self.context.torch_generator("samples", device=self.context.device)
        return sampled_attention(
            x.q, x.keys, x.values, samples=self.samples, scale=x.scale, generator=generator
        )


@method("polynomial-entry-bound", task="entry-bound")
class PolynomialEntryBound(Method[list[TensorInputs], list[TensorAttended]]):
    """The polynomial method at one degree, for every bound of the grid."""

    degree: NonNegativeInt = 4
    """g, even."""

    def prepare(self, work: list[TensorInputs]) -> None:
        self.inputs = [x.to(self.context.device) for x in work]

    def run(self) -> list[TensorAttended]:
        return [
            TensorAttended(
                *polynomial_attention(x.q, x.keys, x.values, degree=self.degree, scale=x.scale, kernel="torch")
            )
            for x in self.inputs
        ]


# --- Match3 ----------------------------------------------------------------------------------------


@method(
    "tensor-unit",
    task="triple-matching",
    metrics=[Metric("largest_entry", better="neither", doc="Of queries and keys: c^(1/3).")],
)
class TensorUnit(Method[Triples, Tensor]):
    """One unit of tensor attention that solves Match3 by construction: nothing is trained."""

    c: PositiveFloat = 1000.0
    """Largest score; it has to outweigh n^2 pairs that are nearly a match."""

    def prepare(self, work: Triples) -> None:
        self.x = work.x.to(self.context.device)

    def run(self) -> Tensor:
        assert isinstance(self.task, TripleMatching)
        q, keys, values = matching.construction(self.x, self.task.modulus, self.c)
        return tensor_attention(q, keys, values, scale=1.0).out.squeeze(-1) > 0.5

    def measure(self, output: Tensor) -> Measurement:
        return as_measurement(self.task.score(self.work, output)) | {"largest_entry": self.c ** (1 / 3)}


class Trained(Method[Triples, Tensor]):
    """One attention layer with an MLP readout, trained on random inputs by Adam."""

    order: ClassVar[int]
    width: PositiveInt = 16
    """d of the layer's one head."""
    readout: PositiveInt = 64
    """Hidden units of the MLP that reads each position."""
    steps: PositiveInt = 2000
    """Of training."""
    batch: PositiveInt = 256
    """Random inputs of a step."""
    learning_rate: PositiveFloat = 0.003
    """Peak, falling along a cosine."""

    def prepare(self, work: Triples) -> None:
        self.x = work.x.to(self.context.device)

    def run(self) -> Tensor:
        assert isinstance(self.task, TripleMatching)
        examples = self.task
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("initial weights"))
            model = matching.Matcher(examples.modulus, self.width, self.readout, self.order)
        model.to(self.context.device)
        draws = self.context.torch_generator("training inputs")

        def loss(_: int) -> Tensor:
            some = examples.draw(draws, self.batch)
            logits = model(some.x.to(self.context.device))
            return F.binary_cross_entropy_with_logits(logits, some.labels.to(logits))

        self.losses = fit(
            model, torch.optim.Adam(model.parameters(), self.learning_rate), loss, steps=self.steps
        )
        with torch.no_grad():
            answer: Tensor = model(self.x) > 0
        return answer

    def measure(self, output: Tensor) -> Measurement:
        losses = self.losses.tolist()
        curve = Series(range(len(losses)), losses, y_label="training loss")
        return as_measurement(self.task.score(self.work, output)) | Measurement({}, {"loss": curve})


@method("trained-standard-attention", task="triple-matching")
class TrainedStandardAttention(Trained):
    """Ordinary softmax attention, order 2."""

    order = 2


@method("trained-tensor-attention", task="triple-matching")
class TrainedTensorAttention(Trained):
    """Tensor attention of order 3: five linear maps in place of three."""

    order = 3
