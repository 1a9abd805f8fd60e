"""What only this paper claims: packages that need no others, and segmentations that grow stricter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.types import PositiveInt
from methods.text import sentence_data
from methods.text.sentence_score import Sentences, scores
from methods.text.tasks import Texts

PASSAGE = "Dr. Smith filed under 29 U.S.C. § 621 et seq. in 2013. The court denied it."


@task(
    "isolated-splitting",
    metrics=(
        Metric("succeeded", doc="1 if the passage could be split at all.", deterministic=True),
        Metric("sentences", better="neither", doc="Sentences found; the passage has two.", deterministic=True),
    ),
)
class IsolatedSplitting(Task[str, int | None]):
    """Split a legal passage in a fresh interpreter that has only the packages that a method allows itself.

    The output is the number of sentences, or None for a failure.
    """

    def load(self, seed: int) -> str:
        """The passage."""
        return PASSAGE

    def score(self, work: str, output: int | None) -> dict[str, float]:
        """Whether there was an answer, and which."""
        return {"succeeded": float(output is not None), "sentences": float(output or 0)}


@task(
    "segmentation-sweep",
    data=("legal-sbd",),
    metrics=(
        Metric("segmentations", better="neither", doc="Points of the curve.", deterministic=True),
        Metric(
            "least_precision_step",
            doc="Least change of precision from one segmentation to the next; positive when it rises at every step.",
            deterministic=True,
        ),
        Metric(
            "greatest_recall_step",
            better="lower",
            doc="Greatest change of recall from one to the next; negative when it falls at every step.",
            deterministic=True,
        ),
        Metric(
            "spearman",
            better="lower",
            doc="Rank correlation of precision and fragmentation; -1 when it falls at every step.",
            deterministic=True,
        ),
        Metric(
            "aic_excess",
            better="lower",
            doc="AIC of an exponential law less that of a straight line; positive when the line fits better.",
            deterministic=True,
        ),
    ),
)
class SegmentationSweep(Task[Texts, list[list[Sentences]]]):
    """Split legal decisions in several ways that differ in precision, and see what changes with it.

    The output has one segmentation of all documents for each way, the strictest last where they have an order.
    Precision and recall are those of boundaries with white space stripped. Fragmentation is the share of gold
    sentences that are cut when `chunk` predicted sentences make a retrieval chunk. Both laws of fragmentation over
    precision have two parameters and additive errors and are fitted by least squares.
    """

    chunk: PositiveInt = 3
    """Predicted sentences in a retrieval chunk."""

    def load(self, seed: int) -> Texts:
        """The three legal sets; the same for every seed."""
        return Texts(tuple(sentence_data.legal(*sentence_data.LEGAL)))

    def score(self, work: Texts, output: list[list[Sentences]]) -> Measurement:
        """How the points lie, and the points themselves as series.

        Raises:
            BadOutput: there are fewer than four segmentations, too few to tell two laws apart.
        """
        if len(output) < 4:
            raise BadOutput(f"{len(output)} segmentations are too few to compare two laws; it takes four")
        found = [scores(work.documents, segmentation, self.chunk) for segmentation in output]
        precision, recall, cut = (
            np.array([figures[name] for figures in found])
            for name in ("precision_stripped", "recall_stripped", "fragmentation")
        )
        order = np.argsort(precision)

        def curve(y: NDArray[np.float64], label: str) -> Series:
            return Series(precision[order].tolist(), y[order].tolist(), x_label="precision", y_label=label)

        return Measurement(
            {
                "segmentations": float(len(found)),
                "least_precision_step": float(np.diff(precision).min()),
                "greatest_recall_step": float(np.diff(recall).max()),
                "spearman": rank_correlation(precision, cut),
                "aic_excess": aic_excess(precision, cut),
            },
            {"recall": curve(recall, "recall"), "fragmentation": curve(cut, "share of sentences cut")},
        )


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; 0 when one of them is constant."""
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(spearmanr(x, y).statistic)


def aic_excess(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """AIC of y = exp(a + b x) less AIC of y = a + b x, both fitted by least squares: n ln(RSS_exp / RSS_line)."""
    floor = np.finfo(np.float64).tiny
    line = np.polynomial.Polynomial.fit(x, y, 1)
    of_line = max(float(np.sum((y - line(x)) ** 2)), floor)
    of_exponential = max(float(np.sum(_exponential_residuals(x, y) ** 2)), floor)
    return len(x) * float(np.log(of_exponential / of_line))


def _exponential_residuals(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the best y = exp(a + b x) leaves; the search begins at the line through log y."""
    from scipy.optimize import least_squares

    middle, scale = x.mean(), max(float(x.std()), 1e-12)
    z = (x - middle) / scale

    def residuals(law: Sequence[float]) -> NDArray[np.float64]:
        difference: NDArray[np.float64] = np.exp(np.clip(law[0] + law[1] * z, -700, 300)) - y
        return difference

    slope, level = np.polyfit(z, np.log(np.maximum(y, y.max() * 1e-3 + 1e-12)), 1)
    best: NDArray[np.float64] = least_squares(residuals, (level, slope), xtol=1e-12, ftol=1e-12).fun
    return best
