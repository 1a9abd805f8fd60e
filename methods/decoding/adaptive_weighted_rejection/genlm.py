"""A language model and a constraint as potentials of `genlm-control`, and an answer by its sampler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from genlm.control import AWRS, Potential

from methods.decoding.adaptive_weighted_rejection.particles import Context, Cost, Particle
from methods.decoding.language_models import LanguageModel


class _Model(Potential):  # type: ignore[misc]
    """P over token ids; the package keeps its own end of sequence, as the last of the vocabulary."""

    def __init__(self, model: LanguageModel, cost: Cost) -> None:
        self.law, self.cost = model, cost
        eos = model.vocabulary.eos
        self.ids = np.array([token for token in range(len(model.vocabulary)) if token != eos])
        super().__init__(self.ids.tolist())

    async def prefix(self, context: Sequence[int]) -> float:
        """Log P of a prefix."""
        return float(sum(self._of(context[:place])[token] for place, token in enumerate(context)))

    async def complete(self, context: Sequence[int]) -> float:
        """Log P of a whole string."""
        return await self.prefix(context) + float(self._of(context)[self.law.vocabulary.eos])

    async def logw_next(self, context: Sequence[int]) -> Any:
        """Log P of every token and of the end."""
        law = self._of(context)
        self.cost.tokens += 1
        return self.make_lazy_weights(np.append(law[self.ids], law[self.law.vocabulary.eos]))

    def _of(self, context: Sequence[int]) -> Any:
        started = perf_counter()
        law = self.law.log_probabilities(context)
        self.cost.model += perf_counter() - started
        return law


class _Constraint(Potential):  # type: ignore[misc]
    """C over token ids, 0 or -inf."""

    def __init__(self, vocabulary: list[int], tables: Any, eos: int, context: Context, cost: Cost) -> None:
        self.end, self.at, self.cost = eos, context, cost
        super().__init__(vocabulary, tables=tables)

    async def prefix(self, context: Sequence[int]) -> float:
        """Whether the string can be completed."""
        if not context:
            return 0.0
        self.cost.calls += 1
        return 0.0 if self.at(context[:-1])(context[-1]) else -np.inf

    async def complete(self, context: Sequence[int]) -> float:
        """Whether the string is complete."""
        self.cost.calls += 1
        return 0.0 if self.at(context)(self.end) else -np.inf

    async def logw_eos(self, context: Sequence[int]) -> float:
        """What ends a string at the limit."""
        return await self.complete(context)


def answer(
    model: LanguageModel,
    context: Context,
    count: int,
    threshold: float,
    limit: int,
    proper: bool,
    seed: int,
    cost: Cost,
) -> list[Particle]:
    """One population of the package, as particles; what it used is added to `cost`."""
    potential = _Model(model, cost)
    eos = model.vocabulary.eos
    condition = _Constraint(potential.vocab, potential.tables, eos, context, cost)
    started, before = perf_counter(), cost.model

    async def draw() -> Any:
        sampler = AWRS(potential, condition, seed=seed, proper_weights=proper, autobatch=False)
        return await sampler.smc(n_particles=count, ess_threshold=threshold, max_tokens=limit)

    # The package resamples from numpy's and torch's global state.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        found = asyncio.run(draw())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    cost.sampler += perf_counter() - started - (cost.model - before)
    result = []
    for tokens, log_weight in zip(found.contexts, found.log_weights, strict=True):
        ids = tuple(eos if token is potential.eos else int(token) for token in tokens)
        log_p = float(sum(model.log_probabilities(ids[:place])[token] for place, token in enumerate(ids)))
        result.append(Particle(ids, float(log_weight), log_p, True))
    return result
