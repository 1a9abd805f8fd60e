"""Drawing token strings that a grammar admits: trees of prefixes, exact laws, and how far samples are from them.

Every sampler of the family hands back `Samples`. Logarithms are natural throughout.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.errors import BadOutput
from harness.method import Series
from methods.decoding.grammars import Grammar
from methods.decoding.language_models import FloatArray, IntArray, LanguageModel

TokenString = tuple[int, ...]


@dataclass
class Samples:
    """Token strings in the order they were drawn.

    Attributes:
        strings: each with its end of sequence, where it was drawn.
        log_p: log P(string) under the language model, unmasked: float64, shape (samples,).
        finished: False where the length limit or a dead end stopped the string: bool, shape (samples,).
        attempts: strings that were drawn to get these.
    """

    strings: list[TokenString]
    log_p: FloatArray
    finished: np.ndarray
    attempts: int


@dataclass
class Problem:
    """Strings to draw from a language model inside a language.

    Attributes:
        model: P.
        grammar: the language L.
        samples: how many strings.
        limit: a string has at most so many tokens, its end of sequence included.
    """

    model: LanguageModel
    grammar: Grammar
    samples: int
    limit: int


class Node:
    """What is known after one prefix u.

    Attributes:
        tokens: what the grammar admits after u, sorted: int64, shape (admitted,).
        log_p: log P(v | u) for them, from the softmax over the whole vocabulary: float64, shape (admitted,).
        children: position among `tokens` -> the node after that token.
    """

    __slots__ = ("children", "log_p", "tokens")

    def __init__(self, tokens: IntArray, log_p: FloatArray) -> None:
        self.tokens, self.log_p = tokens, log_p
        self.children: dict[int, Node] = {}

    def __iter__(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children.values())


@dataclass
class Walk:
    """One sample's way through a tree.

    Attributes:
        nodes: the nodes at which a token was drawn, and the dead end if there is one.
        positions: which of each node's tokens was drawn.
        finished: whether the last token is the end of sequence.
    """

    nodes: list[Node] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def string(self) -> TokenString:
        """The tokens drawn."""
        return tuple(int(n.tokens[i]) for n, i in zip(self.nodes, self.positions, strict=False))

    @property
    def log_p(self) -> float:
        """Log P of the tokens drawn."""
        return float(sum(n.log_p[i] for n, i in zip(self.nodes, self.positions, strict=False)))


class PrefixTree:
    """The prefixes seen so far: the language model and the grammar are asked once for each."""

    def __init__(self) -> None:
        self.root: Node | None = None

    def make(self, walk: Walk, tokens: IntArray, log_p: FloatArray) -> Node:
        """The node for the prefix where `walk` has arrived."""
        return Node(tokens, log_p)

    def at(self, walk: Walk) -> Node | None:
        """The node for the prefix where `walk` has arrived, None when it is new."""
        return walk.nodes[-1].children.get(walk.positions[-1]) if walk.positions else self.root

    def add(self, walk: Walk, tokens: IntArray, log_p: FloatArray) -> Node:
        """A new node for the prefix where `walk` has arrived."""
        node = self.make(walk, tokens, log_p)
        if walk.positions:
            walk.nodes[-1].children[walk.positions[-1]] = node
        else:
            self.root = node
        return node

    def walk(
        self, problem: Problem, rng: np.random.Generator, log_weights: Callable[[Node], FloatArray]
    ) -> Walk:
        """Draw one string, each token with probability proportional to exp(log_weights(node))."""
        walk, prefix = Walk(), list[int]()
        while len(prefix) < problem.limit:
            node = self.at(walk)
            if node is None:
                tokens = problem.grammar.admitted(prefix)
                node = self.add(walk, tokens, problem.model.log_probabilities_of(tokens, prefix))
            walk.nodes.append(node)
            position = draw(log_weights(node), rng)
            if position is None:
                break
            walk.positions.append(position)
            prefix.append(int(node.tokens[position]))
            if prefix[-1] == problem.grammar.vocabulary.eos:
                walk.finished = True
                break
        return walk


def draw(log_weights: FloatArray, rng: np.random.Generator) -> int | None:
    """A position with probability proportional to exp(log_weights); None when all weights are zero.

    Always takes one uniform number from `rng`, so that samplers on the same stream stay side by side.
    """
    uniform = rng.random()
    top = log_weights.max(initial=-np.inf)
    if top == -np.inf:
        return None
    cumulated = np.cumsum(np.exp(log_weights - top))
    position = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    # The product can round up to the total; the last position of positive weight is the one where it is reached.
    return min(position, int(np.searchsorted(cumulated, cumulated[-1])))


def log_sum(values: FloatArray) -> float:
    """log sum exp, -inf for nothing."""
    top = float(values.max(initial=-np.inf))
    return top if top == -np.inf else top + float(np.log(np.exp(values - top).sum()))


def gather(walks: Iterable[Walk]) -> Samples:
    """Walks as samples."""
    kept = list(walks)
    return Samples(
        [w.string for w in kept],
        np.array([w.log_p for w in kept]),
        np.array([w.finished for w in kept], bool),
        len(kept),
    )


@dataclass
class Exact:
    """Everything about a finite language under a language model, by enumeration.

    Attributes:
        strings: all token strings of the language with positive probability, with their end of sequence.
        log_p: log P of each: float64, shape (strings,).
        log_gcd: log of the probability with which local masking draws each: float64, shape (strings,).
        futures: prefix -> c(prefix), the probability that the model's free continuation ends in the language;
            1 for whole strings. Prefixes of probability zero are left out.
    """

    strings: list[TokenString]
    log_p: FloatArray
    log_gcd: FloatArray
    futures: dict[TokenString, float]

    @property
    def mass(self) -> float:
        """Z = P(L), the expected future of the empty prefix."""
        return self.futures[()]

    @property
    def q(self) -> FloatArray:
        """Q(w) = P(w) / Z for the strings."""
        result: FloatArray = np.exp(self.log_p - log_sum(self.log_p))
        return result

    @property
    def gcd_divergence(self) -> float:
        """KL(local masking || Q)."""
        gcd = np.exp(self.log_gcd)
        return float(np.sum(gcd * (self.log_gcd - np.log(self.q))))

    @property
    def gcd_variation(self) -> float:
        """Total variation between local masking and Q."""
        return float(np.abs(np.exp(self.log_gcd) - self.q).sum() / 2)


def enumerate_language(model: LanguageModel, grammar: Grammar, most: int = 100_000) -> Exact:
    """Follow every admitted token from the empty prefix.

    Raises:
        ValueError: the language has more than `most` prefixes; it may be infinite.
    """
    strings: list[TokenString] = []
    log_p: list[float] = []
    log_gcd: list[float] = []
    futures: dict[TokenString, float] = {}
    eos = grammar.vocabulary.eos
    arrived: list[tuple[TokenString, float, float]] = [((), 0.0, 0.0)]
    inner: list[tuple[TokenString, IntArray, FloatArray]] = []
    while arrived:
        prefix, log, masked = arrived.pop()
        tokens = grammar.admitted(prefix)
        local = model.log_probabilities_of(tokens, prefix)
        inner.append((prefix, tokens, local))
        if len(inner) > most:
            raise ValueError(f"the language has more than {most} prefixes")
        whole = log_sum(local)
        for token, step in zip(tokens.tolist(), local.tolist(), strict=True):
            if step == -np.inf:
                continue
            after = (*prefix, token)
            if token == eos:
                futures[after] = 1.0
                strings.append(after)
                log_p.append(log + step)
                log_gcd.append(masked + step - whole)
            else:
                arrived.append((after, log + step, masked + step - whole))
    for prefix, tokens, local in reversed(inner):  # children come after their parents
        c = [futures.get((*prefix, token), 0.0) for token in tokens.tolist()]
        futures[prefix] = float(np.exp(local) @ np.array(c)) if c else 0.0
    return Exact(strings, np.array(log_p), np.array(log_gcd), futures)


def grammatical(samples: Samples, grammar: Grammar) -> np.ndarray:
    """Which samples are whole strings of the language: bool, shape (samples,). Each distinct string is parsed once."""
    verdicts = {string: grammar.accepts(string) for string in set(samples.strings)}
    inside: np.ndarray = np.array([verdicts[string] for string in samples.strings], bool) & samples.finished
    return inside


def divergence(strings: Sequence[TokenString], log_q: Mapping[TokenString, float]) -> float:
    """KL(frequencies of `strings` || Q) in nats.

    Raises:
        BadOutput: there is no string, or one has no probability under Q.
    """
    if not strings:
        raise BadOutput("no string of the language was drawn, so there is no divergence to compute")
    counts = Counter(strings)
    try:
        parts = [n / len(strings) * (math.log(n / len(strings)) - log_q[s]) for s, n in counts.items()]
    except KeyError as error:
        raise BadOutput(f"the string {error} has no probability under the target") from error
    return math.fsum(parts)


def total_variation(strings: Sequence[TokenString], log_q: Mapping[TokenString, float]) -> float:
    """Total variation between the frequencies of `strings` and Q."""
    counts = Counter(strings)
    return float(sum(abs(counts[s] / max(len(strings), 1) - np.exp(log)) for s, log in log_q.items()) / 2)


def divergence_series(
    strings: Sequence[TokenString], log_q: Mapping[TokenString, float], window: int
) -> Series:
    """The divergence in a window that slides over the samples, at most 40 times."""
    window = min(window, len(strings))
    ends = np.unique(np.linspace(window, len(strings), min(40, len(strings) - window + 1)).astype(int))
    values = [divergence(strings[end - window : end], log_q) for end in ends]
    return Series([float(end) for end in ends], values, "samples", "KL in the window")
