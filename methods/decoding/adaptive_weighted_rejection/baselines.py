"""What the paper compares with: masking, free sampling, reranking, twisted Monte Carlo, and its published package."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from harness.method import Method, method
from harness.types import Fraction, NonNegativeInt, PositiveInt
from methods.decoding.adaptive_weighted_rejection.constraints import by_spelling, prefix_mask
from methods.decoding.adaptive_weighted_rejection.generation import Generations, Population, Problem
from methods.decoding.adaptive_weighted_rejection.particles import Cost, Particle, Step, particles
from methods.decoding.adaptive_weighted_rejection.rejection import (
    Draw,
    Test,
    from_mask,
    masked,
    negative_binomial,
)
from methods.decoding.adaptive_weighted_rejection.weights import Pair, WeightSums
from methods.decoding.language_models import FloatArray


class Sampler(Method[Problem, Generations]):
    """What the arms of `constrained-generation` share: populations of particles that one way of drawing extends."""

    particles: PositiveInt = 1
    threshold: Fraction = 0.5
    answers: NonNegativeInt = 0

    checks_end = False
    """Whether the constraint is asked for the whole string, because the draws do not ask."""
    exact = False
    """Whether the incremental weights are exact local masses."""
    proper = True
    """Whether the mean weight of an answer is an unbiased estimate of P(language)."""

    @abstractmethod
    def step(self) -> Step:
        """How a token is drawn."""

    def prepare(self, work: Problem) -> None:
        """Build the model and the constraint.

        Raises:
            MissingData, MissingModel, MissingPackage: something of the domain or of the model is not here.
        """
        self.model = work.model(self.context.device)
        self.context_of = work.constraint().context(self.model.vocabulary)

    def run(self) -> Generations:
        """Draw all answers."""
        rng, cost, step = self.context.rng("answers"), Cost(), self.step()
        populations = []
        for _ in range(self.answers or self.work.settings.answers):
            population = particles(
                self.model, self.context_of, step, count=self.particles, threshold=self.threshold,
                limit=self.work.settings.limit, rng=rng, cost=cost, check_end=self.checks_end,
            )  # fmt: skip
            populations.append(self.gather(population))
        return Generations(populations, cost, len(self.model.vocabulary), self.exact, self.proper)

    def gather(self, population: list[Particle]) -> Population:
        """Particles as texts."""
        vocabulary = self.model.vocabulary
        return Population(
            [vocabulary.spell(one.tokens) for one in population],
            np.array([one.log_weight for one in population]),
            np.array([one.log_p for one in population]),
            [bool(one.tokens) and one.tokens[-1] == vocabulary.eos for one in population],
        )


def _free(p: FloatArray, rng: np.random.Generator) -> int:
    cumulated = np.cumsum(p)
    token = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return min(token, int(np.searchsorted(cumulated, cumulated[-1])))


@method("token-masking", task="constrained-generation")
class TokenMasking(Sampler):
    """Locally constrained decoding by an evaluation of the constraint for every token of the vocabulary.

    Weights are the exact local masses Z. With one particle and their weights left aside it is what constrained decoding
    is in most libraries.
    """

    particles: PositiveInt = 1
    """Particles."""
    threshold: Fraction = 0.0
    """Resample where the effective number of particles is below this share of them."""
    prune: bool = False
    """Evaluate tokens in the order of their spelling and leave out those that begin with one that failed: the same mask
    from fewer evaluations, of any test that says of a text whether it can be completed."""
    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    exact = True

    def prepare(self, work: Problem) -> None:
        """As `Sampler.prepare`; the vocabulary is sorted where that is wanted."""
        super().prepare(work)
        self.order = by_spelling(self.model.vocabulary) if self.prune else []

    def step(self) -> Step:
        """One draw of `masked`, or from the mask of `prefix_mask`."""
        if not self.prune:
            return masked
        vocabulary, order = self.model.vocabulary, self.order
        return lambda p, test, rng: from_mask(p, *prefix_mask(vocabulary, order, test), rng)


@method("base-sampling", task="constrained-generation")
class BaseSampling(Sampler):
    """The language model without the constraint."""

    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    proper = False

    def step(self) -> Step:
        """From p, with weight 1 and no test."""
        return lambda p, test, rng: Draw(_free(p, rng), 1.0, 0)

    def prepare(self, work: Problem) -> None:
        """As `Sampler.prepare`; at the limit a string is forced to end, whether it fits or not."""
        super().prepare(work)
        self.context_of = _anything

    def run(self) -> Generations:
        """See `Sampler.run`; the forced ends ask a test that is always true, which is no evaluation."""
        output = super().run()
        output.cost.calls = 0
        return output


def _anything(prefix: object) -> Test:
    return lambda token: True


@method("sample-rerank", task="constrained-generation")
class SampleRerank(Sampler):
    """Importance sampling from the language model: free strings, of which the weight of those outside is zero."""

    particles: PositiveInt = 10
    """Strings for each answer."""
    threshold: Fraction = 0.0
    """No resampling by default: nothing is known of a string before its end."""
    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    checks_end = True

    def step(self) -> Step:
        """From p, with weight 1 and no test; the whole string is tested at its end."""
        return lambda p, test, rng: Draw(_free(p, rng), 1.0, 0)


@method("twisted-smc", task="constrained-generation")
class TwistedSmc(Sampler):
    """Proposals from the language model; the test of each new token is its weight, 0 or 1, and decides who survives."""

    particles: PositiveInt = 10
    """Particles."""
    threshold: Fraction = 0.9
    """Resample where the effective number of particles is below this share of them."""
    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    def step(self) -> Step:
        """From p, with the test as weight."""

        def draw(p: FloatArray, test: Test, rng: np.random.Generator) -> Draw:
            token = _free(p, rng)
            return Draw(token, float(test(token)), 1)

        return draw


@method("genlm-awrs", task="constrained-generation", packages=("genlm-control>=0.4,<0.5",))
class GenlmAwrs(Sampler):
    """The package that the authors publish, `genlm-control`: its sampler `AWRS` in its sequential Monte Carlo.

    Model and constraint are ours, as its potentials. Its evaluations are counted where it asks our constraint.
    """

    particles: PositiveInt = 1
    """Particles."""
    threshold: Fraction = 0.5
    """Resample where the effective number of particles is below this share of them."""
    proper: bool = True
    """Proper weights; without, the tokens are those of locally constrained decoding."""
    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    def step(self) -> Step:
        """Not used: the package draws the tokens."""
        raise NotImplementedError("genlm-control draws the tokens itself")

    def run(self) -> Generations:
        """Draw all answers."""
        from methods.decoding.adaptive_weighted_rejection.genlm import answer

        cost, populations = Cost(), []
        seed = self.context.derive("genlm") % 2**31
        for number in range(self.answers or self.work.settings.answers):
            found = answer(
                self.model, self.context_of, self.particles, self.threshold, self.work.settings.limit,
                self.proper, (seed + number) % 2**31, cost,
            )  # fmt: skip
            populations.append(self.gather(found))
        return Generations(populations, cost, len(self.model.vocabulary), proper=self.proper)


@method("negative-binomial-weights", task="weight-estimates")
class NegativeBinomialWeights(Method[list[Pair], WeightSums]):
    """Plain rejection with replacement until two tokens pass; pairs of a Z below `least` are not drawn."""

    least: Fraction = 0.005
    """Smallest Z that is tried: rejection takes 2 / Z evaluations. Pairs that are left out keep mean Z and no draw."""

    def prepare(self, work: list[Pair]) -> None:
        """Nothing to build."""
        self.pairs = work

    def run(self) -> WeightSums:
        """All draws of all pairs."""
        draws, rng = int(self.task.amount(self.pairs) or 0) // len(self.pairs), self.context.rng("draws")
        w = [np.full(1, pair.mass) for pair in self.pairs]
        calls = np.zeros(len(self.pairs))
        counts = [np.zeros(len(pair.p), np.int64) for pair in self.pairs]
        for place, pair in enumerate(self.pairs):
            if pair.mass < self.least:
                continue
            test = pair.passes.tolist().__getitem__
            all_of = [negative_binomial(pair.p, test, rng) for _ in range(draws)]
            w[place] = np.array([one.weight for one in all_of])
            calls[place] = np.mean([one.calls for one in all_of])
            counts[place] = np.bincount([one.token or 0 for one in all_of], minlength=len(pair.p))
        return WeightSums(
            np.array([one.mean() for one in w]), np.array([(one**2).mean() for one in w]), calls, draws, counts
        )
