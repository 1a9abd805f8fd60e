"""The Triton kernel of group attention, on a GPU or else in Triton's interpreter, against float64."""

from __future__ import annotations

import pytest
import torch

from methods.attention.flatformer import grouping
from methods.attention.flatformer.layers import attend_slots

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.flatformer import fused  # noqa: E402


def inputs(counts, heads, dim, dtype, seed=0):
    draws = torch.Generator().manual_seed(seed)
    n = sum(counts)
    sample = torch.repeat_interleave(torch.tensor(counts))
    order = torch.argsort(sample + torch.rand(n, generator=draws, dtype=torch.float64))
    qkv = torch.randn(n, 3, heads, dim, generator=draws).to(dtype)
    return order, qkv


@pytest.mark.parametrize("counts", [(48,), (50,), (9,), (33, 18), (40, 7)], ids=str)
@pytest.mark.parametrize(
    ("heads", "dim", "group", "dtype"),
    [
        (2, 16, 16, torch.float32),
        (1, 24, 21, torch.float32),
        (2, 8, 144, torch.float32),
        (2, 16, 16, torch.float16),
    ],
)
def test_the_kernel_is_attention_within_groups(counts, heads, dim, group, dtype):
    order, qkv = inputs(counts, heads, dim, dtype)
    slots = grouping.equal_groups(order, counts, group)
    exact = attend_slots(*(t.double() for t in qkv.unbind(1)), slots)
    on_device = grouping.equal_groups(order.to(DEVICE), counts, group)
    # As the layers give them: views into one projection, with rows further apart than their length.
    found = fused.attend(*qkv.to(DEVICE).unbind(1), on_device).cpu().double()
    assert torch.allclose(found, exact, atol=1e-5 if dtype == torch.float32 else 4e-3)


def test_more_than_one_tile_of_keys():
    order, qkv = inputs((230,), 1, 16, torch.float32)
    slots = grouping.equal_groups(order, (230,), 144)
    exact = attend_slots(*(t.double() for t in qkv.unbind(1)), slots)
    on_device = grouping.equal_groups(order.to(DEVICE), (230,), 144)
    assert torch.allclose(fused.attend(*qkv.to(DEVICE).unbind(1), on_device).cpu().double(), exact, atol=1e-5)


def test_the_kernel_refuses_what_it_could_not_differentiate():
    order, qkv = inputs((20,), 1, 16, torch.float32)
    slots = grouping.equal_groups(order, (20,), 8)
    with pytest.raises(ValueError, match="no backward"):
        fused.attend(*qkv.requires_grad_().unbind(1), slots)
