"""Attention over chosen blocks and keys, against float64 softmax with a mask and against FlexAttention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.errors import RequestError
from methods.attention.block_sparse import (
    BlockMask,
    KeyLists,
    attend_blocks,
    attend_causal,
    attend_lists,
    blocks_of,
    causal_blocks,
)
from methods.attention.partial import Partial


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def qkv(heads: int, key_heads: int, n: int, d: int, seed: int = 0) -> list[Tensor]:
    g = stream(seed)
    return [torch.randn(h, n, d, generator=g) for h in (heads, key_heads, key_heads)]


def random_mask(heads: int, n: int, block: int, share: float, seed: int = 0) -> BlockMask:
    count = blocks_of(n, block)
    keep = (torch.rand(heads, count, count, generator=stream(seed)) < share) & causal_blocks(count)
    return BlockMask(block, keep | torch.eye(count, dtype=torch.bool))


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Partial:
    """Masked attention in float64."""
    group = len(q) // len(k)
    k, v = (x.double().repeat_interleave(group, 0) for x in (k, v))
    scores = (q.double() @ k.mT * scale).masked_fill(~mask, -torch.inf)
    return Partial(scores.softmax(-1) @ v, scores.logsumexp(-1))


@pytest.mark.parametrize("n", [256, 255, 193, 64, 5])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_kept_blocks_are_attended_to_exactly(n, key_heads, share):
    q, k, v = qkv(4, key_heads, n, 24)
    mask = random_mask(4, n, 32, share)
    found = attend_blocks(q, k, v, mask, scale=0.3)
    expected = reference(q, k, v, mask.tokens(n), 0.3)
    assert torch.allclose(found.out.double(), expected.out, atol=2e-6)
    assert torch.allclose(found.lse.double(), expected.lse, atol=2e-6)
    assert torch.equal(mask.pairs(n), mask.tokens(n).sum((1, 2)))


def test_all_blocks_are_exact_attention():
    q, k, v = qkv(2, 1, 300, 16)
    whole = BlockMask(32, causal_blocks(10).expand(2, -1, -1))
    found, exact = attend_blocks(q, k, v, whole, scale=0.25), attend_causal(q, k, v, scale=0.25)
    assert torch.allclose(found.out, exact.out, atol=1e-6)
    assert torch.allclose(found.lse, exact.lse, atol=1e-5)


def test_half_precision_is_close():
    q, k, v = (x.bfloat16() for x in qkv(2, 2, 200, 32))
    mask = random_mask(2, 200, 32, 0.4)
    found = attend_blocks(q, k, v, mask, scale=32**-0.5)
    assert found.out.dtype == torch.bfloat16
    expected = reference(q, k, v, mask.tokens(200), 32**-0.5)
    assert torch.allclose(found.out.double(), expected.out, atol=3e-2)


@pytest.mark.parametrize("rows", [32, 64])
def test_lists_of_single_keys_join_what_is_there(rows):
    heads, key_heads, n, d, scale = 4, 2, 256, 16, 0.25
    q, k, v = qkv(heads, key_heads, n, d)
    units = n // rows
    before = torch.arange(n) < (torch.arange(units) * rows)[:, None]
    keep = (torch.rand(heads, units, n, generator=stream(1)) < torch.rand(heads, units, 1)) & before
    own = torch.eye(n, dtype=torch.bool).expand(heads, -1, -1)
    state = reference(q, k, v, own, scale)
    lists = KeyLists.of(keep, rows, 1)
    found = attend_lists(q, k, v, lists, Partial(state.out.float(), state.lse.float()), scale=scale)
    expected = reference(q, k, v, keep.repeat_interleave(rows, 1) | own, scale)
    assert torch.allclose(found.out.double(), expected.out, atol=2e-6)
    assert torch.allclose(found.lse.double(), expected.lse, atol=2e-6)


def test_flex_attention_agrees():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    n, block = 256, 32
    q, k, v = qkv(4, 2, n, 16)
    mask = random_mask(4, n, block, 0.4)

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask.keep[h, i // block, j // block] & (j <= i)

    flex = create_block_mask(allowed, 1, 4, n, n, device="cpu", BLOCK_SIZE=block)
    expected = flex_attention(q[None], k[None], v[None], block_mask=flex, scale=0.25, enable_gqa=True)[0]
    assert torch.allclose(attend_blocks(q, k, v, mask, scale=0.25).out, expected, atol=2e-6)


def test_what_does_not_fit_is_refused():
    q, k, v = qkv(3, 2, 64, 8)
    with pytest.raises(RequestError, match="3 heads of queries are not a multiple of 2"):
        attend_blocks(q, k, v, random_mask(3, 64, 32, 1.0), scale=1.0)
    q, k, v = qkv(2, 2, 64, 8)
    with pytest.raises(RequestError, match="the mask has shape"):
        attend_blocks(q, k, v, random_mask(2, 128, 32, 1.0), scale=1.0)
    state = attend_causal(q, k, v, scale=1.0)
    with pytest.raises(RequestError, match="do not fit 2 lists"):
        attend_lists(q, k, v, KeyLists.of(torch.zeros(2, 1, 64, dtype=torch.bool), 32, 1), state, scale=1.0)
