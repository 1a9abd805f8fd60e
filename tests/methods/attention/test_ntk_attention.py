"""NTK-Attention: its features, its arithmetic, its gradients and its tangent kernel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.attention.ntk_attention.algorithm import State, from_prefix, initial, ntk_attention
from methods.attention.ntk_attention.features import count, elu1, taylor
from methods.attention.ntk_attention.theory import Regression, attend_to, infinite_kernel, tangent_kernel


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(batch: int, heads: int, length: int, d: int) -> list[Tensor]:
    return [normal(batch, heads, length, d, seed=s) for s in range(3)]


def state(heads: int, features: int, d: int, seed: int = 5) -> State:
    return State(normal(heads, features, d, seed=seed), normal(heads, features, seed=seed + 1))


def as_written(q: Tensor, k: Tensor, v: Tensor, s: State, causal: bool = False) -> Tensor:
    """The paper's two lines: the row maximum, exponentials under the mask, and the prefix scaled with them."""
    a = q @ k.mT / math.sqrt(q.shape[-1])
    mx = a.amax(-1, keepdim=True)
    e = torch.exp(a - mx)
    if causal:
        e = e * torch.ones(a.shape[-2:], dtype=a.dtype).tril()
    f = torch.nn.functional.elu(q * q.shape[-1] ** -0.25) + 1
    d = e.sum(-1, keepdim=True) + torch.exp(-mx) * (f @ s.k.abs()[..., None])
    return (e @ v + torch.exp(-mx) * (f @ s.z)) / d


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    a = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        a = a.masked_fill(torch.ones(a.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return a.softmax(-1) @ v


def attend(q: Tensor, k: Tensor, v: Tensor, s: State, **options: object) -> Tensor:
    return ntk_attention(q, k, v, s, scale=q.shape[-1] ** -0.5, **options).out  # type: ignore[arg-type]


# --- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [1, 3, 5])
def test_taylor_features_multiply_to_the_series_of_exp(dim, degree):
    x, y = normal(7, dim), normal(7, dim, seed=1)
    product = (taylor(x, degree) * taylor(y, degree)).sum(-1)
    dot = (x * y).sum(-1)
    assert torch.allclose(product, sum(dot**j / math.factorial(j) for j in range(degree + 1)), atol=1e-12)
    assert taylor(x, degree).shape[-1] == count(dim, "taylor", degree) == math.comb(dim + degree, degree)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.sampled_from([2, 4]))
def test_weights_are_positive(values, degree):
    x = torch.tensor(values, dtype=torch.float64)
    assert (elu1(x) > 0).all()
    assert float(taylor(x, degree) @ taylor(-x, degree)) > 0


def test_numbers_of_parameters():
    assert count(64, "elu1") == 64
    assert count(64, "taylor", 2) == 2145
    a_layer = sum(x.numel() for x in initial(12, 64, 64, torch.Generator()))
    assert a_layer == 49_920
    assert 12 * a_layer == 599_040


# --- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_as_the_paper_writes_it(causal, length):
    x, s = qkv(2, 3, length, 8), state(3, 8, 8)
    assert torch.allclose(attend(*x, s, causal=causal), as_written(*x, s, causal), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_state_is_softmax_attention(causal, dtype):
    x = [t.to(dtype) for t in qkv(2, 2, 33, 16)]
    s = State(torch.zeros(2, 16, 16, dtype=dtype), torch.zeros(2, 16, dtype=dtype))
    assert torch.allclose(attend(*x, s, causal=causal), softmax_attention(*x, causal), atol=1e-6)


@pytest.mark.parametrize("k", [2.0, -2.0])
def test_worked_example(k):
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    s = State(torch.full((1, 1, 1), 3.0), torch.full((1, 1), k))
    assert float(attend(zero, zero, one, s)) == pytest.approx(4 / 3)


def test_linear_in_z_and_dominated_by_a_large_k():
    x, one, two = qkv(1, 2, 9, 4), state(2, 4, 4), state(2, 4, 4, seed=8)
    k = one.k
    none, first, second, both = (attend(*x, State(z, k)) for z in (0 * one.z, one.z, two.z, one.z + two.z))
    assert torch.allclose(both - first, second - none, atol=1e-12)
    c = normal(2, 4, seed=20)
    heavy = 1e9 * k.abs()
    far = attend(*x, State(heavy[..., None] * c[:, None], heavy))
    assert torch.allclose(far, c[None, :, None].expand_as(far), atol=1e-6)


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_scores_of_any_size_are_finite(shift):
    q, k, v = (x.float() for x in qkv(1, 1, 6, 4))
    k = k + shift * q.mean((0, 1, 2)) / q.mean((0, 1, 2)).square().sum()
    for s in (state(1, 4, 4), State(torch.zeros(1, 4, 4), torch.zeros(1, 4))):
        out, lse = ntk_attention(q, k, v, State(*(t.float() for t in s)), scale=0.5)
        assert out.isfinite().all()
        assert lse.isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_taylor_features_of_a_prefix_approach_it_as_the_degree_grows(scale):
    q, k, v = qkv(1, 1, 12, 16)
    keys, values = normal(1, 1024, 16, seed=7), normal(1, 1024, 16, seed=8)
    q, k, keys = (scale * x for x in (q, k, keys))
    exact = softmax_attention(q, torch.cat([keys[None], k], 2), torch.cat([values[None], v], 2))
    errors = []
    for degree in (1, 2, 3, 4):
        made = from_prefix(keys, values, phi="taylor", degree=degree, scale=0.25)
        found = attend(q, k, v, made, phi="taylor", degree=degree)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    if scale == 0.5:
        assert errors[1] < 0.02
        assert errors[3] < 0.002


@settings(max_examples=20, deadline=None)
@given(copies=st.integers(1, 5000), degree=st.sampled_from([2, 4]), seed=st.integers(0, 99))
def test_copies_of_a_position_are_its_state_that_often(copies, degree, seed):
    keys, values = normal(1, 1, 4, seed=seed), normal(1, 1, 4, seed=seed + 1)
    many, one = (
        from_prefix(keys.expand(1, m, 4), values.expand(1, m, 4), phi="taylor", degree=degree, scale=0.5)
        for m in (copies, 1)
    )
    assert torch.allclose(many.z, copies * one.z)
    x = [0.3 * t for t in qkv(1, 1, 5, 4)]
    exact = softmax_attention(
        x[0],
        torch.cat([keys.expand(1, 1, copies, 4), x[1]], 2),
        torch.cat([values.expand(1, 1, copies, 4), x[2]], 2),
    )
    found = attend(*x, many, phi="taylor", degree=degree)
    assert torch.allclose(found, exact, atol=0.4 if degree == 2 else 0.05)


def test_grouped_heads_are_repeated_heads():
    q, (k, v) = normal(2, 6, 7, 8), (normal(2, 2, 7, 8, seed=s) for s in (1, 2))
    s = state(6, 8, 8)
    repeated = attend(q, *(x.repeat_interleave(3, 1) for x in (k, v)), s)
    assert torch.allclose(attend(q, k, v, s), repeated)
    with pytest.raises(ValueError, match="no multiple"):
        attend(q[:, :5], k, v, s)


def test_half_precision_keeps_the_state_in_single():
    x, s = qkv(2, 2, 33, 16), state(2, 16, 16)
    coarse = attend(*(t.bfloat16() for t in x), State(*(t.float() for t in s)))
    assert coarse.dtype == torch.bfloat16
    assert torch.allclose(coarse.double(), as_written(*x, s), atol=0.05)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("phi", ["elu1", "taylor"])
def test_gradients_in_float64(causal, phi):
    features = count(3, phi, 2)
    s = State(normal(2, features, 3, seed=5), normal(2, features, seed=6).abs() + 0.1)
    inputs = [x.requires_grad_() for x in (*qkv(2, 2, 5, 3), *s)]

    def function(q: Tensor, k: Tensor, v: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        return attend(q, k, v, State(z, weight), phi=phi, degree=2, causal=causal)

    assert torch.autograd.gradcheck(function, inputs)


def test_gradients_are_those_of_the_paper_s_lines():
    x, s = qkv(2, 3, 20, 8), state(3, 8, 8)
    leaves = [t.requires_grad_() for t in (*x, *s)]
    up = normal(2, 3, 20, 8, seed=40)
    one = torch.autograd.grad(attend(*x, s, causal=True), leaves, up)
    two = torch.autograd.grad(as_written(*x, s, causal=True), leaves, up)
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize(("start", "moves"), [("zeros", False), ("small", True), ("normal", True)])
def test_k_has_no_gradient_at_zero(start, moves):
    s = initial(2, 4, 4, torch.Generator().manual_seed(0), start)
    for x in s:
        x.requires_grad_()
    q, k, v = (x.float() for x in qkv(1, 2, 6, 4))
    attend(q, k, v, s).square().sum().backward()
    assert (s.k.grad.abs().max() > 0) == moves
    assert s.z.grad.abs().max() > 0


# --- the tangent kernel --------------------------------------------------------------------------


def regression(n: int = 4, d: int = 3, size: float = 1.0) -> Regression:
    w = [normal(d, d, seed=s) / d**0.5 for s in (3, 4, 5)]
    return Regression(size * normal(n, d), normal(n, d, seed=1), *w)


def test_tangent_kernel_is_that_of_autograd():
    work, prefix = regression(), normal(6, 3, seed=9)
    jacobian = torch.autograd.functional.jacobian(lambda p: attend_to(p, work), prefix).reshape(12, 18)
    assert torch.allclose(tangent_kernel(prefix, work), jacobian @ jacobian.T, atol=1e-12)


def test_tangent_kernel_concentrates_at_its_closed_form():
    # Weights exp(kappa . P) have light tails only for small inputs, and so has the average over them.
    work = regression(size=0.3)
    limit = infinite_kernel(work)
    assert torch.linalg.eigvalsh(limit)[0] > 0

    def distance(m: int) -> float:
        draws = [m * tangent_kernel(normal(m, 3, seed=s), work) for s in range(100, 108)]
        return float(torch.stack([(h - limit).norm() / limit.norm() for h in draws]).mean())

    near, far = distance(20_000), distance(200)
    assert near < 0.1
    assert 4 < far / near < 25  # 10 as 1 / sqrt(m)


def test_gradient_descent_follows_the_kernel():
    """One small step changes F by -rate * H (F - y)."""
    work, prefix = regression(), normal(50, 3, seed=9).requires_grad_()
    before = attend_to(prefix, work)
    (gradient,) = torch.autograd.grad(0.5 * (before - work.y).square().sum(), prefix)
    after = attend_to(prefix.detach() - 1e-6 * gradient, work)
    expected = -1e-6 * (tangent_kernel(prefix.detach(), work) @ (before - work.y).flatten())
    assert torch.allclose((after - before).flatten(), expected, rtol=1e-4, atol=1e-12)
