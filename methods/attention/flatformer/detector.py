"""The whole network: points to pillars, features that know of their surroundings, a bird's-eye map, and the maps of
a CenterPoint head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.attention.flatformer.encoders import Encoder
from methods.attention.flatformer.pillars import Grid, PillarEncoder, Pillars, pillarise, point_features

HEADS = {"heat": 3, "offset": 2, "height": 1, "size": 3, "rotation": 2, "velocity": 2, "iou": 1}
"""Maps of the head and their channels: one heat map for each of vehicle, pedestrian and cyclist."""


def _convolution(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + conv(x), of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x)  # type: ignore[no-any-return]


class BirdsEye(nn.Module):
    """Two stages of three convolutions, of 64 and 128 channels and strides 1 and 2; a pyramid of 2 x 128 channels at
    the full resolution; the head's maps from 64 shared channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(width, 64), Residual(64), Residual(64))
        self.second = nn.Sequential(_convolution(64, 128, stride=2), Residual(128), Residual(128))
        self.level1 = nn.Sequential(nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128, eps=1e-3), nn.ReLU())
        self.level2 = nn.Sequential(
            nn.ConvTranspose2d(128, 128, 2, 2, bias=False), nn.BatchNorm2d(128, eps=1e-3), nn.ReLU()
        )
        self.shared = _convolution(256, 64)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(_convolution(64, 64), nn.Conv2d(64, channels, 3, padding=1))
                for name, channels in HEADS.items()
            }
        )

    def forward(self, canvas: Tensor) -> dict[str, Tensor]:
        """(samples, width, S, S), S even, to maps (samples, channels, S, S)."""
        one = self.first(canvas)
        two = self.second(one)
        both = self.shared(torch.cat([self.level1(one), self.level2(two)], 1))
        return {name: head(both) for name, head in self.heads.items()}


class Detector(nn.Module):
    """From points to the head's maps.

    Attributes:
        grid: the pillars that there may be; an even number along a side.
    """

    def __init__(self, grid: Grid, width: int, encoder: Encoder) -> None:
        super().__init__()
        if grid.cells % 2:
            raise ValueError(f"the second stage halves the grid: {grid.cells} cells along a side are not even")
        self.grid = grid
        self.pillars = PillarEncoder(width)
        self.encoder = encoder
        self.birds_eye = BirdsEye(width)

    def forward(
        self, points: Tensor, sample: Tensor, samples: int
    ) -> tuple[Pillars, Tensor, dict[str, Tensor]]:
        """The pillars of points (P, 5), their features (N, d) and the maps. Coordinates are float32: half precision has
        no centimetres at 70 m."""
        pillars = pillarise(points, sample, samples, self.grid)
        dtype = self.pillars.first.weight.dtype
        features = point_features(pillars, self.grid).to(dtype)
        x = self.pillars(features, pillars.pillar, len(pillars.coords))
        x = self.encoder(x, pillars.coords, pillars.counts)
        return pillars, x, self.birds_eye(self.canvas(x, pillars.coords, samples))

    def canvas(self, x: Tensor, coords: Tensor, samples: int) -> Tensor:
        """x scattered into zeros: (samples, d, S, S), channels last in memory."""
        side = self.grid.cells
        row = (coords[:, 0] * side + coords[:, 1]) * side + coords[:, 2]
        flat = x.new_zeros(samples * side * side, x.shape[1])
        flat[row] = x
        return flat.view(samples, side, side, -1).permute(0, 3, 1, 2)
