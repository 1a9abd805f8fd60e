"""Tensor attention: exact of any order, the polynomial method, Monte-Carlo, Match3, and their tasks."""

from __future__ import annotations

import math
import sys
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import BadOutput, MissingPackage, RequestError
from harness.testing import prepared, run_once
from methods.attention.tensor_attention import exact as exact_module
from methods.attention.tensor_attention import matching, polynomial, tasks
from methods.attention.tensor_attention.exact import tensor_attention
from methods.attention.tensor_attention.method import (
    ExactTensorAttention,
    PolynomialEntryBound,
    PolynomialTensorAttention,
    SampledTensorAttention,
    TensorUnit,
    TrainedStandardAttention,
    TrainedTensorAttention,
)
from methods.attention.tensor_attention.polynomial import (
    Monomials,
    error_bound,
    least_degree,
    polynomial_attention,
    polynomial_sums,
)
from methods.attention.tensor_attention.sampled import sampled_attention
from methods.attention.tensor_attention.tasks import (
    EntryBound,
    TensorAttended,
    TensorAttention,
    TensorAttentionGradient,
    TripleMatching,
)
from tests.conftest import needs_data

Sets = tuple[Tensor, list[Tensor], list[Tensor]]


def sets(
    heads: int, n: int, d: int, order: int = 3, bound: float = 1.0, key_heads: int = 0, seed: int = 0
) -> Sets:
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int) -> Tensor:
        return (torch.rand(heads, n, d, generator=generator, dtype=torch.float64) * 2 - 1) * bound

    keys = [draw(key_heads or heads) for _ in range(order - 1)]
    return draw(heads), keys, [draw(key_heads or heads) / bound for _ in range(order - 1)]


def brute(q: Tensor, keys: list[Tensor], values: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """By the definition, over all combinations of keys."""
    group = len(q) // len(keys[0])
    keys, values = ([x.repeat_interleave(group, 0) for x in y] for y in (keys, values))
    combos = list(product(*(range(k.shape[1]) for k in keys)))
    key, value = (
        torch.stack(
            [math.prod((x[:, c] for x, c in zip(y, combo, strict=True)), start=1.0) for combo in combos], 1
        )
        for y in (keys, values)
    )
    scores = scale * q @ key.mT
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


# --- exact -----------------------------------------------------------------------------------------


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_worked_example():
    q, keys, values = column(1, 0), [column(1, 0), column(1, -1)], [column(1, 2), column(1, 3)]
    out = tensor_attention(q, keys, values, scale=1.0).out
    e = math.e
    assert float(out[0, 0, 0]) == pytest.approx((e + 3 / e + 2 + 6) / (e + 1 / e + 2), abs=1e-12)
    assert float(out[0, 0, 0]) == pytest.approx(2.324331, abs=1e-6)
    assert float(out[0, 1, 0]) == pytest.approx(3.0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    order=st.integers(2, 4),
    n=st.integers(1, 5),
    d=st.integers(1, 7),
    group=st.sampled_from([1, 2, 3]),
    bound=st.sampled_from([0.5, 3.0]),
    seed=st.integers(0, 2**16),
)
def test_exact_is_the_definition(order, n, d, group, bound, seed):
    q, keys, values = sets(2 * group, n, d, order, bound, key_heads=2, seed=seed)
    out, lse = tensor_attention(q, keys, values, scale=0.7)
    expected, sums = brute(q, keys, values, 0.7)
    assert torch.allclose(out, expected, atol=1e-12)
    assert torch.allclose(lse, sums, atol=1e-12)


def test_sets_of_keys_of_different_lengths_and_pieces_of_any_size(monkeypatch):
    q, keys, values = sets(2, 7, 3)
    keys[1], values[1] = keys[1][:, :4], values[1][:, :4]
    whole = tensor_attention(q, keys, values, scale=0.5)
    assert torch.allclose(whole.out, brute(q, keys, values, 0.5)[0], atol=1e-12)
    monkeypatch.setattr(exact_module, "_HELD", 1)
    assert torch.allclose(tensor_attention(q, keys, values, scale=0.5).out, whole.out, atol=1e-12)


@pytest.mark.parametrize("dims", [(5, 1), (2, 6)])
def test_values_of_another_dimension(dims):
    q, keys, _ = sets(1, 6, dims[0])
    _, _, values = sets(1, 6, dims[1])
    assert torch.allclose(tensor_attention(q, keys, values, scale=1.0).out, brute(q, keys, values, 1.0)[0])


@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_are_those_of_finite_differences(order):
    q, keys, values = sets(2, 3, 2, order, key_heads=1, bound=2.0)
    leaves = [x.requires_grad_() for x in (q, *keys, *values)]

    def out(q: Tensor, *rest: Tensor) -> Tensor:
        return tensor_attention(q, rest[: order - 1], rest[order - 1 :], scale=0.8).out

    assert torch.autograd.gradcheck(out, leaves)


@pytest.mark.parametrize("held", [1, 1 << 21])
def test_gradients_are_those_of_the_definition(held, monkeypatch):
    monkeypatch.setattr(exact_module, "_HELD", held)
    q, keys, values = sets(2, 6, 3, 3, key_heads=1)
    leaves = [x.requires_grad_() for x in (q, *keys, *values)]
    up = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(tensor_attention(q, keys, values, scale=0.5).out, leaves, up)
    expected = torch.autograd.grad(brute(q, keys, values, 0.5)[0], leaves, up)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


def test_with_a_second_set_of_ones_it_is_softmax_attention():
    q, keys, values = sets(2, 9, 4)
    ones = torch.ones_like(keys[1])
    out, lse = tensor_attention(q, [keys[0], ones], [values[0], ones], scale=0.5)
    scores = q @ keys[0].mT * 0.5
    assert torch.allclose(out, scores.softmax(-1) @ values[0], atol=1e-12)
    assert torch.allclose(lse, scores.logsumexp(-1) + math.log(9), atol=1e-12)


@pytest.mark.parametrize("attend", ["exact", "polynomial"])
def test_symmetries(attend):
    q, keys, values = sets(1, 8, 4)

    def out(keys: list[Tensor], values: list[Tensor]) -> Tensor:
        if attend == "exact":
            return tensor_attention(q, keys, values, scale=0.25).out
        return polynomial_attention(q, keys, values, degree=2, scale=0.25).out

    before = out(keys, values)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    permuted = out([keys[0][:, order], keys[1]], [values[0][:, order], values[1]])
    assert torch.allclose(permuted, before, atol=1e-12)
    assert torch.allclose(out(keys[::-1], values[::-1]), before, atol=1e-12)
    assert torch.allclose(out(keys, [3 * values[0], values[1]]), 3 * before, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("attend", ["exact", "polynomial"])
def test_lower_precision_forward_and_backward(attend, dtype, tolerance):
    q, keys, values = sets(2, 21, 8, bound=0.8)
    up = torch.ones_like(q)
    results = []
    for kind in (torch.float64, dtype):
        leaves = [x.detach().to(kind).requires_grad_() for x in (q, *keys, *values)]
        if attend == "exact":
            out = tensor_attention(leaves[0], leaves[1:3], leaves[3:], scale=1 / 8).out
        else:
            out = polynomial_attention(leaves[0], leaves[1:3], leaves[3:], degree=2, scale=1 / 8).out
        assert out.dtype == kind
        results.append((out, *torch.autograd.grad(out, leaves, up.to(kind))))
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two.double(), atol=tolerance, rtol=tolerance)


def test_shapes_that_do_not_fit():
    q, keys, values = sets(2, 5, 3)
    with pytest.raises(RequestError, match="as many sets"):
        tensor_attention(q, keys, values[:1], scale=1.0)
    with pytest.raises(RequestError, match="do not fit together"):
        tensor_attention(q, [keys[0], keys[1][..., :2]], values, scale=1.0)
    with pytest.raises(RequestError, match="do not fit together"):
        polynomial_sums(q, keys, [values[0], values[1][:, :3]], degree=2, scale=1.0)
    with pytest.raises(RequestError, match="not a multiple"):
        tensor_attention(q[:1], keys, values, scale=1.0)


# --- the polynomial method -------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(order=st.integers(2, 4), degree=st.integers(0, 5), d=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_sums_are_those_of_the_polynomial_over_all_combinations(order, degree, d, seed):
    q, keys, values = sets(2, 4, d, order, 2.0, seed=seed)
    combos = list(product(range(4), repeat=order - 1))
    key, value = (
        torch.stack(
            [math.prod((x[:, c] for x, c in zip(y, combo, strict=True)), start=1.0) for combo in combos], 1
        )
        for y in (keys, values)
    )
    scores = 0.6 * q @ key.mT
    p = sum(scores**t / math.factorial(t) for t in range(degree + 1)) * torch.ones_like(scores)
    found = polynomial_sums(q, keys, values, degree=degree, scale=0.6)
    assert torch.allclose(found.denominator, p.sum(-1), rtol=1e-9, atol=1e-9)
    assert torch.allclose(found.numerator, p @ value, rtol=1e-9, atol=1e-9)


def test_features_are_the_products_of_their_factors():
    monomials = Monomials(3, 4, 0.5)
    y = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([y, torch.ones(2, 5, 1)], -1)
    expected = padded[..., monomials.factors().long()].prod(-1).mT
    assert torch.allclose(monomials.features(y), expected)
    assert expected.shape[1] == monomials.count == len(set(map(tuple, monomials.factors().tolist())))


def test_number_of_features():
    assert Monomials(4, 8, 1.0).count == math.comb(12, 8) == 495
    assert Monomials(4, 2, 1.0).count == 15
    assert Monomials(6, 2, 1.0).count == 28


def test_a_high_degree_is_exact():
    q, keys, values = sets(1, 64, 4)
    found = polynomial_attention(q, keys, values, degree=8, scale=0.25)
    expected = tensor_attention(q, keys, values, scale=0.25)
    assert torch.allclose(found.out, expected.out, atol=1e-10)
    assert torch.allclose(found.lse, expected.lse, atol=1e-9)


def test_error_falls_with_the_degree_and_stays_under_its_bound():
    for bound in (0.5, 1.0, 1.5):
        q, keys, values = sets(1, 64, 4, bound=bound)
        exact = tensor_attention(q, keys, values, scale=0.25).out
        errors = [
            float((polynomial_attention(q, keys, values, degree=g, scale=0.25).out - exact).abs().max())
            for g in (2, 4, 8)
        ]
        assert errors == sorted(errors, reverse=True)
        for g, error in zip((2, 4, 8), errors, strict=True):
            relative = error_bound(bound**3, g)  # of every weight: the quotient is off by twice as much
            assert error <= 2 * relative / max(1e-300, 1 - relative) or relative >= 1


def test_degrees_of_the_bound():
    s = torch.linspace(-1.5, 1.5, 201, dtype=torch.float64)
    for g in (2, 4, 6):
        p = sum(s**t / math.factorial(t) for t in range(g + 1))
        assert float(((p - s.exp()) / s.exp()).abs().max()) <= error_bound(1.5, g)
    assert least_degree(0.0, 1e-3) == 0
    degrees = [least_degree(x, 1e-3) for x in (0.125, 1.0, 3.375)]
    assert degrees == sorted(degrees)
    assert least_degree(50.0, 1e-3, most=20) is None
    assert error_bound(1.0, degrees[1]) <= 1e-3 < error_bound(1.0, degrees[1] - 2)
    assert error_bound(500.0, 2) > 1e300


def test_even_degrees_are_positive_and_odd_ones_are_not():
    for seed in range(20):
        q, keys, values = sets(1, 16, 4, bound=3.0, seed=seed)
        assert (polynomial_sums(q, keys, values, degree=4, scale=0.25).denominator > 0).all()
    q, keys, values = (torch.full((1, 2, 1), -3.0), [torch.full((1, 2, 1), 1.0)] * 2, [torch.ones(1, 2, 1)] * 2)
    for degree in (1, 3):
        assert (polynomial_sums(q, keys, values, degree=degree, scale=1.0).denominator < 0).all()
        with pytest.raises(RequestError, match="even"):
            polynomial_attention(q, keys, values, degree=degree, scale=1.0)


def test_polynomial_gradients_and_pieces(monkeypatch):
    q, keys, values = sets(2, 5, 2, key_heads=1)
    leaves = [x.requires_grad_() for x in (q, *keys, *values)]

    def out(q: Tensor, *rest: Tensor) -> Tensor:
        return polynomial_attention(q, rest[:2], rest[2:], degree=4, scale=0.5).out

    assert torch.autograd.gradcheck(out, leaves)
    whole = out(*leaves)
    monkeypatch.setattr(polynomial, "_HELD", 1)
    assert torch.allclose(out(*leaves), whole, atol=1e-12)
    with pytest.raises(RequestError, match="no backward"):
        polynomial_attention(q, keys, values, degree=2, scale=1.0, kernel="triton")


def test_the_kernel_without_triton_is_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "methods.attention.tensor_attention.kernel", raising=False)
    monkeypatch.delattr("methods.attention.tensor_attention.kernel", raising=False)
    q, keys, values = sets(1, 4, 2)
    with pytest.raises(MissingPackage, match="triton"):
        polynomial_attention(q, keys, values, degree=2, scale=1.0, kernel="triton")


# --- Monte-Carlo -----------------------------------------------------------------------------------


def test_sampled_sums_are_unbiased():
    q, keys, values = sets(1, 6, 3, bound=1.5)
    exact = tensor_attention(q, keys, values, scale=1.0)
    estimates = torch.stack(
        [
            sampled_attention(
                q, keys, values, samples=8, scale=1.0, generator=torch.Generator().manual_seed(i)
            ).lse.exp()
            for i in range(600)
        ]
    )
    off = (estimates.mean(0) / exact.lse.exp() - 1).abs()
    assert (off < 4 * estimates.std(0) / exact.lse.exp() / 600**0.5).all()


def test_sampled_error_falls_with_samples():
    task = TensorAttention(length=32, bound=1.5)
    few, many = (run_once(SampledTensorAttention(samples=r), task).metrics for r in (16, 16384))
    assert many["max_error"] < 0.2 * few["max_error"]
    assert many["mass_error"] < 0.2 * few["mass_error"]


# --- the tasks -------------------------------------------------------------------------------------


def test_exact_attention_has_no_error_and_the_probe_finds_a_degree():
    task = TensorAttention(length=33, heads=4, key_heads=2, batch=2, head_dim=4, order=3)
    scores = run_once(ExactTensorAttention(), task).metrics
    assert max(scores["max_error"], scores["mass_error"]) < 1e-5
    assert 0.9 < scores["largest_entry"] <= 1.0
    assert scores["entry_threshold"] == pytest.approx(math.log(33) ** (1 / 3))
    degrees = [
        run_once(PolynomialTensorAttention(degree=0), TensorAttention(length=48, bound=b)).metrics[
            "used_degree"
        ]
        for b in (0.5, 1.5, 2.0, 3.0)
    ]
    assert degrees == sorted(degrees)
    assert degrees[0] == 2
    assert degrees[-1] == 12
    found = run_once(PolynomialTensorAttention(degree=0), TensorAttention(length=48, bound=1.5)).metrics
    assert found["max_error"] <= 1.1e-3
    assert found["features"] == math.comb(4 + int(found["used_degree"]), 4)
    assert found["proven_degree"] >= found["used_degree"]
    with pytest.raises(RequestError, match="must be even"):
        prepared(PolynomialTensorAttention(degree=3), task)
    with pytest.raises(RequestError, match="multiple of key_heads"):
        TensorAttention(heads=3, key_heads=2).load(0)


@pytest.mark.parametrize("order", [2, 3])
def test_gradient_task(order):
    task = TensorAttentionGradient(length=24, heads=2, order=order, inputs="clipped-gaussian")
    assert run_once(ExactTensorAttention(), task).metrics["gradient_error"] < 1e-5
    close = run_once(PolynomialTensorAttention(degree=8), task).metrics
    coarse = run_once(PolynomialTensorAttention(degree=2), task).metrics
    assert close["gradient_error"] < 1e-4 < coarse["gradient_error"]
    assert run_once(SampledTensorAttention(samples=64), task).metrics["gradient_error"] > 1e-2


def test_a_long_reference_is_a_polynomial_that_is_proven_to_be_close_or_one_exact_query(monkeypatch):
    monkeypatch.setattr(tasks, "_MANY", 1)
    for bound, rows in ((0.8, 40), (4.0, 1)):
        work = TensorAttention(length=40, bound=bound).load(0).to("cpu", torch.float64)
        assert tasks.largest_score(work) <= bound**3
        found = tasks.reference(work)
        assert found.out.shape == (1, rows, 4)
        exact = tensor_attention(work.q[:, work.rows[:rows]], work.keys, work.values, scale=0.25)
        assert torch.allclose(found.out, exact.out, atol=1e-9)
        assert torch.allclose(found.lse, exact.lse, atol=1e-9)
    assert run_once(ExactTensorAttention(), TensorAttention(length=40, bound=4.0)).metrics["max_error"] < 1e-5


def test_wrong_outputs_are_bad():
    task = TensorAttention(length=8)
    work = task.load(0)
    with pytest.raises(BadOutput, match="shape"):
        task.score(work, TensorAttended(work.q[:, :4], work.q[..., 0]))
    with pytest.raises(BadOutput, match="finite"):
        task.score(work, TensorAttended(work.q * torch.nan, work.q[..., 0]))
    gradient = TensorAttentionGradient(length=8)
    with pytest.raises(BadOutput, match="gradients"):
        gradient.score(work, TensorAttended(work.q, work.q[..., 0]))
    with pytest.raises(BadOutput, match="outputs"):
        EntryBound(steps=2).score([], [])
    matches, inputs = TripleMatching(), TripleMatching().load(0)
    with pytest.raises(BadOutput, match="not bool"):
        matches.score(inputs, torch.zeros(200, 8))


def test_entry_bound_is_the_first_failure():
    task = EntryBound(length=32, step=0.5, steps=6)
    result = run_once(PolynomialEntryBound(), task)
    errors = result.series["errors"].y
    assert result.metrics["largest_bound"] == 0.5 * sum(e <= 1e-3 for e in errors) == 1.5
    none = EntryBound(length=8, step=4.0, steps=1)
    assert run_once(PolynomialEntryBound(degree=2), none).metrics["largest_bound"] == 0.0


@pytest.mark.slow
@needs_data("gutenberg-novels")
def test_entries_of_a_language_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    task = TensorAttention(length=32, heads=2, head_dim=8, inputs="language-model", batch=2)
    work = task.load(0)
    assert work.q.shape == work.keys[1].shape == (4, 32, 8)
    assert not torch.equal(work.keys[0], work.keys[1])
    assert run_once(ExactTensorAttention(), task).metrics["max_error"] < 1e-4


# --- Match3 ----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(modulus=st.integers(2, 40), n=st.integers(1, 7), seed=st.integers(0, 2**16))
def test_labels_are_those_of_all_triples(modulus, n, seed):
    x = torch.randint(modulus, (3, n), generator=torch.Generator().manual_seed(seed))
    total = x[:, :, None, None] + x[:, None, :, None] + x[:, None, None, :]
    assert torch.equal(matching.labels(x, modulus), (total % modulus == 0).flatten(2).any(-1))


def test_construction_is_right_where_c_is_large_enough():
    x = torch.randint(61, (5, 6), generator=torch.Generator().manual_seed(0))
    q, (k1, k2), (v1, v2) = matching.construction(x, 61, 8.0)
    scores = torch.einsum("hil,hjl,hkl->hijk", q, k1, k2)
    total = x[:, :, None, None] + x[:, None, :, None] + x[:, None, None, :]
    assert torch.allclose(scores[:, :, 1:, 1:], 8 * torch.cos(2 * math.pi * total.double() / 61), atol=1e-9)
    assert torch.allclose(scores[:, :, 0, 0], torch.tensor(8 * math.cos(math.pi / 61), dtype=torch.float64))
    assert v1[:, 0].abs().max() == 0
    assert (v2 == 1).all()
    for length, modulus in ((12, 17), (8, 61), (24, 61)):
        c = matching.sufficient_score(length, modulus)
        task = TripleMatching(length=length, modulus=modulus, test_inputs=50)
        scores = run_once(TensorUnit(c=1.001 * c), task).metrics
        assert scores["accuracy"] == 1.0
        assert scores["input_accuracy"] == 1.0
        assert scores["largest_entry"] == pytest.approx((1.001 * c) ** (1 / 3))
    assert run_once(TensorUnit(c=10.0), task).metrics["accuracy"] < 1.0


def test_layer_of_order_2_is_multi_head_attention():
    torch.manual_seed(0)
    layer = matching.TensorAttentionLayer(6, 8, 5, order=2, heads=2).double()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    q, k, v = (m(x).view(3, 7, 2, 4).transpose(1, 2) for m in (layer.query, layer.keys[0], layer.values[0]))
    expected = layer.output(
        torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    )
    assert torch.allclose(layer(x), expected, atol=1e-10)
    assert sum(isinstance(m, torch.nn.Linear) for m in layer.modules()) == 4
    third = matching.TensorAttentionLayer(6, 8, 5, order=3, heads=2)
    assert sum(isinstance(m, torch.nn.Linear) for m in third.modules()) == 6
    with pytest.raises(ValueError, match="multiple"):
        matching.TensorAttentionLayer(6, 9, 5, heads=2)


@pytest.mark.parametrize("kind", [TrainedStandardAttention, TrainedTensorAttention])
def test_training_learns_something_and_repeats_itself(kind):
    task = TripleMatching(length=4, modulus=7, test_inputs=100)
    method = prepared(kind(steps=60, batch=64, readout=32), task)
    one, two = method.run(), method.run()
    assert torch.equal(one, two)
    result = method.measure(one)
    losses = result.series["loss"].y
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
