"""The gradient of the multilinear extension against closed forms, all subsets, autograd and the library's form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from harness.errors import BadOutput
from harness.testing import prepared, run_once
from methods.retrieval.data_importance import approximation, recursions, references
from methods.retrieval.data_importance.baselines import (
    AutogradGradient,
    BoundaryGradient,
    LeaveOneOutImportance,
    SourceAccuracy,
    SubsetEnumeration,
)
from methods.retrieval.data_importance.method import (
    ExactGradient,
    ImportanceAscent,
    ImportanceAscentApproximate,
    ImportanceAscentTorch,
    LearnedImportance,
)
from methods.retrieval.data_importance.retrievals import Retrievals
from methods.retrieval.data_importance.tasks import (
    Ascent,
    ImportanceGradient,
    MultilinearGradient,
    SourceQuality,
)

TOY = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])[:, None]
FORMS = [
    references.subset_gradients,
    references.autograd_gradients,
    references.value_gradients,
    references.boundary_gradients,
]


def questions(rows: int, items: int, seed: int, sources: int | None = None) -> Retrievals:
    draw = np.random.default_rng(seed)
    count = sources or items
    order = np.stack([draw.permutation(count)[:items] for _ in range(rows)])
    return Retrievals(order, draw.integers(0, 101, (rows, items)) / 100, count)


# -- one question -----------------------------------------------------------------------------------------


def test_toy_value_and_gradient() -> None:
    value, gradient = recursions.item_gradients(np.full_like(TOY, 0.5), TOY, 3)
    assert value[0] == pytest.approx(0.59375, abs=1e-15)
    expected = [11 / 48, 11 / 48, -5 / 48, 11 / 48, 11 / 48, 0.0]
    np.testing.assert_allclose(gradient[:, 0], expected, atol=1e-15)
    np.testing.assert_allclose(
        references.subset_gradients(np.full_like(TOY, 0.5), TOY, 3)[:, 0], expected, atol=1e-15
    )


@given(st.integers(1, 9), st.integers(1, 10), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_all_forms_agree(items: int, places: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    p = draw.choice([0.0, 1.0, -1.0], (items, 4), p=[0.1, 0.1, 0.8])
    p = np.where(p < 0, draw.random(p.shape), p)  # probabilities of 0 and 1 among them
    u = draw.integers(0, 101, p.shape) / 100
    _, gradient = recursions.item_gradients(p, u, places)
    for form in FORMS:
        np.testing.assert_allclose(gradient, form(p, u, places), atol=1e-12, err_msg=form.__name__)


def test_value_is_the_expected_utility_over_all_subsets() -> None:
    draw = np.random.default_rng(3)
    p, u, places = draw.random((7, 5)), draw.random((7, 5)), 3
    expected = np.zeros(5)
    for subset in range(2**7):
        exists = np.array([subset >> i & 1 for i in range(7)], dtype=bool)
        seen = np.flatnonzero(exists)[:places]
        expected += np.prod(np.where(exists[:, None], p, 1 - p), axis=0) * u[seen].sum(axis=0) / places
    np.testing.assert_allclose(recursions.item_gradients(p, u, places)[0], expected, atol=1e-14)


@pytest.mark.parametrize("form", [references.boundary_gradients, references.autograd_gradients])
def test_long_lists_agree_with_the_plain_recursion(form: object) -> None:
    draw = np.random.default_rng(5)
    p, u = draw.random((60, 6)), draw.integers(0, 3, (60, 6)) / 2
    expected = references.value_gradients(p, u, 11)
    np.testing.assert_allclose(recursions.item_gradients(p, u, 11)[1], expected, atol=1e-13)
    np.testing.assert_allclose(form(p, u, 11), expected, atol=1e-13)  # type: ignore[operator]


@pytest.mark.parametrize("places", [5, 6, 20])
def test_without_competition_the_gradient_is_the_share(places: int) -> None:
    draw = np.random.default_rng(1)
    p, u = draw.random((5, 8)), draw.random((5, 8))
    np.testing.assert_allclose(recursions.item_gradients(p, u, places)[1], u / places, atol=1e-15)


def test_one_place() -> None:
    draw = np.random.default_rng(2)
    p, u = draw.random((6, 1)), draw.random((6, 1))
    expected = []
    for i in range(6):
        later, free = 0.0, 1.0
        for j in range(i + 1, 6):
            later += free * p[j, 0] * u[j, 0]
            free *= 1 - p[j, 0]
        expected.append(np.prod(1 - p[:i, 0]) * (u[i, 0] - later))
    np.testing.assert_allclose(recursions.item_gradients(p, u, 1)[1][:, 0], expected, atol=1e-15)


@given(st.integers(2, 8), st.integers(1, 8), st.floats(0.01, 1), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_equal_utilities(items: int, places: int, c: float, seed: int) -> None:
    p = np.random.default_rng(seed).random((items, 1))
    _, gradient = recursions.item_gradients(p, np.full_like(p, c), places)
    for i in range(items):
        others = np.delete(p[:, 0], i)
        exist = np.array([1.0])  # distribution of the number of others that exist
        for q in others:
            exist = np.convolve(exist, [1 - q, q])
        assert gradient[i, 0] == pytest.approx(c / places * exist[:places].sum(), abs=1e-13)


def test_certain_sources_leave_nothing_for_later_ranks() -> None:
    ones = np.ones((8, 1))
    _, gradient = recursions.item_gradients(ones, ones, 3)
    np.testing.assert_array_equal(gradient[3:], 0.0)


def test_padding_is_exact() -> None:
    draw = np.random.default_rng(4)
    p, u = draw.random((6, 3)), draw.random((6, 3))
    nothing = np.zeros((4, 3))
    value, gradient = recursions.item_gradients(p, u, 3)
    padded_value, padded = recursions.item_gradients(
        np.concatenate([p, nothing]), np.concatenate([u, nothing]), 3
    )
    np.testing.assert_array_equal(padded_value, value)
    np.testing.assert_array_equal(padded[:6], gradient)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        recursions.item_gradients(np.ones((3, 2)), np.ones((3, 1)), 2)


def test_too_many_subsets_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        references.subset_gradients(np.ones((21, 1)), np.ones((21, 1)), 2)


# -- many questions ---------------------------------------------------------------------------------------


def test_gradient_per_source_adds_up_items_of_the_same_source() -> None:
    sources = np.array([[0, 1, 0, 2], [2, 2, 1, 3]])  # 3 pads
    u = np.array([[1, 0, 1, 1], [0, 1, 1, 0]])
    v = np.array([0.3, 0.6, 0.9])
    value, gradient = recursions.source_gradient(Retrievals(sources, u, 3), v, 2, chunk=1)
    expected, mean = np.zeros(4), 0.0
    for row in range(2):
        p = np.append(v, 0.0)[sources[row]][:, None]
        items = references.subset_gradients(p, u[row].astype(float)[:, None], 2)[:, 0]
        np.add.at(expected, sources[row], items / 2)
        mean += recursions.item_gradients(p, u[row].astype(float)[:, None], 2)[0][0] / 2
    np.testing.assert_allclose(gradient, expected[:3], atol=1e-15)
    assert value == pytest.approx(mean)
    assert recursions.utility(Retrievals(sources, u, 3), v, 2, chunk=1) == pytest.approx(mean)


@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (7, 1), (7, 3), (100, 2)])
def test_batches_and_threads_change_nothing(chunk: int, threads: int) -> None:
    asked = questions(40, 12, seed=6)
    v = np.random.default_rng(0).random(12)
    value, expected = recursions.source_gradient(asked, v, 4)
    other, gradient = recursions.source_gradient(asked, v, 4, chunk=chunk, threads=threads)
    assert other == pytest.approx(value, abs=1e-14)
    np.testing.assert_allclose(gradient, expected, atol=1e-15)


def test_repeating_the_questions_changes_nothing() -> None:
    asked = questions(30, 10, seed=7)
    twice = asked.rows(np.tile(np.arange(30), 2))
    v = np.random.default_rng(1).random(10)
    np.testing.assert_allclose(
        recursions.source_gradient(twice, v, 3)[1], recursions.source_gradient(asked, v, 3)[1], atol=1e-15
    )


def test_gradient_is_the_derivative_of_the_utility() -> None:
    asked = questions(20, 8, seed=8)
    v = np.random.default_rng(2).uniform(0.1, 0.9, 8)
    _, gradient = recursions.source_gradient(asked, v, 3)
    for s in range(8):
        step = np.eye(8)[s] * 1e-6
        slope = recursions.utility(asked, v + step, 3) - recursions.utility(asked, v - step, 3)
        assert gradient[s] == pytest.approx(slope / 2e-6, abs=1e-8)


def test_toy_ascent() -> None:
    toy = Retrievals(np.arange(6)[None], TOY.T, 6)
    v = recursions.ascend(toy, 3, rate=0.1, steps=3)
    assert (v[[0, 1, 3, 4]] > 0.5).all()
    assert v[2] < 0.5
    assert v[5] == 0.5
    grouped = recursions.ascend(toy, 3, rate=0.1, steps=3, groups=np.array([0, 1, 2, 1, 0, 2]))
    np.testing.assert_array_equal(grouped[[0, 1, 2]], grouped[[4, 3, 5]])
    assert grouped[0] > 0.5 > grouped[2]


def test_small_steps_never_lower_the_utility() -> None:
    asked = questions(50, 15, seed=9)
    before = -1.0
    for steps in range(1, 25):
        v = recursions.ascend(asked, 4, rate=0.05, steps=steps)
        after = recursions.utility(asked, v, 4)
        assert after >= before - 1e-15
        before = after


def test_ascent_stays_in_the_box_and_reaches_the_best_of_two() -> None:
    asked = Retrievals(np.array([[0, 1]]), np.array([[0.0, 1.0]]), 2)
    v = recursions.ascend(asked, 1, rate=1.0, steps=50)
    np.testing.assert_array_equal(v, [0.0, 1.0])


# -- truncation and sampling ------------------------------------------------------------------------------


def test_bound_of_ignored_items() -> None:
    assert approximation.ignored_bound(20, 0.5, 10) == pytest.approx(0.0411901, abs=1e-7)
    assert approximation.ignored_bound(40, 0.5, 10) == pytest.approx(3.39774e-05, rel=1e-5)
    u = np.ones((21, 1))
    _, gradient = recursions.item_gradients(np.full_like(u, 0.5), u, 10)
    assert gradient[20, 0] == pytest.approx(approximation.ignored_bound(20, 0.5, 10), abs=1e-15)


@pytest.mark.parametrize("depth", [20, 25, 30, 40])
def test_an_item_that_is_looked_at_can_change_by_more(depth: int) -> None:
    """Only what lies beyond T is right: an item at rank 1 then loses (1/K) Pr[Bin(T - 1, p) < K]."""
    items, places = 300, 10
    u = np.zeros((items, 1))
    u[depth:] = 1.0
    p = np.full_like(u, 0.5)
    full = recursions.item_gradients(p, u, places)[1]
    short = recursions.item_gradients(p[:depth], u[:depth], places)[1]
    worst = np.abs(full[:depth] - short).max()
    assert worst > approximation.ignored_bound(depth, 0.5, places) + 1e-7
    assert worst == pytest.approx(approximation.truncation_bound(depth, 0.5, places), rel=1e-9)


@given(st.integers(1, 6), st.integers(1, 14), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_truncation_stays_within_its_bound(places: int, depth: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    p, u = draw.uniform(0.4, 1.0, (15, 3)), draw.random((15, 3))
    full = recursions.item_gradients(p, u, places)[1]
    short = recursions.item_gradients(p[:depth], u[:depth], places)[1]
    bound = approximation.truncation_bound(depth, float(p.min()), places)
    assert np.abs(full[:depth] - short).max() <= bound + 1e-12
    assert np.abs(full[depth:]).max() <= approximation.ignored_bound(depth, float(p.min()), places) + 1e-12


def test_depth_is_the_smallest_that_will_do() -> None:
    depth = approximation.truncation_depth(0.01, 0.5, 10, 50)
    assert binom.cdf(9, depth - 1, 0.5) / 10 <= 0.005 < binom.cdf(9, depth - 2, 0.5) / 10
    assert approximation.truncation_depth(0.01, 0.0, 10, 50) == 50


def test_sample_size_is_hoeffdings() -> None:
    n = approximation.sample_size(0.02, 0.05, 1.0)
    assert 2 * np.exp(-2 * n * 0.01**2) <= 0.05 < 2 * np.exp(-2 * (n - 1) * 0.01**2)
    assert approximation.sample_size(0.02, 0.05, 0.2) == pytest.approx(n / 25, abs=1)


def test_approximation_keeps_its_promise_and_is_an_approximation() -> None:
    task = ImportanceGradient(questions=6000, retrieved=20, sources=20, votes=2, correct=0.5, quality="mixed")
    method = ImportanceAscentApproximate(eps=0.04, repetitions=50)
    result = run_once(method, task)
    assert result.metrics["samples"] == approximation.sample_size(0.04, 0.05, 1.0) < 6000
    assert result.metrics["depth"] < 20
    assert result.metrics["largest_gradient"] > 0.04  # estimating nothing would not do
    assert result.metrics["within_entry"] >= 0.95
    assert 0 < result.metrics["max_error"] <= 0.04


def test_approximation_of_everything_is_exact() -> None:
    task = ImportanceGradient(questions=100, retrieved=10, sources=30, votes=3)
    result = run_once(ImportanceAscentApproximate(samples=100, depth=10, repetitions=2), task)
    assert result.metrics["max_error"] == 0.0
    assert result.metrics["within_all"] == 1.0


def test_runs_repeat() -> None:
    task = ImportanceGradient(questions=500, retrieved=10, sources=10, votes=2, steps=3)
    method = prepared(ImportanceAscentApproximate(samples=50), task)
    first, second = method.run(), method.run()
    np.testing.assert_array_equal(first.v, second.v)
    assert not np.array_equal(method.estimate(first.v, np.random.default_rng(0)), first.gradient)


# -- methods on their tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("votes", [1, 4, 30])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_torch_ascends_alike(votes: int, dtype: str) -> None:
    task = ImportanceGradient(questions=300, retrieved=20, sources=50, votes=votes, steps=4, rate=5.0)
    exact = prepared(ImportanceAscent(chunk=64), task).run()
    other = prepared(ImportanceAscentTorch(dtype=dtype, chunk=100), task).run()  # type: ignore[arg-type]
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(other.gradient, exact.gradient, atol=tolerance)
    np.testing.assert_allclose(other.v, exact.v, atol=tolerance * 1e3)
    assert np.abs(exact.v - 0.5).max() > 0.01


@pytest.mark.parametrize(
    "method", [ExactGradient(chunk=5), SubsetEnumeration(), BoundaryGradient(), AutogradGradient()]
)
def test_gradient_methods_are_exact(method: object) -> None:
    result = run_once(method, MultilinearGradient(retrieved=9, votes=4, utilities="graded"))  # type: ignore[arg-type]
    assert result.metrics["max_error"] < 1e-12


def test_terms_count_tables_and_subsets() -> None:
    task = MultilinearGradient(retrieved=10, votes=3)
    assert run_once(ExactGradient(), task).metrics["terms"] == 60
    assert run_once(SubsetEnumeration(), task).metrics["terms"] == 1024


def test_learned_importance_ranks_planted_quality() -> None:
    found = [run_once(LearnedImportance(), SourceQuality(), seed=s).metrics["spearman"] for s in (1, 2, 3)]
    assert min(found) >= 0.6


def test_other_importances_attempt_it_too() -> None:
    for method in (LeaveOneOutImportance(), SourceAccuracy()):
        assert run_once(method, SourceQuality()).metrics["spearman"] > 0.3


def test_work_is_drawn_without_replacement_and_repeats() -> None:
    task = ImportanceGradient(questions=3000, retrieved=30, sources=40, quality="mixed", correct=0.5)
    work, again = task.load(1), task.load(1)
    np.testing.assert_array_equal(work.sources, again.sources)
    np.testing.assert_array_equal(work.utilities, again.utilities)
    assert (np.diff(np.sort(work.sources, axis=1), axis=1) > 0).all()
    first = np.bincount(work.sources[:, 0], minlength=40)
    assert first.min() > 0.5 * first.mean()  # every source may be ranked first
    shares = [work.utilities[work.sources == s].mean() for s in (0, 39)]
    assert shares == [0.0, 1.0]


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="sources"):
        ImportanceGradient(retrieved=20, sources=10)
    with pytest.raises(ValueError, match="no probability"):
        ImportanceGradient(correct=0.6, quality="mixed")
    with pytest.raises(ValueError, match="sources"):
        SourceQuality(retrieved=20, sources=10)
    with pytest.raises(ValueError, match="below 1"):
        ImportanceAscentApproximate(delta=1.0)
    with pytest.raises(ValueError, match="'range'"):
        prepared(ImportanceAscentApproximate(), ImportanceGradient(questions=2, votes=1))
    with pytest.raises(ValueError, match="too many"):
        prepared(SubsetEnumeration(), MultilinearGradient(retrieved=21))


def test_outputs_of_the_wrong_shape_are_refused() -> None:
    task = ImportanceGradient(questions=10, retrieved=5, sources=10)
    with pytest.raises(BadOutput):
        task.score(task.load(0), Ascent(np.zeros(9), np.zeros(10)))
    with pytest.raises(BadOutput):
        MultilinearGradient().score(MultilinearGradient().load(0), np.zeros((3, 3)))
    with pytest.raises(BadOutput):
        SourceQuality().score(SourceQuality().load(0), np.full(50, np.nan))
