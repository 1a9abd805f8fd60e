"""FlatFormer (Liu et al., CVPR 2023): attention over LiDAR pillars in groups of equal size along flattened windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.method import method
from harness.types import PositiveInt
from methods.attention.flatformer.encoders import FlatEncoder, Shape
from methods.attention.flatformer.running import (
    Builds,
    ClassifiesInGroups,
    Detects,
    EncodesInGroups,
    group_kernel,
)
from methods.attention.flatformer.structure import GROUPING, MISSED


@dataclass(kw_only=True, eq=False)
class Flattened(Builds):
    """The parameters of FlatFormer."""

    group: PositiveInt = 144
    """G, pillars of a group."""
    window: PositiveInt = 13
    """w, pillars along the side of a window that is flattened."""
    axes: Literal["both", "x"] = "both"
    """Whether layers take turns between windows flattened along x and along y."""
    shift: bool = True
    """Whether every second layer shifts the windows by floor(w / 2)."""
    kernel: Literal["torch", "triton"] = "torch"
    """"torch" moves rows into groups and calls torch's fused attention; "triton" reads, attends and writes back in one
    kernel (on a GPU; needs the package triton; not for training)."""

    def encoder(self, shape: Shape) -> FlatEncoder:
        return FlatEncoder(
            shape,
            group=self.group,
            window=self.window,
            axes=self.axes,
            shift=self.shift,
            kernel=group_kernel(self.kernel, self.context),
        )


@method("flatformer", task="pillar-encoding", metrics=GROUPING)
class FlatFormer(Flattened, EncodesInGroups):
    """Layers that attend within groups of equal size, along x, shifted x, y and shifted y."""


@method("flatformer-classifier", task="pillar-classification", metrics=MISSED)
class FlatFormerClassifier(Flattened, ClassifiesInGroups):
    """The same between a pillar encoder and a linear classifier, trained."""

    kernel: Literal["torch"] = "torch"
    """The one that autograd goes through."""


@method("flatformer-detector", task="birds-eye-detection")
class FlatFormerDetector(Flattened, Detects):
    """The whole network of the paper."""

    layers: PositiveInt = 8
    """Two blocks of four."""
