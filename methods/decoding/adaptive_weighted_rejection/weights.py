"""Random laws whose acceptance mass is known, and real contexts that are masked in full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from methods.decoding.language_models import FloatArray


@dataclass
class Pair:
    """A law and the tokens that pass.

    Attributes:
        p: float64, shape (vocabulary,).
        passes: bool, shape (vocabulary,).
    """

    p: FloatArray
    passes: np.ndarray

    @property
    def mass(self) -> float:
        """Z."""
        return float(self.p[self.passes].sum())


@dataclass
class WeightSums:
    """What was drawn for every pair: means and mean squares of w, and calls.

    Attributes:
        mean, square, calls: float64, shape (pairs,).
        draws: for each pair.
        tokens: counts of every token, one array for each pair.
    """

    mean: FloatArray
    square: FloatArray
    calls: FloatArray
    draws: int
    tokens: list[np.ndarray]


@dataclass
class MaskedContexts:
    """Prefixes of real headers with the whole mask after each.

    Attributes:
        laws: for each order n, the next-token laws p after the prefixes.
        masks: what may follow: bool, shape (vocabulary,), one for each prefix.
    """

    laws: list[list[FloatArray]]
    masks: list[np.ndarray]
