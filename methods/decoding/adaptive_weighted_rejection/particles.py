"""Sequential Monte Carlo over token strings, and the ways to extend a particle by a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from methods.decoding.adaptive_weighted_rejection.rejection import Draw, Test
from methods.decoding.language_models import FloatArray, LanguageModel

Context = Callable[[Sequence[int]], Test]
"""prefix -> C of that context: for a token whether the prefix followed by it can be completed, for the end of sequence
whether the prefix is complete."""

Step = Callable[[FloatArray, Test, np.random.Generator], Draw]
"""One token from the law p, float64, shape (vocabulary,), with its incremental weight."""


@dataclass
class Particle:
    """A token string and its weight.

    Attributes:
        tokens: with the end of sequence where it was drawn.
        log_weight: natural log of the product of its incremental weights; -inf where it died.
        log_p: log P(tokens) under the language model.
        done: ended or died.
    """

    tokens: tuple[int, ...] = ()
    log_weight: float = 0.0
    log_p: float = 0.0
    done: bool = False


@dataclass
class Cost:
    """What a run used.

    Attributes:
        calls: evaluations of the constraint while tokens were drawn.
        tokens: tokens drawn.
        sampler: seconds in drawing tokens, with the constraint and without the language model.
        model: seconds in the language model.
        ess: effective numbers of particles, one for each step.
        weights: incremental weights of the draws, shape (tokens,) in the end.
    """

    calls: int = 0
    tokens: int = 0
    sampler: float = 0.0
    model: float = 0.0
    ess: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def effective(log_weights: FloatArray) -> float:
    """(sum W)^2 / sum W^2, between 1 and the number of particles; 0 where every weight is 0."""
    top = log_weights.max()
    if top == -np.inf:
        return 0.0
    w = np.exp(log_weights - top)
    return float(w.sum() ** 2 / (w**2).sum())


def mean_log(log_weights: FloatArray) -> float:
    """log of the mean weight."""
    top = float(log_weights.max())
    return top if top == -np.inf else top + float(np.log(np.exp(log_weights - top).mean()))


def particles(
    model: LanguageModel,
    context: Context,
    step: Step,
    *,
    count: int,
    threshold: float,
    limit: int,
    rng: np.random.Generator,
    cost: Cost | None = None,
    check_end: bool = False,
) -> list[Particle]:
    """One population.

    Each round extends every live particle by a token. Where the effective number of particles is below
    `threshold` * `count`, the population is resampled multinomially and every weight becomes the mean. At the
    limit the end of sequence is forced, with weight P(end | x) C(x, end).

    Args:
        model: P.
        context: the constraint.
        step: how a token is drawn.
        count: particles.
        threshold: share of them; 0 never resamples.
        limit: most tokens of a string, its end of sequence included.
        rng: the stream.
        cost: adds up here what was used.
        check_end: multiply by C of the whole string at the end, for steps that do not test.

    Returns:
        The particles; the mean of their weights is an unbiased estimate of P(strings of the language within the limit).
    """
    cost = Cost() if cost is None else cost
    eos = model.vocabulary.eos
    population = [Particle() for _ in range(count)]
    for length in range(limit):
        if all(one.done for one in population):
            break
        for place, one in enumerate(population):
            if not one.done:
                population[place] = _extend(one, model, context, step, rng, cost, length == limit - 1)
        logs = np.array([one.log_weight for one in population])
        cost.ess.append(effective(logs))
        if logs.max() == -np.inf:
            break
        if cost.ess[-1] < threshold * count:
            shares = np.exp(logs - logs.max())
            chosen = rng.choice(count, count, p=shares / shares.sum())
            mean = mean_log(logs)
            population = [
                Particle(population[c].tokens, mean, population[c].log_p, population[c].done) for c in chosen
            ]
    if check_end:
        for one in population:
            whole = bool(one.tokens) and one.tokens[-1] == eos
            if one.log_weight > -np.inf:
                cost.calls += 1
                if not whole or not complete(context, one.tokens, eos):
                    one.log_weight = -np.inf
    return population


def complete(context: Context, tokens: Sequence[int], eos: int) -> bool:
    """Whether a whole token string is in the language."""
    return len(tokens) > 0 and tokens[-1] == eos and context(tokens[:-1])(eos)


def _extend(
    one: Particle,
    model: LanguageModel,
    context: Context,
    step: Step,
    rng: np.random.Generator,
    cost: Cost,
    last: bool,
) -> Particle:
    eos = model.vocabulary.eos
    started = perf_counter()
    log_p = model.log_probabilities(one.tokens)
    asked = perf_counter()
    test = context(one.tokens)
    if last:
        drawn = Draw(eos, float(np.exp(log_p[eos])) if test(eos) else 0.0, 1)
    else:
        p = np.exp(log_p)
        drawn = step(p / p.sum(), test, rng)
    cost.model += asked - started
    cost.sampler += perf_counter() - asked
    cost.calls += drawn.calls
    cost.tokens += 1
    cost.weights.append(drawn.weight)
    if drawn.token is None or drawn.weight <= 0:
        return Particle(one.tokens, -np.inf, one.log_p, True)
    return Particle(
        (*one.tokens, drawn.token),
        one.log_weight + float(np.log(drawn.weight)),
        one.log_p + float(log_p[drawn.token]),
        drawn.token == eos,
    )
