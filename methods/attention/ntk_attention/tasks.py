"""Tasks about a prefix: attend with a given one, train one, learn to do what one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import torch_generator
from harness.types import NonNegativeInt, PositiveInt
from methods.attention.inputs import draw
from methods.attention.ntk_attention.images import Shape, Transfer, from_hub, load
from methods.attention.ntk_attention.theory import Regression
from methods.attention.partial import Partial, attend, merge


@dataclass(frozen=True)
class Prefixed:
    """A prefix, and real queries, keys and values behind it.

    Attributes:
        prefix_k, prefix_v: shape (h, m, d), shared by all sequences of the batch.
        q, k, v: shape (batch, h or key heads, L, d).
        causal: whether query i sees only the real keys 0..i; all see the prefix.
    """

    prefix_k: Tensor
    prefix_v: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    causal: bool

    @property
    def scale(self) -> float:
        """Of the scores: d ** -0.5."""
        return float(self.q.shape[-1] ** -0.5)

    def to(self, device: str) -> Prefixed:
        """The same on `device`."""
        return Prefixed(
            *(x.to(device) for x in (self.prefix_k, self.prefix_v, self.q, self.k, self.v)), self.causal
        )

    def wide(self) -> Prefixed:
        """In float64, or float32 on a GPU, with a head of keys for each of queries."""
        kind = torch.float64 if self.q.device.type == "cpu" else torch.float32
        group = self.q.shape[1] // self.k.shape[1]
        k, v = (x.to(kind).repeat_interleave(group, 1) for x in (self.k, self.v))
        return Prefixed(self.prefix_k.to(kind), self.prefix_v.to(kind), self.q.to(kind), k, v, self.causal)


def exact(work: Prefixed) -> tuple[Partial, Partial]:
    """Attention to the real keys, and to those and the prefix: shape (batch, h, L, d).

    Keys are of as many heads as queries.
    """
    real = attend(work.q, work.k, work.v, scale=work.scale, causal=work.causal)
    return real, merge(real, attend_prefix(work.q, work.prefix_k, work.prefix_v, work.scale))


def attend_prefix(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Partial:
    """Attention of all sequences of a batch, (batch, h, L, d), to the one prefix, (h, m, d).

    The sequences' queries stand one after another, so that the prefix is read once.
    """
    batch, heads, length, _ = q.shape
    together = q.transpose(0, 1).reshape(1, heads, batch * length, -1)
    out, lse = attend(together, keys[None], values[None], scale=scale)
    return Partial(
        out.view(heads, batch, length, -1).transpose(0, 1), lse.view(heads, batch, length).transpose(0, 1)
    )


@dataclass(frozen=True)
class Attended:
    """What a method returns.

    Attributes:
        out: shape (batch, h, L, d).
        lse: log of the sum of the weights, real keys' and prefix's, shape (batch, h, L).
        exact: whether the prefix is attended to exactly.
        prefixed: whether it is attended to at all.
    """

    out: Tensor
    lse: Tensor
    exact: bool = False
    prefixed: bool = True


ERROR = Metric(
    "relative_squared_error", better="lower", doc="Squared Frobenius norm of the error over the output's."
)


def relative_squared_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected|^2 / |expected|^2.

    Raises:
        BadOutput: they differ in shape, or `found` is not finite.
    """
    if found.shape != expected.shape:
        raise BadOutput(f"the output has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    if not bool(found.isfinite().all()):
        raise BadOutput("the output is not finite everywhere")
    expected = expected.to(found.device)
    return float((found.to(expected.dtype) - expected).square().sum() / expected.square().sum())


@task(
    "attention-with-prefix",
    metrics=[
        ERROR,
        Metric(
            "prefix_mass", better="neither", doc="Mean share of a query's softmax mass that is on the prefix."
        ),
        Metric(
            "recall",
            doc="Mean share of the true mass on keys that are attended to exactly: all where the prefix is.",
        ),
        Metric(
            "mass_error",
            better="lower",
            doc="Mean absolute error of the share of the mass that the method gives to the prefix.",
        ),
    ],
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class AttentionWithPrefix(Task[Prefixed, Attended]):
    """softmax(Q [K_P; K]^T / sqrt(d)) [V_P; V]: attention of L tokens to m positions of a prefix and to
    themselves."""

    length: PositiveInt = 128
    """L, tokens."""
    prefix: PositiveInt = 1024
    """m, positions of the prefix."""
    heads: PositiveInt = 1
    """Heads of queries."""
    key_heads: NonNegativeInt = 0
    """Heads of the real keys and values, of which `heads` is a multiple; 0: one for each head of queries. The
    prefix has one for each."""
    batch: PositiveInt = 1
    """Sequences, all of the same length, behind one prefix."""
    head_dim: PositiveInt = 64
    """d of queries, keys and values."""
    causal: bool = False
    """Whether a query sees only the real keys up to its own place."""
    inputs: Literal["gaussian", "clustered", "language-model"] = "gaussian"
    """As in self-attention, on m + L tokens, of which the first m are the prefix."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of queries, keys, values and prefix."""

    def load(self, seed: int) -> Prefixed:
        key_heads = self.key_heads or self.heads
        if self.heads % key_heads:
            raise RequestError(f"heads ({self.heads}) must be a multiple of key_heads ({key_heads})")
        m, total = self.prefix, self.prefix + self.length
        q, k, v = draw(
            self.inputs, seed, self.heads, total, self.head_dim, key_heads=key_heads, batch=self.batch
        )
        dtype = getattr(torch, self.dtype)
        q, k, v = (x.to(dtype).view(self.batch, -1, total, self.head_dim) for x in (q, k, v))
        # The prefix comes in front of the first sequence's tokens; the others stand behind the same one.
        prefix_k, prefix_v = (x[0, :, :m].repeat_interleave(self.heads // key_heads, 0) for x in (k, v))
        q, k, v = (x[:, :, m:].contiguous() for x in (q, k, v))
        return Prefixed(prefix_k.contiguous(), prefix_v.contiguous(), q, k, v, self.causal)

    def amount(self, work: Prefixed) -> float:
        return float(self.batch * self.length)

    def score(self, work: Prefixed, output: Attended) -> dict[str, float]:
        device = str(output.out.device)
        real, whole = exact(work.to(device).wide())
        share = -torch.expm1(real.lse - whole.lse)
        found = -torch.expm1(real.lse - output.lse.to(real.lse)) if output.prefixed else torch.zeros_like(share)
        return {
            "relative_squared_error": relative_squared_error(output.out, whole.out),
            "prefix_mass": float(share.mean()),
            "recall": 1.0 if output.exact else float(1 - share.mean()),
            "mass_error": float((found - share).abs().mean()),
        }


@dataclass(frozen=True)
class Trained:
    """A trained prefix, shape (m, d), the one it started from, and the loss of each step."""

    prefix: Tensor
    initial: Tensor
    losses: Tensor
    loss: float
    """After the last step."""


@task(
    "prefix-regression",
    metrics=[
        Metric(
            "final_loss", better="lower", doc="Mean squared error on the training inputs after the last step."
        ),
        Metric("target_variance", better="neither", doc="Variance of the targets: the loss of their mean."),
        Metric("loss_share", better="lower", doc="final_loss over target_variance."),
    ],
    repeats="once",
    amount_unit="steps",
)
class PrefixRegression(Task[Regression, Trained]):
    """Fit random targets by training the prefix of one frozen attention layer.

    Inputs lie on the sphere of radius sqrt(d), targets are 0.5 N(0, I), the layer's matrices N(0, 1/d).
    """

    inputs: PositiveInt = 48
    """n."""
    dim: PositiveInt = 8
    """d."""
    steps: PositiveInt = 1500
    """Of training, on all inputs at once."""

    def load(self, seed: int) -> Regression:
        n, d = self.inputs, self.dim

        def normal(name: str, *shape: int) -> Tensor:
            return torch.randn(shape, generator=torch_generator(seed, name))

        x = normal("inputs", n, d)
        x = x / x.norm(dim=1, keepdim=True) * d**0.5
        matrices = [normal(name, d, d) / d**0.5 for name in ("W_Q", "W_K", "W_V")]
        return Regression(x, 0.5 * normal("targets", n, d), *matrices)

    def amount(self, work: Regression) -> float:
        return float(self.steps)

    def score(self, work: Regression, output: Trained) -> Measurement:
        if not output.loss < float("inf"):
            raise BadOutput(f"the training diverged: its loss is {output.loss}")
        variance = float(work.y.var(unbiased=False))
        steps = list(range(1, len(output.losses) + 1))
        return Measurement(
            {
                "final_loss": output.loss,
                "target_variance": variance,
                "loss_share": output.loss / variance,
            },
            {"loss": Series(steps, output.losses.tolist(), "step", "training loss")},
        )


@dataclass(frozen=True)
class Emulation:
    """A frozen layer with a prefix.

    Attributes:
        weights: W_Q, W_K and W_V, each (d, d).
        prefix_k, prefix_v: P W_K and P W_V, shape (1, m, d).
        test: what is to be answered, (sequences, 1, L, d).
    """

    weights: tuple[Tensor, Tensor, Tensor]
    prefix_k: Tensor
    prefix_v: Tensor
    test: Prefixed

    def fresh(self, generator: torch.Generator, sequences: int) -> Prefixed:
        """New inputs behind the same prefix."""
        _, _, length, d = self.test.q.shape
        x = torch.randn(sequences, 1, length, d, generator=generator)
        return Prefixed(self.prefix_k, self.prefix_v, *(x @ w for w in self.weights), False)


@task("prefix-emulation", metrics=[ERROR], repeats="once", amount_unit="steps")
class PrefixEmulation(Task[Emulation, Tensor]):
    """Give the output of one head of attention with a random prefix, on inputs not seen before.

    Inputs and the prefix are N(0, I) and become queries, keys and values through matrices of N(0, 1/d).
    """

    prefix: PositiveInt = 128
    """m, positions of the prefix."""
    length: PositiveInt = 32
    """L, tokens of a sequence."""
    dim: PositiveInt = 16
    """d."""
    steps: PositiveInt = 600
    """Of learning, for methods that learn; each on fresh sequences."""
    sequences: PositiveInt = 64
    """To be tested on."""

    def load(self, seed: int) -> Emulation:
        generator, d = torch_generator(seed, "layer"), self.dim
        w_q, w_k, w_v = torch.randn(3, d, d, generator=generator) / d**0.5
        prefix = torch.randn(1, self.prefix, d, generator=torch_generator(seed, "prefix"))
        x = torch.randn(self.sequences, 1, self.length, d, generator=torch_generator(seed, "test inputs"))
        keys, values = prefix @ w_k, prefix @ w_v
        test = Prefixed(keys, values, x @ w_q, x @ w_k, x @ w_v, False)
        return Emulation((w_q, w_k, w_v), keys, values, test)

    def amount(self, work: Emulation) -> float:
        return float(self.steps)

    def score(self, work: Emulation, output: Tensor) -> dict[str, float]:
        """`output`: of the test inputs, shape (sequences, 1, L, d)."""
        return {"relative_squared_error": relative_squared_error(output, exact(work.test.wide())[1].out)}


@task(
    "image-adaptation",
    metrics=[Metric("accuracy", doc="Share of the images kept for testing whose class is found.")],
    repeats="once",
    amount_unit="images",
    data=("mnist-10k", "cifar10-subset"),
)
class ImageAdaptation(Task[Transfer, Tensor]):
    """Adapt a vision transformer to new classes.

    Without a model of the hub a small one is first trained on the lower half of the classes, and the upper
    half is what is new.
    """

    data: Literal["digits", "mnist-10k", "cifar10-subset", "cifar100", "food101"] = "digits"
    """scikit-learn's 8 x 8 digits; sets under HARNESS_DATA; sets of the Hugging Face hub."""
    model: str = ""
    """Of the Hugging Face hub; needed for sets of the hub."""
    width: PositiveInt = 32
    """Of a model that is trained here."""
    layers: PositiveInt = 2
    """Of a model that is trained here."""
    heads: PositiveInt = 4
    """Of a model that is trained here."""
    patch: PositiveInt = 2
    """Height and width of a patch of a model that is trained here, pixels."""
    first_steps: PositiveInt = 600
    """Of training on the lower half of the classes."""
    images: NonNegativeInt = 200
    """To adapt with; 0: all that the set has for training (hub)."""
    steps: PositiveInt = 500
    """Of adapting."""
    passes: NonNegativeInt = 0
    """Over the images to adapt with, in place of `steps`; 0: as many steps as that says."""
    batch: PositiveInt = 32
    """Images of a step of adapting."""

    def load(self, seed: int) -> Transfer:
        if self.data in ("cifar100", "food101"):
            if not self.model:
                raise RequestError(f"{self.data} has no model to start from: name one in the parameter model")
            train, test, classes = from_hub(self.data, self.images, 224, seed)
            return Transfer(train, test, classes, None, self.model, 0)
        every = load(self.data)
        _, channels, side, _ = every.images.shape
        if side % self.patch:
            raise RequestError(f"images of {side} pixels cannot be cut into patches of {self.patch}")
        train, test = every.of(range(5, 10)).split(self.images, seed)
        if self.model:
            return Transfer(train, test, 5, None, self.model, 0)
        shape = Shape(side, channels, 5, self.width, self.layers, self.heads, self.patch)
        return Transfer(train, test, 5, every.of(range(5)), shape, self.first_steps)

    def length(self, work: Transfer) -> int:
        """Steps of adapting."""
        return -(-self.passes * len(work.train.labels) // self.batch) if self.passes else self.steps

    def amount(self, work: Transfer) -> float:
        return float(self.length(work) * min(self.batch, len(work.train.labels)))

    def score(self, work: Transfer, output: Tensor) -> dict[str, float]:
        """`output`: the class of each test image, int64 (n,)."""
        if output.shape != work.test.labels.shape:
            raise BadOutput(f"{len(output)} classes for {len(work.test.labels)} images")
        return {"accuracy": float((output.cpu() == work.test.labels).double().mean())}
