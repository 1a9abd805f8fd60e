"""What the last queries of a prompt say about a head: the mass of its columns and of its diagonals.

P is the causal softmax of the scores of the last queries. The mean of its rows is the mass of the columns
("vertical"), the mean of its diagonals that of the distances between query and key ("slash").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.attention.block_sparse import blocks_of, causal_blocks


class Profile(NamedTuple):
    """Mass of each column and of each diagonal, which both sum to 1.

    Attributes:
        vertical: of key j, float32, shape (heads, n).
        slash: of distance o between query and key, float32, shape (heads, n).
    """

    vertical: Tensor
    slash: Tensor


def profile(q: Tensor, k: Tensor, rows: int, *, scale: float) -> Profile:
    """The profile of the last `rows` queries of q, (heads, n, d), with keys (key heads, n, d)."""
    heads, n, _ = q.shape
    rows = min(rows, n)
    last = q[:, n - rows :].unflatten(0, (len(k), -1)).flatten(1, 2)  # (key heads, group * rows, d)
    p = torch.matmul(last, k.mT).float().view(heads, rows, n).mul_(scale)
    later = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu(1)
    p[..., n - rows :].masked_fill_(later, -torch.inf)
    p = p.softmax(-1)
    # With the columns in reverse order, entry c of row r is at distance c - (rows - 1 - r). Read with a stride one
    # short of the row, every row moves one place to the left of the one above, and diagonals become columns.
    width = n + rows
    reverse = F.pad(p.flip(-1), (0, rows))
    diagonals = reverse.as_strided((heads, rows, n), (rows * width, width - 1, 1), rows - 1)
    return Profile(p.mean(1), diagonals.sum(1) / rows)


def block_sums(x: Tensor, block: int) -> Tensor:
    """Sums of x, (heads, n), over blocks of its last dimension, the last of which may be shorter."""
    return F.pad(x, (0, -x.shape[-1] % block)).unflatten(-1, (-1, block)).sum(-1)


def block_means(x: Tensor, block: int) -> Tensor:
    """Means of x, (heads, n, d), over blocks of tokens, the last of which may be shorter: float32, (heads, blocks,
    d)."""
    n = x.shape[1]
    sums = F.pad(x.float(), (0, 0, 0, -n % block)).unflatten(1, (-1, block)).sum(2)
    starts = torch.arange(sums.shape[1], device=x.device) * block
    return sums / (n - starts).clamp(max=block)[:, None]


def largest(mass: Tensor, count: Tensor) -> Tensor:
    """Which entries of `mass`, (heads, m), are among the `count`, (heads,), largest of their head: bool. The
    first entry always is: the sinks of a column profile, the nearest keys of a diagonal one."""
    first = F.one_hot(torch.zeros(1, dtype=torch.long, device=mass.device), mass.shape[-1]).bool()
    order = mass.masked_fill(first, torch.inf).sort(dim=-1, descending=True, stable=True).indices
    rank = torch.arange(mass.shape[-1], device=mass.device)
    chosen = (rank < count[:, None].clamp(min=1)).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, chosen)


def columns_and_diagonals(columns: Tensor, diagonals: Tensor) -> Tensor:
    """The causal union of block columns and block diagonals, bool, (heads, blocks) each: (heads, blocks,
    blocks)."""
    blocks = columns.shape[-1]
    place = torch.arange(blocks, device=columns.device)
    distance = (place[:, None] - place).clamp(min=0)
    return (columns[:, None, :] | diagonals[:, distance]) & causal_blocks(blocks, columns.device)


def window(length: int, block: int, first: int, last: int, device: torch.device) -> Tensor:
    """Blocks that hold any of the `first` keys, or any of the `last` keys up to a query of the block: bool,
    (blocks, blocks)."""
    place = torch.arange(blocks_of(length, block), device=device)
    nearest = place[:, None] * block - last < (place + 1) * block - 1
    return ((place * block < first) | nearest) & causal_blocks(len(place), device)
