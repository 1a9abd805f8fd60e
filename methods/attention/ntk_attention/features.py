"""Feature maps phi with phi(x) . phi(y) in place of exp(x . y)."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Phi = Literal["elu1", "taylor"]


def elu1(x: Tensor) -> Tensor:
    """ELU(x) + 1 in each coordinate: always positive, as many features as coordinates.

    As exp(min(x, 0)) + max(x, 0), which is not rounded to 0 for large negative x.
    """
    return x.clamp(max=0).exp() + F.relu(x)


def taylor(x: Tensor, degree: int) -> Tensor:
    """phi(x) . phi(y) = sum of (x . y)^j / j! over j = 0..degree, exp(x . y) cut off.

    Each monomial once: phi_a(x) = x^a / sqrt(a!) for the multi-indices a with |a| <= degree, which are
    C(d + degree, degree). For an even degree the product is positive whatever x and y are.

    Args:
        x: shape (..., d).

    Returns:
        Shape (..., C(d + degree, degree)).
    """
    places, weight = _monomials(x.shape[-1], degree)
    # A column of ones in front lets one list of places serve all degrees below the highest.
    extended = F.pad(x, (1, 0), value=1.0)
    features = weight.to(x).expand(*x.shape[:-1], -1)
    for column in places.to(x.device).unbind(1):
        features = features * extended[..., column]
    return features


def features(x: Tensor, phi: Phi, degree: int = 2) -> Tensor:
    """phi(x): shape (..., d'); see `elu1` and `taylor`, which alone has a degree."""
    return elu1(x) if phi == "elu1" else taylor(x, degree)


def count(dim: int, phi: Phi, degree: int = 2) -> int:
    """d', the number of features of a vector of `dim` coordinates."""
    return dim if phi == "elu1" else math.comb(dim + degree, degree)


@lru_cache(maxsize=16)
def _monomials(dim: int, degree: int) -> tuple[Tensor, Tensor]:
    """Places of the factors of each monomial, int64 (d', degree), 0 for a factor 1; and 1 / sqrt(a!)."""
    tuples = list(itertools.combinations_with_replacement(range(dim + 1), degree))
    places = torch.tensor(tuples, dtype=torch.long).view(len(tuples), degree)
    weights = [_weight(t) for t in tuples]
    return places, torch.tensor(weights, dtype=torch.float64)


def _weight(factors: tuple[int, ...]) -> float:
    powers = (len(list(same)) for place, same in itertools.groupby(factors) if place > 0)
    return 1 / math.sqrt(math.prod(math.factorial(p) for p in powers))
