"""The search for optimizer programs: proxies, mutations, evolution, funnel, simplification."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from harness.testing import prepared, run_once
from methods.training.lion.baselines import ProgramRandomSearch
from methods.training.lion.evolution import (
    Scores,
    evolve_with_restarts,
    funnel,
    random_search,
    regularised_evolution,
    simplify,
)
from methods.training.lion.method import ProgramEvolution
from methods.training.lion.mutation import Mutator
from methods.training.lion.operations import OPERATIONS
from methods.training.lion.programs import (
    INPUTS,
    OUTPUTS,
    Program,
    Statement,
    adamw,
    functional_hash,
    is_valid,
    lion,
    parse,
)
from methods.training.lion.proxies import Perceptron, Points, Proxy
from methods.training.lion.tasks import OptimizerProgramSearch


def renamed(program, suffix="_"):
    """Every variable that is not an input or output gets another name."""
    fixed = {*INPUTS, *OUTPUTS}

    def name(x):
        return x if not isinstance(x, str) or x in fixed else x + suffix

    return Program(tuple(Statement(name(s.target), s.op, tuple(map(name, s.args))) for s in program.statements))


def with_swapped_arguments(program):
    return Program(
        tuple(
            Statement(s.target, s.op, s.args[::-1]) if OPERATIONS[s.op].commutes else s
            for s in program.statements
        )
    )


# --- proxies -----------------------------------------------------------------------------------------------


def points(n=40, features=6, seed=0):
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((n, features)).astype(np.float32)
    return Points(inputs, np.argmax(inputs[:, :3], axis=1))


def proxy(steps=30, hidden=8, seeds=(1,)):
    return Proxy(points(), points(seed=1), hidden, steps, 16, seeds)


def test_gradient_is_autograds():
    network, data = Perceptron(6, 5, 10), points()
    w = network.initial(np.random.default_rng(0)).astype(np.float64) + 0.01
    g = np.zeros_like(w)
    network.gradient(network.split(w), network.split(g), data.inputs.astype(np.float64), data.classes)
    t = torch.from_numpy(w).requires_grad_()
    w1, b1, w2, b2 = (
        part.view(shape) for part, shape in zip(t.split(network.layout.sizes), network.shapes, strict=True)
    )
    x, y = torch.from_numpy(data.inputs).double(), torch.from_numpy(data.classes)
    loss = nn.functional.cross_entropy(torch.tanh(x @ w1 + b1) @ w2 + b2, y)
    loss.backward()
    np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert network.loss(w, data) == pytest.approx(loss.item(), rel=1e-6)


def test_scores_are_repeatable_and_training_helps():
    it = proxy()
    assert it.score(adamw(0.01)) == it.score(adamw(0.01))
    assert it.score(adamw(0.01)) < it.score(adamw(1e-7))
    assert proxy(seeds=(1, 2)).score(lion(1e-2)) == pytest.approx(
        (proxy(seeds=(1,)).score(lion(1e-2)) + proxy(seeds=(2,)).score(lion(1e-2))) / 2
    )


def test_divergence_is_an_infinite_score():
    assert proxy().score(parse("update = divide(g, 0.0)")) == math.inf
    assert proxy().score(parse("update = log(g)")) == math.inf


# --- mutation and evolution ----------------------------------------------------------------------------------


def test_mutants_are_valid_different_and_of_all_three_kinds():
    mutate = Mutator(np.random.default_rng(0), longest=12)
    parent, digest = adamw(0.01), functional_hash(adamw(0.01))
    lengths = []
    for _ in range(300):
        child, child_digest = mutate(parent, digest)
        assert is_valid(child)
        assert child_digest == functional_hash(child) != digest
        lengths.append(len(child) - len(parent))
    assert set(lengths) == {-1, 0, 1}
    assert mutate.rejected > 0
    assert mutate.drawn == 300 + mutate.rejected
    full = Mutator(np.random.default_rng(0), longest=len(parent))
    assert all(len(full(parent, digest)[0]) <= len(parent) for _ in range(50))


@dataclass
class Landscape:
    """A proxy whose scores are given by a function; counts how often it is asked."""

    value: object
    asked: list = field(default_factory=list)

    def score(self, program):
        self.asked.append(program)
        return self.value(program)


class Chain:
    """Mutations that append a statement; remembers the parents."""

    def __init__(self):
        self.parents = []

    def __call__(self, parent, digest):
        self.parents.append(parent)
        child = Program((*parent.statements, Statement("update", "add", ("update", float(len(self.parents))))))
        return child, functional_hash(child)


def test_the_oldest_dies_even_if_it_is_the_best():
    # With one alive at a time and scores that only get worse, each child descends from the last one.
    chain, scores = Chain(), Scores(Landscape(len))
    regularised_evolution(
        adamw(0.01), scores, chain, np.random.default_rng(0), candidates=5, population=1, tournament=1
    )
    assert [len(parent) for parent in chain.parents] == [10, 11, 12, 13, 14]


def test_the_best_of_the_tournament_is_the_parent():
    # With everybody drawn again and again, the first ones (shortest, best) have all children while they live.
    chain, scores = Chain(), Scores(Landscape(len))
    regularised_evolution(
        adamw(0.01), scores, chain, np.random.default_rng(0), candidates=8, population=8, tournament=200
    )
    assert {len(parent) for parent in chain.parents} == {10}


def test_equal_computations_are_trained_once():
    landscape = Landscape(lambda program: 1.0)
    scores = Scores(landscape)
    for program in (adamw(0.01), renamed(adamw(0.01)), with_swapped_arguments(adamw(0.01)), lion(0.01)):
        scores(program, functional_hash(program))
    assert scores.asked == 4
    assert len(landscape.asked) == len(scores.known) == 2


def test_restarts_begin_at_the_start_or_at_the_best():
    for source, expected in (("start", {10}), ("best", {10, 14})):
        # Longer is better up to 14 statements.
        chain = Chain()
        scores = Scores(Landscape(lambda program: abs(len(program) - 14)))
        evolve_with_restarts(
            adamw(0.01),
            scores,
            chain,
            np.random.default_rng(0),
            candidates=8,
            population=1,
            tournament=1,
            restarts=1,
            restart_from=source,
        )
        assert {len(chain.parents[0]), len(chain.parents[4])} == expected
        assert scores.asked == 8 + 2


def test_random_search_never_builds_on_what_it_found():
    chain, scores = Chain(), Scores(Landscape(len))
    random_search(adamw(0.01), scores, chain, np.random.default_rng(0), candidates=6, depth=1.0)
    assert {len(parent) for parent in chain.parents} == {10}


def test_funnel_keeps_what_beats_the_start_on_every_stage():
    good, overfit, start = lion(0.1), lion(0.2), adamw(0.01)
    first = Landscape({good: 0.5, overfit: 0.2, start: 1.0}.__getitem__)
    second = Landscape({good: 0.5, overfit: 2.0, start: 1.0}.__getitem__)
    others = [lion(r) for r in (0.3, 0.4)]
    for landscape in (first, second):
        value = landscape.value
        landscape.value = lambda program, value=value: 3.0 if program in others else value(program)
    assert funnel([overfit, good, *others], start, [first, second]) == (good, [4, 2])
    assert funnel(others, start, [first]) == (start, [2])
    assert funnel([], start, [first]) == (start, [0])


def test_simplification_deletes_what_does_not_lower_the_loss():
    program = parse("""
x = tanh(g)
update = sign(g)
y = multiply(w, 0.0)
update = add(update, y)
update = multiply(update, 0.05)
update = multiply(update, lr)
""")
    it = proxy()
    simple = simplify(program, it, tolerance=0.0)
    assert it.score(simple) <= it.score(program)
    assert {"x", "y"}.isdisjoint(statement.target for statement in simple.statements)
    for place in range(len(simple)):
        shorter = Program(simple.statements[:place] + simple.statements[place + 1 :])
        assert not is_valid(shorter) or it.score(shorter) > it.score(program)
    shortest = simplify(program, it, tolerance=math.inf)
    assert len(shortest) == 1


@pytest.mark.parametrize("method", [ProgramEvolution, ProgramRandomSearch], ids=lambda m: m.name)
def test_search_is_repeatable_and_scored(method):
    task = OptimizerProgramSearch(steps=20, hidden=6, stages=1)
    search = prepared(method(candidates=60, finalists=5), task)
    first, again = search.run(), search.run()
    assert first == again
    assert is_valid(first.program)
    assert first.trained <= first.asked
    measured = run_once(method(candidates=60, finalists=5), task).metrics
    assert math.isfinite(measured["test_loss"])
    assert 0.0 <= measured["cached_share"] < 1.0


def test_parameters_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="restarts"):
        ProgramEvolution(candidates=3, restarts=3)
    with pytest.raises(ValueError, match="mutation"):
        ProgramRandomSearch(depth=0.5)
