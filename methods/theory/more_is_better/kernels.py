"""Kernels of infinitely wide ReLU networks, fully connected or convolutional, between sets of images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from methods.theory import arc_cosine
from methods.theory.more_is_better.cntk import MyrtleKernel

NetworkKernel = Literal["nngp", "ntk"]
"""Only the last layer is trained, or all layers are."""

Precision = Literal["float32", "float64"]

_ROWS = 1024
"""Rows of a kernel at a time, so that the recursion's temporaries stay small."""


def fully_connected(x: Tensor, other: Tensor, depth: int, kind: NetworkKernel) -> Tensor:
    """NNGP or NTK of a ReLU network with `depth` hidden layers and no biases, [n, m].

    Weights have variance 2/fan-in in the hidden layers, so that S_l(x, x) = |x|^2/d at every depth (any
    other variance only scales the kernel). With rho the correlation of the previous layer,

        S_{l+1}/s = kappa_1(rho),    T_{l+1}/s = kappa_1(rho) + kappa_0(rho) T_l/s,    s = |x| |x'|/d.

    Args:
        x: inputs [n, d].
        other: inputs [m, d].
        depth: hidden layers; 0 is the linear kernel.
        kind: "nngp" or "ntk".
    """
    norm, norm_other = x.norm(dim=1), other.norm(dim=1)
    scale = norm[:, None] * norm_other / x.shape[1]
    rho = (x @ other.T / (norm[:, None] * norm_other)).clamp(-1.0, 1.0)
    tangent = rho
    for _ in range(depth):
        zero, rho_next = arc_cosine.both(rho)
        tangent, rho = rho_next + tangent * zero, rho_next
    chosen: Tensor = rho if kind == "nngp" else tangent
    return torch.mul(scale, chosen)


def network_gram(train: Tensor, test: Tensor, kernel: NetworkKernel, depth: int) -> tuple[Tensor, Tensor]:
    """K_{XX} [n, n] and K_{test,X} [t, n] of a fully connected network, for images [., h, w, c]."""
    x, x_test = train.flatten(1), test.flatten(1)
    own, cross = (
        torch.cat([fully_connected(part, x, depth, kernel) for part in torch.split(inputs, _ROWS)])
        for inputs in (x, x_test)
    )
    # Rounding makes the two halves of K_{XX} differ in the last digit.
    return (own + own.T) / 2, cross


def myrtle_gram(
    train: Tensor, test: Tensor, depth: int, precision: Precision, pair_batch: int
) -> tuple[Tensor, Tensor]:
    """K_{XX} [n, n] and K_{test,X} [t, n] of a Myrtle network in float64, for images [., h, w, c].

    Args:
        train: training images.
        test: test images.
        depth: 5, 7 or 10.
        precision: of the recursion over the layers.
        pair_batch: pairs of images at a time; one of 32 x 32 pixels takes about ten arrays of a million.
    """
    dtype = getattr(torch, precision)
    network = MyrtleKernel(depth=depth, pair_batch=pair_batch)
    own, other = network.prepare(train.to(dtype)), network.prepare(test.to(dtype))
    return network.symmetric(own).double(), network.cross(other, own).double()
