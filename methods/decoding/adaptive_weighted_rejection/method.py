"""Adaptive weighted rejection sampling: of single tokens, alone and inside sequential Monte Carlo."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Method, Metric, method
from harness.types import Fraction, NonNegativeInt, PositiveInt
from methods.decoding.adaptive_weighted_rejection.baselines import Sampler
from methods.decoding.adaptive_weighted_rejection.constraints import grammar_context
from methods.decoding.adaptive_weighted_rejection.generation import Problem as Generation
from methods.decoding.adaptive_weighted_rejection.particles import Cost, Particle, Step, particles
from methods.decoding.adaptive_weighted_rejection.rejection import Batch, Draw, Test, awrs
from methods.decoding.adaptive_weighted_rejection.weights import MaskedContexts, Pair, WeightSums
from methods.decoding.language_models import FloatArray
from methods.decoding.sampling import Problem, Samples, TokenString


@method("awrs", task="constrained-generation")
class AdaptiveWeightedRejection(Sampler):
    """Tokens by adaptive weighted rejection, in a population of particles that is resampled when it degenerates.

    With one particle it is importance sampling with the AWRS proposal; `version: improper` with one particle is locally
    constrained decoding (LCD), drawn without a mask.
    """

    particles: PositiveInt = 1
    """N; the paper's experiments take 5."""
    threshold: Fraction = 0.5
    """Resample where the effective number of particles is below this share of N."""
    version: Literal["auto", "recursive", "geometric", "two-loop", "improper"] = "auto"
    """Estimator of the weight."""
    accepts: PositiveInt = 2
    """Accepted draws behind a weight of the geometric version; more than two choose it."""
    answers: NonNegativeInt = 0
    """Answers to draw; 0: as many as the task asks for."""

    def prepare(self, work: Generation) -> None:
        """See `Sampler.prepare`."""
        super().prepare(work)
        self.proper = self.version != "improper"

    def step(self) -> Step:
        """One draw of `awrs`."""
        return lambda p, test, rng: awrs(p, test, rng, self.version, self.accepts)


@method(
    "awrs-smc",
    task=("bit-strings", "source-strings"),
    metrics=[
        Metric("mass_estimate", "", "neither", "Mean weight, an unbiased estimate of P(language)."),
        Metric("evaluations", "", "lower", "Evaluations of the grammar for each token drawn."),
        Metric("least_ess", "", "neither", "Smallest effective number of particles of a step."),
    ],
)
class AwrsStrings(Method[Problem, Samples]):
    """Every string is drawn from a population of its own, in proportion to the weights."""

    particles: PositiveInt = 5
    """N."""
    threshold: Fraction = 0.5
    """Resample where the effective number of particles is below this share of N."""
    version: Literal["auto", "recursive", "geometric", "two-loop", "improper"] = "auto"
    """Estimator of the weight; with `improper` and one particle the strings are those of local masking."""

    def prepare(self, work: Problem) -> None:
        """Nothing to build."""
        self.problem = work

    def run(self) -> Samples:
        """One population for each string; a population of weight zero gives an unfinished string."""
        problem, rng = self.problem, self.context.rng("samples")
        context = grammar_context(problem.grammar)
        self.cost, self.weights = Cost(), list[float]()
        strings: list[TokenString] = []
        log_p, finished = [], []

        def step(p: FloatArray, test: Test, stream: np.random.Generator) -> Draw:
            return awrs(p, test, stream, self.version)

        for _ in range(problem.samples):
            population = particles(
                problem.model, context, step, count=self.particles, threshold=self.threshold,
                limit=problem.limit, rng=rng, cost=self.cost,
            )  # fmt: skip
            w = np.exp([one.log_weight for one in population])
            self.weights.append(float(w.mean()))
            chosen: Particle = population[rng.choice(len(w), p=w / w.sum()) if w.sum() > 0 else 0]
            strings.append(chosen.tokens)
            log_p.append(chosen.log_p)
            finished.append(bool(w.sum() > 0))
        return Samples(strings, np.array(log_p), np.array(finished, bool), problem.samples)

    def measure(self, output: Samples) -> Measurement:
        """The task's score, the estimate of the mass, and the cost."""
        if not self.cost.tokens:
            raise BadOutput("no token was drawn")
        score = self.task.score(self.work, output)
        own = {
            "mass_estimate": float(np.mean(self.weights)),
            "evaluations": self.cost.calls / self.cost.tokens,
            "least_ess": min(self.cost.ess),
        }
        return (score if isinstance(score, Measurement) else Measurement(score)) | own


@method("awrs-weights", task="weight-estimates")
class AwrsWeights(Method[list[Pair], WeightSums]):
    """Weights of single draws."""

    version: Literal["auto", "recursive", "geometric", "two-loop", "improper"] = "auto"
    """Estimator of the weight."""

    def prepare(self, work: list[Pair]) -> None:
        """Nothing to build."""
        self.pairs = work

    def run(self) -> WeightSums:
        """All draws of all pairs."""
        draws, rng = int(self.task.amount(self.pairs) or 0) // len(self.pairs), self.context.rng("draws")
        mean, square, calls = (np.zeros(len(self.pairs)) for _ in range(3))
        counts = [np.zeros(len(pair.p), np.int64) for pair in self.pairs]
        for place, pair in enumerate(self.pairs):
            test, orders = pair.passes.tolist().__getitem__, Batch(pair.p, rng)
            for _ in range(draws):
                one = awrs(pair.p, test, rng, self.version, orders=orders)
                mean[place] += one.weight
                square[place] += one.weight**2
                calls[place] += one.calls
                if one.token is not None:
                    counts[place][one.token] += 1
        return WeightSums(mean / draws, square / draws, calls / draws, draws, counts)


@method("awrs-divergence", task="divergence-bins")
class AwrsDivergence(Method[MaskedContexts, list[FloatArray]]):
    """Mean evaluations for each order and context."""

    version: Literal["auto", "recursive", "geometric", "two-loop", "improper"] = "auto"
    """Estimator of the weight."""

    def prepare(self, work: MaskedContexts) -> None:
        """Nothing to build."""
        self.contexts = work

    def run(self) -> list[FloatArray]:
        """Draw after every context."""
        work, rng = self.contexts, self.context.rng("draws")
        draws = int((self.task.amount(work) or 0) // (len(work.laws) * len(work.masks)))
        tests = [mask.tolist().__getitem__ for mask in work.masks]
        return [
            np.array(
                [
                    np.mean([awrs(p, test, rng, self.version).calls for _ in range(draws)])
                    for p, test in zip(laws, tests, strict=True)
                ]
            )
            for laws in work.laws
        ]
