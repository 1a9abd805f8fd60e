"""How good forecasts of the next element are: proper scores, accuracy, calibration and abstention.

The Brier score is the mean over prefixes of (1/K) sum_a (p_a - 1[a = next])^2, between 0 and 2/K. It rewards
abstention: the all-zero vector costs 1/K, a wrong certainty 2/K. So each score is also given with every all-zero vector
replaced by the order-0 distribution of the training traces (``_filled``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Series
from methods.text.next_element_prediction.sequences import Traces, targets

FLOOR = 1e-12
"""Least probability in a log loss."""
BINS = 15
"""Bins of equal width in which confidence is compared with what happened."""
TOLERANCE = 1e-3
"""How far a forecast may be from the simplex and still be scored, with its distance as a metric."""


@dataclass(frozen=True)
class Forecasts:
    """The output of a method.

    Attributes:
        probabilities: float64 [prefixes, K]; a row is a distribution, or all zero where the method abstains.
        model_size: how many parameters or counts the model holds.
    """

    probabilities: np.ndarray
    model_size: int


def order_zero(traces: Traces, symbols: int) -> np.ndarray:
    """The shares of the symbols in the traces, END included: float64 [K]."""
    counts = np.bincount(targets(traces, symbols), minlength=symbols)
    return counts / counts.sum()


def brier(probabilities: np.ndarray, next_symbols: np.ndarray) -> float:
    """The mean squared error of a forecast over its K probabilities, mean over the prefixes."""
    rows = np.arange(len(next_symbols))
    # |p - e|^2 = |p|^2 - 2 p_next + 1 needs no one-hot matrix.
    squared = (probabilities**2).sum(axis=1) - 2 * probabilities[rows, next_symbols] + 1
    return float(squared.mean() / probabilities.shape[1])


def log_loss(probabilities: np.ndarray, next_symbols: np.ndarray) -> float:
    """Mean of -ln p_next, in nats, with p clipped at `FLOOR`."""
    chosen = probabilities[np.arange(len(next_symbols)), next_symbols]
    return float(-np.log(np.maximum(chosen, FLOOR)).mean())


def simplex_error(probabilities: np.ndarray) -> float:
    """The largest distance of a forecast that is not all zero from the simplex: a negative entry or a wrong sum."""
    spoken = probabilities[probabilities.any(axis=1)]
    if not len(spoken):
        return 0.0
    return float(max(0.0, -spoken.min(), np.abs(spoken.sum(axis=1) - 1).max()))


def reliability(confidence: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean confidence and observed share in `BINS` bins of equal width over [0, 1]; empty bins are left out."""
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    used = count > 0
    mean = np.bincount(place, confidence, BINS)[used] / count[used]
    share = np.bincount(place, happened, BINS)[used] / count[used]
    return count[used], mean, share


def calibration_error(confidence: np.ndarray, happened: np.ndarray) -> float:
    """Expected calibration error: the mean over forecasts of |confidence - observed share| of the bin."""
    if not len(confidence):
        return 0.0
    count, mean, share = reliability(confidence, happened)
    return float((count * np.abs(mean - share)).sum() / count.sum())


def scores(forecasts: Forecasts, next_symbols: np.ndarray, fallback: np.ndarray) -> Measurement:
    """The metrics of the tasks.

    Args:
        forecasts: what a method returned.
        next_symbols: what was next after each prefix, int64 [prefixes].
        fallback: the distribution in place of an abstention, float64 [K].

    Raises:
        BadOutput: the shape is another, or a forecast is neither a distribution nor all zero.
    """
    p = np.asarray(forecasts.probabilities, dtype=np.float64)
    expected = (len(next_symbols), len(fallback))
    if p.shape != expected:
        raise BadOutput(f"forecasts have the shape {p.shape}, not {expected}")
    distance = simplex_error(p) if np.isfinite(p).all() else np.inf
    if distance > TOLERANCE:
        raise BadOutput(f"a forecast is {distance:.3g} away from the simplex and is not all zero")
    rows = np.arange(len(p))
    silent = ~p.any(axis=1)
    filled = np.where(silent[:, None], fallback, p)
    hit = (p.argmax(axis=1) == next_symbols) & ~silent
    hit_filled = filled.argmax(axis=1) == next_symbols
    confidence = p[~silent].max(axis=1) if (~silent).any() else np.zeros(0)
    happened = np.zeros_like(p, dtype=np.float64)
    happened[rows, next_symbols] = 1
    classwise = np.mean([calibration_error(p[~silent, a], happened[~silent, a]) for a in range(p.shape[1])])
    metrics = {
        "brier": brier(p, next_symbols),
        "brier_filled": brier(filled, next_symbols),
        "accuracy": float(hit.mean()),
        "accuracy_filled": float(hit_filled.mean()),
        "log_loss": log_loss(p, next_symbols),
        "log_loss_filled": log_loss(filled, next_symbols),
        "calibration_error": calibration_error(confidence, hit[~silent].astype(float)),
        "classwise_calibration_error": float(classwise),
        "abstained": float(silent.mean()),
        "simplex_error": distance,
        "model_size": float(forecasts.model_size),
        "prefixes": float(len(p)),
    }
    if not len(confidence):
        return Measurement(metrics)
    _, mean, share = reliability(confidence, hit[~silent].astype(float))
    curve = Series(mean.tolist(), share.tolist(), "confidence", "accuracy")
    return Measurement(metrics, {"reliability": curve})
