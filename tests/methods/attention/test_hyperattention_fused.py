"""The Triton kernel, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from methods.attention.hyperattention import steps
from methods.attention.hyperattention.algorithm import HyperAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # Triton chooses between compiler and interpreter when it is first imported.
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported for its compiler and there is no GPU", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

from methods.attention.hyperattention import fused  # noqa: E402


@pytest.mark.parametrize(
    "parameters",
    [{}, {"sampling": "prefix"}, {"block": 0}, {"samples": 0}, {"block": 20, "samples": 70}],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_does_what_the_steps_do(causal, parameters, dtype):
    n, d = (160, 24)
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
