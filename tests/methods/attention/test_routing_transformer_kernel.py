"""The Triton kernel of attention in clusters, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import itertools

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.routing_transformer import kernel, routing  # noqa: E402
from methods.attention.routing_transformer.attend import routed_attention  # noqa: E402


# Every switch in single precision; half precision takes the same path once with all of them on.
@pytest.mark.parametrize(
    ("dtype", "separate", "causal", "self_mask"),
    [(torch.float32, *switches) for switches in itertools.product([False, True], repeat=3)]
    + [(torch.float16, True, True, True)],
)
def test_the_kernel_is_softmax_attention_in_double_precision(dtype, separate, causal, self_mask):
    heads, n, d, clusters, w = 2, 90, 24, 2, 70  # more than the 64 of a tile
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(heads, n, d, generator=generator).to(DEVICE, dtype) for _ in range(3))
    members, keys = (
        routing.balanced_members(torch.randn(heads, clusters, n, generator=generator), size).to(DEVICE)
        for size in (w, w - 30)
    )
    keys = keys if separate else members
    found = kernel.attend(q, k, v, members, keys, scale=0.2, causal=causal, self_mask=self_mask)
    own, own_k, own_v = (
        x.double()[:, None].expand(-1, clusters, -1, -1).gather(2, at[..., None].expand(-1, -1, -1, d))
        for x, at in ((q, members), (k, keys), (v, keys))
    )
    scores = own @ own_k.mT * 0.2
    query, key = members[..., :, None], keys[..., None, :]
    if self_mask:
        scores = scores.masked_fill(query == key, -5e4)
    if causal:
        scores = scores.masked_fill(key > query, -torch.inf)
    expected = scores.softmax(-1).nan_to_num() @ own_v
    tolerance = 2e-6 if dtype == torch.float32 else 4e-3
    assert torch.allclose(found.double(), expected, atol=tolerance)


def test_the_whole_is_what_torch_makes_of_it():
    generator = torch.Generator().manual_seed(1)
    q, v = (torch.randn(2, 50, 8, generator=generator).to(DEVICE) for _ in range(2))
    members = routing.balanced_members(torch.randn(2, 4, 50, generator=generator), 17).to(DEVICE)
    one, two = (
        routed_attention(q, q, v, members, scale=0.4, causal=True, kernel=kind) for kind in ("torch", "triton")
    )
    assert torch.allclose(one, two, atol=1e-5)
