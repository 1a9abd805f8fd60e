"""The Triton kernel, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from methods.attention.hyperattention import steps
from methods.attention.hyperattention.algorithm import HyperAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.hyperattention import fused  # noqa: E402


@pytest.mark.parametrize(
    ("parameters", "dtype", "n"),
    [
        ({}, torch.float32, 160),
        ({}, torch.float16, 160),
        ({}, torch.float32, 147),
        ({"sampling": "prefix"}, torch.float32, 147),
        ({"block": 0}, torch.float32, 147),
        ({"samples": 0}, torch.float32, 147),
        ({"block": 20, "samples": 70}, torch.float32, 147),
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_does_what_the_steps_do(causal, parameters, dtype, n):
    d = 24
    generator = torch.Generator().manual_seed(0)
    q, k, v, up = (torch.randn(2, n, d, generator=generator).to(DEVICE, dtype) for _ in range(4))
    directions = torch.randn(d, 5, generator=generator).to(DEVICE)
    results = []
    for runner in (steps.run_step, fused.run_step):
        algorithm = HyperAttention(
            directions,
            **{"block": 40, "samples": 24, "min_seq_len": 80 if causal else 0, "runner": runner, **parameters},
        )
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        draws = torch.Generator(DEVICE).manual_seed(1)
        out, lse = algorithm(*leaves, causal=causal, generator=draws, scale=d**-0.5)
        results.append((out, lse, *torch.autograd.grad(out, leaves, up), algorithm.visits))
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    for one, two in zip(*results, strict=True):
        if isinstance(one, int):
            assert one == two
        else:
            assert torch.allclose(one.float(), two.float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_with_one_block_against_float64(causal):
    n, d = 77, 24
    q, k, v = torch.randn(3, 2, n, d, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    directions = torch.randn(d, 5, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    algorithm = HyperAttention(directions, block=-(-n // 2), samples=8, min_seq_len=40, runner=fused.run_step)
    if not causal:
        algorithm = HyperAttention(directions, block=n, samples=8, min_seq_len=0, runner=fused.run_step)
    draws = torch.Generator(DEVICE).manual_seed(1)
    found, _ = algorithm(q, k, v, causal=causal, generator=draws, scale=d**-0.5)
    scores = q.cpu().double() @ k.cpu().double().mT * d**-0.5
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    assert torch.allclose(found.cpu().double(), scores.softmax(-1) @ v.cpu().double(), atol=1e-5)
