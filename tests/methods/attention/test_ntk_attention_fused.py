"""The Triton kernel of NTK-Attention, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from methods.attention.ntk_attention.algorithm import State, ntk_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.ntk_attention import fused  # noqa: E402


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("dtype", "heads", "key_heads", "length", "dim"),
    [
        (torch.float32, 1, 1, 64, 16),
        (torch.float32, 2, 1, 77, 24),
        (torch.float32, 1, 1, 130, 16),
        (torch.float16, 2, 1, 77, 24),
    ],
)
def test_the_kernel_against_float64(dtype, causal, heads, key_heads, length, dim):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads, length, dim, generator=generator).to(DEVICE, dtype)
    k, v = torch.randn(2, 2, key_heads, length, dim, generator=generator).to(DEVICE, dtype)
    state = State(
        torch.randn(heads, dim, dim, generator=generator), torch.randn(heads, dim, generator=generator)
    )
    state = State(*(x.to(DEVICE) for x in state))
    with torch.no_grad():
        options = {"scale": dim**-0.5, "causal": causal}
        found = ntk_attention(q, k, v, state, kernel=fused.attend, **options)
        wide = [x.cpu().double() for x in (q, k, v)]
        exact = ntk_attention(*wide, State(*(x.cpu().double() for x in state)), **options)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    assert found.out.dtype == dtype
    assert torch.allclose(found.out.cpu().double(), exact.out, atol=tolerance, rtol=tolerance)
    assert torch.allclose(found.lse.cpu().double(), exact.lse, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("k", [0.0, 1.0])
def test_without_a_prefix_and_with_one_that_weighs_nothing(k):
    """Z = 0 and k = 0 is softmax attention, also where all scores are far below 0."""
    q = torch.full((1, 1, 16, 16), 20.0, device=DEVICE)
    keys, v = -q, torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    state = State(torch.zeros(1, 16, 16, device=DEVICE), torch.full((1, 16), k, device=DEVICE))
    with torch.no_grad():
        out = ntk_attention(q, keys, v, state, scale=0.25, kernel=fused.attend).out
    expected = v.mean(2, keepdim=True).expand_as(v) if k == 0 else torch.zeros_like(v)
    assert torch.allclose(out, expected, atol=1e-5)


def test_gradients_through_the_kernel():
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(2, 2, 20, 16, generator=generator).to(DEVICE) for _ in range(3)]
    state = [torch.randn(s, generator=generator).to(DEVICE) for s in ((2, 16, 16), (2, 16))]
    leaves = [t.requires_grad_() for t in (*x, *state)]
    results = []
    for options in ({}, {"kernel": fused.attend}):
        out = ntk_attention(*leaves[:3], State(*leaves[3:]), scale=0.25, causal=True, **options).out
        results.append(torch.autograd.grad(out.square().sum(), leaves))
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, atol=1e-4, rtol=1e-4)


def test_what_the_kernel_does_not_compute():
    x = torch.randn(1, 1, 4, 4)
    state = State(torch.zeros(1, 15, 4), torch.zeros(1, 15))
    with pytest.raises(ValueError, match="elu1"):
        ntk_attention(x, x, x, state, scale=1.0, phi="taylor", kernel=fused.attend)
