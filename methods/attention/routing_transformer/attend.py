"""Attention inside clusters of tokens, in blocks, and in strides; all over (heads, n, d).

Every pattern is gathered or reshaped into equal pieces that torch's fused attention takes together.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MissingPackage, RequestError

ALONE = -5e4
"""Logit of a token's own key under a self-mask: it attends to itself only when there is nothing else."""

Kernel = Literal["auto", "torch", "triton"]


def routed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    members: Tensor,
    key_members: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
    self_mask: bool = True,
    rank_bias: Tensor | None = None,
    eps: float = 1e-5,
    kernel: Kernel = "auto",
) -> Tensor:
    """Softmax attention in every cluster, and each token's mean over its clusters; tokens in none get 0.

    Args:
        q, k, v: shape (heads, n, d).
        members: queries of each cluster, int64, shape (heads, c, w), increasing along w.
        key_members: its keys, (heads, c, u); default the queries' own positions.
        scale: of the scores.
        causal: whether a query sees only keys up to its own position.
        self_mask: whether its own key counts only when it sees no other.
        rank_bias: added to the scaled scores, shape (heads, c, w, w), by the ranks of query and key in the cluster;
            for shared members only.
        eps: mean = sum / (number of clusters + eps).
        kernel: "torch" gathers for torch's fused attention, "triton" gathers inside a kernel (a GPU, or Triton's
            interpreter; forward, without `rank_bias`); "auto" is "triton" where that works on a GPU.

    Raises:
        RequestError: "triton" is asked for what it cannot do, or a bias comes with separate keys.
    """
    heads, n, _ = q.shape
    if rank_bias is not None and key_members is not None:
        raise RequestError("ranks in a cluster are those of queries and keys together: no separate key members")
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    able = rank_bias is None and not gradient
    if kernel == "triton" and not able:
        raise RequestError("the kernel 'triton' has no backward pass and no rank_bias: choose 'torch'")
    keys = members if key_members is None else key_members
    if kernel == "triton" or (kernel == "auto" and able and q.device.type == "cuda"):
        out = _fused().attend(q, k, v, members, keys, scale=scale, causal=causal, self_mask=self_mask)
    else:
        own_q, own_k, own_v = _rows(q, members), _rows(k, keys), _rows(v, keys)
        if key_members is None and causal and rank_bias is None:
            out = _triangle(own_q, own_k, own_v, scale, self_mask)
        else:
            out = _masked(own_q, own_k, own_v, members, keys, scale, causal, self_mask, rank_bias)
    place = _places(members, n)
    total = out.new_zeros(heads * n, out.shape[-1]).index_add(0, place, out.flatten(0, 2))
    count = torch.bincount(place, minlength=heads * n).to(total.dtype)
    return (total / (count + eps).clamp(min=1e-30)[:, None]).view(heads, n, -1)


def _places(members: Tensor, n: int) -> Tensor:
    """Rows of (heads * n, d) that members, (heads, c, w), are: (heads * c * w,)."""
    first = torch.arange(len(members), device=members.device)[:, None, None] * n
    return (members + first).flatten()


def _rows(x: Tensor, members: Tensor) -> Tensor:
    """x, (heads, n, d), at members: (heads, c, w, d)."""
    return x.flatten(0, 1).index_select(0, _places(members, x.shape[1])).view(*members.shape, -1)


def _triangle(q: Tensor, k: Tensor, v: Tensor, scale: float, self_mask: bool) -> Tensor:
    """Causal attention in clusters of sorted positions: no mask needs to be made.

    With a self-mask, rank r > 0 sees ranks 0..r - 1, which is an ordinary triangle of queries 1.. over keys ..w - 2,
    and rank 0, which has nothing else, sees itself.
    """
    if not self_mask:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    if q.shape[2] == 1:
        return v
    rest = F.scaled_dot_product_attention(q[:, :, 1:], k[:, :, :-1], v[:, :, :-1], is_causal=True, scale=scale)
    return torch.cat([v[:, :, :1], rest], 2)


def _masked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    members: Tensor,
    keys: Tensor,
    scale: float,
    causal: bool,
    self_mask: bool,
    rank_bias: Tensor | None,
) -> Tensor:
    """Attention in clusters with a mask by position; 0 for a query that sees no key."""
    query, key = members[..., :, None], keys[..., None, :]
    bias = torch.zeros(*members.shape, keys.shape[-1], dtype=q.dtype, device=q.device)
    if rank_bias is not None:
        bias = bias + rank_bias
    if self_mask:
        bias = bias.masked_fill(query == key, ALONE)
    if not causal:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    seen = key <= query
    nothing = ~seen.any(-1, keepdim=True)
    bias = bias.masked_fill(~(seen | nothing), -torch.inf)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return out.masked_fill(nothing, 0.0)


def block_attention(q: Tensor, k: Tensor, v: Tensor, block: int, *, scale: float, causal: bool) -> Tensor:
    """Local attention: the tokens of a block see their block and the one before, up to themselves if `causal`."""
    n = q.shape[1]
    block = min(block, n)
    fill = -n % block
    q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(1, (-1, block)) for x in (q, k, v))
    both = (torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1], x], 2) for x in (k, v))
    place = torch.arange(n + fill, device=q.device).view(-1, block)
    key = torch.cat([place - block, place], 1)
    seen = (key >= 0)[:, None] & ((key < n)[:, None] | (place >= n)[..., None])
    if causal:
        seen = seen & (key[:, None] <= place[..., None])
    out = F.scaled_dot_product_attention(q, *both, attn_mask=seen, scale=scale)
    return out.flatten(1, 2)[:, :n]


def strided_attention(q: Tensor, k: Tensor, v: Tensor, stride: int, *, scale: float, causal: bool) -> Tensor:
    """The Sparse Transformer's strided heads: a token sees those whose distance is a multiple of `stride`."""
    n = q.shape[1]
    stride = min(stride, n)
    fill = -n % stride
    q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(1, (-1, stride)).transpose(1, 2) for x in (q, k, v))
    # Padding lies behind every real token: a causal mask hides it, else a mask of its own does.
    real = None if causal or not fill else (torch.arange(n + fill, device=q.device) < n).view(-1, stride).mT
    mask = None if real is None else real[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return out.transpose(1, 2).flatten(1, 2)[:, :n]


def _fused():  # type: ignore[no-untyped-def]
    """The module of the kernel; imported late, because triton is optional."""
    try:
        from methods.attention.routing_transformer import kernel
    except ImportError as error:
        raise MissingPackage("the kernel 'triton' needs the package triton: pip install triton") from error
    return kernel
