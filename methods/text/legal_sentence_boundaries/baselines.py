"""The packages that the paper's authors published, as references on the same work."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from harness.errors import MissingPackage
from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import NonNegativeFloat, PositiveFloat, PositiveInt
from methods.text import baselines as general
from methods.text.legal_sentence_boundaries import isolation
from methods.text.sentence_data import Span
from methods.text.sentence_score import Sentences, strip
from methods.text.tasks import Texts


class NupunktModel:
    """nupunkt's default model and the memories that its modules keep.

    Splitting a text a second time is faster by what the memories hold; `forget` empties them.
    """

    def __init__(self) -> None:
        from nupunkt import load_default_model

        self.tokenizer = load_default_model()
        self._clear: list[Callable[[], None]] = []
        for name in [name for name in sys.modules if name.startswith("nupunkt.")]:
            members = list(vars(sys.modules[name]).values())
            members += [getattr(c, m, None) for c in members if isinstance(c, type) for m in vars(c)]
            self._clear += [m.cache_clear for m in members if hasattr(m, "cache_clear")]
        # 0.5 keeps tokens, 0.8 what it has derived from them and, in the tokenizer, decisions.
        tokens = sys.modules["nupunkt.core.tokens"]
        kept = [getattr(tokens, name, None) for name in ("_token_instance_cache", "_derived_cache")]
        self._clear += [memory.clear for memory in kept if memory is not None]
        if hasattr(self.tokenizer, "clear_decision_cache"):
            self._clear.append(self.tokenizer.clear_decision_cache)
        # What another model in this process left would be compared with this one, word list by word list.
        self.forget()

    def forget(self) -> None:
        """Empty all memories."""
        for clear in self._clear:
            clear()

    def split(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text: all but the first of a text begin with the white space before the sentence."""
        return [list(self.tokenizer.span_tokenize(text)) for text in texts]


@method(
    "nupunkt",
    task=("sentence-boundaries", "held-out-sentence-boundaries", "robust-sentence-boundaries"),
    packages=("nupunkt>=0.5.1,<0.6",),
)
class Nupunkt(Method[Texts, list[Sentences]]):
    """The published nupunkt 0.5.1, the release of the paper's time, with its default model."""

    memories: Literal["cold", "warm"] = "cold"
    """Whether each run starts with empty memories, as on unseen text, or with what a run on the same texts left."""
    processes: PositiveInt = 1
    """Processes that share the documents, each with a model of its own; 1 splits in this process."""

    def prepare(self, work: Texts) -> None:
        """Load the model, here or in the processes, and with warm memories split everything once."""
        self.parts = deal(work.texts, self.processes)
        self.cold = self.memories == "cold"
        if self.processes == 1:
            self.model = NupunktModel()
        else:
            # Fresh interpreters rather than forks: a fork copies a process whose other threads hold locks.
            self.pool = ProcessPoolExecutor(self.processes, get_context("spawn"), initializer=_load)
            waiting = [self.pool.submit(_ready) for _ in range(self.processes)]
            for future in waiting:
                future.result()
        if not self.cold:
            self._split(forget=False)

    def run(self) -> list[Sentences]:
        """The spans of the sentences of each document."""
        return self._split(forget=self.cold)

    def _split(self, forget: bool) -> list[Sentences]:
        if self.processes > 1:
            found = self.pool.map(_split, self.parts, [forget] * len(self.parts))
            return [sentences for part in found for sentences in part]
        if forget:
            self.model.forget()
        return [*self.model.split(self.parts[0])]


@method("nupunkt-later", task="sentence-boundaries", packages=("nupunkt>=0.8,<0.9",))
class NupunktLater(Nupunkt):
    """The published nupunkt 0.8, faster and with a smaller model; an environment has one release or the other."""


def deal(texts: Sequence[str], parts: int) -> list[list[str]]:
    """The texts in their order, in `parts` runs of about as many characters each; some may be empty."""
    total = sum(map(len, texts)) or 1
    dealt: list[list[str]] = [[] for _ in range(parts)]
    before = 0
    for text in texts:
        # By the middle of the text, so that a long one goes where most of it belongs.
        dealt[min(parts - 1, (2 * before + len(text)) * parts // (2 * total))].append(text)
        before += len(text)
    return dealt


_model: NupunktModel | None = None


def _load() -> None:
    """Load the model of a process of the pool."""
    global _model
    _model = NupunktModel()


def _loaded() -> NupunktModel:
    if _model is None:
        raise RuntimeError("the process has no model: it was not started by the pool's initializer")
    return _model


def _ready() -> bool:
    return _loaded() is not None


def _split(texts: Sequence[str], forget: bool) -> list[list[Span]]:
    model = _loaded()
    if forget:
        model.forget()
    return model.split(texts)


@method(
    "charboundary",
    task=("sentence-boundaries", "held-out-sentence-boundaries"),
    packages=("charboundary>=0.5,<0.6",),
)
class CharBoundary(Method[Texts, list[Sentences]]):
    """The published charboundary with its small model, the one that the package carries."""

    threshold: NonNegativeFloat = 0.5
    """Least probability of a boundary."""
    runtime: Literal["scikit-learn", "onnx"] = "scikit-learn"
    """What computes the forest; the paper's figures are from ONNX."""
    returns: Literal["strings", "spans"] = "strings"
    """Which function splits: the one that returns sentences, as in the paper's evaluation, which then moves lone
    quotation marks so that some sentences are no longer found in the text; or the one that returns offsets."""
    trim: bool = False
    """Whether the white space at the ends of sentences is stripped, as releases of the paper's time did
    themselves; release 0.5.0 leaves it."""
    threads: PositiveInt = 1
    """Threads of the forest; the package itself takes all cores."""

    def prepare(self, work: Texts) -> None:
        """Load the model.

        Raises:
            MissingPackage: the runtime is ONNX and onnxruntime is not installed.
        """
        import charboundary

        if self.runtime == "onnx":
            if not charboundary.ONNX_AVAILABLE:
                raise MissingPackage("charboundary needs its extra 'onnx': pip install 'charboundary[onnx]'")
            self.segmenter = charboundary.get_small_onnx_segmenter()
            self._limit_onnx()
        else:
            self.segmenter = charboundary.get_small_segmenter()
            self.segmenter.model.model.n_jobs = self.threads
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The sentences as strings or as spans."""
        return self.split_all(self.threshold)

    def split_all(self, threshold: float) -> list[Sentences]:
        """The sentences of all documents at one threshold, from empty memories."""
        # Both memories hold answers about the same texts.
        self.segmenter._cached_predict.cache_clear()
        self.segmenter.feature_extractor.is_in_abbreviation.cache_clear()
        return [self._split(text, threshold) for text in self.texts]

    def _split(self, text: str, threshold: float) -> Sentences:
        if self.returns == "spans":
            spans: list[Span] = self.segmenter.get_sentence_spans(text, threshold=threshold)
            return strip(text, spans) if self.trim else spans
        sentences: list[str] = self.segmenter.segment_to_sentences(text, threshold=threshold)
        return [bare for s in sentences if (bare := s.strip())] if self.trim else sentences

    def _limit_onnx(self) -> None:
        """Give the ONNX session as many threads as asked for; it is made with one per core."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        model: Any = self.segmenter.model
        model.onnx_session = onnxruntime.InferenceSession(
            model.onnx_model, options, providers=["CPUExecutionProvider"]
        )


@method(
    "isolated-package",
    task="isolated-splitting",
    metrics=(
        Metric(
            "requirements",
            better="lower",
            doc="Packages that its metadata requires, extras aside.",
            deterministic=True,
        ),
    ),
)
class IsolatedPackage(Method[str, int | None]):
    """A package in an interpreter of its own that sees the standard library, the package and what is allowed beside.

    Its latency is that of a cold start: interpreter, import, model, one passage.
    """

    package: Literal["nupunkt", "charboundary", "nltk", "pysbd"] = "nupunkt"
    """The package that splits."""
    beside: Literal["nothing", "scikit-learn"] = "nothing"
    """What else the interpreter has: nothing, or scikit-learn with all that it requires."""
    limit: PositiveFloat = 60.0
    """Seconds after which the interpreter is ended."""

    def prepare(self, work: str) -> None:
        """Link the modules that the interpreter may see into a folder.

        Raises:
            MissingPackage: the package or scikit-learn is not installed.
        """
        self.requirements = len(isolation.requirements(self.package))
        allowed = isolation.closure(["scikit-learn"]) if self.beside == "scikit-learn" else set()
        self.folder = tempfile.TemporaryDirectory(prefix="isolated-")
        isolation.link({self.package, *allowed}, Path(self.folder.name))
        self.passage = work

    def run(self) -> int | None:
        """Start the interpreter and split."""
        return isolation.count_sentences(self.package, Path(self.folder.name), self.passage, self.limit)

    def measure(self, output: int | None) -> Measurement:
        """The task's score and the number of requirements."""
        score = as_measurement(self.task.score(self.work, output))
        return score | {"requirements": float(self.requirements)}


@method("charboundary-thresholds", task="segmentation-sweep", packages=("charboundary>=0.5,<0.6",))
class CharBoundaryThresholds(Method[Texts, list[list[Sentences]]]):
    """The published charboundary at several thresholds."""

    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Least probabilities of a boundary, one segmentation each."""

    returns: Literal["strings", "spans"] = "strings"
    """Which function splits; see `CharBoundary`."""

    def prepare(self, work: Texts) -> None:
        """Load the model."""
        self.splitter = CharBoundary(returns=self.returns)
        prepare_all(self, [self.splitter])

    def run(self) -> list[list[Sentences]]:
        """The segmentation at each threshold."""
        return [self.splitter.split_all(threshold) for threshold in self.thresholds]


@method(
    "all-splitters",
    task="segmentation-sweep",
    packages=(
        "nupunkt>=0.5.1,<0.6",
        "charboundary>=0.5,<0.6",
        "nltk>=3.9",
        "pysbd>=0.3.4",
        "spacy>=3.8",
        "blingfire>=0.1.8",
        "sentencex>=1.0",
    ),
)
class AllSplitters(Method[Texts, list[list[Sentences]]]):
    """The published packages and all general-purpose splitters, each with its defaults; NLTK Punkt untrained."""

    def prepare(self, work: Texts) -> None:
        """Prepare each splitter."""
        self.splitters = [
            Nupunkt(),
            CharBoundary(),
            general.NltkPunkt(model="untrained"),
            general.PySbd(),
            general.RegexSplitter(),
            general.SpacySentencizer(),
            general.Sentencex(),
            general.BlingFire(),
        ]
        prepare_all(self, self.splitters)

    def run(self) -> list[list[Sentences]]:
        """The segmentation of each splitter."""
        return [splitter.run() for splitter in self.splitters]


def prepare_all(outer: Method[Texts, Any], splitters: Sequence[Method[Texts, list[Sentences]]]) -> None:
    """Prepare `splitters` on the work of `outer`."""
    for splitter in splitters:
        splitter.work, splitter.context = outer.work, outer.context
        splitter.prepare(outer.work)
