"""The Triton kernel, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.block_sparse import (  # noqa: E402
    BlockMask,
    KeyLists,
    attend_blocks,
    attend_lists,
    blocks_of,
    causal_blocks,
)
from methods.attention.block_sparse_kernel import attend_lists as fused_lists  # noqa: E402
from methods.attention.partial import Partial  # noqa: E402


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(q, k, v, mask, scale):
    group = len(q) // len(k)
    k, v = (x.double().repeat_interleave(group, 0) for x in (k, v))
    scores = (q.double() @ k.mT * scale).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1), scores.amax(-1)


@pytest.mark.parametrize(
    ("n", "block", "d", "dtype"),
    [
        (96, 32, 16, torch.float32),
        (77, 32, 24, torch.float32),
        (77, 32, 24, torch.float16),
        (60, 20, 16, torch.float32),
        (130, 64, 40, torch.float32),
    ],
)
def test_blocks(n, block, d, dtype):
    heads, key_heads, scale = 2, 1, d**-0.5
    q, k, v = (torch.randn(h, n, d, generator=stream(h)).to(DEVICE, dtype) for h in (heads, key_heads, 1))
    count = blocks_of(n, block)
    keep = (torch.rand(heads, count, count, generator=stream(3)) < 0.5) & causal_blocks(count)
    mask = BlockMask(block, (keep | torch.eye(count, dtype=torch.bool)).to(DEVICE))
    found = attend_blocks(q, k, v, mask, scale=scale, kernel="triton")
    top = fused_lists(q, k, v, KeyLists.of(mask.keep, block, block), None, scale=scale, causal=True).top
    out, lse, largest = reference(q, k, v, mask.tokens(n), scale)
    tolerance = 2e-6 if dtype == torch.float32 else 4e-3
    assert torch.allclose(found.out.double(), out, atol=tolerance)
    assert torch.allclose(found.lse.double(), lse, atol=tolerance)
    assert torch.allclose(top.double(), largest, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("span", [1, 16])
def test_lists_join_what_is_there(span, dtype):
    heads, key_heads, n, d, rows, scale = 2, 1, 128, 16, 32, 0.25
    q, k, v = (torch.randn(h, n, d, generator=stream(h)).to(DEVICE, dtype) for h in (heads, key_heads, 1))
    units = n // rows
    first = torch.arange(n // span) * span + span - 1
    keep = (torch.rand(heads, units, n // span, generator=stream(1)) < 0.6) & (
        first < (torch.arange(units) * rows)[:, None]
    )
    keep[0, 2] = False  # a list without a key beside lists with some
    own = torch.eye(n, dtype=torch.bool, device=DEVICE).expand(heads, -1, -1)
    out, lse, _ = reference(q, k, v, own, scale)
    whole = keep.to(DEVICE).repeat_interleave(span, 2).repeat_interleave(rows, 1) | own
    expected = reference(q, k, v, whole, scale)
    lists = KeyLists.of(keep.to(DEVICE), rows, span)
    tolerance = 2e-6 if dtype == torch.float32 else 4e-3
    for kernel in ("triton", "torch"):
        state = Partial(out.to(dtype), lse.float())
        found = attend_lists(q, k, v, lists, state, scale=scale, kernel=kernel)
        assert torch.allclose(found.out.double(), expected[0], atol=tolerance)
        assert torch.allclose(found.lse.double(), expected[1], atol=tolerance)
