"""Correspondence features: how well intent and code translate into each other."""

from __future__ import annotations

import numpy as np

NAMES = ("nl_to_code", "code_to_nl", "nl_to_code_z", "code_to_nl_z", "larger_z", "smaller_z")


def within_page(values: np.ndarray) -> np.ndarray:
    """z-scores of each column within its page, with the population's variance; zeros where there is no spread.

    The other candidates of the page are used, never their labels.
    """
    if not len(values):
        return np.zeros_like(values)
    spread = values.std(axis=0)
    centred = values - values.mean(axis=0)
    # A spread of the size of rounding errors is none.
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(values).max(axis=0))
    return np.divide(centred, spread, out=np.zeros_like(centred), where=~flat)


def features(likelihoods: np.ndarray) -> np.ndarray:
    """The features of the candidates of a page: float64 [candidates, len(NAMES)].

    Args:
        likelihoods: float64 [candidates, 2], per token, of the code given the intent and of the intent given the code.
    """
    z = within_page(likelihoods)
    return np.column_stack([likelihoods, z, z.max(axis=1), z.min(axis=1)])
