"""Adaptive sampling with approximate expected futures (ASAp)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Method, Metric, Series, method
from methods.decoding.grammar_aligned_decoding.baselines import Generator
from methods.decoding.grammar_aligned_decoding.tasks import Generated
from methods.decoding.grammar_aligned_decoding.trie import FutureNode, Observer, Trie
from methods.decoding.grammars import Grammar
from methods.decoding.language_models import FloatArray, IntArray, LanguageModel, Vocabulary
from methods.decoding.sampling import Node, Problem, Samples, TokenString, gather
from methods.decoding.tasks import FiniteProblem


@dataclass
class AlignedSamples(Samples):
    """Samples with what was learned from them.

    Attributes:
        trie: after the last sample.
        c_root: c~ of the empty prefix after each sample: float64, shape (samples,).
    """

    trie: Trie
    c_root: np.ndarray


@method(
    "asap",
    task=("bit-strings", "source-strings"),
    metrics=[
        Metric("root_future", "", "neither", "c~(empty prefix) after the last sample; falls to P(language)."),
        Metric(
            "future_violation", "", "lower", "Largest c(u) - c~(u) over all prefixes and updates; see `Asap`."
        ),
        Metric("future_increase", "", "lower", "Largest rise of c~(u) in an update, over all prefixes."),
        Metric("trie_nodes", "", "lower", "Visited prefixes."),
        Metric("trie_bytes", "B", "lower", "Arrays of the trie."),
    ],
)
class Asap(Method[Problem, Samples]):
    """Sampling from Q(w) = P(w) 1[w in L] / P(L) by learning how grammatical the future of each prefix is.

    Q(v | u) = P(v | u) c(uv) / c(u) holds for the expected future c(u), the probability that the model, continuing
    freely from u, ends inside L. ASAp draws the next token in proportion to P(v | u) c~(uv), where c~ >= c starts at 1
    and each sample lowers it along its own path to c~(u) = sum over admitted v of P(v | u) c~(uv).

    `future_violation` compares with the exact c where the language is enumerated. Elsewhere it compares with a lower
    bound of c, the probability of the strings whose path the trie knows in full.
    """

    learning: bool = True
    """Update c~ after each sample; without, c~ = 1 stays and this is grammar-constrained decoding."""
    start: Literal["ones", "exact"] = "ones"
    """What c~ is before the first sample: 1 for every prefix, or the exact c of an enumerated language."""

    def prepare(self, work: Problem) -> None:
        """Take the exact futures where they are the start."""
        self.problem = work
        self.exact = work.exact if isinstance(work, FiniteProblem) else None
        if self.start == "exact" and self.exact is None:
            raise ValueError("start: exact needs a language that is enumerated; this one is not")

    def run(self) -> Samples:
        """Draw all strings, from a trie that is empty at first."""
        return self._sample(self.problem, None)

    def _sample(self, problem: Problem, observer: Observer | None) -> AlignedSamples:
        futures = self.exact.futures if self.start == "exact" and self.exact else None
        trie, rng = Trie(futures, observer), self.context.rng("samples")
        walks, c_root = [], []
        for _ in range(problem.samples):
            walk = trie.walk(problem, rng, _log_weights)
            if self.learning:
                trie.update(walk)
            if trie.log_c_root == -np.inf:
                raise BadOutput("every prefix that the grammar admits leads into a dead end")
            walks.append(walk)
            c_root.append(float(np.exp(trie.log_c_root)))
        return AlignedSamples(**vars(gather(walks)), trie=trie, c_root=np.array(c_root))

    def measure(self, output: Samples) -> Measurement:
        """The task's score, the size of the trie, and whether c~ stayed above c and never rose."""
        assert isinstance(output, AlignedSamples)
        score = self.task.score(self.work, output)
        violation, increase = self._audit(output)
        own = {
            "root_future": float(output.c_root[-1]),
            "future_violation": violation,
            "future_increase": increase,
            "trie_nodes": float(len(output.trie)),
            "trie_bytes": float(output.trie.nbytes),
        }
        n = [float(place + 1) for place in range(len(output.c_root))]
        curve = Series(n, output.c_root.tolist(), "samples", "c~ of the empty prefix")
        merged = (score if isinstance(score, Measurement) else Measurement(score)) | own
        return merged | Measurement({}, {"root_future": curve})

    def _audit(self, output: AlignedSamples) -> tuple[float, float]:
        """Sample again with the same random numbers and look at every update.

        Returns:
            The largest c(u) - c~(u) and the largest rise of c~(u).
        """
        c = (
            self.exact.futures
            if self.exact
            else known_futures(output.trie, self.problem.grammar.vocabulary.eos)
        )
        latest: dict[TokenString, float] = {}
        worst = [-1.0, -1.0]

        def look(prefix: TokenString, value: float) -> None:
            before = latest.get(prefix, c[prefix] if self.start == "exact" else 1.0)
            worst[0] = max(worst[0], c[prefix] - value)
            worst[1] = max(worst[1], value - before)
            latest[prefix] = value

        again = self._sample(Replay.of(output.trie, self.problem), look)
        if again.strings != output.strings:
            raise BadOutput("the same random numbers gave other strings")
        # Nothing was updated without learning: c~ is 1 everywhere.
        return (worst[0], worst[1]) if latest else (max(c.values()) - 1.0, 0.0)


@method(
    "asap-generation",
    task="grammar-generation",
    metrics=[
        Metric("root_future", "", "neither", "c~(empty prefix) after the last sample; falls to P(language)."),
        Metric("trie_nodes", "", "lower", "Visited prefixes."),
        Metric("trie_bytes", "B", "lower", "Arrays of the trie."),
    ],
    packages=("llguidance>=1.0", "lark>=1.2"),
)
class AsapGeneration(Generator):
    """ASAp with a pretrained model, as a logits processor in `transformers`' sampling loop."""

    def processor(self) -> Any:
        """Masks with c~ of a fresh trie."""
        from methods.decoding.grammar_aligned_decoding.generation import AsapProcessor

        return AsapProcessor(self.grammar, len(self.model.prompt_ids), self.model.temperature)

    def measure(self, output: Generated) -> Measurement:
        """The task's score against the exact target, and the size of the trie."""
        trie: Trie = self.last.tree
        score = self.task.score(self.work, self.target(output))
        return (score if isinstance(score, Measurement) else Measurement(score)) | {
            "root_future": float(np.exp(trie.log_c_root)),
            "trie_nodes": float(len(trie)),
            "trie_bytes": float(trie.nbytes),
        }


def _log_weights(node: Node) -> np.ndarray:
    assert isinstance(node, FutureNode)
    return node.log_weights


class Replay(LanguageModel, Grammar):
    """The model and the grammar, as far as a trie has asked them, so that sampling again costs no model steps.

    Args:
        trie: what has been asked.
        vocabulary: of both.
    """

    def __init__(self, trie: Trie, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.nodes = dict(prefixes(trie))

    @classmethod
    def of(cls, trie: Trie, problem: Problem) -> Problem:
        """The problem with its model and grammar replaced."""
        known = cls(trie, problem.grammar.vocabulary)
        return Problem(known, known, problem.samples, problem.limit)

    def admitted(self, prefix: Sequence[int]) -> IntArray:
        """See `Grammar.admitted`, for a visited prefix."""
        return self.nodes[tuple(prefix)].tokens

    def log_probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """See `LanguageModel.log_probabilities`; minus infinity for what the grammar does not admit."""
        node = self.nodes[tuple(prefix)]
        whole = np.full(len(self.vocabulary), -np.inf)
        whole[node.tokens] = node.log_p
        return whole

    def log_probabilities_of(self, tokens: IntArray, prefix: Sequence[int]) -> FloatArray:
        """See `LanguageModel.log_probabilities_of`, for the tokens that the grammar admits."""
        node = self.nodes[tuple(prefix)]
        known: FloatArray = node.log_p[np.searchsorted(node.tokens, tokens)]
        return known


def prefixes(trie: Trie) -> Iterator[tuple[TokenString, Node]]:
    """All visited prefixes and their nodes, each before the longer ones."""
    pending: list[tuple[TokenString, Node]] = [] if trie.root is None else [((), trie.root)]
    while pending:
        prefix, node = pending.pop()
        yield prefix, node
        for position, child in node.children.items():
            pending.append(((*prefix, int(node.tokens[position])), child))


def known_futures(trie: Trie, eos: int) -> dict[TokenString, float]:
    """A lower bound of c for every visited prefix: the mass of the strings whose whole path the trie holds."""
    bound: dict[TokenString, float] = {}
    for prefix, node in reversed(list(prefixes(trie))):
        bound[prefix] = float(np.exp(node.log_p[node.tokens == eos]).sum()) + sum(
            float(np.exp(node.log_p[position])) * bound[(*prefix, int(node.tokens[position]))]
            for position in node.children
        )
    return bound
