"""Tasks: select sources for retrieval, compute the gradient of their importance, recover planted quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from harness.errors import BadOutput
from harness.method import Metric, Task, task
from harness.seeding import rng
from harness.types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from methods.retrieval.data_importance import passages, recursions, references, wikifact
from methods.retrieval.data_importance.retrievals import Retrievals, accuracy

Array = NDArray[np.float64]

SELECTION_METRICS = (
    Metric("accuracy", doc="Share of test questions that the vote over the first K items answers rightly."),
    Metric("validation_accuracy", doc="The same on the validation questions."),
    Metric("validation_utility", doc="Mean additive utility (multilinear extension) on validation."),
    Metric("kept", better="neither", doc="Expected share of the test documents whose source exists."),
)


@dataclass(frozen=True)
class SelectionWork:
    """Questions with known answers to learn from and others to be tested on.

    Attributes:
        validation: half of the questions, items by host.
        test: the other half; selecting methods leave it alone.
        groups: int64[S], the group of every host. Groups are kept or dropped as one.
        group_count: G.
        draws: float64[D, G], uniform numbers that decide which groups exist in each draw.
    """

    validation: Retrievals
    test: Retrievals
    groups: NDArray[np.int64]
    group_count: int
    draws: Array


@dataclass(frozen=True)
class Selection:
    """What the retrieval-augmented model may see.

    Attributes:
        existence: float64[G] in [0, 1], the probability with which each group of sources exists. 0 and 1
            prune; what lies between reweights.
        votes: K of the vote; None for the task's.
        removed: the removal rate that was chosen, where one was.
    """

    existence: Array
    votes: int | None = None
    removed: float = 0.0


def selection_score(work: SelectionWork, output: Selection, votes: int) -> dict[str, float]:
    """The metrics of a selection; `votes` is the task's K."""
    v = output.existence
    if v.shape != (work.group_count,) or not ((v >= 0) & (v <= 1)).all():
        raise BadOutput(f"existence is {work.group_count} probabilities, not {v.shape} numbers")
    places = output.votes or votes
    test = work.test.grouped(work.groups, work.group_count)
    validation = work.validation.grouped(work.groups, work.group_count)
    documents = test.documents()
    return {
        "accuracy": accuracy(test, v, places, work.draws),
        "validation_accuracy": accuracy(validation, v, places, work.draws),
        "validation_utility": recursions.utility(validation, v, places),
        "kept": float(documents @ v / documents.sum()),
    }


def halves(retrieved: Retrievals, seed: int) -> tuple[Retrievals, Retrievals]:
    """A random half of the questions and the other half."""
    order = rng(seed, "split").permutation(len(retrieved.sources))
    middle = len(order) // 2
    return retrieved.rows(order[:middle]), retrieved.rows(order[middle:])


@task("source-selection", repeats="once", data=("wikifact-retrieval",), metrics=SELECTION_METRICS)
class SourceSelection(Task[SelectionWork, Selection]):
    """Choose the web sites whose search results a question-answering model may see.

    Retrieval and generation are done already: every question of a WikiFact relation comes with the hosts
    found and the answer that a small language model gave to each result. The model's answer is the
    majority vote over the first K results that are left. The seed splits the questions into halves.
    """

    relation: Literal["place_of_birth", "currency"] = "place_of_birth"
    """Relation of the questions."""
    scenario: Literal["raw", "noise"] = "raw"
    """Results as retrieved by host, or each held by five of fifty sources that corrupt a share of theirs."""
    votes: PositiveInt = 10
    """K: how many results the model sees, both for the utility and for the vote."""
    draws: PositiveInt = 32
    """How often the existing sources are drawn where probabilities are neither 0 nor 1."""

    def load(self, seed: int) -> SelectionWork:
        corpus = wikifact.load(self.relation, self.scenario, seed)
        validation, test = halves(corpus.retrieved, seed)
        draws = rng(seed, "existing sources").random((self.draws, len(corpus.names)))
        return SelectionWork(validation, test, corpus.groups, len(corpus.names), draws)

    def score(self, work: SelectionWork, output: Selection) -> dict[str, float]:
        return selection_score(work, output, self.votes)


@task("passage-source-selection", repeats="once", data=("xquad-en",), metrics=SELECTION_METRICS)
class PassageSourceSelection(Task[SelectionWork, Selection]):
    """Choose sources for a language model that answers questions over retrieved passages, end to end.

    Every source holds a random part of the passages of Wikipedia articles. Passages are ranked by TF-IDF; a
    causal language model reads each passage alone and answers. Corrupted sources hold passages in which
    the right answer is replaced by a wrong one.
    """

    model: str = "Qwen/Qwen2.5-1.5B-Instruct"
    """Hugging Face id or local folder of a causal language model."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the language model answers. The answers are cached by model and prompt."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the language model."""
    batch: PositiveInt = 32
    """Prompts that are answered at the same time."""
    questions: PositiveInt = 1190
    """How many of the questions are asked, at most 1190; half of them are for validation."""
    sources: PositiveInt = 20
    """How many sources there are."""
    corrupted: Fraction = 0.4
    """Share of the sources that hold wrong-answer passages."""
    coverage: Fraction = 0.5
    """Share of the passages that a source holds."""
    passages: PositiveInt = 5
    """How many different passages are retrieved for a question; each comes from every source that has it."""
    votes: PositiveInt = 10
    """K: how many retrieved copies the model sees."""
    draws: PositiveInt = 32
    """How often the existing sources are drawn where probabilities are neither 0 nor 1."""

    def load(self, seed: int) -> SelectionWork:
        reader = passages.Reader(self.model, self.device, self.dtype, self.batch)
        retrieved = passages.retrieve(
            reader,
            questions=self.questions,
            sources=self.sources,
            corrupted=self.corrupted,
            coverage=self.coverage,
            depth=self.passages,
            seed=seed,
        )
        validation, test = halves(retrieved, seed)
        draws = rng(seed, "existing sources").random((self.draws, self.sources))
        return SelectionWork(validation, test, np.arange(self.sources), self.sources, draws)

    def score(self, work: SelectionWork, output: Selection) -> dict[str, float]:
        return selection_score(work, output, self.votes)


@dataclass(frozen=True)
class Ascent:
    """Where gradient ascent from 0.5 went.

    Attributes:
        gradient: float64[S], the mean gradient per source at the start, v = 0.5.
        v: float64[S], the existence probabilities at the end.
    """

    gradient: Array
    v: Array


@task(
    "importance-gradient",
    amount_unit="entries",
    metrics=(Metric("max_error", better="lower", doc="Largest deviation of a source's first gradient."),),
)
class ImportanceGradient(Task[Retrievals, Ascent]):
    """Ascend the mean multilinear extension over many questions with right and wrong answers at random.

    Each question draws its sources without replacement. The gradient at the start is compared with the
    exact one in float64.
    """

    questions: PositiveInt = 1000
    """N, the number of validation questions."""
    retrieved: PositiveInt = 100
    """Items per question."""
    sources: PositiveInt = 1000
    """Size of the corpus, at least `retrieved` and at most 65535."""
    votes: PositiveInt = 20
    """K."""
    correct: Fraction = 0.25
    """Probability that an item's answer is right; on average, where qualities are mixed."""
    quality: Literal["equal", "mixed"] = "equal"
    """Every source is right equally often, or from never to twice `correct`, evenly spaced."""
    steps: PositiveInt = 1
    """Steps of projected gradient ascent."""
    rate: NonNegativeFloat = 0.1
    """Step size."""

    def __post_init__(self) -> None:
        if not self.retrieved <= self.sources < 65536:
            raise ValueError(f"sources is {self.sources}, but between retrieved and 65535 are possible")
        if self.quality == "mixed" and self.correct > 0.5:
            raise ValueError(f"mixed qualities reach 2 * {self.correct}, which is no probability")

    def load(self, seed: int) -> Retrievals:
        mixed = np.linspace(0.0, 2 * self.correct, self.sources, dtype=np.float32)
        quality = mixed if self.quality == "mixed" else np.full_like(mixed, self.correct)
        items = np.empty((self.questions, self.retrieved), dtype=np.uint16)
        utilities = np.empty((self.questions, self.retrieved), dtype=np.uint8)
        for start in range(0, self.questions, 1024):
            draw = rng(seed, "questions", start)
            rows = slice(start, min(start + 1024, self.questions))
            items[rows] = _without_replacement(draw, len(items[rows]), self.sources, self.retrieved)
            utilities[rows] = draw.random(items[rows].shape, dtype=np.float32) < quality[items[rows]]
        return Retrievals(items, utilities, self.sources)

    def score(self, work: Retrievals, output: Ascent) -> dict[str, float]:
        if output.gradient.shape != (self.sources,) or output.v.shape != (self.sources,):
            raise BadOutput(f"gradient and v have {self.sources} entries each")
        _, exact = recursions.source_gradient(work, np.full(self.sources, 0.5), self.votes)
        return {"max_error": float(np.abs(output.gradient - exact).max())}

    def amount(self, work: Retrievals) -> float:
        return float(work.sources.size * self.steps)


def _without_replacement(draw: np.random.Generator, rows: int, size: int, count: int) -> NDArray[np.uint16]:
    """The first `count` of a random order of 0..size-1 for each row (Fisher and Yates)."""
    urn = np.tile(np.arange(size, dtype=np.uint16), (rows, 1))
    every = np.arange(rows)
    for i in range(count):
        other = draw.integers(i, size, rows)
        urn[every, i], urn[every, other] = urn[every, other], urn[every, i]
    return urn[:, :count]


@dataclass(frozen=True)
class Questions:
    """Questions with known probabilities. p, u: float64[M, n], items by questions."""

    p: Array
    u: Array


@task(
    "multilinear-gradient",
    amount_unit="items",
    metrics=(Metric("max_error", better="lower", doc="Largest deviation of an item's gradient."),),
)
class MultilinearGradient(Task[Questions, Array]):
    """The gradient of the multilinear extension for every item of every question: float64[M, n].

    It is compared with the enumeration of all subsets up to 12 items, and with the plain recursion of the
    suffix values beyond.
    """

    questions: PositiveInt = 16
    """n."""
    retrieved: PositiveInt = 8
    """M, items per question."""
    votes: PositiveInt = 3
    """K."""
    utilities: Literal["binary", "graded"] = "binary"
    """Right with probability 0.25, or a uniform utility of two decimals in [0, 1]."""

    def load(self, seed: int) -> Questions:
        shape = (self.retrieved, self.questions)
        p = rng(seed, "probabilities").random(shape)
        draw = rng(seed, "utilities")
        if self.utilities == "binary":
            return Questions(p, (draw.random(shape) < 0.25).astype(np.float64))
        return Questions(p, draw.integers(0, 101, shape) / 100)

    def score(self, work: Questions, output: Array) -> dict[str, float]:
        if output.shape != work.p.shape:
            raise BadOutput(f"the gradient has the shape {work.p.shape}, not {output.shape}")
        few = self.retrieved <= 12
        reference = references.subset_gradients if few else references.value_gradients
        return {"max_error": float(np.abs(output - reference(work.p, work.u, self.votes)).max())}

    def amount(self, work: Questions) -> float:
        return float(work.p.size)


@dataclass(frozen=True)
class PlantedWork:
    """Questions over sources of known quality: float64[S], seen by the score alone."""

    retrieved: Retrievals
    quality: Array


@task(
    "source-quality",
    repeats="once",
    metrics=(Metric("spearman", doc="Spearman's, of the importance and the planted quality."),),
)
class SourceQuality(Task[PlantedWork, Array]):
    """Tell good sources from bad ones by their answers: an importance for each, float64[S].

    The quality of a source is 0.2, 0.4, .., or 1.0, the probability that its answer is right. Wrong answers
    come from twenty distractors with Zipf weights.
    """

    questions: PositiveInt = 500
    """N."""
    retrieved: PositiveInt = 50
    """Items per question, from different sources in random order."""
    sources: PositiveInt = 50
    """Number of sources, at least `retrieved`."""
    votes: PositiveInt = 10
    """K."""
    zipf: PositiveFloat = 1.0
    """Exponent of the distractors' weights."""

    def __post_init__(self) -> None:
        if not self.retrieved <= self.sources < 65536:
            raise ValueError(f"sources is {self.sources}, but between retrieved and 65535 are possible")

    def load(self, seed: int) -> PlantedWork:
        quality = rng(seed, "quality").choice([0.2, 0.4, 0.6, 0.8, 1.0], self.sources)
        items = _without_replacement(rng(seed, "questions"), self.questions, self.sources, self.retrieved)
        right = rng(seed, "right").random(items.shape) < quality[items]
        weights = np.arange(1, 21.0) ** -self.zipf
        wrong = rng(seed, "distractors").choice(20, items.shape, p=weights / weights.sum()) + 1
        answers = np.where(right, 0, wrong).astype(np.int32)
        retrieved = Retrievals(items.astype(np.int32), right.astype(np.uint8), self.sources, answers)
        return PlantedWork(retrieved, quality)

    def score(self, work: PlantedWork, output: Array) -> dict[str, float]:
        if output.shape != work.quality.shape or not np.isfinite(output).all():
            raise BadOutput(f"an importance is {len(work.quality)} finite numbers, not {output.shape}")
        ranks = rankdata(output) - (self.sources + 1) / 2
        planted = rankdata(work.quality) - (self.sources + 1) / 2
        norm = float(np.sqrt((ranks @ ranks) * (planted @ planted)))
        return {"spearman": float(ranks @ planted) / norm if norm > 0 else 0.0}
