"""What a model of next elements is, how its settings are chosen, and how it becomes a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from harness.method import Method
from methods.text.next_element_prediction import score
from methods.text.next_element_prediction.score import Forecasts
from methods.text.next_element_prediction.sequences import Sequences, Traces, ends, targets

Setting = TypeVar("Setting")


class Forecaster(ABC):
    """A fitted model."""

    @abstractmethod
    def forecasts(self, traces: Traces) -> np.ndarray:
        """A distribution (or zeros) over the K symbols after every prefix of every trace: float64 [prefixes, K]."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many parameters or counts it holds."""


def validation_score(model: Forecaster, work: Sequences) -> float:
    """The Brier score on the validation traces."""
    return score.brier(model.forecasts(work.validation), targets(work.validation, work.symbols))


def choose(
    settings: Iterable[Setting],
    fit: Callable[[Setting, Traces], Forecaster],
    work: Sequences,
) -> tuple[Setting, Forecaster]:
    """The setting with the least Brier score on the validation traces, refitted on all training traces.

    Ties go to the setting that comes first. A single setting is not validated.

    Raises:
        ValueError: there is no setting.
    """
    listed = list(settings)
    if not listed:
        raise ValueError("there is no setting to choose from")
    if len(listed) == 1:
        return listed[0], fit(listed[0], work.train)
    found = [validation_score(fit(setting, work.fitting), work) for setting in listed]
    best = listed[int(np.argmin(found))]
    return best, fit(best, work.train)


class NextElementMethod(Method[Sequences, Forecasts]):
    """A method that fits a `Forecaster` in `prepare` and forecasts in `run`."""

    model: Forecaster

    @abstractmethod
    def fit(self, work: Sequences) -> Forecaster:
        """The model, with its settings chosen on the validation traces and fitted on all training traces."""

    def prepare(self, work: Sequences) -> None:
        """Fit the model; the time of it is the record's prepare time."""
        self.model = self.fit(work)

    def run(self) -> Forecasts:
        """A forecast for each prefix of the work."""
        p = self.model.forecasts(self.work.test)
        return Forecasts(p if self.work.whole else p[ends(self.work.test)], self.model.size)
