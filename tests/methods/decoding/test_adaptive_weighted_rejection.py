"""Adaptive weighted rejection against enumeration, closed forms, exact sequence laws and chi-square tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.testing import prepared, run_once
from methods.decoding.adaptive_weighted_rejection.constraints import grammar_context
from methods.decoding.adaptive_weighted_rejection.method import AwrsStrings, AwrsWeights
from methods.decoding.adaptive_weighted_rejection.particles import Cost, effective, particles
from methods.decoding.adaptive_weighted_rejection.rejection import (
    Batch,
    Draw,
    Order,
    Race,
    Version,
    awrs,
    geometric,
    improper,
    masked,
    negative_binomial,
    races,
    recursive,
    two_loop,
)
from methods.decoding.adaptive_weighted_rejection.tasks import WeightEstimates
from methods.decoding.adaptive_weighted_rejection.weights import Pair, WeightSums
from methods.decoding.grammars import FiniteLanguage, binary_language
from methods.decoding.language_models import BITS, FloatArray, fair_coin, random_bits
from methods.decoding.sampling import enumerate_language
from methods.decoding.tasks import BitStringSampling

EXAMPLES = [
    # p, tokens that pass, variances of two loops and recursive, evaluations (two loops without reuse), geometric variance
    ((0.5, 0.2, 0.15, 0.1, 0.05), {1, 3}, 0.064203, 0.044048, 3.6802, 3.1012, 0.064797, 6.6667),
    ((0.4, 0.3, 0.2, 0.1), {3}, 0.017888, 0.0, 4.7864, 3.6655, 0.015584, 20.0),
    ((0.7, 0.1, 0.1, 0.1), {0, 2}, 0.072889, 0.031111, 2.4198, 2.2222, 0.074059, 2.5),
]
VERSIONS: list[Version] = ["auto", "recursive", "geometric", "two-loop"]


def all_orders(p: FloatArray) -> Iterator[tuple[float, Order]]:
    """Every order of the tokens of positive weight, with its probability without replacement."""
    support = np.flatnonzero(p > 0)
    for order in permutations(support.tolist()):
        left, probability = float(p[support].sum()), 1.0
        for token in order:
            probability *= p[token] / left
            left -= p[token]
        yield probability, Order(p, order)


def enumerate_draws(version: str, p: FloatArray, passes: set[int]) -> Iterator[tuple[float, Draw, bool]]:
    """Every outcome of a version with its probability, and whether the second loop met the token of the first."""
    for probability, first in all_orders(p):
        if version == "recursive":
            yield probability, recursive(p, passes.__contains__, lambda q, o=first: o), False
            continue
        rejected: list[int] = []
        for place in range(len(first)):
            if first.token(place) in passes:
                break
            rejected.append(first.token(place))
        rest = p.copy()
        rest[rejected] = 0
        for other, second in all_orders(rest):
            orders = iter([first, second])
            drawn = two_loop(p, passes.__contains__, lambda q, o=orders: next(o))
            met = next(t for t in map(second.token, range(len(second))) if t in passes)
            yield probability * other, drawn, met == drawn.token


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("version", ["two-loop", "recursive"])
def test_weights_are_proper_by_enumeration(example: tuple, version: str) -> None:
    p, passes = np.array(example[0]), example[1]
    proper, square, calls, reused = np.zeros(len(p)), 0.0, 0.0, 0.0
    for probability, drawn, met in enumerate_draws(version, p, passes):
        assert drawn.token is not None
        proper[drawn.token] += probability * drawn.weight
        square += probability * drawn.weight**2
        calls += probability * drawn.calls
        reused += probability * met
    assert proper == pytest.approx([q if v in passes else 0 for v, q in enumerate(p)], abs=1e-12)
    assert square - proper.sum() ** 2 == pytest.approx(example[2 if version == "two-loop" else 3], abs=1e-6)
    assert calls + reused == pytest.approx(example[4 if version == "two-loop" else 5], abs=1e-4)


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=5),
    st.sets(st.integers(0, 4)),
    st.sampled_from(["two-loop", "recursive"]),
)
@settings(max_examples=8, deadline=None)
def test_weights_are_proper_for_any_law(weights: list[float], passes: set[int], version: str) -> None:
    p = np.array(weights) / sum(weights)
    passes = {v for v in passes if v < len(p)} or {len(p) - 1}
    proper = np.zeros(len(p))
    for probability, drawn, _ in enumerate_draws(version, p, passes):
        proper[drawn.token] += probability * drawn.weight
    assert proper == pytest.approx([q if v in passes else 0 for v, q in enumerate(p)], abs=1e-10)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.sets(st.integers(0, 4)))
@settings(max_examples=12, deadline=None)
def test_evaluations_are_at_most_those_of_rejection_with_replacement(
    weights: list[float], passes: set[int]
) -> None:
    p = np.array(weights) / sum(weights)
    passes = {v for v in passes if v < len(p)} or {0}
    mass = p[list(passes)].sum()  # exp(-KL(local masking || p)), so that the bound is exp(KL)
    one = sum(w * improper(p, passes.__contains__, lambda q, o=o: o).calls for w, o in all_orders(p))
    weighted = sum(w * recursive(p, passes.__contains__, lambda q, o=o: o).calls for w, o in all_orders(p))
    assert one <= min(1 / mass, len(p)) + 1e-9
    assert one - 1e-9 <= weighted <= one + 1 + 1e-9


@pytest.mark.parametrize("example", EXAMPLES)
def test_geometric_has_the_law_of_the_negative_binomial(example: tuple) -> None:
    p, passes = np.array(example[0]), example[1]
    mass = sum(p[list(passes)])
    rng = np.random.default_rng(11)
    draws = [geometric(p, passes.__contains__, races(rng), rng) for _ in range(8000)]
    plain = [negative_binomial(p, passes.__contains__, rng) for _ in range(8000)]
    for some in (draws, plain):
        w = np.array([one.weight for one in some])
        assert abs(w.mean() - mass) < 4 * np.sqrt(example[6] / len(w))
        assert w.var() == pytest.approx(example[6], rel=0.15)
    assert np.mean([one.calls for one in plain]) == pytest.approx(example[7], rel=0.05)
    assert max(one.calls for one in draws) <= len(p)
    # Rejects of both are negative binomial (2, Z); ranks of weights agree as laws.
    assert stats.ks_2samp([d.weight for d in draws], [d.weight for d in plain]).pvalue > 1e-4


@pytest.mark.parametrize("version", [*VERSIONS, "improper"])
def test_first_accepted_token_has_the_restricted_law(version: Version) -> None:
    p, passes = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05]), {1, 3, 5}
    rng = np.random.default_rng(5)
    counts = np.bincount([awrs(p, passes.__contains__, rng, version).token for _ in range(10_000)], minlength=6)
    assert not counts[[0, 2, 4]].any()
    expected = p[[1, 3, 5]] / p[[1, 3, 5]].sum() * counts.sum()
    assert stats.chisquare(counts[[1, 3, 5]], expected).pvalue > 1e-4


@pytest.mark.parametrize("version", VERSIONS)
def test_limits(version: Version) -> None:
    rng = np.random.default_rng(0)
    p = np.full(400, 1 / 400)
    everything = [awrs(p, lambda token: True, rng, version) for _ in range(20)]
    assert all(one.weight == pytest.approx(1) and one.calls <= 2 for one in everything)
    nothing = awrs(p, lambda token: False, rng, version)
    assert (nothing.token, nothing.weight, nothing.calls) == (None, 0.0, 400)
    rare = np.full(400, (1 - 1e-6) / 399)
    rare[7] = 1e-6
    for _ in range(20):
        one = awrs(rare, {7}.__contains__, rng, version)
        assert one.token == 7
        assert np.isfinite(one.weight)
        assert one.weight > 0
        assert one.calls <= 400


def test_one_rare_token_has_its_own_mass_as_weight() -> None:
    rng = np.random.default_rng(1)
    for mass in (1e-3, 1e-9, 1e-15):
        p = np.append(np.full(300, (1 - mass) / 300), mass)
        assert recursive(p, {300}.__contains__, races(rng)).weight == pytest.approx(mass, rel=1e-9)


def test_a_token_is_tested_once() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(50, 0.3))
    for version in VERSIONS:
        for _ in range(50):
            asked: list[int] = []

            def test(token: int, asked: list[int] = asked) -> bool:
                asked.append(token)
                return token % 7 == 0

            drawn = awrs(p, test, rng, version)
            assert len(asked) == len(set(asked)) == drawn.calls


def test_race_and_batch_order_as_without_replacement() -> None:
    p, rng = np.array([0.5, 0.3, 0.2, 0.0]), np.random.default_rng(3)
    exact = {tuple(order._tokens.tolist()): probability for probability, order in all_orders(p)}
    batch = Batch(p, rng)
    for draw in (lambda: Race(p, rng), lambda: batch(p)):
        found = [tuple(order.token(i) for i in range(len(order))) for order in (draw() for _ in range(6000))]
        assert set(found) == set(exact)
        counts = [found.count(order) for order in exact]
        assert stats.chisquare(counts, np.array(list(exact.values())) * len(found)).pvalue > 1e-4


def test_partial_order_is_the_full_order() -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.full(2000, 0.1))
    race = Race(p, rng)
    full = race._support[np.argsort(race._times)]
    assert [race.token(i) for i in range(len(race))] == full.tolist()
    again = Race(p, np.random.default_rng(9))
    for place in (0, 5, 63, 64, 1500):
        tokens = [again.token(i) for i in range(place, len(again))]
        assert again.left(place) == pytest.approx(p[tokens].sum(), rel=1e-9)


def test_masking_asks_for_every_token_and_weighs_exactly() -> None:
    p, asked = np.array(EXAMPLES[0][0]), []
    drawn = masked(p, lambda token: asked.append(token) or token in {1, 3}, np.random.default_rng(0))
    assert asked == [0, 1, 2, 3, 4]
    assert (drawn.calls, drawn.weight) == (5, pytest.approx(0.3))
    assert masked(p, lambda token: False, np.random.default_rng(0)).token is None
    assert improper(p, lambda token: False, races(np.random.default_rng(0))).weight == 0


def test_library_is_unbiased_for_random_laws() -> None:
    result = run_once(AwrsWeights(), WeightEstimates(pairs=24, draws=1500)).metrics
    assert result["failures"] == 0
    assert result["law_failures"] == 0


def test_the_bound_finds_a_biased_estimator_and_no_event_that_is_too_rare() -> None:
    task = WeightEstimates(pairs=24, draws=1500)
    for version in ("improper", "recursive"):
        result = run_once(AwrsWeights(version=version), task).metrics  # type: ignore[arg-type]
        assert (result["outside_bound"] > 5) == (version == "improper")
    sure = [Pair(np.array([1 - 1e-7, 1e-7]), np.array([True, False]))]
    sums = WeightSums(*(np.array([one]) for one in (1.0, 1.0, 2.0)), 1500, [np.array([1500, 0])])
    assert task.score(sure, sums).metrics["outside_bound"] == 0
    assert task.score(sure, sums).metrics["failures"] == 1
    sums.mean, sums.square = np.array([0.98]), np.array([0.98**2])
    assert task.score(sure, sums).metrics["outside_bound"] == 1


@pytest.mark.parametrize("step", ["awrs", "masked"])
def test_sequence_weights_are_those_of_the_coin(step: str) -> None:
    language = FiniteLanguage(binary_language("binary_len_5_0"), BITS)
    context, rng = grammar_context(language), np.random.default_rng(6)
    draw = awrs if step == "awrs" else masked
    population = particles(fair_coin(5), context, draw, count=4000, threshold=0, limit=6, rng=rng)
    w = np.exp([one.log_weight for one in population])
    lone = np.array([one.tokens[:5] == (0,) * 5 for one in population])
    assert lone.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))
    assert abs(w.mean() - 17 / 32) < 4 * w.std() / np.sqrt(len(w))
    assert abs(w @ lone / len(w) - 1 / 32) < 4 * (w * lone).std() / np.sqrt(len(w))
    if step == "masked":
        assert w[lone] == pytest.approx(1 / 16)
        assert w[~lone] == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 5])
def test_mean_weight_of_populations_is_the_mass(count: int) -> None:
    language, rng = FiniteLanguage(binary_language("binary_len_5_0"), BITS), np.random.default_rng(7)
    model = random_bits(5, 0.6, np.random.default_rng(8))
    exact, cost = enumerate_language(model, language), Cost()
    means, share, strings = [], {}, 600
    for _ in range(strings):
        population = particles(
            model, grammar_context(language), awrs, count=count, threshold=0.5, limit=6, rng=rng, cost=cost
        )
        w = np.exp([one.log_weight for one in population])
        means.append(w.mean())
        for one, weight in zip(population, w, strict=True):
            share.setdefault(one.tokens, []).append(weight / count)
    assert abs(np.mean(means) - exact.mass) < 4 * np.std(means) / np.sqrt(strings)
    for string, log_p in zip(exact.strings, exact.log_p, strict=True):
        w = np.array(share.get(string, [0.0]))
        error = np.sqrt((w**2).sum()) / strings * 2
        assert abs(w.sum() / strings - np.exp(log_p)) < 4 * error + 0.004
    assert all(1 - 1e-9 <= ess <= count + 1e-9 or ess == 0 for ess in cost.ess)
    assert cost.calls <= 4 * cost.tokens  # V + 1 at most


def test_many_particles_draw_from_the_exact_law() -> None:
    method = prepared(AwrsStrings(particles=40), BitStringSampling(samples=120))
    strings = method.run().strings
    lone = sum(string[:5] == (0,) * 5 for string in strings)
    # Bias of a finite population is of order 1/N; local masking would give one half.
    assert stats.binomtest(lone, len(strings), 1 / 17).pvalue > 1e-4
    first = [string[1] for string in strings if string[0] == 1]
    assert stats.binomtest(sum(first), len(first), 0.5).pvalue > 1e-4


def test_one_improper_particle_is_local_masking() -> None:
    strings = (
        prepared(AwrsStrings(particles=1, version="improper"), BitStringSampling(samples=600)).run().strings
    )
    lone = sum(string[:5] == (0,) * 5 for string in strings)
    assert stats.binomtest(lone, len(strings), 0.5).pvalue > 1e-4


def test_effective_number() -> None:
    assert effective(np.log([1.0, 1.0, 1.0])) == pytest.approx(3)
    assert effective(np.array([0.0, -np.inf])) == pytest.approx(1)
    assert effective(np.array([-np.inf, -np.inf])) == 0
