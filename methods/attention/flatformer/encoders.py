"""Encoders over pillars that attend: the same layers, told by who attends to whom."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from methods.attention.flatformer import grouping
from methods.attention.flatformer.grouping import Axis, Slots, Windows
from methods.attention.flatformer.layers import (
    GroupKernel,
    Layer,
    PositionEncoding,
    Recorder,
    attend_windows,
    through_groups,
    through_kernel,
)

Groups = Sequence[Slots] | Sequence[Windows]
"""Who attends to whom, one for each layer until it repeats; empty where no one attends."""


@dataclass(frozen=True)
class Shape:
    """Of an encoder.

    Attributes:
        layers: transformer layers, or convolutions.
        width: d, channels of a pillar.
        heads: of each attention.
        cells: S, pillars along the grid's side.
    """

    layers: int
    width: int
    heads: int
    cells: int


class Encoder(nn.Module, ABC):
    """x (N, d) of the pillars at coords (N, 3), `counts` of them in each sample, to features of the same shape."""

    @abstractmethod
    def forward(self, x: Tensor, coords: Tensor, counts: Sequence[int]) -> Tensor:
        """(N, d) to (N, d)."""


class AttentionEncoder(Encoder):
    """Layers that attend within groups."""

    attention = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(
            Layer(shape.width, shape.heads, attention=self.attention) for _ in range(shape.layers)
        )
        self.position = PositionEncoding(shape.width, shape.cells)

    @abstractmethod
    def groups(self, coords: Tensor, counts: Sequence[int]) -> Groups:
        """Who attends to whom: found once for all layers."""

    @abstractmethod
    def encode(self, x: Tensor, pe: Tensor, groups: Groups, record: Recorder | None = None) -> Tensor:
        """x through the layers."""

    def forward(
        self, x: Tensor, coords: Tensor, counts: Sequence[int], record: Recorder | None = None
    ) -> Tensor:
        """(N, d) to (N, d)."""
        return self.encode(x, self.position(coords), self.groups(coords, counts), record)


class GroupEncoder(AttentionEncoder):
    """Groups of one size."""

    kernel: GroupKernel | None = None

    def encode(self, x: Tensor, pe: Tensor, groups: Groups, record: Recorder | None = None) -> Tensor:
        slots = [g for g in groups if isinstance(g, Slots)]
        layers: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        if self.kernel is not None and record is None:
            return through_kernel(layers, x, pe, slots, self.kernel)
        return through_groups(layers, x, pe, slots, record)


class FlatEncoder(GroupEncoder):
    """FlatFormer: flattened windows in groups of equal size; the layers take turns along x, shifted x, y and
    shifted y."""

    def __init__(
        self,
        shape: Shape,
        *,
        group: int,
        window: int,
        axes: Literal["both", "x"] = "both",
        shift: bool = True,
        kernel: GroupKernel | None = None,
    ) -> None:
        super().__init__(shape)
        self.group, self.window, self.kernel = group, window, kernel
        along: tuple[Axis, ...] = ("x", "y") if axes == "both" else ("x",)
        self.turns = [(axis, moved) for axis in along for moved in ((False, True) if shift else (False,))]

    def groups(self, coords: Tensor, counts: Sequence[int]) -> list[Slots]:
        common = {"window": self.window, "group": self.group, "cells": self.shape.cells}
        return [grouping.flat_groups(coords, counts, axis=a, shift=s, **common) for a, s in self.turns]


class RandomEncoder(GroupEncoder):
    """Groups as large as FlatFormer's that are drawn at random, four draws for four layers."""

    def __init__(self, shape: Shape, *, group: int, seed: int) -> None:
        super().__init__(shape)
        self.group, self.seed = group, seed

    def groups(self, coords: Tensor, counts: Sequence[int]) -> list[Slots]:
        draws = torch.Generator().manual_seed(self.seed)
        return [grouping.random_groups(coords, counts, self.group, draws) for _ in range(4)]


class GlobalEncoder(GroupEncoder):
    """Every pillar attends to all of its sample."""

    def groups(self, coords: Tensor, counts: Sequence[int]) -> list[Slots]:
        return [grouping.equal_groups(torch.arange(len(coords), device=coords.device), counts, max(counts))]


class WindowEncoder(AttentionEncoder):
    """SST: padded windows in buckets by occupancy, every second layer in windows shifted by half their side."""

    def __init__(self, shape: Shape, *, window: int, limits: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__(shape)
        self.window, self.limits, self.sizes = window, tuple(limits), tuple(sizes)

    def groups(self, coords: Tensor, counts: Sequence[int]) -> list[Windows]:
        common = {"window": self.window, "cells": self.shape.cells, "limits": self.limits, "sizes": self.sizes}
        return [grouping.sst_windows(coords, shift=shift, **common) for shift in (False, True)]

    def encode(self, x: Tensor, pe: Tensor, groups: Groups, record: Recorder | None = None) -> Tensor:
        windows = [g for g in groups if isinstance(g, Windows)]
        for i, layer in enumerate(self.layers):
            turn = windows[i % len(windows)]
            q, k, v = layer.project(x, pe)  # type: ignore[operator]
            if record is not None:
                record(q, k, v)
            x = layer.feed(layer.mix(x, attend_windows(q, k, v, turn)))  # type: ignore[operator]
        return x


class PlainEncoder(AttentionEncoder):
    """No attention: each pillar for itself."""

    attention = False

    def groups(self, coords: Tensor, counts: Sequence[int]) -> list[Slots]:
        return []

    def encode(self, x: Tensor, pe: Tensor, groups: Groups, record: Recorder | None = None) -> Tensor:
        # As the layers that attend do, it is told where it is.
        x = x + pe
        for layer in self.layers:
            x = layer.feed(x)  # type: ignore[operator]
        return x
