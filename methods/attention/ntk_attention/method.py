"""NTK-Attention (Liang et al., 2024): a prefix of infinite length as one matrix and one vector for each head."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.errors import MissingPackage
from harness.method import Measurement, Method, Metric, method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.attention.floor import FLOOR, Floor, attention_floor
from methods.attention.ntk_attention.adaptation import TRAINED, Adaptation
from methods.attention.ntk_attention.adapters import NtkAdapter, adapt
from methods.attention.ntk_attention.algorithm import State, from_prefix, initial, ntk_attention
from methods.attention.ntk_attention.features import count
from methods.attention.ntk_attention.tasks import (
    Attended,
    AttentionWithPrefix,
    Emulation,
    Prefixed,
    PrefixEmulation,
    PrefixRegression,
    Trained,
    exact,
)
from methods.attention.ntk_attention.theory import Regression, attend_to, infinite_kernel, tangent_kernel
from methods.attention.partial import attend

PARAMETERS = Metric(
    "extra_parameters",
    better="lower",
    doc="Numbers that are trained besides the model's, over all heads of the layer.",
    deterministic=True,
)


_SMALL = 1e-6
"""Share of the largest eigenvalue that nothing is learned along in the steps of a training."""


def pairs(length: int, causal: bool) -> int:
    """(query, key) pairs of one head of one sequence."""
    return length * (length + 1) // 2 if causal else length**2


class PrefixMethod(Method[Prefixed, Attended]):
    """A method that attends behind a given prefix."""

    def prepare(self, work: Prefixed) -> None:
        self.inputs = work.to(self.context.device)

    @abstractmethod
    def extra_parameters(self) -> int:
        """Numbers that stand for the prefix."""

    @abstractmethod
    def floor(self) -> Floor:
        """See `methods.attention.floor`."""

    def measure(self, output: Attended) -> dict[str, float]:
        assert isinstance(self.task, AttentionWithPrefix)
        scores = self.task.score(self.work, output)
        return scores | self.floor().metrics() | {"extra_parameters": self.extra_parameters()}


@method("ntk-attention", task="attention-with-prefix", metrics=(PARAMETERS, *FLOOR))
class NtkAttention(PrefixMethod):
    """The prefix as Z and k, made from it once: Z = phi(K_P)^T V_P, k = phi(K_P)^T 1."""

    phi: Literal["elu1", "taylor"] = "elu1"
    """"elu1" is the paper's practical choice, positive and with d features. "taylor" cuts off the series of
    exp, whose features give exp itself as the degree grows."""
    degree: PositiveInt = 2
    """Of "taylor"; with d features of degree g there are C(d + g, g). Odd degrees can make a denominator
    negative."""
    kernel: Literal["torch", "triton"] = "torch"
    """"torch" adds the prefix's part to torch's fused attention; "triton" starts an attention kernel from it (on
    a GPU, for "elu1"; needs the package triton)."""

    def prepare(self, work: Prefixed) -> None:
        super().prepare(work)
        x = self.inputs
        self.state: State = from_prefix(x.prefix_k, x.prefix_v, phi=self.phi, degree=self.degree, scale=x.scale)
        self.attend = attend
        if self.kernel == "triton":
            if self.phi != "elu1":
                raise ValueError("the kernel 'triton' computes phi 'elu1' alone")
            try:
                from methods.attention.ntk_attention import fused
            except ImportError as error:
                raise MissingPackage(
                    "the kernel 'triton' needs the package triton: pip install triton"
                ) from error
            self.attend = fused.attend

    @torch.no_grad()
    def run(self) -> Attended:
        x = self.inputs
        found = ntk_attention(
            x.q, x.k, x.v, self.state, scale=x.scale, phi=self.phi, degree=self.degree, causal=x.causal,
            kernel=self.attend,
        )  # fmt: skip
        return Attended(*found)

    def extra_parameters(self) -> int:
        return self.state.z.numel() + self.state.k.numel()

    def floor(self) -> Floor:
        x = self.inputs
        batch, heads, length, d = x.q.shape
        visits = batch * heads * pairs(length, x.causal)
        real = attention_floor(
            visits, batch * heads * length, batch * x.k.shape[1] * length, d, x.q.element_size()
        )
        features = count(d, self.phi, self.degree)
        state = self.state.z.numel() + self.state.k.numel()
        return Floor(
            real.flops + 2 * batch * heads * length * features * (d + 1),
            real.bytes + state * self.state.z.element_size(),
        )


@method("ntk-emulation", task="prefix-emulation")
class NtkEmulation(Method[Emulation, Tensor]):
    """Z and k in place of the prefix: learned from what attention with the prefix gives, or made from it."""

    phi: Literal["elu1", "taylor"] = "elu1"
    """As in ntk-attention."""
    degree: PositiveInt = 2
    """Of "taylor"; even where Z and k are learned."""
    start: Literal["learned", "prefix"] = "learned"
    """"learned" from Z ~ 1e-4 N(0, 1) and k = 0.01 with Adam; or Z and k of the "prefix" itself."""
    lr: PositiveFloat = 0.02
    """Of Adam."""
    batch: PositiveInt = 16
    """Fresh sequences of a step."""

    def prepare(self, work: Emulation) -> None:
        if self.start == "learned" and self.phi == "taylor" and self.degree % 2:
            raise ValueError("a Taylor series of odd degree has negative weights: choose an even degree")

    def run(self) -> Tensor:
        work = self.work
        heads, _, d = work.prefix_k.shape
        if self.start == "prefix":
            state = from_prefix(
                work.prefix_k, work.prefix_v, phi=self.phi, degree=self.degree, scale=work.test.scale
            )
        else:
            state = self._learn(initial(heads, count(d, self.phi, self.degree), d, self._stream("state")))
        with torch.no_grad():
            return self._attend(work.test, state)

    def _stream(self, name: str) -> torch.Generator:
        generator: torch.Generator = self.context.torch_generator(name)
        return generator

    def _attend(self, x: Prefixed, state: State) -> Tensor:
        return ntk_attention(x.q, x.k, x.v, state, scale=x.scale, phi=self.phi, degree=self.degree).out

    def _learn(self, state: State) -> State:
        assert isinstance(self.task, PrefixEmulation)
        for x in state:
            x.requires_grad_()
        optimizer = torch.optim.Adam(state, lr=self.lr)
        inputs = self._stream("fresh inputs")
        for _ in range(self.task.steps):
            x = self.work.fresh(inputs, self.batch)
            _, target = exact(x)
            loss = (self._attend(x, state) - target.out).square().sum() / target.out.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return State(*(x.detach() for x in state))


@method("ntk-image-adaptation", task="image-adaptation", metrics=TRAINED)
class NtkImageAdaptation(Adaptation):
    """Train Z and k of every layer, and the head; all else stays frozen."""

    phi: Literal["elu1", "taylor"] = "elu1"
    """As in ntk-attention."""
    degree: PositiveInt = 2
    """Of "taylor"; even, so that weights are positive."""
    start: Literal["small", "zeros", "normal"] = "small"
    """Of Z and k: 1e-4 N(0, 1) and 0.01; both 0, which trains Z alone, as in the authors' script for
    images; both N(0, 1)."""
    dropout: Fraction = 0.0
    """Share of the entries of phi(q) that are dropped in training; the authors' script for images has 0.2."""

    def extend(self, model: Any) -> list[nn.Parameter]:
        if self.phi == "taylor" and self.degree % 2:
            raise ValueError("a Taylor series of odd degree has negative weights: choose an even degree")
        draws = self.context.torch_generator("state")
        adapters = []
        for layer in self.layers(model):
            features = count(layer.head_dim, self.phi, self.degree)
            state = initial(layer.heads, features, layer.head_dim, draws, self.start)
            adapters.append(NtkAdapter(state, self.phi, self.degree, self.dropout))
            adapt(layer, adapters[-1])
        return [p for adapter in adapters for p in adapter.parameters()]


@method(
    "prefix-training",
    task="prefix-regression",
    metrics=[
        Metric(
            "kernel_error",
            better="lower",
            doc="|m H - its limit| / |its limit| of the tangent kernel H before training, Frobenius.",
        ),
        Metric(
            "kernel_change",
            better="lower",
            doc="|change of H over the training| / |H before it|, Frobenius.",
        ),
        Metric(
            "kernel_rank",
            better="neither",
            doc="Share of the eigenvalues of H before training above 1e-6 of the largest.",
        ),
    ],
)
class PrefixTraining(Method[Regression, Trained]):
    """Train a prefix of m positions from P ~ N(0, I) with Adam."""

    prefix: PositiveInt = 128
    """m, positions."""
    lr: PositiveFloat = 0.02
    """Of Adam."""

    def prepare(self, work: Regression) -> None:
        self.layer = work.to(self.context.device)
        shape = (self.prefix, work.x.shape[1])
        start = torch.randn(shape, generator=self.context.torch_generator("prefix"))
        self.initial = start.to(self.context.device)

    def run(self) -> Trained:
        assert isinstance(self.task, PrefixRegression)
        work, losses = self.layer, []
        prefix = self.initial.clone().requires_grad_()
        optimizer = torch.optim.Adam([prefix], lr=self.lr)
        for _ in range(self.task.steps):
            loss = (attend_to(prefix, work) - work.y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        trained = prefix.detach()
        final = float((attend_to(trained, work) - work.y).square().mean())
        return Trained(trained, self.initial, torch.stack(losses), final)

    def measure(self, output: Trained) -> Measurement:
        assert isinstance(self.task, PrefixRegression)
        before, after = (tangent_kernel(p, self.layer) for p in (output.initial, output.prefix))
        limit = infinite_kernel(self.layer)
        values = torch.linalg.eigvalsh(before.double())
        return self.task.score(self.work, output) | {
            "kernel_error": float((self.prefix * before - limit).norm() / limit.norm()),
            "kernel_change": float((after - before).norm() / before.norm()),
            "kernel_rank": float((values > _SMALL * values[-1]).double().mean()),
        }
