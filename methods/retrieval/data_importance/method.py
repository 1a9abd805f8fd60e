"""Data importance by the multilinear extension: learning it exactly, and pruning or reweighting by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.method import Method, Metric, method
from harness.types import PositiveFloat, PositiveInt
from methods.retrieval.data_importance import approximation, recursions
from methods.retrieval.data_importance.retrievals import Retrievals, tuned_removal
from methods.retrieval.data_importance.tasks import (
    Ascent,
    ImportanceGradient,
    MultilinearGradient,
    PassageSourceSelection,
    PlantedWork,
    Questions,
    Selection,
    SelectionWork,
    SourceQuality,
    SourceSelection,
)

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]


@method(
    "exact-gradient",
    task="multilinear-gradient",
    metrics=(Metric("terms", better="lower", deterministic=True, doc="Table entries computed per question."),),
)
class ExactGradient(Method[Questions, Array]):
    """Dynamic programming over prefix counts and displaced values: O(M K) a question (see `recursions`)."""

    chunk: PositiveInt = 512
    """Questions per batch."""

    task: MultilinearGradient

    def prepare(self, work: Questions) -> None:
        self.questions = work

    def run(self) -> Array:
        p, u = self.questions.p, self.questions.u
        batches = [slice(start, start + self.chunk) for start in range(0, p.shape[1], self.chunk)]
        parts = [recursions.item_gradients(p[:, b], u[:, b], self.task.votes)[1] for b in batches]
        return np.concatenate(parts, axis=1)

    def measure(self, output: Array) -> dict[str, float]:
        terms = 2 * self.task.votes * len(self.work.p)
        return {**self.task.score(self.work, output), "terms": terms}


@method("importance-ascent", task="importance-gradient")
class ImportanceAscent(Method[Retrievals, Ascent]):
    """Projected gradient ascent with the exact gradient in float64 on the CPU, in batches of questions."""

    chunk: PositiveInt = 512
    """Questions per batch; the tables take 8 (K + 3) d chunk bytes per thread."""
    threads: PositiveInt = 1
    """Batches that are worked on at the same time."""

    task: ImportanceGradient

    def prepare(self, work: Retrievals) -> None:
        self.retrieved = work

    def run(self) -> Ascent:
        v = np.full(self.retrieved.count, 0.5)
        gradients = []
        for _ in range(self.task.steps):
            _, gradient = recursions.source_gradient(
                self.retrieved, v, self.task.votes, chunk=self.chunk, threads=self.threads
            )
            gradients.append(gradient)
            v = np.clip(v + self.task.rate * gradient, 0.0, 1.0)
        return Ascent(gradients[0], v)


@method("importance-ascent-torch", task="importance-gradient")
class ImportanceAscentTorch(Method[Retrievals, Ascent]):
    """The same ascent in torch, on the record's device; gradients are accumulated in float64."""

    dtype: Literal["float64", "float32"] = "float64"
    """Number format of the recursions."""
    chunk: PositiveInt = 1024
    """Questions per batch; the tables take (K + 3) d chunk numbers on the device."""

    task: ImportanceGradient

    def prepare(self, work: Retrievals) -> None:
        import torch

        device = self.context.device
        self.sources = torch.from_numpy(work.sources.T.astype(np.int32, order="C")).to(device)
        self.utilities = torch.from_numpy(work.utilities.T.copy()).to(device)
        self.start = torch.full((work.count,), 0.5, dtype=getattr(torch, self.dtype), device=device)

    def run(self) -> Ascent:
        from methods.retrieval.data_importance import device

        v = self.start
        gradients: list[torch.Tensor] = []
        for _ in range(self.task.steps):
            gradient = device.source_gradient(self.sources, self.utilities, v, self.task.votes, self.chunk)
            gradients.append(gradient)
            v = (v + self.task.rate * gradient.to(v.dtype)).clamp(0.0, 1.0)
        return Ascent(gradients[0].cpu().numpy(), v.double().cpu().numpy())


@method(
    "importance-ascent-approximate",
    task="importance-gradient",
    metrics=(
        Metric("samples", better="lower", doc="Questions drawn for a gradient."),
        Metric("depth", better="lower", doc="Items per question that are looked at."),
        Metric("within_entry", doc="Share of repetitions within eps, of the source where it is least."),
        Metric("within_all", doc="Share of repetitions in which every source's gradient is within eps."),
        Metric("largest_gradient", better="neither", doc="Largest entry of the exact gradient."),
        Metric("truncation_error", better="lower", doc="Largest change of an item's gradient by truncation."),
        Metric("truncation_bound", better="neither", doc="(1/K) Pr[Bin(T - 1, p) < K], its bound."),
        Metric("ignored_error", better="lower", doc="Largest gradient of an item after rank T."),
        Metric("ignored_bound", better="neither", doc="(1/K) Pr[Bin(T, p) < K], its bound."),
    ),
)
class ImportanceAscentApproximate(Method[Retrievals, Ascent]):
    """Ascent with an (eps, delta)-approximation of the gradient (see `approximation`).

    The errors are those of the gradient at v = 0.5.
    """

    eps: PositiveFloat = 0.01
    """Largest error of a source's gradient."""
    delta: PositiveFloat = 0.05
    """Probability with which the error of an entry may be larger; below 1."""
    bound: Literal["unit", "range"] = "unit"
    """Width of the range in Hoeffding's inequality: 1, or 2/K, which a gradient cannot leave."""
    depth: PositiveInt | None = None
    """T, the items per question that are looked at; chosen from eps by default."""
    samples: PositiveInt | None = None
    """N_s, the questions drawn; chosen from eps and delta by default, and never more than there are."""
    repetitions: PositiveInt = 200
    """How often the first gradient is estimated, to measure how often the error is within eps."""
    chunk: PositiveInt = 512
    """Questions per batch."""

    task: ImportanceGradient

    def __post_init__(self) -> None:
        if self.delta >= 1:
            raise ValueError(f"delta is a probability below 1, not {self.delta}")

    def prepare(self, work: Retrievals) -> None:
        places = self.task.votes
        if self.bound == "unit" and places == 1:
            raise ValueError("for K = 1 gradients span a range of 2; bound is 'range' there")
        self.retrieved = work
        width = 1.0 if self.bound == "unit" else 2.0 / places
        enough = self.samples or approximation.sample_size(self.eps, self.delta, width)
        self.drawn = min(enough, len(work.sources))

    def run(self) -> Ascent:
        v = np.full(self.retrieved.count, 0.5)
        gradients = []
        for step in range(self.task.steps):
            gradient = self.estimate(v, self.context.rng("sample", step))
            gradients.append(gradient)
            v = np.clip(v + self.task.rate * gradient, 0.0, 1.0)
        return Ascent(gradients[0], v)

    def depth_at(self, v: Array) -> int:
        """T for existence probabilities v."""
        items = int(self.retrieved.sources.shape[1])
        if self.depth is not None:
            return min(int(self.depth), items)
        return approximation.truncation_depth(self.eps, float(v.min()), self.task.votes, items)

    def estimate(self, v: Array, generator: np.random.Generator) -> Array:
        """The approximate gradient at v from a fresh sample of questions: float64[S]."""
        total = len(self.retrieved.sources)
        rows = None if self.drawn == total else generator.choice(total, self.drawn, replace=False)
        _, gradient = recursions.source_gradient(
            self.retrieved, v, self.task.votes, chunk=self.chunk, rows=rows, depth=self.depth_at(v)
        )
        return gradient

    def measure(self, output: Ascent) -> dict[str, Any]:
        v, places = np.full(self.retrieved.count, 0.5), self.task.votes
        _, exact = recursions.source_gradient(self.retrieved, v, places, chunk=self.chunk)
        errors = np.stack(
            [
                np.abs(self.estimate(v, self.context.rng("repetition", i)) - exact)
                for i in range(self.repetitions)
            ]
        )
        depth = self.depth_at(v)
        truncation, ignored = self._item_errors(v, depth)
        return {
            **self.task.score(self.work, output),
            "samples": self.drawn,
            "depth": depth,
            "within_entry": float((errors <= self.eps).mean(axis=0).min()),
            "within_all": float((errors <= self.eps).all(axis=1).mean()),
            "largest_gradient": float(np.abs(exact).max()),
            "truncation_error": truncation,
            "truncation_bound": approximation.truncation_bound(depth, 0.5, places),
            "ignored_error": ignored,
            "ignored_bound": approximation.ignored_bound(depth, 0.5, places),
        }

    def _item_errors(self, v: Array, depth: int) -> tuple[float, float]:
        """The largest change of an item's gradient by truncation, and that after rank `depth` alone."""
        extended = np.append(v, 0.0)
        changed, ignored = 0.0, 0.0
        for start in range(0, len(self.retrieved.sources), self.chunk):
            rows = slice(start, start + self.chunk)
            p = extended[self.retrieved.sources[rows].T]
            u = self.retrieved.utilities[rows].T.astype(np.float64)
            _, full = recursions.item_gradients(p, u, self.task.votes)
            _, short = recursions.item_gradients(p[:depth], u[:depth], self.task.votes)
            changed = max(changed, float(np.abs(full[:depth] - short).max()))
            ignored = max(ignored, float(np.abs(full[depth:]).max(initial=0.0)))
        return max(changed, ignored), ignored


@method("importance-reweight", task=("source-selection", "passage-source-selection"))
class ImportanceReweight(Method[SelectionWork, Selection]):
    """Each source exists with its learned probability v, drawn anew for every evaluation.

    v maximises the mean multilinear extension of the additive utility on the validation questions,
    by projected gradient ascent from 0.5.
    """

    rate: PositiveFloat = 500.0
    """Step size; the gradient carries 1/N and most sources are rarely retrieved."""
    steps: PositiveInt = 50
    """Steps of gradient ascent."""
    groups: Literal["shared", "average"] = "shared"
    """How the hosts of one registered domain are tied: they share one variable, or each has its own and
    takes the mean over its domain after every step."""
    unseen: Literal["drop", "keep"] = "drop"
    """What becomes of sources that no validation question retrieved."""

    task: SourceSelection | PassageSourceSelection

    def prepare(self, work: SelectionWork) -> None:
        self.by_group = work.validation.grouped(work.groups, work.group_count)
        self.seen = self.by_group.documents() > 0
        # hosts that were not retrieved take no part in the mean over their domain
        self.hosts = np.flatnonzero(work.validation.documents())
        number = np.full(work.validation.count, len(self.hosts))
        number[self.hosts] = np.arange(len(self.hosts))
        self.by_host = work.validation.grouped(number, len(self.hosts))

    def run(self) -> Selection:
        return Selection(np.where(self.seen, self.learn(), float(self.unseen == "keep")))

    def learn(self) -> Array:
        """v as float64[G]; 0.5 where a group was not retrieved."""
        places = self.task.votes
        if self.groups == "shared":
            return recursions.ascend(self.by_group, places, rate=self.rate, steps=self.steps)
        groups = self.work.groups[self.hosts]
        v = recursions.ascend(self.by_host, places, rate=self.rate, steps=self.steps, groups=groups)
        return np.where(self.seen, recursions.group_means(v, groups, len(self.seen)), 0.5)


@method(
    "importance-prune",
    task=("source-selection", "passage-source-selection"),
    metrics=(Metric("removal_rate", better="neither", doc="Tuned share of the validation documents removed."),),
)
class ImportancePrune(ImportanceReweight):
    """The least important sources go until the vote on the validation questions is best.

    Removal rates 0, 0.1, .., 0.9 of the retrieved validation documents are tried; the smallest of the
    best is taken.
    """

    def run(self) -> Selection:
        tenths, keep = tuned_removal(self.by_group, self.scores(), self.task.votes, self.seen)
        return self.selection(keep, tenths)

    def scores(self) -> Array:
        """float64[G]: the sources with the lowest go first."""
        return self.learn()

    def selection(self, keep: NDArray[np.bool_], tenths: int) -> Selection:
        """What is kept of the sources seen, and the others by `unseen`."""
        existence = np.where(self.seen, keep, self.unseen == "keep").astype(np.float64)
        return Selection(existence, removed=tenths / 10)

    def measure(self, output: Selection) -> dict[str, float]:
        return {**self.task.score(self.work, output), "removal_rate": output.removed}


@method("learned-importance", task="source-quality")
class LearnedImportance(Method[PlantedWork, Array]):
    """The existence probabilities on the way to a maximum of the mean multilinear extension."""

    rate: PositiveFloat = 1.0
    """Step size. With larger steps most probabilities end at 0 or 1 and no longer rank the sources."""
    steps: PositiveInt = 20
    """Steps of projected gradient ascent."""

    task: SourceQuality

    def prepare(self, work: PlantedWork) -> None:
        self.retrieved = work.retrieved

    def run(self) -> Array:
        return recursions.ascend(self.retrieved, self.task.votes, rate=self.rate, steps=self.steps)
