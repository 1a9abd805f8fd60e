"""Samplers that the papers of the family are compared with."""

from __future__ import annotations

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Method, Metric, method
from harness.types import PositiveInt
from methods.decoding.grammars import Grammar
from methods.decoding.language_models import IntArray
from methods.decoding.sampling import (
    Exact,
    PrefixTree,
    Problem,
    Samples,
    TokenString,
    enumerate_language,
    gather,
    log_sum,
)


@method("grammar-constrained-decoding", task=("bit-strings", "source-strings"))
class GrammarConstrainedDecoding(Method[Problem, Samples]):
    """Local masking: each token from P(v | u) over what the grammar admits after u, renormalised (GCD).

    Every string is in the language, but the law is myopic: it does not see how likely the model is to finish a
    prefix inside the language.
    """

    def prepare(self, work: Problem) -> None:
        """Nothing to build: the tree of prefixes is part of the run."""
        self.problem = work

    def run(self) -> Samples:
        """Draw all strings; a prefix that comes back is looked up."""
        tree, rng = PrefixTree(), self.context.rng("samples")
        return gather(
            tree.walk(self.problem, rng, lambda node: node.log_p) for _ in range(self.problem.samples)
        )


@method(
    "importance-resampled-gcd",
    task=("bit-strings", "source-strings"),
    metrics=[
        Metric("effective_samples", "", "higher", "(sum of weights)^2 / sum of squared weights."),
        Metric("mass_estimate", "", "neither", "Mean weight, an unbiased estimate of P(language)."),
    ],
)
class ImportanceResampledGcd(Method[Problem, Samples]):
    """GCD as a proposal: strings are resampled with weights P(w) / GCD(w), the product of the local masses."""

    def prepare(self, work: Problem) -> None:
        """Nothing to build."""
        self.problem = work

    def run(self) -> Samples:
        """Draw by local masking, weigh, and resample as many with replacement."""
        tree, rng = PrefixTree(), self.context.rng("samples")
        walks = [tree.walk(self.problem, rng, lambda node: node.log_p) for _ in range(self.problem.samples)]
        log_w = np.array(
            [sum(log_sum(node.log_p) for node in w.nodes) if w.finished else -np.inf for w in walks]
        )
        if log_w.max() == -np.inf:
            raise BadOutput("no string was finished, so there is nothing to resample")
        self.weights = np.exp(log_w)
        shares = np.exp(log_w - log_w.max())
        chosen = self.context.rng("resample").choice(len(walks), len(walks), p=shares / shares.sum())
        return gather(walks[place] for place in chosen)

    def measure(self, output: Samples) -> Measurement:
        """The task's score, the effective number of samples and the estimate of the mass."""
        score = self.task.score(self.work, output)
        w = self.weights
        own = {"effective_samples": float(w.sum() ** 2 / (w**2).sum()), "mass_estimate": float(w.mean())}
        return (score if isinstance(score, Measurement) else Measurement(score)) | own


def free_strings(problem: Problem, count: int, rng: np.random.Generator, *, reject: bool) -> list[TokenString]:
    """Strings from the language model without a mask, all at once, token by token.

    Args:
        problem: model, grammar and limit.
        count: how many to start.
        rng: the stream.
        reject: drop a string as soon as the grammar does not admit its prefix, which leaves exactly those
            that rejection at the end would keep.

    Returns:
        With `reject` the strings of the language, else all `count`, those at the limit without their end.
        The order says nothing about when a string was drawn.
    """
    eos = problem.grammar.vocabulary.eos
    prefixes = np.empty((count, 0), np.int64)
    done: list[TokenString] = []
    for _ in range(problem.limit):
        prefixes = np.concatenate([prefixes, problem.model.sample_next(prefixes, rng)[:, None]], axis=1)
        if reject:
            prefixes = prefixes[_admitted(prefixes, problem.grammar)]
        ended = prefixes[:, -1] == eos
        done.extend(map(tuple, prefixes[ended].tolist()))
        prefixes = prefixes[~ended]
        if not len(prefixes):
            break
    return done if reject else [*done, *map(tuple, prefixes.tolist())]


def _admitted(prefixes: IntArray, grammar: Grammar) -> np.ndarray:
    """Which prefixes (batch, t) end with a token that the grammar admits; their beginnings are admitted already."""
    heads, which = np.unique(prefixes[:, :-1], axis=0, return_inverse=True)
    fits = np.empty(len(prefixes), bool)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(heads)))
    for head, members in zip(heads.tolist(), np.split(order, ends[:-1]), strict=True):
        fits[members] = np.isin(prefixes[members, -1], grammar.admitted(head))
    return fits


def log_probability(problem: Problem, string: TokenString) -> float:
    """Log P of a token string."""
    return float(
        sum(
            problem.model.log_probabilities_of(np.array([token]), string[:place])[0]
            for place, token in enumerate(string)
        )
    )


def _collect(problem: Problem, strings: list[TokenString], attempts: int) -> Samples:
    logs = {string: log_probability(problem, string) for string in set(strings)}
    eos = problem.grammar.vocabulary.eos
    finished = np.array([string[-1] == eos for string in strings], bool)
    return Samples(strings, np.array([logs[string] for string in strings]), finished, attempts)


@method("unconstrained-sampling", task=("bit-strings", "source-strings"))
class UnconstrainedSampling(Method[Problem, Samples]):
    """The language model without any grammar: most strings may be outside of the language."""

    def prepare(self, work: Problem) -> None:
        """Nothing to build."""
        self.problem = work

    def run(self) -> Samples:
        """Draw all strings token by token, side by side."""
        rng = self.context.rng("free")
        strings = free_strings(self.problem, self.problem.samples, rng, reject=False)
        order = self.context.rng("order").permutation(len(strings))
        return _collect(self.problem, [strings[place] for place in order], len(strings))


@method(
    "rejection-sampling",
    task=("bit-strings", "source-strings"),
    metrics=[
        Metric("attempts", "", "lower", "Strings drawn from the model."),
        Metric("acceptance", "", "higher", "Share of them in the language, an estimate of P(language)."),
    ],
)
class RejectionSampling(Method[Problem, Samples]):
    """Exact but slow: draw freely and keep what is in the language."""

    batch: PositiveInt = 10_000
    """Strings drawn at a time."""
    most: PositiveInt = 10_000_000
    """Give up after so many."""

    def prepare(self, work: Problem) -> None:
        """Nothing to build."""
        self.problem = work

    def run(self) -> Samples:
        """Draw batches until there are enough strings of the language.

        Raises:
            BadOutput: `most` strings held too few of the language.
        """
        rng, order = self.context.rng("free"), self.context.rng("order")
        kept: list[TokenString] = []
        attempts = 0
        self.accepted = 0
        while len(kept) < self.problem.samples:
            if attempts >= self.most:
                raise BadOutput(f"{attempts} strings held {len(kept)} of the language, too few")
            fresh = free_strings(self.problem, self.batch, rng, reject=True)
            kept.extend(fresh[place] for place in order.permutation(len(fresh)))
            attempts += self.batch
        self.accepted = len(kept)
        return _collect(self.problem, kept[: self.problem.samples], attempts)

    def measure(self, output: Samples) -> Measurement:
        """The task's score, the attempts, and the share of them in the language."""
        score = self.task.score(self.work, output)
        own = {"attempts": float(output.attempts), "acceptance": self.accepted / output.attempts}
        return (score if isinstance(score, Measurement) else Measurement(score)) | own


@method("exact-sampling", task="bit-strings")
class ExactSampling(Method[Problem, Samples]):
    """The target itself: a finite language is enumerated and strings are drawn from Q."""

    def prepare(self, work: Problem) -> None:
        """Enumerate the language."""
        self.problem = work
        self.exact: Exact = enumerate_language(work.model, work.grammar)

    def run(self) -> Samples:
        """Draw all strings at once."""
        chosen = self.context.rng("samples").choice(
            len(self.exact.strings), self.problem.samples, p=self.exact.q
        )
        strings = [self.exact.strings[place] for place in chosen]
        return Samples(strings, self.exact.log_p[chosen], np.ones(len(strings), bool), len(strings))
