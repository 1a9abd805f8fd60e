"""Which of torch's exact attention kernels is the fastest here."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""Kernels that never hold the scores."""


def fastest(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    scale: float,
    upstream: Tensor | None = None,
    candidates: Sequence[SDPBackend] = FUSED,
    repeats: int = 5,
) -> SDPBackend | None:
    """The candidate with the least time on these inputs, of those that take them; None where none does.

    torch chooses by a fixed order of preference, which is not the order of speed on every GPU.

    Args:
        q, k, v: shape (heads, n, d).
        causal, scale: as in `torch.nn.functional.scaled_dot_product_attention`.
        upstream: gradient of the output where the backward pass counts as well.
        repeats: runs of each after the first, of which the shortest counts.
    """
    times: dict[SDPBackend, float] = {}
    for candidate in candidates:
        try:
            runs = [_time(candidate, q, k, v, causal, scale, upstream) for _ in range(repeats + 1)]
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            continue  # torch's way to say that it does not take these inputs
        times[candidate] = min(runs[1:])
    return min(times, key=times.__getitem__) if times else None


def _time(
    backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, upstream: Tensor | None
) -> float:
    leaves = [x.detach().requires_grad_(upstream is not None) for x in (q, k, v)]
    _wait(q)
    start = time.perf_counter()
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(*(x[None] for x in leaves), is_causal=causal, scale=scale)[0]
        if upstream is not None:
            torch.autograd.grad(out, leaves, upstream)
    _wait(q)
    return time.perf_counter() - start


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
