"""What FlatFormer is compared with, on the same pillars: SST's padded windows, sparse and dense convolutions, attention
to all pillars, random groups, and no attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.method import method
from harness.types import PositiveInt
from methods.attention.flatformer.convolutions import ConvolutionEncoder, DenseEncoder, SpconvEncoder
from methods.attention.flatformer.encoders import (
    GlobalEncoder,
    PlainEncoder,
    RandomEncoder,
    Shape,
    WindowEncoder,
)
from methods.attention.flatformer.running import (
    Builds,
    Classifies,
    ClassifiesInGroups,
    Detects,
    Encodes,
    EncodesInGroups,
)
from methods.attention.flatformer.structure import GROUPING, MISSED


@dataclass(kw_only=True, eq=False)
class SSTWindows(Builds):
    """The parameters of SST's windows."""

    window: PositiveInt = 12
    """Pillars along a window's side."""
    padding: Literal["inference", "training", "max"] = "inference"
    """What windows are padded to: "inference" 30, 60, 100 or window² tokens by occupancy; "training" 30, 60 or 100, where
    pillars beyond 100 have no room; "max" all of them window² tokens."""

    def encoder(self, shape: Shape) -> WindowEncoder:
        full = self.window**2
        limits, sizes = {
            "inference": ((30, 60, 100), (30, 60, 100, full)),
            "training": ((30, 60), (30, 60, 100)),
            "max": ((), (full,)),
        }[self.padding]
        return WindowEncoder(shape, window=self.window, limits=limits, sizes=sizes)


@dataclass(kw_only=True, eq=False)
class RandomGroups(Builds):
    """The parameters of random groups."""

    group: PositiveInt = 144
    """G, pillars of a group."""

    def encoder(self, shape: Shape) -> RandomEncoder:
        return RandomEncoder(shape, group=self.group, seed=self.context.derive("groups"))


class Everywhere(Builds):
    """Attention to all pillars."""

    def encoder(self, shape: Shape) -> GlobalEncoder:
        return GlobalEncoder(shape)


class Nowhere(Builds):
    """No attention."""

    def encoder(self, shape: Shape) -> PlainEncoder:
        return PlainEncoder(shape)


class Convolutions(Builds):
    """Submanifold convolutions in torch."""

    def encoder(self, shape: Shape) -> ConvolutionEncoder:
        return ConvolutionEncoder(shape)


class Library(Builds):
    """Submanifold convolutions of a library."""

    def encoder(self, shape: Shape) -> SpconvEncoder:
        return SpconvEncoder(shape)


@method("sst", task="pillar-encoding", metrics=GROUPING)
class SST(SSTWindows, EncodesInGroups):
    """Attention within windows of equal area, padded, every second layer in shifted ones."""


@method("sst-classifier", task="pillar-classification", metrics=MISSED)
class SSTClassifier(SSTWindows, ClassifiesInGroups):
    """The same, trained."""


@method("sst-detector", task="birds-eye-detection")
class SSTDetector(SSTWindows, Detects):
    """The whole network with SST's six blocks of two layers."""

    layers: PositiveInt = 12
    """Six blocks of two."""


@method("random-groups", task="pillar-encoding", metrics=GROUPING)
class RandomGroupsAttention(RandomGroups, EncodesInGroups):
    """Attention within groups of pillars that have nothing to do with each other."""


@method("random-groups-classifier", task="pillar-classification", metrics=MISSED)
class RandomGroupsClassifier(RandomGroups, ClassifiesInGroups):
    """The same, trained."""


@method("all-pillars", task="pillar-encoding", metrics=GROUPING)
class AllPillars(Everywhere, EncodesInGroups):
    """Exact attention to all pillars of a sample."""


@method("all-pillars-classifier", task="pillar-classification", metrics=MISSED)
class AllPillarsClassifier(Everywhere, ClassifiesInGroups):
    """The same, trained."""


@method("pillar-mlp", task="pillar-encoding")
class PillarMlp(Nowhere, Encodes):
    """The layers without their attention."""


@method("pillar-mlp-classifier", task="pillar-classification")
class PillarMlpClassifier(Nowhere, Classifies):
    """The same, trained."""


@method("sparse-convolution", task="pillar-encoding")
class SparseConvolution(Convolutions, Encodes):
    """Submanifold 3 x 3 convolutions: a hash join, and nine steps of gather, multiply and scatter."""


@method("sparse-convolution-classifier", task="pillar-classification")
class SparseConvolutionClassifier(Convolutions, Classifies):
    """The same, trained."""


@method("sparse-convolution-detector", task="birds-eye-detection")
class SparseConvolutionDetector(Convolutions, Detects):
    """The whole network with four residual pairs of submanifold convolutions, as CenterPoint has them."""

    layers: PositiveInt = 8
    """Convolutions, in residual pairs."""


@method("dense-convolution", task="pillar-encoding")
class DenseConvolution(Encodes):
    """The same convolutions over the whole grid, empty pillars included."""

    def encoder(self, shape: Shape) -> DenseEncoder:
        return DenseEncoder(shape)


@method("spconv", task="pillar-encoding")
class Spconv(Library, Encodes):
    """The same convolutions by the library spconv."""


@method("centerpoint-detector", task="birds-eye-detection")
class CenterPointDetector(Library, Detects):
    """The whole network with four residual pairs of the library spconv's convolutions."""

    layers: PositiveInt = 8
    """Convolutions, in residual pairs."""
