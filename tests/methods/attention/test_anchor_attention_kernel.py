"""AnchorAttention in Triton, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.anchor_attention.algorithm import AnchorAttention  # noqa: E402
from methods.attention.anchor_attention.kernel import passing  # noqa: E402
from methods.attention.flexprefill.algorithm import FlexPrefill  # noqa: E402
from methods.attention.heads import structured  # noqa: E402


def inputs(n, group=2):
    return tuple(x.to(DEVICE) for x in structured(("sharp", "topic"), 0, group, n, 64))


def test_search_against_float64():
    heads, key_heads, n, d, groups, step, first = 4, 2, 256, 24, 4, 64, 16
    g = torch.Generator().manual_seed(0)
    queries = torch.randn(heads, groups * 4, d, generator=g).to(DEVICE)
    k = torch.randn(key_heads, n, d, generator=g).to(DEVICE)
    least = torch.randn(heads, groups * 4, generator=g).abs().to(DEVICE)
    found = passing(queries, k, least, groups=groups, first=first, step=step, scale=0.3)
    scores = queries.double() @ k.double().repeat_interleave(2, 0).mT * 0.3
    passed = (scores >= least.double()[..., None]).view(heads, groups, 4, n).any(2)
    key = torch.arange(n, device=DEVICE)
    end = torch.arange(groups, device=DEVICE)[:, None] * step - first
    expected = passed & (key >= first) & (key < end)
    assert torch.equal(found, expected[..., : found.shape[-1]])
    assert not bool(expected[..., found.shape[-1] :].any())


@pytest.mark.parametrize("n", [192, 205])
@pytest.mark.parametrize("granularity", ["stripe", "block"])
def test_both_kernels_make_the_same_anchor_attention(n, granularity):
    q, k, v = inputs(n)
    found = [
        AnchorAttention(torch.tensor(4.0), block=16, step=2, granularity=granularity, kernel=kernel)(
            q, k, v, scale=0.125
        )
        for kernel in ("torch", "triton")
    ]
    assert torch.equal(found[0].pairs, found[1].pairs)
    assert torch.allclose(found[0].part.out, found[1].part.out, atol=1e-5)
    assert torch.allclose(found[0].part.lse, found[1].part.lse, atol=1e-5)


def test_both_kernels_make_the_same_flexprefill():
    q, k, v = inputs(200)
    one, two = (
        FlexPrefill(torch.tensor(0.8), block=16, min_budget=32, kernel=kernel)(q, k, v, scale=0.125)
        for kernel in ("torch", "triton")
    )
    assert torch.allclose(one.part.out, two.part.out, atol=1e-5)
