"""What the family's tasks give to methods, and what methods of one layer return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.common.language_model import Recipe


@dataclass(frozen=True)
class Inputs:
    """Queries, keys and values of a layer.

    Attributes:
        q: shape (heads, n, d), the heads of all sequences of the batch one after another.
        k, v: shape (key heads, n, d), of the same dtype; query head h sees key head h // `group`.
        causal: whether query i sees only keys 0..i.
        upstream: gradient with respect to the output, shape of `q`, when the gradient is part of the task.
        rows: queries whose output is scored, int64, shape (rows,), in random order.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    causal: bool
    upstream: Tensor | None
    rows: Tensor

    @property
    def scale(self) -> float:
        """Of the scores: d ** -0.5."""
        return float(self.q.shape[-1] ** -0.5)

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return len(self.q) // len(self.k)

    def to(self, device: str) -> Inputs:
        """The same on `device`."""
        up = None if self.upstream is None else self.upstream.to(device)
        q, k, v, rows = (x.to(device) for x in (self.q, self.k, self.v, self.rows))
        return Inputs(q, k, v, self.causal, up, rows)


@dataclass(frozen=True)
class Attended:
    """What a method returns.

    Attributes:
        out: shape (heads, n, d).
        lse: log of the row sums of exp(scaled scores), float32, shape (heads, n); None where the method has
            none.
        gradients: with respect to q, k and v, each of its shape, when that is the task.
        pairs: (query, key) pairs of each head that were attended to, shape (heads,); None for all of them.
    """

    out: Tensor
    lse: Tensor | None = None
    gradients: tuple[Tensor, Tensor, Tensor] | None = None
    pairs: Tensor | None = None


@dataclass(frozen=True)
class Prompt(Inputs):
    """Inputs in which some rows ask for a word.

    Attributes:
        asking, answers, codebook: see `methods.attention.heads.Haystack`.
    """

    asking: Tensor
    answers: Tensor
    codebook: Tensor


@dataclass(frozen=True)
class Text:
    """Text for a language model.

    Attributes:
        tokens: bytes as int64, shape (windows, n).
        recipe: what the model is made of; 0 steps leave its weights random.
    """

    tokens: Tensor
    recipe: Recipe
