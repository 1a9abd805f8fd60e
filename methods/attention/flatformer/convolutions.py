"""Encoders over pillars that convolve: submanifold 3 x 3 convolutions, in three implementations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import MissingPackage
from methods.attention.flatformer.encoders import Encoder, Shape

Pairs = list[tuple[Tensor, Tensor]]
"""For each of the nine offsets, row by row, the pillars that have a neighbour there and those neighbours."""


def neighbours(coords: Tensor, samples: int, cells: int) -> Pairs:
    """The hash join of a 3 x 3 convolution: the grid itself, with a rim, is the table."""
    side = cells + 2
    key = (coords[:, 0] * side + coords[:, 1] + 1) * side + coords[:, 2] + 1
    n = len(coords)
    table = torch.full((samples * side * side,), -1, dtype=torch.int64, device=coords.device)
    table[key] = torch.arange(n, device=coords.device)
    step = torch.arange(-1, 2, device=coords.device)
    offsets = (step[:, None] * side + step).flatten()
    found = table[key + offsets[:, None]]
    where, at = torch.nonzero(found >= 0, as_tuple=True)
    lengths: list[int] = torch.bincount(where, minlength=9).tolist()
    source = found[where, at]
    return list(zip(at.split(lengths), source.split(lengths), strict=True))


class ConvolutionEncoder(Encoder):
    """Residual pairs of 3 x 3 convolutions with BatchNorm and ReLU, at occupied pillars alone."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.layers % 2:
            raise ValueError(f"convolutions come in residual pairs: layers ({shape.layers}) must be even")
        self.shape = shape
        d = shape.width
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(9, d, d)) for _ in range(shape.layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(d, eps=1e-3, momentum=0.01) for _ in range(shape.layers))
        for weight in self.weights:
            nn.init.normal_(weight, std=(2 / (9 * d)) ** 0.5)

    def forward(self, x: Tensor, coords: Tensor, counts: Sequence[int]) -> Tensor:
        table = self.table(coords, len(counts))
        for i in range(0, len(self.weights), 2):
            h = torch.relu(self.norms[i](self.convolve(x, self.weights[i], table)))
            x = torch.relu(x + self.norms[i + 1](self.convolve(h, self.weights[i + 1], table)))
        return x

    def table(self, coords: Tensor, samples: int) -> Any:
        """What `convolve` needs to know of the pillars; found once for all layers."""
        return neighbours(coords, samples, self.shape.cells)

    def convolve(self, x: Tensor, weight: Tensor, table: Any) -> Tensor:
        """x (N, d) convolved with weight (9, d, d): nine steps of gather, multiply, scatter."""
        out = x @ weight[4]  # every pillar has itself in the middle
        for offset, (at, source) in enumerate(table):
            if offset != 4:
                out = out.index_add(0, at, x[source] @ weight[offset])
        return out


class DenseEncoder(ConvolutionEncoder):
    """The same function by dense convolutions over the whole grid, empty pillars included."""

    def table(self, coords: Tensor, samples: int) -> Any:
        return coords, samples

    def convolve(self, x: Tensor, weight: Tensor, table: Any) -> Tensor:
        coords, samples = table
        sample, row, column = coords.unbind(1)
        side, d = self.shape.cells, x.shape[1]
        # Out of place, so that autograd can follow; channels last, as the rows are.
        index = (sample * side + row) * side + column
        canvas = x.new_zeros(samples * side * side, d).index_copy(0, index, x).view(samples, side, side, d)
        kernel = weight.view(3, 3, d, -1).permute(3, 2, 0, 1)
        out = F.conv2d(
            canvas.permute(0, 3, 1, 2), kernel.contiguous(memory_format=torch.channels_last), padding=1
        )
        return out[sample, :, row, column]


class SpconvEncoder(Encoder):
    """The same network by the library spconv (on a CUDA GPU).

    Raises:
        MissingPackage: it is not installed.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        try:
            import spconv.pytorch as spconv
        except ImportError as error:
            raise MissingPackage(
                "the library spconv is not installed: pip install spconv-cu126, or the build for your CUDA"
            ) from error
        if shape.layers % 2:
            raise ValueError(f"convolutions come in residual pairs: layers ({shape.layers}) must be even")
        self.shape, self.library = shape, spconv
        d = shape.width
        self.convolutions = nn.ModuleList(
            spconv.SubMConv2d(d, d, 3, padding=1, bias=False, indice_key="pillars") for _ in range(shape.layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(d, eps=1e-3, momentum=0.01) for _ in range(shape.layers))

    def forward(self, x: Tensor, coords: Tensor, counts: Sequence[int]) -> Tensor:
        side = self.shape.cells
        sparse = self.library.SparseConvTensor(x, coords.int(), [side, side], len(counts))
        for i in range(0, len(self.convolutions), 2):
            h = self.convolutions[i](sparse)
            h = h.replace_feature(torch.relu(self.norms[i](h.features)))
            h = self.convolutions[i + 1](h)
            features = torch.relu(sparse.features + self.norms[i + 1](h.features))
            sparse = h.replace_feature(features)
        return sparse.features  # type: ignore[no-any-return]
