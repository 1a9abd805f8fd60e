"""From points to pillars: the columns of a bird's-eye grid that hold points, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.attention.flatformer.scans import CLASSES

POINT_FEATURES = 11
"""Of a point: its 5 values, its offsets to the mean of its pillar's points (3) and to the pillar's centre (3)."""


@dataclass(frozen=True)
class Grid:
    """The pillars that there may be.

    Attributes:
        extent: x and y are in [-extent, extent) m.
        pillar: side of a pillar in m.
        low, high: z is in [low, high) m.
    """

    extent: float = 74.88
    pillar: float = 0.32
    low: float = -2.0
    high: float = 4.0

    @property
    def cells(self) -> int:
        """S, pillars along x and along y."""
        return round(2 * self.extent / self.pillar)


@dataclass(frozen=True)
class Pillars:
    """The occupied pillars of a batch of sweeps, sample after sample.

    Attributes:
        coords: sample, x and y index, int64, (N, 3).
        counts: pillars of each sample.
        points: the points inside the grid, float32, (P, 5).
        pillar: the row of `coords` that each point lies in, int64, (P,).
        kept: which of the points that were given these are, bool.
    """

    coords: Tensor
    counts: tuple[int, ...]
    points: Tensor
    pillar: Tensor
    kept: Tensor


def pillarise(points: Tensor, sample: Tensor, samples: int, grid: Grid) -> Pillars:
    """The occupied pillars of `points` (P, 5), of which the one in row i belongs to `sample[i]`."""
    s = grid.cells
    cell = torch.floor((points[:, :2] + grid.extent) / grid.pillar).long()
    z = points[:, 2]
    kept = (cell >= 0).all(1) & (cell < s).all(1) & (z >= grid.low) & (z < grid.high)
    cell, points, sample = cell[kept], points[kept], sample[kept]
    key, pillar = torch.unique((sample * s + cell[:, 0]) * s + cell[:, 1], return_inverse=True)
    coords = torch.stack([key // (s * s), key // s % s, key % s], 1)
    counts = (len(key),) if samples == 1 else tuple(torch.bincount(coords[:, 0], minlength=samples).tolist())
    return Pillars(coords, counts, points, pillar, kept)


def batched(sweeps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Points of several sweeps one after another, and the sample of each."""
    sample = torch.cat([torch.full((len(p),), i) for i, p in enumerate(sweeps)])
    return torch.cat(list(sweeps)), sample


def mean_height(pillars: Pillars) -> Tensor:
    """Mean z of each pillar's points in m: float32, (N,)."""
    return _mean(pillars, pillars.points[:, 2:3])[:, 0]


def majority(pillars: Pillars, labels: Tensor) -> Tensor:
    """The commonest label of each pillar's points (the smallest of equals): int64, (N,)."""
    votes = torch.zeros(len(pillars.coords), len(CLASSES), dtype=torch.int64)
    votes.view(-1).index_add_(0, pillars.pillar * len(CLASSES) + labels, torch.ones_like(labels))
    return votes.argmax(1)


def point_features(pillars: Pillars, grid: Grid) -> Tensor:
    """What the encoder sees of each point: (P, `POINT_FEATURES`), lengths in m."""
    xyz = pillars.points[:, :3]
    cell = pillars.coords[pillars.pillar, 1:].to(xyz.dtype)
    middle = torch.full_like(xyz[:, :1], (grid.low + grid.high) / 2)
    centre = torch.cat([(cell + 0.5) * grid.pillar - grid.extent, middle], 1)
    return torch.cat([pillars.points, xyz - _mean(pillars, xyz)[pillars.pillar], xyz - centre], 1)


def _mean(pillars: Pillars, values: Tensor) -> Tensor:
    n = len(pillars.coords)
    total = values.new_zeros(n, values.shape[1]).index_add_(0, pillars.pillar, values)
    count = values.new_zeros(n).index_add_(0, pillars.pillar, torch.ones_like(values[:, 0]))
    return total / count[:, None]


class PillarEncoder(nn.Module):
    """Dynamic pillar features: two stages of Linear, BatchNorm and ReLU on the points, and the largest value of each
    channel over a pillar's points; what the first stage found of the pillar is given to the second."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        half = width // 2
        self.first = nn.Linear(POINT_FEATURES, half, bias=False)
        self.first_norm = nn.BatchNorm1d(half, eps=1e-3)
        self.second = nn.Linear(2 * half, width, bias=False)
        self.second_norm = nn.BatchNorm1d(width, eps=1e-3)

    def forward(self, features: Tensor, pillar: Tensor, count: int) -> Tensor:
        """x (N, width) of point features (P, `POINT_FEATURES`) in `count` pillars."""
        x = torch.relu(self.first_norm(self.first(features)))
        x = torch.cat([x, _largest(x, pillar, count)[pillar]], 1)
        x = torch.relu(self.second_norm(self.second(x)))
        return _largest(x, pillar, count)


def _largest(x: Tensor, pillar: Tensor, count: int) -> Tensor:
    index = pillar[:, None].expand_as(x)
    return x.new_zeros(count, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)
