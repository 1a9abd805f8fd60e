"""Dual activations of the rectifier: the arc-cosine kernels of degree 0 and 1 (Cho and Saul, 2009).

For (u, v) jointly Gaussian with unit variances and correlation rho, relu scaled by sqrt(2) has
E[2 relu(u) relu(v)] = kappa_1(rho) and E[2 relu'(u) relu'(v)] = kappa_0(rho).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kappa_0(rho: Tensor) -> Tensor:
    """(pi - arccos rho)/pi, element by element; `rho` of any shape is clamped to [-1, 1]."""
    return 1.0 - torch.arccos(rho.clamp(-1.0, 1.0)) / math.pi


def kappa_1(rho: Tensor) -> Tensor:
    """(sqrt(1 - rho^2) + rho (pi - arccos rho))/pi, element by element; clamped like `kappa_0`."""
    rho = rho.clamp(-1.0, 1.0)
    return torch.sqrt(1.0 - rho.square()) / math.pi + rho * kappa_0(rho)


def both(rho: Tensor) -> tuple[Tensor, Tensor]:
    """`kappa_0` and `kappa_1` with one arc cosine between them."""
    rho = rho.clamp(-1.0, 1.0)
    zero = kappa_0(rho)
    return zero, torch.sqrt(1.0 - rho.square()) / math.pi + rho * zero
