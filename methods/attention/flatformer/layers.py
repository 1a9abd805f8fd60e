"""Transformer layers over pillars; they differ in nothing but who attends to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.attention.flatformer.grouping import Slots, Windows

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v, each (tokens, heads, d / heads), to the attended values in the same shape and order."""

GroupKernel = Callable[[Tensor, Tensor, Tensor, Slots], Tensor]
"""q, k, v in the order of the pillars and the groups to the attended values in the order of the pillars."""


class Recorder(Protocol):
    """Looks at queries, keys and values of each layer, in the order of the pillars: (N, heads, d / heads)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> None: ...


class Layer(nn.Module):
    """A post-norm transformer layer: h = LN(x + MHA(q = k = x + pe, v = x)); out = LN(h + W2 GELU(W1 h)).

    Tokens are rows, in any order. Without `attention` the first half is left out.
    """

    def __init__(self, width: int, heads: int, *, attention: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.heads = heads
        self.into = nn.Linear(width, 3 * width) if attention else None
        self.out = nn.Linear(width, width) if attention else None
        self.norm1 = nn.LayerNorm(width) if attention else None
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def project(self, x: Tensor, pe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each (tokens, heads, d / heads)."""
        assert self.into is not None
        d = x.shape[1]
        weight, bias = self.into.weight, self.into.bias
        qk = F.linear(x + pe, weight[: 2 * d], bias[: 2 * d]).view(len(x), 2, self.heads, -1)
        v = F.linear(x, weight[2 * d :], bias[2 * d :]).view(len(x), self.heads, -1)
        return qk[:, 0], qk[:, 1], v

    def mix(self, x: Tensor, attended: Tensor) -> Tensor:
        """h from the attended values, (tokens, heads, d / heads)."""
        assert self.out is not None
        assert self.norm1 is not None
        mixed: Tensor = self.norm1(x + self.out(attended.reshape(len(x), -1)))
        return mixed

    def feed(self, h: Tensor) -> Tensor:
        """The second half of the layer."""
        fed: Tensor = self.norm2(h + self.down(F.gelu(self.up(h))))
        return fed

    def forward(self, x: Tensor, pe: Tensor, attend: Attend) -> Tensor:
        """(tokens, d) to (tokens, d)."""
        return self.feed(self.mix(x, attend(*self.project(x, pe))))


class PositionEncoding(nn.Module):
    """Sine and cosine of a pillar's absolute x and y index, half of the channels for each; temperature 10000."""

    table: Tensor

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"width ({width}) must be a multiple of 4, for sine and cosine on two axes")
        half = width // 2
        rate = 10000.0 ** -(torch.arange(0, half, 2, dtype=torch.float64) / half)
        angle = torch.arange(cells, dtype=torch.float64)[:, None] * rate
        table = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, coords: Tensor) -> Tensor:
        """(N, 3) to (N, d)."""
        return torch.cat([self.table[coords[:, 1]], self.table[coords[:, 2]]], 1)


def attend_groups(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, size: int) -> Tensor:
    """Attention within consecutive groups of `size` tokens; mask (groups, size) is True at real ones."""
    parts = (t.view(-1, size, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
    keys = None if mask is None else mask[:, None, None, :]
    out = F.scaled_dot_product_attention(*parts, attn_mask=keys)
    return out.transpose(1, 2).reshape(v.shape)


def attend_windows(q: Tensor, k: Tensor, v: Tensor, windows: Windows) -> Tensor:
    """Attention within padded windows; zero for a pillar that had no room in its window."""
    outs = []
    for bucket in windows.buckets:
        parts = (t[bucket.rows].transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(*parts, attn_mask=bucket.mask[:, None, None, :])
        outs.append(out.transpose(1, 2).reshape(-1, *v.shape[1:]))
    nothing = v.new_zeros(1, *v.shape[1:])
    return torch.cat([*outs, nothing])[windows.slot]


def attend_slots(q: Tensor, k: Tensor, v: Tensor, slots: Slots) -> Tensor:
    """Attention within groups, from and to the order of the pillars: gather, attend, scatter."""
    size = slots.rows.shape[1]
    rows = slots.rows.flatten()
    return attend_groups(q[rows], k[rows], v[rows], slots.mask, size)[slots.slot]


def through_groups(
    layers: Sequence[Layer], x: Tensor, pe: Tensor, cycle: Sequence[Slots], record: Recorder | None = None
) -> Tensor:
    """x (N, d) through `layers`, of which layer i attends within the groups `cycle[i % len(cycle)]`.

    A layer is the same function of each row but for attention. So rows are moved into the order of a layer's groups
    once, from the order of the layer before, and not gathered and scattered around each attention; pillars
    that fill up a last group are carried along, and their second outputs dropped at the next move.
    """
    size = cycle[0].rows.shape[1]
    places = [slots.rows.flatten() for slots in cycle]
    encodings = [pe[rows] for rows in places]
    hops = [cycle[i - 1].slot[places[i]] for i in range(len(cycle))]
    for i, layer in enumerate(layers):
        turn = i % len(cycle)
        x = x[hops[turn] if i else places[0]]
        q, k, v = layer.project(x, encodings[turn])
        if record is not None:
            record(*(t[cycle[turn].slot] for t in (q, k, v)))
        x = layer.feed(layer.mix(x, attend_groups(q, k, v, cycle[turn].mask, size)))
    return x[cycle[(len(layers) - 1) % len(cycle)].slot] if layers else x


def through_kernel(
    layers: Sequence[Layer], x: Tensor, pe: Tensor, cycle: Sequence[Slots], kernel: GroupKernel
) -> Tensor:
    """The same with a kernel that itself reads rows in the order of the groups and writes them back."""
    for i, layer in enumerate(layers):
        q, k, v = layer.project(x, pe)
        x = layer.feed(layer.mix(x, kernel(q, k, v, cycle[i % len(cycle)])))
    return x
