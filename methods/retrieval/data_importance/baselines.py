"""What learned pruning is compared with, and other ways to compute the gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.method import Method, Metric, method
from methods.retrieval.data_importance import references
from methods.retrieval.data_importance.method import ImportancePrune
from methods.retrieval.data_importance.retrievals import (
    Retrievals,
    kept_after,
    leave_one_out,
    tuned_removal,
)
from methods.retrieval.data_importance.tasks import (
    MultilinearGradient,
    PassageSourceSelection,
    PlantedWork,
    Questions,
    Selection,
    SelectionWork,
    SourceQuality,
    SourceSelection,
)

Array = NDArray[np.float64]


@method("all-sources", task=("source-selection", "passage-source-selection"))
class AllSources(Method[SelectionWork, Selection]):
    """Plain retrieval augmentation: the vote over the first K results, whoever they come from."""

    unseen: Literal["drop", "keep"] = "keep"
    """What becomes of sources that no validation question retrieved. The paper's scripts drop them."""

    def prepare(self, work: SelectionWork) -> None:
        seen = work.validation.grouped(work.groups, work.group_count).documents() > 0
        self.existence = (seen | (self.unseen == "keep")).astype(np.float64)

    def run(self) -> Selection:
        return Selection(self.existence)


@method("first-answer", task=("source-selection", "passage-source-selection"))
class FirstAnswer(Method[SelectionWork, Selection]):
    """The answer from the best result alone: a vote with K = 1."""

    def prepare(self, work: SelectionWork) -> None:
        self.existence = np.ones(work.group_count)

    def run(self) -> Selection:
        return Selection(self.existence, votes=1)


@method(
    "leave-one-out-prune",
    task=("source-selection", "passage-source-selection"),
    metrics=(Metric("removal_rate", better="neither", doc="Tuned share of the validation documents removed."),),
)
class LeaveOneOutPrune(Method[SelectionWork, Selection]):
    """Pruning by how many more validation questions the vote answers rightly with a source than without."""

    unseen: Literal["drop", "keep"] = "drop"
    """What becomes of sources that no validation question retrieved."""

    task: SourceSelection | PassageSourceSelection

    def prepare(self, work: SelectionWork) -> None:
        self.by_group = work.validation.grouped(work.groups, work.group_count)
        self.seen = self.by_group.documents() > 0

    def run(self) -> Selection:
        tenths, keep = tuned_removal(self.by_group, self.scores(), self.task.votes, self.seen)
        existence = np.where(self.seen, keep, self.unseen == "keep").astype(np.float64)
        return Selection(existence, removed=tenths / 10)

    def scores(self) -> Array:
        """float64[G]: the sources with the lowest go first."""
        return leave_one_out(self.by_group, self.task.votes)

    def measure(self, output: Selection) -> dict[str, float]:
        return {**self.task.score(self.work, output), "removal_rate": output.removed}


@method(
    "source-accuracy-prune",
    task=("source-selection", "passage-source-selection"),
    metrics=(Metric("removal_rate", better="neither", doc="Tuned share of the validation documents removed."),),
)
class SourceAccuracyPrune(LeaveOneOutPrune):
    """Pruning by the share of a source's validation answers that are right."""

    def scores(self) -> Array:
        return source_accuracy(self.by_group)


@method(
    "random-prune",
    task=("source-selection", "passage-source-selection"),
    metrics=(Metric("removal_rate", better="neither", doc="Tuned share of the validation documents removed."),),
)
class RandomPrune(ImportancePrune):
    """Sources go in random order, at the removal rate that was tuned for the learned importance."""

    def run(self) -> Selection:
        tenths, _ = tuned_removal(self.by_group, self.scores(), self.task.votes, self.seen)
        order = self.context.rng("random order").permutation(np.flatnonzero(self.seen))
        return self.selection(kept_after(order, self.by_group.documents(), tenths), tenths)


def source_accuracy(retrieved: Retrievals) -> Array:
    """The mean utility of each source's items: float64[S], 0 for a source without items."""
    total = np.bincount(
        retrieved.sources.ravel(), weights=retrieved.utilities.ravel(), minlength=retrieved.count + 1
    )
    return total[: retrieved.count] / np.maximum(retrieved.documents(), 1)


@method("leave-one-out-importance", task="source-quality")
class LeaveOneOutImportance(Method[PlantedWork, Array]):
    """How many more questions the vote answers rightly with a source than without."""

    task: SourceQuality

    def prepare(self, work: PlantedWork) -> None:
        self.retrieved = work.retrieved

    def run(self) -> Array:
        return leave_one_out(self.retrieved, self.task.votes)


@method("source-accuracy", task="source-quality")
class SourceAccuracy(Method[PlantedWork, Array]):
    """The share of a source's answers that are right."""

    def prepare(self, work: PlantedWork) -> None:
        self.retrieved = work.retrieved

    def run(self) -> Array:
        return source_accuracy(self.retrieved)


@method(
    "subset-enumeration",
    task="multilinear-gradient",
    metrics=(Metric("terms", better="lower", deterministic=True, doc="Subsets summed over per question."),),
)
class SubsetEnumeration(Method[Questions, Array]):
    """The definition: every one of the 2^M subsets of the items, at most 20."""

    task: MultilinearGradient

    def prepare(self, work: Questions) -> None:
        if len(work.p) > 20:
            raise ValueError(f"2^{len(work.p)} subsets are too many; at most 20 items can be enumerated")
        self.questions = work

    def run(self) -> Array:
        return references.subset_gradients(self.questions.p, self.questions.u, self.task.votes)

    def measure(self, output: Array) -> dict[str, float]:
        return {**self.task.score(self.work, output), "terms": 2.0 ** len(self.work.p)}


@method("boundary-gradient", task="multilinear-gradient")
class BoundaryGradient(Method[Questions, Array]):
    """The form of the paper's library: items that are added (G1) and items that push another out (G2)."""

    task: MultilinearGradient

    def prepare(self, work: Questions) -> None:
        self.questions = work

    def run(self) -> Array:
        return references.boundary_gradients(self.questions.p, self.questions.u, self.task.votes)


@method("autograd-gradient", task="multilinear-gradient")
class AutogradGradient(Method[Questions, Array]):
    """torch's reverse mode through the formula of the multilinear extension."""

    task: MultilinearGradient

    def prepare(self, work: Questions) -> None:
        import torch  # noqa: F401  (imported here, so that run does not)

        self.questions = work

    def run(self) -> Array:
        return references.autograd_gradients(self.questions.p, self.questions.u, self.task.votes)
