"""Match3: whether a position is part of a triple whose sum is 0 modulo M, by construction and by training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.attention.tensor_attention.exact import tensor_attention

FREQUENCIES = 8


def labels(x: Tensor, modulus: int) -> Tensor:
    """Of inputs x, int64, (inputs, n): bool, whether some j, k (repeats allowed) have x_i + x_j + x_k = 0 mod M.

    Counted by residues, so it takes M n steps for an input and not n^3.
    """
    present = F.one_hot(x, modulus).amax(1).bool()  # (inputs, M)
    residues = torch.arange(modulus)
    sums = torch.zeros_like(present)
    for j in range(x.shape[1]):  # residues of x_j + x_k over all k
        sums |= present.gather(1, (residues - x[:, j, None]) % modulus)
    return sums.gather(1, (-x) % modulus)


def construction(x: Tensor, modulus: int, c: float) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """One tensor unit that solves Match3: q, (K1, K2) and (V1, V2), float64, to attend with scale 1.

    With a = 2 pi x / M the score of (i, j, k) is c cos(2 pi (x_i + x_j + x_k) / M), by the addition theorem in four
    coordinates, and that of a pair of dummies in front is c cos(pi / M) in a fifth. Real keys have value 1, the
    dummy 0: the output is above 1/2 exactly if a match exists, once c is large enough.

    Args:
        x: int64, shape (inputs, n); inputs are heads.
        c: largest score; entries are as large as c^(1/3).
    """
    a = x.double() * (2 * math.pi / modulus)
    cos, sin, zero = a.cos(), a.sin(), torch.zeros_like(a)
    r = c ** (1 / 3)
    q = r * torch.stack([cos, -cos, -sin, -sin, torch.full_like(a, math.cos(math.pi / modulus))], -1)
    k1 = r * torch.stack([cos, sin, cos, sin, zero], -1)
    k2 = r * torch.stack([cos, sin, sin, cos, zero], -1)
    dummy = torch.zeros_like(k1[:, :1])
    dummy[..., 4] = r
    v = torch.ones_like(k1[..., :1])
    v1, v2 = torch.cat([torch.zeros_like(v[:, :1]), v], 1), F.pad(v, (0, 0, 1, 0), value=1.0)
    return q, (torch.cat([dummy, k1], 1), torch.cat([dummy, k2], 1)), (v1, v2)


def sufficient_score(n: int, modulus: int) -> float:
    """The c from which on the construction is right on every input of n numbers: ln(n^2) over the gap.

    A sum that is off by 1 has a score below the dummy's by c (cos(pi / M) - cos(2 pi / M)), and there are at most n^2
    such pairs against one dummy. A single match outweighs the dummy for every c.
    """
    return 2 * math.log(n) / (math.cos(math.pi / modulus) - math.cos(2 * math.pi / modulus))


def angles(x: Tensor, modulus: int) -> Tensor:
    """cos and sin of 2 pi f x / M for f = 1..8, float32, shape (..., n, 16)."""
    a = x[..., None] * torch.arange(1, FREQUENCIES + 1, device=x.device) * (2 * math.pi / modulus)
    return torch.cat([a.cos(), a.sin()], -1)


class TensorAttentionLayer(nn.Module):
    """Attention of order t as a layer: 2 t - 1 linear maps replace three, and one maps back.

    Order 2 is ordinary softmax attention.

    Args:
        inputs: width of the input.
        width: d of all heads together, a multiple of `heads`.
        outputs: width of the output.
    """

    def __init__(self, inputs: int, width: int, outputs: int, *, order: int = 3, heads: int = 1) -> None:
        super().__init__()
        if width % heads or order < 2:
            raise ValueError(f"width {width} must be a multiple of {heads} heads, and the order 2 or more")
        self.order, self.heads = order, heads
        self.query = nn.Linear(inputs, width)
        self.keys = nn.ModuleList(nn.Linear(inputs, width) for _ in range(order - 1))
        self.values = nn.ModuleList(nn.Linear(inputs, width) for _ in range(order - 1))
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n, inputs) -> (batch, n, outputs)."""
        q, *rest = (self._heads(linear(x)) for linear in (self.query, *self.keys, *self.values))
        keys, values = rest[: self.order - 1], rest[self.order - 1 :]
        # d^(-1/2) keeps the scores of order 2 at unit size; 1/d, as for bounded entries, would flatten them.
        out = tensor_attention(q, keys, values, scale=q.shape[-1] ** -0.5).out
        out = out.view(len(x), self.heads, *out.shape[1:]).transpose(1, 2).flatten(2)
        mapped: Tensor = self.output(out)
        return mapped

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, n, width) -> (batch * heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)


class Matcher(nn.Module):
    """One attention layer on Fourier features and an MLP that reads each position's output beside its input."""

    def __init__(self, modulus: int, width: int, readout: int, order: int) -> None:
        super().__init__()
        self.modulus = modulus
        self.attention = TensorAttentionLayer(2 * FREQUENCIES, width, width, order=order)
        self.readout = nn.Sequential(
            nn.Linear(width + 2 * FREQUENCIES, readout), nn.ReLU(), nn.Linear(readout, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (inputs, n), of x, int64, (inputs, n)."""
        features = angles(x, self.modulus)
        logits: Tensor = self.readout(torch.cat([self.attention(features), features], -1))
        return logits.squeeze(-1)
